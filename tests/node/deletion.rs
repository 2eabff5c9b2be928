//! Data volumes that are deleted, at each phase.

use longshore_tests::http::Page;
use serde_json::json;

use super::kills::{noted, slow};
use super::rig::{Case, case, claim_spec, data_volume, disk, http};

/// Deletes a data volume and demands that nothing of it is left, soon.
fn leaves_nothing(case: &Case, name: &str) {
    case.ask(&["delete", "dv", name, "--timeout=60s"]);
    case.wait_for(&format!("pvc/{name}"), "delete");
    case.wait_for(&format!("pod/importer-{name}"), "delete");
}

#[test]
fn a_volume_that_waits_for_a_consumer_can_be_deleted() {
    let Some(case) = case() else { return };
    let server = case.serve(Page::of(disk(41)));
    let mut volume = data_volume("waiting", &http(&server));
    volume["spec"]["pvc"] = claim_spec("local-path");
    case.apply(&volume);
    case.wait("dv/waiting", ".status.phase", "WaitForFirstConsumer");
    leaves_nothing(&case, "waiting");
    assert!(server.log().requests.is_empty());
}

#[test]
fn a_volume_whose_pod_finds_no_node_says_so_and_can_be_deleted() {
    let Some(case) = case() else { return };
    let server = case.serve(Page::of(disk(42)));
    case.folder_on("stranded", "node-that-is-not-there");
    case.apply(&data_volume("stranded", &http(&server)));
    case.condition("stranded", "Running", "reason", "Unschedulable");
    assert_eq!(
        case.get("dv/stranded")["status"]["phase"],
        json!("ImportScheduled")
    );
    leaves_nothing(&case, "stranded");
}

#[test]
fn a_volume_that_is_being_filled_can_be_deleted_and_its_server_is_left_alone() {
    let Some(case) = case() else { return };
    let (_, page, _) = slow(43);
    let server = case.serve(page);
    let folder = case.folder_for("halfway");
    case.apply(&data_volume("halfway", &http(&server)));
    case.wait("dv/halfway", ".status.phase", "ImportInProgress");
    noted(&folder);
    leaves_nothing(&case, "halfway");
    server.wait_until(|log| log.gone > 0);
    assert!(!folder.join("disk.img").exists());
}

#[test]
fn a_volume_that_is_filled_can_be_deleted() {
    let Some(case) = case() else { return };
    let server = case.serve(Page::of(disk(44)));
    case.folder_for("filled");
    case.apply(&data_volume("filled", &http(&server)));
    case.succeeded("filled");
    leaves_nothing(&case, "filled");
}
