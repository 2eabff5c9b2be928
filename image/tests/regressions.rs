//! Every seed and every crash that fuzzing found, again, without a fuzzer.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[expect(
    unreachable_pub,
    clippy::unwrap_in_result,
    reason = "public where it is a library of its own; what can't be is a panic there too"
)]
#[path = "../../fuzz/src/lib.rs"]
mod bodies;

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of `fuzz/KIND/TARGET`, none if there is no such folder.
fn files(kind: &str, target: &str) -> Vec<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    assert!(home.is_dir(), "{} is missing", home.display());
    let Ok(entries) = std::fs::read_dir(home.join(kind).join(target)) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(kind: &str) -> usize {
    let mut count = 0;
    for (target, body) in bodies::TARGETS {
        for path in files(kind, target) {
            let data = std::fs::read(&path).unwrap();
            // What it says of a panic does not name the file; this does.
            let result = std::panic::catch_unwind(|| body(&data));
            assert!(result.is_ok(), "{target} fails on {}", path.display());
            count += 1;
        }
    }
    count
}

#[test]
fn regressions_stay_fixed() {
    for (target, _) in bodies::TARGETS {
        let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/targets");
        assert!(bin.join(format!("{target}.rs")).is_file(), "{target}");
    }
    replay("regressions");
}

#[test]
fn seeds_run_clean() {
    let count = replay("seeds");
    assert!(count >= 3 * bodies::TARGETS.len(), "only {count} seeds");
}

/// Whole images must come out whole, or targets would only ever look at refusals.
#[test]
fn most_image_seeds_are_read_both_ways() {
    for (target, least) in [
        ("qcow2_open", 8),
        ("vmdk_open", 4),
        ("qcow_open", 3),
        ("parallels_open", 5),
        ("vhd", 8),
        ("vdi", 4),
    ] {
        let read = files("seeds", target)
            .iter()
            .filter(|path| bodies::both_ways(&Arc::new(std::fs::read(path).unwrap())))
            .count();
        assert!(read >= least, "only {read} of {target} are read both ways");
    }
    let is_read = |packed: &[u8]| {
        bodies::vhdx_file(packed).is_some_and(|file| bodies::both_ways(&Arc::new(file)))
    };
    let read = files("seeds", "vhdx")
        .iter()
        .filter(|path| is_read(&std::fs::read(path).unwrap()))
        .count();
    assert!(read >= 5, "only {read} VHDX files are read both ways");
}
