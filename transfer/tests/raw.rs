//! Transfers of raw disks: targets, limits and failures, without any image format in the way.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking too")]

use std::io::{Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use longshore_image::ReadAt;
use longshore_transfer::{
    Cache, Cancel, Checksum, Error, FileSource, Memory, Options, Preallocate, Progress, Report,
    Result, Source, TargetSpec, transfer,
};

/// A source that only streams, in reads of `step` bytes, and fails after `fails_after`.
struct StreamOnly {
    bytes: Vec<u8>,
    known_len: bool,
    step: usize,
    fails_after: Option<usize>,
}

impl StreamOnly {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            known_len: true,
            step: 10_000,
            fails_after: None,
        }
    }
}

struct Stepping {
    inner: Cursor<Vec<u8>>,
    step: usize,
    left: usize,
}

impl Read for Stepping {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::Error::other("the line went dead"));
        }
        let n = buf.len().min(self.step).min(self.left);
        let n = self.inner.read(&mut buf[..n])?;
        self.left -= n;
        Ok(n)
    }
}

impl Source for StreamOnly {
    fn name(&self) -> String {
        "a test stream".into()
    }
    fn len(&self) -> Option<u64> {
        self.known_len.then_some(self.bytes.len() as u64)
    }
    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        None
    }
    fn reopenable(&self) -> bool {
        false
    }
    fn stream(&mut self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Stepping {
            inner: Cursor::new(self.bytes.clone()),
            step: self.step,
            left: self.fails_after.unwrap_or(usize::MAX),
        }))
    }
}

/// Blocks of noise, zeros and text, with an end that is not aligned.
fn disk(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        let block = bytes.len() / 20_000;
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        match block % 3 {
            0 => bytes.extend_from_slice(&[0; 8]),
            1 => bytes.extend_from_slice(&state.to_le_bytes()),
            _ => bytes.extend_from_slice(b"longshor"),
        }
    }
    bytes.truncate(len);
    bytes
}

fn run(source: &mut dyn Source, target: &TargetSpec, options: &Options) -> Result<Report> {
    transfer(
        source,
        target,
        options,
        &Progress::default(),
        &Cancel::default(),
    )
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_raw_file_arrives_equal_and_sparse_by_both_roads() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("in.raw");
    let bytes = disk(5_000_001);
    std::fs::write(&from, &bytes).unwrap();
    for cache in [Cache::Writeback, Cache::None] {
        for (n, mut source) in [
            Box::new(FileSource::open(&from, false).unwrap()) as Box<dyn Source>,
            Box::new(StreamOnly::of(bytes.clone())),
            Box::new(StreamOnly {
                known_len: false,
                ..StreamOnly::of(bytes.clone())
            }),
        ]
        .into_iter()
        .enumerate()
        {
            let path = dir.path().join(format!("out{n}.raw"));
            let target = TargetSpec {
                path: path.clone(),
                cache,
                sync: true,
                ..Default::default()
            };
            let report = run(source.as_mut(), &target, &Options::default()).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "road {n}");
            assert_eq!(report.virtual_size, bytes.len() as u64);
            let data = bytes
                .chunks(4096)
                .filter(|c| c.iter().any(|b| *b != 0))
                .count() as u64;
            let allocated = std::fs::metadata(&path).unwrap().blocks() * 512;
            assert!(
                allocated <= data * 4096 + 8192,
                "{allocated} for {data} blocks of data"
            );
            assert!(report.bytes_written <= data * 4096);
        }
    }
}

#[test]
fn empty_and_all_zero_disks_arrive_without_a_byte_written() {
    let dir = tempfile::tempdir().unwrap();
    for len in [0usize, 1, 4096, 3_000_000] {
        let mut source = StreamOnly::of(vec![0; len]);
        let path = dir.path().join("out.raw");
        let target = TargetSpec {
            path: path.clone(),
            ..Default::default()
        };
        let report = run(&mut source, &target, &Options::default()).unwrap();
        assert_eq!(report.bytes_written, 0);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), len as u64);
    }
}

#[test]
fn preallocation_sets_every_block_aside_and_changes_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = disk(3_000_000);
    for preallocate in [Preallocate::Falloc, Preallocate::Full] {
        let path = dir.path().join("out.raw");
        let target = TargetSpec {
            path: path.clone(),
            preallocate,
            ..Default::default()
        };
        run(
            &mut StreamOnly::of(bytes.clone()),
            &target,
            &Options::default(),
        )
        .unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
        let allocated = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(
            allocated >= bytes.len() as u64,
            "{preallocate:?}: {allocated}"
        );
    }
}

#[test]
fn a_larger_size_grows_the_disk_and_a_smaller_one_is_refused_before_writing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.raw");
    let bytes = disk(100_000);
    let mut target = TargetSpec {
        path: path.clone(),
        size: Some(1 << 20),
        ..Default::default()
    };
    run(
        &mut StreamOnly::of(bytes.clone()),
        &target,
        &Options::default(),
    )
    .unwrap();
    let grown = std::fs::read(&path).unwrap();
    assert_eq!(grown.len(), 1 << 20);
    assert!(grown[..100_000] == bytes && grown[100_000..].iter().all(|b| *b == 0));
    target.size = Some(99_999);
    target.path = dir.path().join("small.raw");
    for known_len in [true, false] {
        let mut source = StreamOnly {
            known_len,
            ..StreamOnly::of(bytes.clone())
        };
        let e = run(&mut source, &target, &Options::default()).unwrap_err();
        assert!(
            matches!(
                e,
                Error::TooSmall {
                    available: 99_999,
                    ..
                }
            ),
            "{e}"
        );
        assert_eq!(e.exit_code(), 4);
    }
    assert_eq!(names(dir.path()), ["out.raw"]);
}

