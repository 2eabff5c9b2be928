//! What stays when Longshore goes, and what it makes of it when it comes back.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use longshore_tests::http::Page;

use super::rig::{case_alone, data_volume, disk, holds_sparse, http};

/// The manifest that people install.
fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/longshore.yaml")
}

#[test]
fn uninstalling_leaves_the_data_and_a_new_installation_goes_on_with_it() {
    let Some(case) = case_alone() else { return };
    let disk = disk(71);
    let server = case.serve(Page::of(disk.clone()));
    let folder = case.folder_for("kept");
    case.apply(&data_volume("kept", &http(&server)));
    case.succeeded("kept");
    case.wait_for("pod/importer-kept", "delete");
    let claim = case.get("pvc/kept")["metadata"]["uid"].clone();
    let written = std::fs::metadata(folder.join("disk.img")).unwrap();
    let asked = server.log().requests.len();

    case.everywhere(&["delete", "-f", manifest().to_str().unwrap()]);
    assert!(!case.exists("namespace/cdi"));
    assert_eq!(case.get("dv/kept")["status"]["phase"], "Succeeded");
    holds_sparse(&folder, &disk);
    let waiting = case.folder_for("waiting");
    case.apply(&data_volume("waiting", &http(&server)));

    case.everywhere(&["apply", "-f", manifest().to_str().unwrap()]);
    case.succeeded("waiting");
    holds_sparse(&waiting, &disk);
    assert_eq!(case.get("dv/kept")["status"]["phase"], "Succeeded");
    assert_eq!(case.get("pvc/kept")["metadata"]["uid"], claim);
    assert!(!case.exists("pod/importer-kept"));
    holds_sparse(&folder, &disk);
    let now = std::fs::metadata(folder.join("disk.img")).unwrap();
    assert_eq!(
        (now.ino(), now.modified().unwrap()),
        (written.ino(), written.modified().unwrap())
    );
    let again = server.log().requests.len() - asked;
    assert!(again > 0, "the second disk came from the server too");
}
