//! Imports that fail, say why, and go on where that helps.

use longshore_tests::http::{Authority, Page};
use serde_json::{Value, json};

use super::rig::{Case, case, data_volume, disk, holds_sparse, http, kept};
use super::sources::{authorities, fails, keys};

fn condition(case: &Case, volume: &str, kind: &str) -> Value {
    let volume = case.get(&format!("dv/{volume}"));
    let conditions = volume["status"]["conditions"].as_array().unwrap().clone();
    let found = conditions
        .into_iter()
        .find(|condition| condition["type"] == kind);
    found.unwrap()
}

#[test]
fn an_address_that_becomes_good_is_tried_again_and_restarts_are_counted() {
    let Some(case) = case() else { return };
    let disk = disk(11);
    let server = case.serve(Page::status(404));
    let folder = case.folder_for("late");
    case.apply(&data_volume("late", &http(&server)));
    fails(&case, "late", "Error", &["404"]);
    assert_eq!(condition(&case, "late", "Ready")["status"], "False");
    server.set("/disk", Page::of(disk.clone()));
    case.succeeded("late");
    holds_sparse(&folder, &disk);
    let restarts = case.get("dv/late")["status"]["restartCount"].as_u64();
    assert!(restarts.unwrap() >= 1);
}

#[test]
fn a_volume_that_is_too_small_is_told_and_not_written_to() {
    let Some(case) = case() else { return };
    let mut disk = disk(12);
    disk.resize(40 << 20, 0);
    let server = case.serve(Page::of(disk));
    let folder = case.folder_for("small");
    case.apply(&data_volume("small", &http(&server)));
    let told = "DataVolume too small to contain image";
    case.condition("small", "Running", "message", told);
    assert!(!folder.join("disk.img").exists());
}

#[test]
fn a_wrong_checksum_ends_it_for_good() {
    let Some(case) = case() else { return };
    let server = case.serve(Page::of(disk(13)));
    let folder = case.folder_for("forged");
    let mut source = http(&server);
    source["http"]["checksum"] = json!(format!("sha256:{}", "0".repeat(64)));
    case.apply(&data_volume("forged", &source));
    case.wait("dv/forged", ".status.phase", "Failed");
    let verdict = condition(&case, "forged", "Running");
    assert_eq!(verdict["reason"], "ChecksumError", "{verdict}");
    assert!(!folder.join("disk.img").exists());
}

#[test]
fn a_secret_and_an_authority_open_a_server_and_show_nowhere() {
    let Some(case) = case() else { return };
    let disk = disk(14);
    let authority = Authority::new();
    // "porter:s3cret-of-the-test"
    let page = Page::of(disk.clone()).auth("Basic cG9ydGVyOnMzY3JldC1vZi10aGUtdGVzdA==");
    let server = case.serve_tls(&authority, page);
    let folder = case.folder_for("closed");
    keys(&case, "keys", "porter", "s3cret-of-the-test");
    authorities(&case, "authorities", &authority);
    let mut source = http(&server);
    source["http"]["secretRef"] = json!("keys");
    source["http"]["certConfigMap"] = json!("authorities");
    case.apply(&kept("closed", &source));
    case.succeeded("closed");
    holds_sparse(&folder, &disk);
    let seen = [
        case.ask(&["get", "dv,pvc,pods,events", "-o", "json"]),
        case.ask(&["logs", "importer-closed"]),
    ];
    for text in seen {
        assert!(!text.contains("s3cret-of-the-test"));
    }
}

#[test]
fn a_namespace_for_restricted_pods_takes_ours() {
    let Some(case) = case() else { return };
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    case.ask(&["label", "namespace", &case.name, enforce]);
    let disk = disk(15);
    let server = case.serve(Page::of(disk.clone()));
    let folder = case.folder_for("strict");
    case.apply(&data_volume("strict", &http(&server)));
    case.succeeded("strict");
    holds_sparse(&folder, &disk);
}
