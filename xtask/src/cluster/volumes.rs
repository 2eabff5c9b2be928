//! Volumes of the node besides the provisioner's: filesystems that are really full when they are full, and
//! block devices. Each is a file of the cluster's folder behind a loop device, and a `local` volume.
//!
//! Loop devices belong to the host, whatever namespaces there are: [`detach`] frees them, and frees them
//! too after everything else of a cluster was killed.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::control::{Programs, kubectl};
use super::node;
use super::place::Place;
use crate::paths;
use crate::shell::Run;

/// The class that they are of.
const CLASS: &str = "local";

/// What they are: name, size in MiB, whether it is a device.
const VOLUMES: [(&str, u64, bool); 4] = [
    ("small-1", 64, false),
    ("small-2", 64, false),
    ("block-1", 64, true),
    ("block-2", 64, true),
];

/// Makes them, and tells the API server; from inside.
pub(super) fn make(place: &Place, programs: &Programs) -> Result<()> {
    let folder = place.make("local")?;
    let mut objects = vec![json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    })];
    for (name, size, is_block) in VOLUMES {
        let file = folder.join(format!("{name}.img"));
        File::create(&file)
            .and_then(|made| made.set_len(size << 20))
            .with_context(|| format!("making {}", file.display()))?;
        let path = folder.join(name);
        let path = if is_block {
            attach(&file)?
        } else {
            filesystem(&file, &path)?;
            path
        };
        objects.push(volume(name, size, is_block, &path));
    }
    let file = place.file("volumes.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    paths::write(&file, list.to_string())?;
    kubectl(programs, place)
        .args(["apply", "-f"])
        .arg(&file)
        .capture()
        .map(drop)
}

/// A loop device over a file.
fn attach(file: &Path) -> Result<PathBuf> {
    let made = Run::new("losetup")
        .args(["--find", "--show"])
        .arg(file)
        .quiet()
        .capture()?;
    Ok(PathBuf::from(made.trim()))
}

/// A filesystem in a file, mounted. Its loop device goes when the mount goes, which is when the node's
/// namespaces go.
fn filesystem(file: &Path, at: &Path) -> Result<()> {
    Run::new("mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-b", "4096"])
        .arg(file)
        .quiet()
        .capture()?;
    paths::make_dir(at)?;
    Run::new("mount")
        .args(["-o", "loop"])
        .args([file, at])
        .quiet()
        .capture()
        .map(drop)
}

fn volume(name: &str, size: u64, is_block: bool, path: &Path) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": format!("{size}Mi")},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "volumeMode": if is_block { "Block" } else { "Filesystem" },
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node::NAME]},
            ]}]}},
        },
    })
}

/// Frees the loop devices over files of a cluster: ours, and those by which the kubelet holds devices that
/// pods use. From outside, once nothing of the cluster runs.
pub(super) fn detach(place: &Place) -> Result<()> {
    free(&place.folder)
}

/// The same of those over files in a folder.
///
/// A device of the kubelet's may have lost its name: it is over a device node that was mounted in the node's
/// folders, and once that mount is gone, with the node's namespaces or before them, what is told of it is `/`.
/// It is known by what it is over, which is one of these, and does not let go of it.
pub(super) fn free(folder: &Path) -> Result<()> {
    // Where there are no loop devices at all there are none of ours.
    let Ok(said) = losetup(&["--json"]) else {
        return Ok(());
    };
    let below = behind(&said, folder);
    let mut devices = Vec::new();
    for device in &below {
        let said = losetup(&["--noheadings", "--output=NAME", "--associated", device])?;
        devices.extend(said.lines().map(|name| name.trim().to_owned()));
    }
    let mut outcome = Ok(());
    for device in topmost_first(devices, below) {
        let detached = losetup(&["--detach", &device]).map(drop);
        // One that was detached before goes by itself with the one over it.
        if is_attached(&device) {
            outcome = outcome.and(detached);
        }
    }
    outcome
}

fn losetup(args: &[&str]) -> Result<String> {
    Run::new("losetup").args(args).quiet().capture()
}

fn is_attached(device: &str) -> bool {
    let name = device.trim_start_matches("/dev/");
    let known = Path::new("/sys/block").join(name);
    known.join("loop/backing_file").exists()
}

/// All of them, once.
fn topmost_first(mut above: Vec<String>, below: Vec<String>) -> Vec<String> {
    let below: Vec<String> = below.into_iter().filter(|it| !above.contains(it)).collect();
    above.extend(below);
    above
}

/// Which of the devices that losetup tells of are over files in `folder`, the topmost first: the kubelet's
/// are over device nodes of its own, and hold those beneath.
fn behind(said: &str, folder: &Path) -> Vec<String> {
    let all: Value = serde_json::from_str(said).unwrap_or_default();
    let devices = all["loopdevices"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<(bool, String)> = devices
        .iter()
        .filter_map(|device| {
            let file = Path::new(device["back-file"].as_str()?);
            let name = device["name"].as_str()?.to_owned();
            let own = ["local", "csi"].map(|own| folder.join(own));
            let own = own.iter().any(|own| file.starts_with(own));
            file.starts_with(folder).then_some((own, name))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_over_files_of_this_cluster_are_freed() {
        let said = r#"{"loopdevices": [
            {"name":"/dev/loop0","back-file":"/c/one/local/block-1.img"},
            {"name":"/dev/loop1","back-file":"/c/one-more/local/block-1.img"},
            {"name":"/dev/loop2","back-file":"/c/one/kubelet/plugins/volumeDevices/x (deleted)"},
            {"name":"/dev/loop3","back-file":"/home/somebody.img"},
            {"name":"/dev/loop4"},
            {"name":"/dev/loop5","back-file":"/c/one/csi/volumes/pvc-1.img"}
        ]}"#;
        let found = behind(said, Path::new("/c/one"));
        assert_eq!(found, ["/dev/loop2", "/dev/loop0", "/dev/loop5"]);
        assert_eq!(behind("", Path::new("/c/one")), Vec::<String>::new());
    }

    #[test]
    fn what_lies_over_a_device_goes_before_it_and_once() {
        let names = |all: &[&str]| -> Vec<String> { all.iter().map(|&it| it.to_owned()).collect() };
        // The first has lost its name; the second has not.
        let above = names(&["/dev/loop7", "/dev/loop2"]);
        let below = names(&["/dev/loop2", "/dev/loop0", "/dev/loop5"]);
        let expected = ["/dev/loop7", "/dev/loop2", "/dev/loop0", "/dev/loop5"];
        assert_eq!(topmost_first(above, below), expected);
    }
}
