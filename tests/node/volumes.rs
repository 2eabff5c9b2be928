//! Volumes that fill up, volumes that are devices, and volumes that somebody uses.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use longshore_tests::http::Page;
use serde_json::json;

use super::kills::{noted, slow};
use super::rig::{Case, case, data_volume, disk, holds, holds_sparse, http, kept};

#[test]
fn a_volume_that_runs_full_is_told_and_gone_on_with_once_there_is_room() {
    let Some(case) = case() else { return };
    let (disk, page, rate) = slow(51);
    let server = case.serve(page);
    let folder = case.static_volume("small-1");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // Of an earlier run, if anything.
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut volume = data_volume("full", &http(&server));
    volume["spec"]["pvc"]["volumeName"] = json!("small-1");
    case.apply(&volume);
    case.wait("dv/full", ".status.phase", "ImportInProgress");
    noted(&folder);
    let filler = folder.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[1; 4 << 10]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    rate.lift();
    let told = "DataVolume too small to contain image";
    case.condition("full", "Running", "message", told);
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    case.succeeded("full");
    holds_sparse(&folder, &disk);
}

#[test]
fn a_device_is_filled_by_a_user_who_is_not_root() {
    let Some(case) = case() else { return };
    let disk = disk(52);
    let server = case.serve(Page::of(disk.clone()));
    let device = case.static_volume("block-1");
    // What somebody else had on it.
    std::fs::write(&device, vec![0xaa; 64 << 20]).unwrap();
    let mut volume = kept("device", &http(&server));
    volume["spec"]["pvc"]["volumeName"] = json!("block-1");
    volume["spec"]["pvc"]["volumeMode"] = json!("Block");
    case.apply(&volume);
    case.succeeded("device");
    // What lies beyond the disk is as it was.
    holds(&device, &disk, 0xaa);
    let pod = case.get("pod/importer-device");
    assert_eq!(pod["spec"]["securityContext"]["runAsUser"], 107);
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
}

/// A pod that has the claim mounted, as a machine's would.
fn user(case: &Case, claim: &str) {
    case.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "vm"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "vm", "image": "longshore.test/helper:1", "imagePullPolicy": "Never",
                "command": ["sleep", "1000"],
                "volumeMounts": [{"name": "disk", "mountPath": "/disk"}],
            }],
            "volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }));
    case.wait_for("pod/vm", "condition=Ready");
}

#[test]
fn a_disk_in_use_is_never_written_to_even_if_its_done_mark_is_lost() {
    let Some(case) = case() else { return };
    let disk = disk(53);
    let server = case.serve(Page::of(disk.clone()));
    let folder = case.folder_for("used");
    case.apply(&data_volume("used", &http(&server)));
    case.succeeded("used");
    case.wait_for("pod/importer-used", "delete");
    user(&case, "used");
    let before = std::fs::metadata(folder.join("disk.img")).unwrap();
    // Whoever imports now gets another disk.
    server.set("/disk", Page::of(super::rig::disk(54)).etag(Some("\"v2\"")));
    let strip = "cdi.kubevirt.io/storage.pod.phase-";
    case.ask(&["annotate", "pvc", "used", strip]);
    let why = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.condition\\.running\\.reason";
    case.wait("pvc/used", why, "ImportTargetInUse");
    assert!(!case.exists("pod/importer-used"));
    holds_sparse(&folder, &disk);
    let after = std::fs::metadata(folder.join("disk.img")).unwrap();
    assert_eq!(
        (after.ino(), after.mtime_nsec()),
        (before.ino(), before.mtime_nsec())
    );
}
