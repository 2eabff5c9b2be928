//! Storage by a CSI driver: ours for tests (`csi/`), under Kubernetes' own provisioner, resizer, snapshotter
//! and controller of snapshots.
//!
//! All are processes of the node and not pods: they are ready sooner, and tests kill them as they kill the
//! kubelet. The driver registers itself with the kubelet. Its volumes are in the cluster's folder `csi`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::control::{Programs, kubectl, wait};
use super::node;
use super::place::{Place, Process};
use crate::gotools::{self, CSI};
use crate::shell::Run;
use crate::{cargo, paths};

/// What is started before all others.
pub(super) const DRIVER: &str = "csi-driver";
/// What is started beside it.
pub(super) const SIDECARS: [&str; 2] = ["csi-provisioner", "csi-resizer"];
/// What is started once there are definitions of snapshots.
pub(super) const SNAPSHOTS: [&str; 2] = [CONTROLLER, "csi-snapshotter"];
/// The one that speaks with no driver.
const CONTROLLER: &str = "snapshot-controller";

/// The driver's name, which the crate has too.
const NAME: &str = "csi.longshore.test";
/// Where the definitions of snapshots are, and which ones.
const CLIENT: &str = "github.com/kubernetes-csi/external-snapshotter/client/v8";
const DEFINITIONS: [&str; 3] = [
    "config/crd/snapshot.storage.k8s.io_volumesnapshotclasses.yaml",
    "config/crd/snapshot.storage.k8s.io_volumesnapshotcontents.yaml",
    "config/crd/snapshot.storage.k8s.io_volumesnapshots.yaml",
];

/// The definitions of snapshots. They come into the cache with what is built: the node, which needs them, has
/// no way to Go's proxy.
pub(super) fn definitions() -> Result<Vec<PathBuf>> {
    gotools::files(&CSI, CLIENT, &DEFINITIONS)
}

/// Builds the driver, and gives the cluster one of its own, which nobody builds anew under its feet.
pub(super) fn build(place: &Place) -> Result<()> {
    let built = cargo::programs()?.join("longshore-csi");
    fs::copy(&built, place.file("longshore-csi"))
        .map(drop)
        .with_context(|| format!("copying {}", built.display()))
}

/// How one of them is started.
pub(super) fn service(place: &Place, name: &str) -> Result<Run> {
    let socket = place.file("csi.sock");
    if name == DRIVER {
        return Ok(Run::new(place.file("longshore-csi"))
            .arg("--endpoint")
            .arg(&socket)
            .arg("--state")
            .arg(place.make("csi")?)
            .arg("--registration")
            .arg(place.make("kubelet/plugins_registry")?)
            .args(["--node", node::NAME]));
    }
    let [program] = gotools::build(&CSI, [name])?;
    let run = Run::new(program)
        .arg(format!("--kubeconfig={}", place.kubeconfig().display()))
        // Tests make things fail, and do not want to wait until they are tried again.
        .args(["--retry-interval-start=200ms", "--retry-interval-max=5s"]);
    if name == CONTROLLER {
        return Ok(run);
    }
    let run = run.arg(format!("--csi-address={}", socket.display()));
    Ok(match name {
        "csi-provisioner" => run.arg("--default-fstype=xfs"),
        "csi-resizer" => run.arg("--handle-volume-inuse-error=false"),
        _ => run,
    })
}

/// Creates their objects.
pub(super) fn apply(place: &Place, programs: &Programs) -> Result<()> {
    let apply = |files: &[PathBuf]| {
        let files = files
            .iter()
            .map(|file| format!("--filename={}", file.display()));
        kubectl(programs, place).arg("apply").args(files).capture()
    };
    apply(&definitions()?)?;
    kubectl(programs, place)
        .args(["wait", "--for=condition=Established", "--timeout=60s"])
        .args(["--request-timeout=0", "crd"])
        .args(
            [
                "volumesnapshotclasses",
                "volumesnapshotcontents",
                "volumesnapshots",
            ]
            .map(|kind| format!("{kind}.snapshot.storage.k8s.io")),
        )
        .capture()?;
    let file = place.file("csi.yaml");
    paths::write(&file, include_str!("csi.yaml"))?;
    apply(&[file]).map(drop)
}

/// Waits until the driver answers.
pub(super) fn listens(place: &Place, driver: &Process) -> Result<()> {
    let driver = std::slice::from_ref(driver);
    wait(place, "the CSI driver", driver, || {
        place.file("csi.sock").exists()
    })
}

/// Waits until the kubelet knows the driver, and with it the scheduler and the provisioner.
pub(super) fn ready(place: &Place, programs: &Programs) -> Result<()> {
    wait(place, "the CSI driver", &[], || {
        kubectl(programs, place)
            .args(["get", "csinode", node::NAME, "-o"])
            .arg("jsonpath={.spec.drivers[*].name}")
            .capture()
            .is_ok_and(|drivers| drivers.split(' ').any(|name| name == NAME))
    })
}
