//! Every format, by a data volume and by an annotated claim.

use longshore_tests::data::image;
use longshore_tests::http::Page;
use longshore_tests::program::have;
use serde_json::json;

use super::rig::{self, case, claim, data_volume, disk, holds_sparse, http};

/// Imports an image that a script makes, twice at the same time.
fn both_ways(seed: u64, script: &str) {
    let Some(case) = case() else { return };
    if !have(script.split(' ').next().unwrap()) {
        return;
    }
    let disk = disk(seed);
    let server = case.serve(Page::of(image(&disk, script)));
    let (one, other) = (case.folder_for("volume"), case.folder_for("claim"));
    case.apply(&data_volume("volume", &http(&server)));
    case.apply(&claim("claim", &server));
    case.succeeded("volume");
    holds_sparse(&one, &disk);
    case.filled("claim");
    holds_sparse(&other, &disk);
    case.wait_for("pod/importer-volume", "delete");
    let volume = case.get("dv/volume");
    assert_eq!(volume["status"]["progress"], "100.0%");
}

#[test]
fn a_raw_image_is_imported() {
    both_ways(1, "cp disk.raw image");
}

#[test]
fn a_plain_qcow2_image_is_imported() {
    both_ways(2, "qemu-img convert -f raw -O qcow2 disk.raw image");
}

#[test]
fn a_compressed_qcow2_image_is_imported() {
    both_ways(3, "qemu-img convert -c -f raw -O qcow2 disk.raw image");
}

#[test]
fn a_vmdk_image_is_imported() {
    let options = "-f raw -O vmdk -o subformat=streamOptimized";
    both_ways(4, &format!("qemu-img convert {options} disk.raw image"));
}

#[test]
fn a_raw_image_in_xz_is_imported() {
    both_ways(5, "xz -T1 -1 -c disk.raw > image");
}

#[test]
fn a_blank_disk_is_made() {
    let Some(case) = case() else { return };
    let folder = case.folder_for("blank");
    case.apply(&data_volume("blank", &json!({"blank": {}})));
    case.succeeded("blank");
    holds_sparse(&folder, &[]);
    // What the request leaves after the filesystem's share, in whole MiB.
    let size = std::fs::metadata(folder.join("disk.img")).unwrap().len();
    assert_eq!(size, 30 << 20);
}

#[test]
fn a_volume_that_is_provisioned_waits_for_a_consumer_unless_told_not_to() {
    let Some(case) = case() else { return };
    let disk = disk(6);
    let server = case.serve(Page::of(disk.clone()));
    let mut volume = data_volume("late", &http(&server));
    volume["spec"]["pvc"] = rig::claim_spec("local-path");
    case.apply(&volume);
    case.wait("dv/late", ".status.phase", "WaitForFirstConsumer");
    volume["metadata"]["name"] = json!("early");
    volume["metadata"]["annotations"] =
        json!({"cdi.kubevirt.io/storage.bind.immediate.requested": "true"});
    case.apply(&volume);
    case.succeeded("early");
    holds_sparse(&case.provisioned("early"), &disk);
    assert_eq!(
        case.get("dv/late")["status"]["phase"],
        "WaitForFirstConsumer"
    );
    assert!(!case.exists("pod/importer-late"));
}
