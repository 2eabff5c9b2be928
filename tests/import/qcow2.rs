//! QEMU's own images over HTTP: in order, and with tables that follow their data.

use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_tests::data::disk;
use longshore_tests::http::{Fault, Page, Ranges};
use longshore_tests::program::{have, run, shell};
use tempfile::TempDir;

use super::{Import, open, options, serving};

/// A disk and its images.
pub(crate) struct Images {
    directory: TempDir,
    expected: Vec<u8>,
}

impl Images {
    /// `None` without QEMU's tools.
    pub(crate) fn new(len: usize) -> Option<Self> {
        if !have("qemu-img") {
            return None;
        }
        let images = Self {
            directory: tempfile::tempdir().unwrap(),
            expected: disk(len, 1),
        };
        std::fs::write(images.path("raw"), &images.expected).unwrap();
        images.run("qemu-img convert -f raw -O qcow2 raw plain.qcow2");
        Some(images)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, script: &str) {
        shell(self.directory.path(), script);
    }

    /// With the L1 table at the end: the disk grows so far that it has to move.
    pub(crate) fn grown(&mut self) -> PathBuf {
        self.run(
            "cp plain.qcow2 grown.qcow2
            qemu-img resize -q grown.qcow2 20G
            qemu-img convert -O raw grown.qcow2 grown.raw",
        );
        self.path("grown.qcow2")
    }
}

/// Compares two sparse files that may be larger than memory.
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let same = ["compare", "-f", "raw", "-F", "raw"];
    run(Command::new("qemu-img").args(same).args([a, b]));
}

#[test]
fn images_in_order_are_read_once_over_lines_that_break() {
    let Some(images) = Images::new(12_000_256) else {
        return;
    };
    images.run("qemu-img convert -c -f raw -O qcow2 raw zlib.qcow2");
    let zstd = "-o compression_type=zstd";
    images.run(&format!(
        "qemu-img convert -c -f raw -O qcow2 {zstd} raw zstd.qcow2"
    ));
    for name in ["plain.qcow2", "zlib.qcow2", "zstd.qcow2"] {
        for ranges in [Ranges::Work, Ranges::None] {
            let page = Page::file(&images.path(name))
                .ranges(ranges)
                .fault(Fault::Cut(1_500_000))
                .fault(Fault::Status(502))
                .fault(Fault::Cut(2_600_000));
            let (_server, url) = serving("/disk.qcow2", page);
            println!("{name} {ranges:?}");
            let import = Import::from_url(&url);
            let mut expected = images.expected.clone();
            expected.resize(expected.len().next_multiple_of(512), 0);
            assert_eq!(import.made(&expected).passes, 1);
        }
    }
}

#[test]
fn tables_at_the_end_are_fetched_beside_the_stream_where_ranges_work() {
    let Some(mut images) = Images::new(12_000_256) else {
        return;
    };
    let grown = images.grown();
    let (server, url) = serving(
        "/disk.qcow2",
        Page::file(&grown).fault(Fault::Cut(3_000_000)),
    );
    let import = Import::over_one_connection(&url);
    let report = import.outcome.as_ref().unwrap();
    assert_eq!((report.passes, report.bytes_spilled), (1, 0));
    assert_same(&import.target(), &images.path("grown.raw"));
    let log = server.log();
    let len = std::fs::metadata(&grown).unwrap().len();
    assert!(log.sent < len + len / 4, "{} of {len} bytes sent", log.sent);
}

#[test]
fn tables_at_the_end_are_reached_by_reading_again_where_ranges_do_not_work() {
    let Some(mut images) = Images::new(12_000_256) else {
        return;
    };
    let grown = images.grown();
    for etag in [Some("\"v1\""), None] {
        let page = Page::file(&grown).ranges(Ranges::None).etag(etag);
        let page = page.fault(Fault::Nothing).fault(Fault::Cut(3_000_000));
        let (_server, url) = serving("/disk.qcow2", page);
        let import = Import::from_url(&url);
        let report = import.outcome.as_ref().unwrap();
        assert!(report.passes > 1, "{report:?}");
        assert_eq!(report.bytes_spilled, 0);
        assert_same(&import.target(), &images.path("grown.raw"));
    }
}

#[test]
fn an_image_that_changes_between_passes_leaves_no_disk() {
    let Some(mut images) = Images::new(12_000_256) else {
        return;
    };
    let grown = images.grown();
    let mut other = std::fs::read(&grown).unwrap();
    // A byte of data, which no table gives away.
    let at = other.len() / 2;
    other[at] ^= 1;
    for (etag, later) in [(Some("\"v1\""), Some("\"v2\"")), (None, None)] {
        let changed = Page::of(other.clone()).ranges(Ranges::None).etag(later);
        let page = Page::file(&grown).ranges(Ranges::None).etag(etag);
        let page = page
            .fault(Fault::Nothing)
            .fault(Fault::Become(Box::new(changed)));
        let (_server, url) = serving("/disk.qcow2", page);
        Import::from_url(&url).changed();
    }
}

#[test]
fn looking_at_an_image_reads_its_tables_and_not_its_data() {
    let Some(mut images) = Images::new(40_000_000) else {
        return;
    };
    let grown = images.grown();
    // The stream stays silent: it must not be needed.
    let page = Page::file(&grown).fault(Fault::Stall(0));
    let (server, url) = serving("/disk.qcow2", page);
    let mut source = open(&url, &options());
    let found =
        longshore_transfer::inspect(source.as_mut(), &longshore_transfer::Options::default());
    assert_eq!(found.unwrap().info.virtual_size, 20 << 30);
    assert!(server.log().sent < 3_000_000, "{}", server.log().sent);
}

#[test]
fn a_giant_with_little_in_it_moves_little() {
    let Some(images) = Images::new(1 << 20) else {
        return;
    };
    images.run("qemu-img create -q -f qcow2 giant.qcow2 8T");
    let giant = images.path("giant.qcow2");
    // Data in eight places over all of it, so that tables are needed for each.
    for terabyte in 0..8 {
        let write = format!("write -q -P {} {terabyte}T 1M", terabyte + 1);
        images.run(&format!("qemu-io -f qcow2 -c '{write}' giant.qcow2"));
    }
    let len = std::fs::metadata(&giant).unwrap().len();
    let (server, url) = serving("/giant.qcow2", Page::file(&giant));
    let import = Import::over_one_connection(&url);
    let report = import.outcome.as_ref().unwrap();
    assert_eq!(report.virtual_size, 8 << 40);
    let sent = server.log().sent;
    assert!(sent <= len + len / 50, "{sent} bytes sent of {len}");
    assert_same(&giant_raw(&images), &import.target());
}

/// What qemu-img makes of it.
fn giant_raw(images: &Images) -> PathBuf {
    images.run("qemu-img convert -O raw giant.qcow2 giant.raw");
    images.path("giant.raw")
}
