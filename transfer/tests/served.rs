//! Raw disks that a server hands out in pieces: whole ones, and changes of one that is there already.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking too")]

use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use longshore_image::{Format, ReadAt};
use longshore_transfer::{
    Algorithm, Cancel, Checksum, Error, Options, Piece, Progress, Qcow2Spec, Report, Result,
    Served, Source, TargetFormat, TargetSpec, transfer,
};

const LEN: usize = 4 << 20;
const SIZE: u64 = 4 << 20;

fn at(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

/// Pieces of a disk, data by the byte it consists of.
#[derive(Clone)]
struct Shelf {
    pieces: Vec<(Range<u64>, Option<u8>)>,
    changes_only: bool,
}

struct Handed {
    pieces: std::vec::IntoIter<(Range<u64>, Option<u8>)>,
    bytes: Vec<u8>,
    waited: bool,
}

impl Served for Handed {
    fn size(&self) -> u64 {
        SIZE
    }

    fn next(&mut self) -> Result<Piece<'_>> {
        self.waited = !self.waited;
        if self.waited {
            return Ok(Piece::Waiting);
        }
        Ok(match self.pieces.next() {
            None => Piece::End,
            Some((range, None)) => Piece::Zeros(range),
            Some((range, Some(byte))) => {
                self.bytes = vec![byte; at(range.end - range.start)];
                Piece::Data(range.start, &self.bytes)
            }
        })
    }
}

impl Source for Shelf {
    fn name(&self) -> String {
        "a shelf".into()
    }
    fn len(&self) -> Option<u64> {
        Some(SIZE)
    }
    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        None
    }
    fn reopenable(&self) -> bool {
        true
    }
    fn stream(&mut self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.over(vec![0; LEN]))))
    }
    fn format(&self) -> Option<Format> {
        Some(Format::Raw)
    }
    fn served(&mut self) -> Result<Option<Box<dyn Served>>> {
        Ok(Some(Box::new(Handed {
            pieces: self.pieces.clone().into_iter(),
            bytes: Vec::new(),
            waited: false,
        })))
    }
    fn changes_only(&self) -> bool {
        self.changes_only
    }
}

impl Shelf {
    fn new(pieces: &[(Range<u64>, Option<u8>)], changes_only: bool) -> Self {
        Self {
            pieces: pieces.to_vec(),
            changes_only,
        }
    }

    /// What the pieces make of a disk.
    fn over(&self, mut disk: Vec<u8>) -> Vec<u8> {
        for (range, byte) in &self.pieces {
            disk[at(range.start)..at(range.end)].fill(byte.unwrap_or(0));
        }
        disk
    }

    fn to(&mut self, path: &Path) -> (Result<Report>, Progress) {
        self.with(path, &Options::default(), TargetFormat::Raw)
    }

    fn with(
        &mut self,
        path: &Path,
        options: &Options,
        format: TargetFormat,
    ) -> (Result<Report>, Progress) {
        let target = TargetSpec {
            path: path.to_owned(),
            format,
            ..TargetSpec::default()
        };
        let progress = Progress::default();
        let outcome = transfer(self, &target, options, &progress, &Cancel::default());
        (outcome, progress)
    }
}

const PIECES: [(Range<u64>, Option<u8>); 5] = [
    (512..70_000, Some(3)),
    (70_000..700_000, None),
    (1 << 20..(1 << 20) + 900_000, Some(4)),
    // Zeros that come as data.
    (2 << 20..(2 << 20) + 300_000, Some(0)),
    (SIZE - 512..SIZE, Some(5)),
];

#[test]
fn a_disk_in_pieces_is_written_without_its_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let mut shelf = Shelf::new(&PIECES, false);
    let (outcome, progress) = shelf.to(&path);
    let report = outcome.unwrap();
    assert!(std::fs::read(&path).unwrap() == shelf.over(vec![0; LEN]));
    assert_eq!(report.virtual_size, SIZE);
    assert_eq!(report.bytes_read, 69_488 + 900_000 + 300_000 + 512);
    assert!(report.bytes_written <= 69_488 + 900_000 + 512, "{report:?}");
    // All of the disk is settled, whatever came of it.
    assert_eq!(progress.snapshot().resolved, SIZE);
}

