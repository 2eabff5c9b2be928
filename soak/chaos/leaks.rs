//! What must not be left when everything was deleted.

use std::fs;
use std::path::Path;

use anyhow::Result;
use longshore_tests::node::attached_in;

use super::node::{NAMESPACE, Node};

/// What is there without anybody's doing, or was made by us.
const EXPECTED: [&str; 2] = ["configmap/kube-root-ca.crt", "secret/keys"];

/// What is left, in words.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// What nobody may leave. None in the end.
    pub(crate) ours: Vec<String>,
    /// Empty folders: local-path forgets those that it made for a claim that was deleted before their
    /// volume was known, and no importer ever saw them.
    pub(crate) forgotten: Vec<String>,
}

/// Looks for it.
pub(crate) fn find(node: &Node) -> Result<Left> {
    let mut found = Vec::new();
    let kinds = "datavolumes,persistentvolumeclaims,pods,volumeimportsources,secrets,configmaps";
    let names = node.ask(&["get", kinds, "--output=name"])?;
    found.extend(
        names
            .lines()
            .map(|line| line.replace(".cdi.kubevirt.io", ""))
            .filter(|name| !EXPECTED.contains(&name.as_str())),
    );
    for volume in node.list(&["get", "persistentvolumes"])? {
        let claim = &volume["spec"]["claimRef"];
        if claim["namespace"] == NAMESPACE {
            let (name, phase) = (&volume["metadata"]["name"], &volume["status"]["phase"]);
            found.push(format!("volume {name} of {}, {phase}", claim["name"]));
        }
    }
    let csi = node.folder.join("csi");
    for device in attached_in(&csi) {
        found.push(format!("a loop device over {}", device.display()));
    }
    // Every volume there was is ours: the cluster has no other user.
    for folder in ["volumes", "snapshots"] {
        found.extend(entries(&csi.join(folder)));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    found.extend(
        mounts
            .filter(|at| at.contains("csi.longshore.test") || at.contains("volumeDevices"))
            .map(|at| format!("a mount at {at}")),
    );
    found.extend(orphans(node)?);
    let folders = provisioned(node)?;
    let (forgotten, full): (Vec<_>, _) = folders
        .into_iter()
        .partition(|folder| entries(Path::new(folder)).is_empty());
    found.extend(full);
    Ok(Left {
        ours: found,
        forgotten,
    })
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path().display().to_string());
    paths.collect()
}

/// Folders that local-path made.
fn provisioned(node: &Node) -> Result<Vec<String>> {
    let text = node.everywhere(&[
        "--namespace",
        "local-path-storage",
        "get",
        "configmap/local-path-config",
        "--output=jsonpath={.data.config\\.json}",
    ])?;
    let config: serde_json::Value = serde_json::from_str(&text)?;
    let paths = config["nodePathMap"][0]["paths"].as_array().cloned();
    let paths = paths.unwrap_or_default();
    let paths = paths.iter().filter_map(|path| path.as_str());
    Ok(paths.flat_map(|path| entries(Path::new(path))).collect())
}

/// Folders of the kubelet's for pods that are no more.
fn orphans(node: &Node) -> Result<Vec<String>> {
    let uids = "--output=jsonpath={.items[*].metadata.uid}";
    let pods = node.everywhere(&["get", "pods", "--all-namespaces", uids])?;
    let folders = entries(&node.folder.join("kubelet/pods"));
    let is_known = |folder: &&String| {
        let uid = folder.rsplit('/').next().unwrap_or_default();
        pods.contains(uid)
    };
    Ok(folders
        .iter()
        .filter(|folder| !is_known(folder))
        .map(|folder| format!("the kubelet's {folder}"))
        .collect())
}