#[test]
fn a_source_that_fails_leaves_the_old_target_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.raw");
    std::fs::write(&path, b"precious").unwrap();
    let target = TargetSpec {
        path: path.clone(),
        ..Default::default()
    };
    let mut source = StreamOnly {
        fails_after: Some(2_000_000),
        ..StreamOnly::of(disk(4_000_000))
    };
    let e = run(&mut source, &target, &Options::default()).unwrap_err();
    assert!(matches!(e, Error::Source { .. }), "{e}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(names(dir.path()), ["out.raw"]);
}

#[test]
fn a_cancelled_transfer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let target = TargetSpec {
        path: dir.path().join("out.raw"),
        ..Default::default()
    };
    let cancel = Cancel::default();
    cancel.cancel();
    let mut source = StreamOnly::of(disk(4_000_000));
    let e = transfer(
        &mut source,
        &target,
        &Options::default(),
        &Progress::default(),
        &cancel,
    )
    .unwrap_err();
    assert!(matches!(e, Error::Interrupted), "{e}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn source_and_target_may_not_be_the_same_file_by_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    std::fs::write(&path, disk(10_000)).unwrap();
    let link = dir.path().join("hard.raw");
    std::fs::hard_link(&path, &link).unwrap();
    let soft = dir.path().join("soft.raw");
    std::os::unix::fs::symlink(&path, &soft).unwrap();
    for target in [path.clone(), link, soft] {
        let mut source = FileSource::open(&path, false).unwrap();
        let target = TargetSpec {
            path: target,
            ..Default::default()
        };
        let e = run(&mut source, &target, &Options::default()).unwrap_err();
        assert!(matches!(e, Error::SameFile { .. }), "{e}");
    }
    assert!(std::fs::read(&path).unwrap() == disk(10_000));
}

#[test]
fn two_transfers_to_one_target_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.raw");
    // The partial file of another transfer, which holds its locks.
    let partial = dir.path().join(".out.raw.partial");
    std::fs::write(&partial, b"theirs").unwrap();
    let theirs = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&partial)
        .unwrap();
    let lock = rustix_lock(&theirs);
    assert!(lock, "the test holds the lock");
    let target = TargetSpec {
        path,
        ..Default::default()
    };
    let e = run(
        &mut StreamOnly::of(disk(10_000)),
        &target,
        &Options::default(),
    )
    .unwrap_err();
    assert!(matches!(e, Error::Locked { .. }), "{e}");
    assert_eq!(std::fs::read(&partial).unwrap(), b"theirs");
}

/// The lock that a writer of an image holds: byte 101, shared, per open file.
fn rustix_lock(file: &std::fs::File) -> bool {
    use std::process::Command;
    // flock(1) locks whole files only: python has OFD locks on bytes and inherits our descriptor.
    let script = "import fcntl,struct,sys\n\
                  fcntl.fcntl(0, 37, struct.pack('hhqqi4x', 0, 0, 101, 1, 0))";
    Command::new("python3")
        .args(["-c", script])
        .stdin(file.try_clone().unwrap())
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn a_digest_that_does_not_match_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.raw");
    let from = dir.path().join("in.raw");
    std::fs::write(&from, b"abc").unwrap();
    let target = TargetSpec {
        path: path.clone(),
        ..Default::default()
    };
    let good = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for (text, fits) in [
        (good.to_owned(), true),
        (good.replace("ba78", "ba79"), false),
    ] {
        let checksum: Checksum = text.parse().unwrap();
        let options = Options {
            checksum: Some(checksum),
            ..Options::default()
        };
        let mut source = FileSource::open(&from, false).unwrap();
        let outcome = run(&mut source, &target, &options);
        assert_eq!(outcome.is_ok(), fits, "{outcome:?}");
        assert_eq!(path.exists(), fits);
        if !fits {
            assert!(matches!(outcome.unwrap_err(), Error::Checksum { .. }));
        }
        std::fs::remove_file(&path).ok();
    }
}

#[test]
fn too_small_a_budget_is_refused_and_says_what_would_do() {
    let dir = tempfile::tempdir().unwrap();
    let target = TargetSpec {
        path: dir.path().join("out.raw"),
        ..Default::default()
    };
    let options = Options {
        memory: Memory::of(24 << 20),
        ..Options::default()
    };
    let e = run(&mut StreamOnly::of(disk(10_000)), &target, &options).unwrap_err();
    let Error::Memory { needed, .. } = e else {
        panic!("{e}")
    };
    let options = Options {
        memory: Memory::of(needed),
        ..Options::default()
    };
    run(&mut StreamOnly::of(disk(10_000)), &target, &options).unwrap();
}
