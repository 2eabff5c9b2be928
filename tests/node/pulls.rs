//! Disks in container images that the node pulls.

use longshore_tests::data::qcow2;
use serde_json::{Value, json};

use super::images::{load, tar};
use super::rig::{self, case, data_volume, disk, holds_sparse, kept};
use super::sources::fails;

/// Puts an image with these files, and nothing that could run, among those that the node has.
pub(crate) fn pulled(case: &rig::Case, reference: &str, files: &[(&str, &[u8])]) {
    let config = json!({"Env": ["INSTANCETYPE_KUBEVIRT_IO_DEFAULT_PREFERENCE=fedora"]});
    load(case, reference, &tar(files), &config);
}

pub(crate) fn by_node(reference: &str) -> Value {
    json!({"registry": {"url": format!("docker://{reference}"), "pullMethod": "node"}})
}

#[test]
fn a_disk_in_an_image_that_the_node_pulled_is_imported_without_a_registry() {
    let Some(case) = case() else { return };
    let disk = disk(81);
    // No registry has this name: only the node can have it.
    let reference = "longshore.test/pulled:1";
    pulled(&case, reference, &[("disk/disk.qcow2", &qcow2(&disk))]);
    let folder = case.folder_for("pulled");
    case.apply(&kept("pulled", &by_node(reference)));
    case.succeeded("pulled");
    holds_sparse(&folder, &disk);
    let pod = case.get("pod/importer-pulled");
    let containers = pod["spec"]["containers"].as_array().unwrap();
    let server = containers.iter().find(|it| it["name"] == "server").unwrap();
    assert_eq!(server["image"], reference);
    assert_eq!(case.get("dv/pulled")["status"]["restartCount"], 0);
    let labels = &case.get("pvc/pulled")["metadata"]["labels"];
    let preference = &labels["instancetype.kubevirt.io/default-preference"];
    assert_eq!(*preference, "fedora");
}

/// Nobody here resolves the names of streams, as `OpenShift` does: the node takes it for one of Docker's.
#[test]
fn an_image_stream_is_named_to_the_cluster_and_pulled_by_the_node() {
    let Some(case) = case() else { return };
    let disk = disk(82);
    let reference = "docker.io/library/stream:1";
    pulled(&case, reference, &[("disk/disk.img", &disk)]);
    let folder = case.folder_for("stream");
    let source = json!({"registry": {"imageStream": "stream:1", "pullMethod": "node"}});
    case.apply(&kept("stream", &source));
    case.succeeded("stream");
    holds_sparse(&folder, &disk);
    let pod = case.get("pod/importer-stream");
    let lookup = &pod["metadata"]["annotations"]["alpha.image.policy.openshift.io/resolve-names"];
    assert_eq!(*lookup, "*");
}

#[test]
fn an_image_that_the_node_cannot_pull_is_told() {
    let Some(case) = case() else { return };
    case.folder_for("nowhere");
    // Nobody listens there, and no name server has to say so first.
    let reference = "127.0.0.1:1/nowhere:1";
    case.apply(&data_volume("nowhere", &by_node(reference)));
    fails(&case, "nowhere", "ImagePullFailed", &[reference]);
}

#[test]
fn an_image_without_a_disk_is_told() {
    let Some(case) = case() else { return };
    case.folder_for("empty");
    let reference = "longshore.test/empty:1";
    pulled(&case, reference, &[("etc/nothing", b"")]);
    case.apply(&data_volume("empty", &by_node(reference)));
    let told = "Failed to find VM disk image file in the container image";
    fails(&case, "empty", "Error", &[told]);
}
