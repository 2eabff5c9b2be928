//! What runs on the cluster before anything of ours: a name server, and a class of storage.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::control::{Programs, kubectl};
use super::image::{Entry, Root};
use super::node::DNS;
use super::place::Place;
use crate::gotools::{self, COREDNS, LOCAL_PATH};
use crate::guest::packages;
use crate::paths;

/// How long their pods may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Builds their images; gives the archives.
pub(super) fn images(place: &Place) -> Result<Vec<PathBuf>> {
    let [coredns] = gotools::build(&COREDNS, ["coredns"])?;
    let [local_path] = gotools::build(&LOCAL_PATH, ["local-path-provisioner"])?;
    let mut archives = Vec::new();
    for (name, program) in [("coredns", coredns), ("local-path-provisioner", local_path)] {
        let root = Root::new(place.file("image-root"))?;
        root.program(&program, name)?;
        // Where a component keeps its log and its temporary files.
        root.folder("tmp")?;
        let archive = place.file(&format!("{name}.tar"));
        let entry = Entry {
            command: &[&format!("/{name}")],
            user: "",
        };
        root.pack(&format!("longshore.test/{name}:1"), &entry, &archive)?;
        archives.push(archive);
    }
    archives.push(helper(place)?);
    Ok(archives)
}

/// A shell with which the provisioner makes and removes folders, and people look around.
fn helper(place: &Place) -> Result<PathBuf> {
    let busybox = packages::plain("busybox-static")?
        .folder
        .join("bin/busybox");
    let root = Root::new(place.file("image-root"))?;
    root.program(&busybox, "bin/busybox")?;
    for name in [
        "sh",
        "mkdir",
        "rm",
        "sleep",
        "cat",
        "ls",
        "dd",
        "sha256sum",
        "chmod",
        "wget",
        "nslookup",
    ] {
        root.link("busybox", &format!("bin/{name}"))?;
    }
    root.folder("tmp")?;
    let archive = place.file("helper.tar");
    let entry = Entry {
        command: &["/bin/sh"],
        user: "",
    };
    root.pack("longshore.test/helper:1", &entry, &archive)?;
    Ok(archive)
}

/// Creates their objects and waits until they work.
pub(super) fn apply(place: &Place, programs: &Programs) -> Result<()> {
    let file = place.file("addons.yaml");
    let volumes = place.make("volumes")?;
    let text = include_str!("addons.yaml")
        .replace("{DNS}", DNS)
        .replace("{VOLUMES}", &volumes.display().to_string());
    paths::write(&file, text)?;
    kubectl(programs, place)
        .args(["apply", "-f"])
        .arg(&file)
        .capture()?;
    let until = Instant::now() + PATIENCE;
    for (namespace, deployment) in [
        ("kube-system", "coredns"),
        ("local-path-storage", "local-path-provisioner"),
    ] {
        let ready = || {
            kubectl(programs, place)
                .args(["-n", namespace, "get", "deployment", deployment])
                .args(["-o", "jsonpath={.status.readyReplicas}"])
                .capture()
                .is_ok_and(|ready| ready == "1")
        };
        while !ready() {
            if Instant::now() > until {
                let pods = kubectl(programs, place)
                    .args(["-n", namespace, "describe", "pods"])
                    .capture()?;
                bail!(
                    "{deployment} is not ready after {} s:\n{pods}",
                    PATIENCE.as_secs()
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}