#[test]
fn a_disk_in_pieces_becomes_an_image_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    let mut shelf = Shelf::new(&PIECES, false);
    let format = TargetFormat::Qcow2(Qcow2Spec::default());
    shelf.with(&path, &Options::default(), format).0.unwrap();
    let raw = directory.path().join("disk.raw");
    let mut image = longshore_transfer::FileSource::open(&path, false).unwrap();
    let target = TargetSpec {
        path: raw.clone(),
        ..TargetSpec::default()
    };
    transfer(
        &mut image,
        &target,
        &Options::default(),
        &Progress::default(),
        &Cancel::default(),
    )
    .unwrap();
    assert!(std::fs::read(&raw).unwrap() == shelf.over(vec![0; LEN]));
}

#[test]
fn changes_are_all_that_is_written_and_their_zeros_are_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    // Larger than the disk: what is beyond is not touched either.
    let old = vec![0xaa; LEN + 4096];
    std::fs::write(&path, &old).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let before = inode(&path);
    let mut shelf = Shelf::new(&PIECES, true);
    let (outcome, progress) = shelf.to(&path);
    let report = outcome.unwrap();
    assert!(std::fs::read(&path).unwrap() == shelf.over(old));
    assert_eq!(inode(&path), before);
    assert_eq!(progress.snapshot().resolved, SIZE);
    // The zeros among the pieces took a hole, or were written.
    assert!(report.bytes_written >= 69_488 + 900_000 + 300_000 + 512);
}

#[test]
fn changes_need_a_disk_that_is_large_enough() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let missing = Shelf::new(&PIECES, true).to(&path).0;
    assert!(matches!(missing, Err(Error::Target { .. })), "{missing:?}");
    assert!(!path.exists());
    let small = vec![1; LEN - 1];
    std::fs::write(&path, &small).unwrap();
    let refused = Shelf::new(&PIECES, true).to(&path).0;
    assert!(
        matches!(refused, Err(Error::TooSmall { .. })),
        "{refused:?}"
    );
    assert!(
        std::fs::read(&path).unwrap() == small,
        "nothing was changed"
    );
    let format = TargetFormat::Qcow2(Qcow2Spec::default());
    let image = Shelf::new(&PIECES, true).with(&path, &Options::default(), format);
    assert!(
        matches!(image.0, Err(Error::Target { .. })),
        "{:?}",
        image.0
    );
}

#[test]
fn a_digest_is_that_of_all_bytes_and_changes_have_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let mut shelf = Shelf::new(&PIECES, false);
    let whole = shelf.over(vec![0; LEN]);
    let mut hasher = longshore_transfer::Hasher::new(Algorithm::Sha256);
    hasher.update(&whole);
    let options = Options {
        checksum: Some(Checksum {
            algorithm: Algorithm::Sha256,
            hex: hasher.hex(),
        }),
        ..Options::default()
    };
    shelf.with(&path, &options, TargetFormat::Raw).0.unwrap();
    assert!(std::fs::read(&path).unwrap() == whole);
    let refused = Shelf::new(&PIECES, true).with(&path, &options, TargetFormat::Raw);
    assert_eq!(refused.0.unwrap_err().exit_code(), 3);
}

#[test]
fn pieces_out_of_order_or_off_the_disk_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    for pieces in [
        [(4096..8192, Some(1)), (0..4096, Some(1))],
        [(0..8192, Some(1)), (4096..9000, None)],
        [(0..1, None), (SIZE - 1..SIZE + 1, Some(1))],
    ] {
        let refused = Shelf::new(&pieces, false).to(&path).0;
        assert!(matches!(refused, Err(Error::Image { .. })), "{refused:?}");
        assert!(!path.exists());
    }
}
