//! Who is killed in the middle, and what becomes of the import.

use std::path::Path;

use longshore_tests::data;
use longshore_tests::http::{Page, Rate, Server};
use serde_json::{Value, json};

use super::rig::{
    Case, case, case_alone, data_volume, disk, eventually, holds_sparse, http, kill, processes_of,
};

/// A disk that takes minutes, with as many connections as there can be, until the rate is lifted: its import
/// is caught in the middle on a busy machine too.
pub(crate) fn slow(seed: u64) -> (Vec<u8>, Page, Rate) {
    let disk = data::disk(24 << 20, seed);
    let rate = Rate::of(64 << 10);
    let page = Page::of(disk.clone()).throttle_by(&rate);
    (disk, page, rate)
}

/// Waits until an importer has noted in its journal what of the disk is durable.
pub(crate) fn noted(folder: &Path) {
    let journal = folder.join(".disk.img.longshore-journal");
    let len = || std::fs::metadata(&journal).map_or(0, |metadata| metadata.len());
    // It may be looked at before it says what it is about, which is no step yet.
    let mut last = eventually("a journal", || Some(len()).filter(|&len| len > 0));
    for _ in 0..2 {
        last = eventually("a step of the journal", || {
            Some(len()).filter(|&len| len > last)
        });
    }
}

/// A data volume whose pod stays when it is done, for what it says.
fn kept(name: &str, server: &Server) -> Value {
    let mut volume = data_volume(name, &http(server));
    volume["metadata"]["annotations"] =
        json!({"cdi.kubevirt.io/storage.pod.retainAfterCompletion": "true"});
    volume
}

/// Demands that the disk is filled, and that the last attempt did not do all of it.
fn goes_on(case: &Case, name: &str, disk: &[u8], folder: &Path) {
    case.succeeded(name);
    holds_sparse(folder, disk);
    let said = case.ask(&["logs", &format!("importer-{name}")]);
    let done = said.lines().find(|line| line.contains(r#""event":"done""#));
    let done: Value = serde_json::from_str(done.unwrap()).unwrap();
    assert!(done["bytesResumed"].as_u64().unwrap() > 0, "{said}");
}

#[test]
fn an_importer_that_is_killed_goes_on_in_the_same_pod() {
    let Some(case) = case() else { return };
    let (disk, page, rate) = slow(31);
    let server = case.serve(page);
    let folder = case.folder_for("killed");
    case.apply(&kept("killed", &server));
    case.wait("dv/killed", ".status.phase", "ImportInProgress");
    let pod = case.get("pod/importer-killed");
    noted(&folder);
    kill(&processes_of(&pod));
    rate.lift();
    goes_on(&case, "killed", &disk, &folder);
    assert_eq!(case.get("dv/killed")["status"]["restartCount"], 1);
}

#[test]
fn a_pod_that_is_deleted_is_made_again_and_goes_on() {
    let Some(case) = case() else { return };
    let (disk, page, rate) = slow(32);
    let server = case.serve(page);
    let folder = case.folder_for("gone");
    case.apply(&kept("gone", &server));
    case.wait("dv/gone", ".status.phase", "ImportInProgress");
    noted(&folder);
    case.ask(&["delete", "pod", "importer-gone"]);
    rate.lift();
    goes_on(&case, "gone", &disk, &folder);
}

#[test]
fn a_controller_that_is_killed_at_any_phase_is_of_no_consequence() {
    let Some(case) = case() else { return };
    let (disk, page, rate) = slow(33);
    let server = case.serve(page);
    case.kill_controller();
    case.apply(&data_volume("steady", &http(&server)));
    case.kill_controller();
    case.wait_for("pvc/steady", "create");
    case.kill_controller();
    let folder = case.folder_for("steady");
    case.wait_for("pod/importer-steady", "create");
    let pod = case.get("pod/importer-steady")["metadata"]["uid"].clone();
    case.kill_controller();
    case.wait("dv/steady", ".status.phase", "ImportInProgress");
    case.kill_controller();
    noted(&folder);
    rate.lift();
    // One pod did all of it.
    assert_eq!(case.get("pod/importer-steady")["metadata"]["uid"], pod);
    case.succeeded("steady");
    case.kill_controller();
    holds_sparse(&folder, &disk);
    case.wait_for("pod/importer-steady", "delete");
}

#[test]
fn a_node_whose_kubelet_and_containerd_are_killed_finishes_what_it_began() {
    let Some(case) = case_alone() else { return };
    let (disk, page, rate) = slow(34);
    let server = case.serve(page);
    let folder = case.folder_for("shaken");
    case.apply(&data_volume("shaken", &http(&server)));
    case.wait("dv/shaken", ".status.phase", "ImportInProgress");
    noted(&folder);
    case.kill_service("kubelet");
    case.kill_service("containerd");
    rate.lift();
    case.succeeded("shaken");
    holds_sparse(&folder, &disk);
    case.wait_for("pod/importer-shaken", "delete");
    // And it takes new work.
    let disk = self::disk(35);
    let server = case.serve(Page::of(disk.clone()));
    let folder = case.folder_for("next");
    case.apply(&data_volume("next", &http(&server)));
    case.succeeded("next");
    holds_sparse(&folder, &disk);
}
