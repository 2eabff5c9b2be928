//! Both ways of reading an image of any format, into memory.

use std::ops::Range;
use std::sync::Arc;

use longshore_image::chain::Chain;
use longshore_image::cluster::ClusterDecoder;
use longshore_image::forward::{self, Emit, Finish, Geometry, MemoryHold, Options, PieceKind};
use longshore_image::{
    DenyAll, ErrorKind, Extent, ExtentKind, Format, Image, Limits, OpenGate, ReadAt, ReadAtExt,
    Result, all_extents,
};

pub(crate) use crate::qemu::Bench;

pub(crate) fn open(format: Format, bytes: &[u8], gate: &dyn OpenGate) -> Result<Arc<dyn Image>> {
    let file = Arc::new(bytes.to_vec());
    longshore_image::open(format, file, gate, &Limits::default())
}

/// The disk with random access, parents included.
pub(crate) fn random(format: Format, bytes: &[u8], gate: &dyn OpenGate) -> Result<Vec<u8>> {
    let chain = Chain::new(open(format, bytes, gate)?)?;
    let mut disk = vec![0; chain.virtual_size() as usize];
    for found in chain.extents() {
        let found = found?;
        let layer = chain.layer(found.layer)?;
        let out = &mut disk[found.visible.start as usize..found.visible.end as usize];
        match found.extent.kind {
            ExtentKind::Zero => {}
            ExtentKind::Parent => panic!("a chain has no parent left"),
            ExtentKind::Data { at } => layer.data().read_padded_at(out, at)?,
            ExtentKind::Compressed { at, len } => {
                let there = layer.data().len().saturating_sub(at).min(u64::from(len));
                let packed = layer.data().read_vec_at(at, there as usize, "a cluster")?;
                let skip = (found.visible.start - found.extent.guest.start) as usize;
                let mut cluster = vec![0; layer.cluster_size() as usize];
                ClusterDecoder::new(layer.cluster_codec()).decode(&packed, &mut cluster)?;
                out.copy_from_slice(&cluster[skip..skip + out.len()]);
            }
        }
    }
    Ok(disk)
}

#[derive(Default)]
struct Disk {
    geometry: Option<Geometry>,
    bytes: Vec<u8>,
}

impl Emit for Disk {
    fn geometry(&mut self, geometry: &Geometry) -> Result<()> {
        assert!(self.geometry.is_none(), "geometry comes once");
        self.bytes = vec![0; geometry.virtual_size.unwrap() as usize];
        self.geometry = Some(geometry.clone());
        Ok(())
    }

    fn piece(&mut self, guest: Range<u64>, kind: PieceKind, bytes: &[u8]) -> Result<()> {
        let geometry = self.geometry.as_ref().expect("geometry comes first");
        let out = &mut self.bytes[guest.start as usize..guest.end as usize];
        match kind {
            PieceKind::Plain => out.copy_from_slice(bytes),
            PieceKind::Compressed => {
                let mut cluster = vec![0; geometry.cluster_size as usize];
                ClusterDecoder::new(geometry.codec).decode(bytes, &mut cluster)?;
                out.copy_from_slice(&cluster[..out.len()]);
            }
        }
        Ok(())
    }
}

/// The disk from a stream in chunks, which has all help there is if `helped`.
pub(crate) fn stream(format: Format, bytes: &[u8], chunk: usize, helped: bool) -> Result<Vec<u8>> {
    let side: Option<Arc<dyn ReadAt>> = if helped {
        Some(Arc::new(bytes.to_vec()))
    } else {
        None
    };
    let options = Options {
        limits: Limits::default(),
        hold: Box::new(MemoryHold::new(8 << 20)),
        side,
        reopenable: helped,
        stream_len: helped.then_some(bytes.len() as u64),
    };
    let mut decoder = forward::decoder(format, options)?;
    let mut disk = Disk::default();
    loop {
        for part in bytes.chunks(chunk) {
            decoder.push(part, &mut disk)?;
        }
        match decoder.finish(&mut disk)? {
            Finish::Done { virtual_size } => {
                assert_eq!(virtual_size, disk.bytes.len() as u64);
                return Ok(disk.bytes);
            }
            Finish::AnotherPass => assert!(helped),
        }
    }
}

#[track_caller]
pub(crate) fn same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: size of the disk");
    if found != expected {
        let at = (0..found.len()).find(|&i| found[i] != expected[i]);
        panic!("{what}: the disk differs at {at:#x?}");
    }
}

/// Both ways read `expected`; a stream with help only if `helped`.
#[track_caller]
pub(crate) fn both_read(format: Format, bytes: &[u8], expected: &[u8], helped: bool) {
    same(
        &random(format, bytes, &DenyAll).unwrap(),
        expected,
        "random",
    );
    for chunk in [1, 13, 4096, 1 << 20] {
        if chunk < 20 && bytes.len() > 2 << 20 {
            continue;
        }
        for help in [false, true] {
            if help || !helped {
                let what = format!("a stream in chunks of {chunk}, helped {help}");
                let disk = stream(format, bytes, chunk, help);
                let disk = disk.unwrap_or_else(|e| panic!("{what}: {e:?}"));
                same(&disk, expected, &what);
            }
        }
    }
}

/// Both ways fail like this.
#[track_caller]
pub(crate) fn both_fail(format: Format, bytes: &[u8], kind: ErrorKind) {
    let e = random(format, bytes, &DenyAll).expect_err("random access reads it");
    assert_eq!(e.kind(), kind, "random access: {e:?}");
    for chunk in [97, 1 << 20] {
        let e = stream(format, bytes, chunk, true).expect_err("the stream is read");
        assert_eq!(e.kind(), kind, "stream: {e:?}");
    }
}

/// Sorted, disjoint, coalesced, covering the disk; and what a window shows is what the whole shows.
pub(crate) fn check_extents(image: &dyn Image, window: Range<u64>) {
    let whole = all_extents(image).unwrap();
    let mut next = 0;
    for pair in whole.windows(2) {
        assert!(!pair[0].clone().join(&pair[1]), "{pair:?} are one");
    }
    for extent in &whole {
        assert_eq!(extent.guest.start, next);
        next = extent.guest.end;
    }
    assert_eq!(next, image.virtual_size());
    let found: Vec<Extent> = image
        .extents(window.clone())
        .collect::<Result<_>>()
        .unwrap();
    let clipped: Vec<Extent> = whole.iter().filter_map(|e| e.clip(&window)).collect();
    assert_eq!(found, clipped);
}

/// Bytes of a disk: in blocks of 4 KiB zeros, text or noise.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = vec![0; len];
    for block in bytes.chunks_mut(4096) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        match x % 4 {
            0 => {}
            1 => block.fill((x >> 8) as u8 | 1),
            _ => {
                for b in block {
                    x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *b = (x >> 40) as u8;
                }
            }
        }
    }
    bytes
}

pub(crate) const MIB: usize = 1 << 20;
