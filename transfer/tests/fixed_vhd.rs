//! A fixed VHD has its only mark at its end: what becomes of one by every road, and of raw disks that end
//! in something like it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking too")]

use std::io::{Cursor, Read};
use std::sync::Arc;

use longshore_image::vhd::SizeRule;
use longshore_image::{Format, ReadAt};
use longshore_transfer::{
    Cancel, Error, FileSource, Options, Preallocate, Progress, Report, Result, Source, TargetSpec,
    inspect, transfer,
};

const SIZE: usize = 3 << 20;
/// Numbers of four bytes on it.
const WORDS: u32 = 3 << 18;

/// A source that only streams.
struct Pipe {
    bytes: Vec<u8>,
    knows_len: bool,
}

impl Source for Pipe {
    fn name(&self) -> String {
        "a pipe".into()
    }
    fn len(&self) -> Option<u64> {
        self.knows_len.then_some(self.bytes.len() as u64)
    }
    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        None
    }
    fn reopenable(&self) -> bool {
        false
    }
    fn stream(&mut self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.bytes.clone())))
    }
}

fn disk() -> Vec<u8> {
    (0..WORDS)
        .flat_map(|n| (n.wrapping_mul(0x9E37_79B9) | 1).to_le_bytes())
        .collect()
}

/// `disk` and a footer: by `creator`, with a geometry of `sectors` sectors.
fn vhd(disk: &[u8], creator: [u8; 4], sectors: u16) -> Vec<u8> {
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[12..16].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    footer[16..24].fill(0xff);
    footer[28..32].copy_from_slice(&creator);
    footer[48..56].copy_from_slice(&(disk.len() as u64).to_be_bytes());
    footer[56..58].copy_from_slice(&sectors.to_be_bytes());
    footer[58] = 1;
    footer[59] = 1;
    footer[60..64].copy_from_slice(&2_u32.to_be_bytes());
    let sum = footer.iter().fold(0_u32, |sum, &b| sum + u32::from(b));
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    [disk, &footer].concat()
}

fn run(source: &mut dyn Source, target: &TargetSpec, from: Option<Format>) -> Result<Report> {
    let options = Options {
        from,
        ..Options::default()
    };
    transfer(
        source,
        target,
        &options,
        &Progress::default(),
        &Cancel::default(),
    )
}

/// Every road that `bytes` can take, with what comes of it.
fn every_road(bytes: &[u8], from: Option<Format>, spec: &TargetSpec) -> Vec<(Report, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    std::fs::write(&path, bytes).unwrap();
    let pipe = |knows_len| Pipe {
        bytes: bytes.to_vec(),
        knows_len,
    };
    let target = TargetSpec {
        path: dir.path().join("out"),
        ..spec.clone()
    };
    let mut done = Vec::new();
    let sources: [Box<dyn Source>; 3] = [
        Box::new(FileSource::open(&path, false).unwrap()),
        Box::new(pipe(true)),
        Box::new(pipe(false)),
    ];
    for mut source in sources {
        let report = run(source.as_mut(), &target, from).unwrap();
        done.push((report, std::fs::read(&target.path).unwrap()));
    }
    done
}

#[test]
fn a_fixed_vhd_is_found_by_its_end_on_every_road() {
    let bytes = vhd(&disk(), *b"win ", 1);
    let vhd = Format::Vhd(SizeRule::Creator);
    for from in [None, Some(vhd)] {
        for (report, out) in every_road(&bytes, from, &TargetSpec::default()) {
            assert!(out == disk());
            assert_eq!(report.info.format, vhd);
            assert_eq!(report.info.variant, "fixed");
            assert_eq!(report.info.virtual_size, SIZE as u64);
            assert_eq!(report.virtual_size, SIZE as u64);
        }
    }
}

/// A run that knows the format says so, and nothing that a guest wrote changes it.
#[test]
fn bytes_that_are_called_raw_are_taken_as_they_are() {
    let bytes = vhd(&disk(), *b"win ", 1);
    for (report, out) in every_road(&bytes, Some(Format::Raw), &TargetSpec::default()) {
        assert!(out == bytes);
        assert_eq!(report.info.format, Format::Raw);
    }
}

#[test]
fn a_raw_disk_keeps_its_last_sector() {
    let mut almost = vhd(&disk(), *b"win ", 1);
    almost[SIZE + 200] ^= 1;
    for bytes in [disk(), almost, disk()[..700].to_vec(), vec![7], Vec::new()] {
        for (report, out) in every_road(&bytes, None, &TargetSpec::default()) {
            assert!(out == bytes);
            assert_eq!(report.info.format, Format::Raw);
            assert!(report.info.features.is_empty());
        }
    }
}

/// From a stream the size shows when everything has been written.
#[test]
fn a_disk_that_its_geometry_ends_early_is_cut_and_zeros_follow() {
    let bytes = vhd(&disk(), *b"vpc ", 1000);
    for preallocate in [Preallocate::Off, Preallocate::Falloc, Preallocate::Full] {
        for size in [None, Some(4 << 20)] {
            let spec = TargetSpec {
                preallocate,
                size: size.map(|size: usize| size as u64),
                ..TargetSpec::default()
            };
            let mut expected = disk()[..512_000].to_vec();
            expected.resize(size.unwrap_or(512_000), 0);
            for (report, out) in every_road(&bytes, None, &spec) {
                assert_eq!(report.virtual_size, 512_000);
                assert!(out == expected, "{preallocate:?} {size:?}");
            }
        }
    }
    let from = Some(Format::Vhd(SizeRule::CurrentSize));
    for (_, out) in every_road(&bytes, from, &TargetSpec::default()) {
        assert!(out == disk());
    }
}

#[test]
fn a_target_as_large_as_the_disk_need_not_have_room_for_the_footer() {
    let spec = TargetSpec {
        size: Some(SIZE as u64),
        ..TargetSpec::default()
    };
    for (_, out) in every_road(&vhd(&disk(), *b"win ", 1), None, &spec) {
        assert!(out == disk());
    }
}

/// Not by the last sector, but before anything is written.
#[test]
fn a_raw_stream_that_is_too_long_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let target = TargetSpec {
        path: dir.path().join("out"),
        size: Some(SIZE as u64 - 513),
        ..TargetSpec::default()
    };
    let mut source = Pipe {
        bytes: disk(),
        knows_len: true,
    };
    let options = Options::default();
    let progress = Progress::default();
    let refused = transfer(
        &mut source,
        &target,
        &options,
        &progress,
        &Cancel::default(),
    );
    assert!(matches!(refused, Err(Error::TooSmall { .. })));
    assert_eq!(progress.snapshot().written, 0);
}

#[test]
fn looking_at_one_tells_as_much_as_can_be_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    let bytes = vhd(&disk(), *b"win ", 1);
    std::fs::write(&path, &bytes).unwrap();
    let mut file = FileSource::open(&path, false).unwrap();
    let found = inspect(&mut file, &Options::default()).unwrap();
    assert_eq!(found.info.variant, "fixed");
    assert_eq!(found.virtual_size, Some(SIZE as u64));
    let mut pipe = Pipe {
        bytes,
        knows_len: true,
    };
    let found = inspect(&mut pipe, &Options::default()).unwrap();
    assert_eq!(found.info.format, Format::Raw);
    assert_eq!(found.virtual_size, None);
    assert!(found.info.features[0].contains("fixed VHD"));
}
