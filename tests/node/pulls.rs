//! Disks in container images that the node pulls.

use std::io::Write as _;
use std::process::Command;

use longshore_tests::program::run;
use serde_json::{Value, json};

use super::rig::{self, case, data_volume, disk, holds_sparse};

/// A tar with these files, of the user that pods run as.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o440);
        header.set_uid(107);
        header.set_gid(107);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Puts an image with these files, and nothing that could run, among those that the node has.
fn pulled(case: &rig::Case, reference: &str, files: &[(&str, &[u8])]) {
    let layer = tar(files);
    let folder = longshore_tests::data::quick_dir();
    let path = folder.path().join("layer.tar");
    std::fs::write(&path, &layer).unwrap();
    let said = run(Command::new("sha256sum").arg(&path));
    let digest = String::from_utf8_lossy(&said[..64]).into_owned();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["INSTANCETYPE_KUBEVIRT_IO_DEFAULT_PREFERENCE=fedora"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{
        "Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"],
    }]);
    let archive = folder.path().join("image.tar");
    let bytes = tar(&[
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", &layer),
        ("manifest.json", manifest.to_string().as_bytes()),
    ]);
    let mut file = std::fs::File::create(&archive).unwrap();
    file.write_all(&bytes).unwrap();
    run(case.ctr().args(["images", "import"]).arg(&archive));
}

fn by_node(reference: &str) -> Value {
    json!({"registry": {"url": format!("docker://{reference}"), "pullMethod": "node"}})
}

#[test]
fn a_disk_in_an_image_that_the_node_pulled_is_imported_without_a_registry() {
    let Some(case) = case() else { return };
    let disk = disk(81);
    let qcow2 = rig::image(
        &disk,
        "qemu-img",
        &[
            "convert", "-c", "-f", "raw", "-O", "qcow2", "disk.raw", "image",
        ],
    );
    // No registry has this name: only the node can have it.
    let reference = "longshore.test/pulled:1";
    pulled(&case, reference, &[("disk/disk.qcow2", &qcow2)]);
    let folder = case.folder_for("pulled");
    let mut volume = data_volume("pulled", &by_node(reference));
    volume["metadata"]["annotations"] =
        json!({"cdi.kubevirt.io/storage.pod.retainAfterCompletion": "true"});
    case.apply(&volume);
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

#[test]
fn an_image_that_the_node_cannot_pull_or_that_has_no_disk_is_told() {
    let Some(case) = case() else { return };
    case.folder_for("nowhere");
    case.apply(&data_volume(
        "nowhere",
        &by_node("longshore.test/nowhere:1"),
    ));
    case.folder_for("empty");
    let reference = "longshore.test/empty:1";
    pulled(&case, reference, &[("etc/nothing", b"")]);
    case.apply(&data_volume("empty", &by_node(reference)));
    case.condition("nowhere", "Running", "reason", "ImagePullFailed");
    case.wait("dv/empty", ".status.restartCount", "1");
    let pod = case.get("pod/importer-empty");
    // What its attempts before this one ended with.
    let statuses = pod["status"]["containerStatuses"].to_string();
    let told = "Failed to find VM disk image file in the container image";
    assert!(statuses.contains(told), "{statuses}");
}
