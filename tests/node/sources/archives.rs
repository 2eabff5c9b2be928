//! Archives of files, unpacked to a volume; and nothing at all, by an annotated claim.

use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_tests::data;
use longshore_tests::http::Page;
use longshore_tests::program::run;
use serde_json::json;

use super::super::rig::{case, data_volume, holds_sparse, http};
use super::annotated;

/// Demands that a folder has these files and no others, but for what a filesystem has for itself.
pub(super) fn has(folder: &Path, expected: &Path) {
    let mut diff = Command::new("diff");
    diff.args(["--recursive", "--no-dereference", "--exclude=lost+found"]);
    run(diff.arg(expected).arg(folder));
}

/// A folder with files, and an archive of them.
pub(super) fn made(at: &Path, seed: u64) -> (PathBuf, PathBuf) {
    let files = at.join("files");
    std::fs::create_dir_all(files.join("deep/er")).unwrap();
    std::fs::write(files.join("deep/er/noise"), data::disk(1 << 20, seed)).unwrap();
    std::fs::write(files.join("word"), "files, and no disk").unwrap();
    std::os::unix::fs::symlink("deep/er/noise", files.join("link")).unwrap();
    let archive = at.join("files.tar.gz");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--file"]).arg(&archive);
    run(tar.arg("--directory").arg(&files).arg("."));
    (files, archive)
}

#[test]
fn an_archive_becomes_its_files() {
    let Some(case) = case() else { return };
    let folder = data::quick_dir();
    let (files, archive) = made(folder.path(), 38);
    let server = case.serve(Page::of(std::fs::read(&archive).unwrap()));
    let (one, other) = (case.folder_for("volume"), case.folder_for("claim"));
    let mut volume = data_volume("volume", &http(&server));
    volume["spec"]["contentType"] = json!("archive");
    case.apply(&volume);
    annotated(
        &case,
        "claim",
        &[
            ("import.endpoint", &server.url("/disk")),
            ("contentType", "archive"),
        ],
    );
    case.succeeded("volume");
    has(&one, &files);
    case.filled("claim");
    has(&other, &files);
}

#[test]
fn a_claim_that_names_no_source_gets_a_blank_disk() {
    let Some(case) = case() else { return };
    let folder = case.folder_for("blank");
    annotated(&case, "blank", &[("import.source", "none")]);
    case.filled("blank");
    holds_sparse(&folder, &[]);
}
