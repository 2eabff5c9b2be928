//! Disks that servers hand out: NBD, VMware, oVirt.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking too"
)]

mod imageio;
mod imageio_faults;
mod nbd;
mod resume;
mod vddk;
mod vsphere;

use std::error::Error as StdError;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_importer::{SourceOptions, source_from};
use longshore_tests::chain;
use longshore_transfer::{Cancel, Options, Progress, Report, Source, TargetSpec, transfer};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// Options for servers on this machine: no long pauses. Nothing here depends on how long they are.
fn options() -> SourceOptions {
    SourceOptions {
        backoff: Duration::from_millis(1),
        retries: 12,
        ..SourceOptions::default()
    }
}

/// A place for files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(longshore_tests::data::quick_dir())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A raw disk of 64 MiB with holes: data at its beginning, in crumbs, in a large piece, and at its end.
    fn disk(&self, name: &str, seed: u64) -> PathBuf {
        let path = self.path(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(64 * MIB).unwrap();
        let data = longshore_tests::data::disk(6 << 20, seed);
        file.write_all_at(&data[..70_000], 0).unwrap();
        for n in 0..40 {
            file.write_all_at(&data[n * 4096..(n + 1) * 4096], 3 * MIB + n as u64 * 65_536)
                .unwrap();
        }
        file.write_all_at(&data, 20 * MIB).unwrap();
        file.write_all_at(&data[..5000], 64 * MIB - 5000).unwrap();
        path
    }
}

/// Imports from `source` to `path`.
fn import_to(source: &mut dyn Source, path: &Path) -> longshore_transfer::Result<Report> {
    let target = TargetSpec {
        path: path.to_owned(),
        ..TargetSpec::default()
    };
    transfer(
        source,
        &target,
        &Options::default(),
        &Progress::default(),
        &Cancel::default(),
    )
}

/// Imports `url`, which must work and give the bytes of `expected`.
#[track_caller]
fn imports(url: &str, options: &SourceOptions, expected: &Path) -> Report {
    let place = Place::new();
    let mut source = match source_from(url, options) {
        Ok(source) => source,
        Err(e) => panic!("{url}: {}", chain(&e)),
    };
    let report = match import_to(source.as_mut(), &place.path("disk.raw")) {
        Ok(report) => report,
        Err(e) => panic!("{url}: {}", chain(&e)),
    };
    same(&place.path("disk.raw"), expected);
    report
}

/// Imports `url`, which must fail while it is read. The error of the source.
#[track_caller]
fn fails<E: StdError + 'static>(url: &str, options: &SourceOptions) -> E {
    let place = Place::new();
    let mut source = source_from(url, options).unwrap();
    let outcome = import_to(source.as_mut(), &place.path("disk.raw"));
    assert!(!place.path("disk.raw").exists());
    match outcome {
        Err(longshore_transfer::Error::Source { source, .. }) => *source.downcast().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn same(made: &Path, expected: &Path) {
    let (made, expected) = (
        std::fs::read(made).unwrap(),
        std::fs::read(expected).unwrap(),
    );
    assert_eq!(made.len(), expected.len());
    assert!(made == expected, "other bytes");
}
