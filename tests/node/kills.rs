//! Who is killed in the middle, and what becomes of the import.

use std::path::Path;

use longshore_tests::data;
use longshore_tests::eventually;
use longshore_tests::http::{Page, Rate, Server};
use longshore_tests::node::processes_of;
use serde_json::{Value, json};

use super::rig::{Case, case, case_alone, data_volume, disk, holds_sparse, http, kept, kill};

/// A disk that takes minutes, over a line that all connections share, until the rate is lifted: its import is
/// caught in the middle on a busy machine too.
pub(crate) fn slow(seed: u64) -> (Vec<u8>, Page, Rate) {
    let disk = data::disk(24 << 20, seed);
    let rate = Rate::of_all(96 << 10);
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

/// What of an image is read again at the most: its beginning, and what was under way when the container ended.
const AGAIN: u64 = 2 << 20;

/// Demands that the disk is filled, that the last attempt asked the server only for what was not done yet, and
/// that its pod says so.
fn goes_on(case: &Case, name: &str, disk: &[u8], folder: &Path, server: &Server) {
    case.succeeded(name);
    holds_sparse(folder, disk);
    let pod = case.get(&format!("pod/importer-{name}"));
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"];
    let end: Value = serde_json::from_str(end.as_str().unwrap()).unwrap();
    let bytes = |field: &str| end[field].as_u64().unwrap();
    assert!(bytes("bytesResumed") > 0, "{end}");
    let size = disk.len() as u64;
    let rest = size - bytes("bytesResumed") + AGAIN;
    assert!(bytes("bytesRead") <= rest, "{end}");
    // What was on its way when a connection was given up was sent, too, and what is late is asked for twice.
    let sent = server.log().sent;
    assert!(
        sent < size * 2,
        "{sent} bytes were sent of a disk of {size}"
    );
    let said = case.ask(&["logs", &format!("importer-{name}")]);
    let done = said.lines().find(|line| line.contains(r#""event":"done""#));
    let done: Value = serde_json::from_str(done.unwrap()).unwrap();
    assert_eq!(done["bytesResumed"], end["bytesResumed"]);
}

#[test]
fn an_importer_that_is_killed_goes_on_in_the_same_pod() {
    let Some(case) = case() else { return };
    let (disk, page, rate) = slow(31);
    let server = case.serve(page);
    let folder = case.folder_for("killed");
    case.apply(&kept("killed", &http(&server)));
    case.wait("dv/killed", ".status.phase", "ImportInProgress");
    let pod = case.get("pod/importer-killed");
    noted(&folder);
    kill(&processes_of(&pod));
    rate.lift();
    goes_on(&case, "killed", &disk, &folder, &server);
    assert_eq!(case.get("dv/killed")["status"]["restartCount"], 1);
    let same = case.get("pod/importer-killed");
    assert_eq!(same["metadata"]["uid"], pod["metadata"]["uid"]);
}

/// Deletes the pod of an import midway: another one goes on with what it had done.
fn deleted(name: &str, seed: u64, how: &[&str]) {
    let Some(case) = case() else { return };
    let (disk, page, rate) = slow(seed);
    let server = case.serve(page);
    let folder = case.folder_for(name);
    case.apply(&kept(name, &http(&server)));
    case.wait(&format!("dv/{name}"), ".status.phase", "ImportInProgress");
    let pod = format!("pod/importer-{name}");
    let before = case.get(&pod);
    let working = processes_of(&before);
    noted(&folder);
    case.ask(&[&["delete", &pod], how].concat());
    // A pod that was given no time is gone before what it runs is.
    eventually("the end of the importer", || {
        let runs = |process: &u32| Path::new("/proc").join(process.to_string()).exists();
        (!working.iter().any(runs)).then_some(())
    });
    rate.lift();
    goes_on(&case, name, &disk, &folder, &server);
    let after = case.get(&pod);
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
}

#[test]
fn a_pod_that_is_deleted_is_made_again_and_goes_on() {
    deleted("gone", 32, &[]);
}

#[test]
fn a_pod_that_is_deleted_without_time_to_end_is_made_again_and_goes_on() {
    deleted("forced", 36, &["--force", "--grace-period=0"]);
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

#[test]
fn a_node_that_loses_its_power_goes_on_with_what_it_has_of_a_disk() {
    let Some(case) = case_alone() else { return };
    let (disk, page, rate) = slow(37);
    let server = case.serve(page);
    let folder = case.folder_for("cut");
    case.apply(&kept("cut", &http(&server)));
    case.wait("dv/cut", ".status.phase", "ImportInProgress");
    let pod = case.get("pod/importer-cut");
    noted(&folder);
    case.cut_power();
    rate.lift();
    goes_on(&case, "cut", &disk, &folder, &server);
    let same = case.get("pod/importer-cut");
    assert_eq!(same["metadata"]["uid"], pod["metadata"]["uid"]);
    // What else ran on the node does again, and it takes new work.
    let available = "--for=condition=Available";
    for namespace in ["kube-system", "local-path-storage", "cdi"] {
        let wait = ["-n", namespace, "wait", "deployments", "--all", available];
        case.everywhere(&[&wait[..], &["--timeout=120s"]].concat());
    }
    let disk = self::disk(38);
    let server = case.serve(Page::of(disk.clone()));
    let mut volume = data_volume("next", &http(&server));
    volume["spec"]["pvc"]["storageClassName"] = json!("csi");
    volume["spec"]["pvc"]["resources"]["requests"]["storage"] = json!("64Mi");
    case.apply(&volume);
    case.succeeded("next");
}
