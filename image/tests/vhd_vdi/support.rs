//! Both ways of reading, into memory, and the oracle.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use longshore_image::chain::Chain;
use longshore_image::forward::{
    self, Decoder, Emit, Finish, Geometry, MemoryHold, Options, PieceKind,
};
use longshore_image::vhd::SizeRule;
use longshore_image::{
    DenyAll, ErrorKind, ExtentKind, Format, Image, Info, Limits, ReadAtExt, Result,
};

pub(crate) use crate::qemu::Bench;

pub(crate) const VHD: Format = Format::Vhd(SizeRule::Creator);

/// Opens `bytes`, trusting nobody.
pub(crate) fn open(format: Format, bytes: &[u8]) -> Result<Arc<dyn Image>> {
    let file = Arc::new(bytes.to_vec());
    longshore_image::open(format, file, &DenyAll, &Limits::default())
}

/// The disk of `image` and its parents.
pub(crate) fn read_chain(image: Arc<dyn Image>) -> Result<Vec<u8>> {
    let chain = Chain::new(image)?;
    let mut disk = vec![0; chain.virtual_size() as usize];
    let mut next = 0;
    for extent in chain.extents() {
        let extent = extent?;
        assert_eq!(extent.visible.start, next, "a gap or an overlap");
        next = extent.visible.end;
        let out = &mut disk[extent.visible.start as usize..extent.visible.end as usize];
        match extent.extent.kind {
            ExtentKind::Zero => {}
            ExtentKind::Data { at } => chain.layer(extent.layer)?.data().read_padded_at(out, at)?,
            other => panic!("{other:?} in a chain of VHDs"),
        }
    }
    assert_eq!(next, chain.virtual_size(), "extents do not reach the end");
    Ok(disk)
}

/// The disk with random access.
pub(crate) fn random(format: Format, bytes: &[u8]) -> Result<Vec<u8>> {
    read_chain(open(format, bytes)?)
}

/// What a forward decoder put out.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) geometry: Option<Geometry>,
    pub(crate) by_start: BTreeMap<u64, Vec<u8>>,
    pub(crate) size: u64,
    pub(crate) found: Option<Info>,
}

impl Emit for Pieces {
    fn geometry(&mut self, geometry: &Geometry) -> Result<()> {
        assert!(self.geometry.is_none(), "geometry comes once");
        self.geometry = Some(geometry.clone());
        Ok(())
    }

    fn piece(&mut self, guest: Range<u64>, kind: PieceKind, bytes: &[u8]) -> Result<()> {
        let geometry = self.geometry.as_ref().expect("geometry comes first");
        assert!(guest.start < guest.end && guest.end <= geometry.virtual_size.unwrap_or(u64::MAX));
        assert_eq!(kind, PieceKind::Plain);
        assert_eq!(bytes.len() as u64, guest.end - guest.start);
        if let Some((start, last)) = self.by_start.range_mut(..guest.start).next_back() {
            let end = start + last.len() as u64;
            assert!(end <= guest.start, "pieces overlap at {:#x}", guest.start);
            if end == guest.start {
                last.extend_from_slice(bytes);
                return Ok(());
            }
        }
        assert!(
            self.by_start.insert(guest.start, bytes.to_vec()).is_none(),
            "a second piece at {:#x}",
            guest.start
        );
        Ok(())
    }
}

impl Pieces {
    /// The disk, cut where it ends.
    pub(crate) fn disk(&self) -> Vec<u8> {
        let mut disk = vec![0; self.size as usize];
        for (&start, bytes) in &self.by_start {
            let end = (start as usize + bytes.len()).min(disk.len());
            let start = (start as usize).min(end);
            disk[start..end].copy_from_slice(&bytes[..end - start]);
        }
        disk
    }
}

pub(crate) fn options(len: Option<u64>) -> Options {
    Options {
        limits: Limits::default(),
        hold: Box::new(MemoryHold::new(8 << 20)),
        side: None,
        reopenable: false,
        stream_len: len,
    }
}

/// Pushes all of `bytes` in chunks, as often as the decoder wants.
pub(crate) fn push_all(
    mut decoder: Box<dyn Decoder>,
    bytes: &[u8],
    chunk: usize,
) -> Result<Pieces> {
    let mut pieces = Pieces::default();
    loop {
        for part in bytes.chunks(chunk) {
            decoder.push(part, &mut pieces)?;
        }
        match decoder.finish(&mut pieces)? {
            Finish::Done { virtual_size } => {
                let said = pieces.geometry.as_ref().unwrap().virtual_size;
                assert!(said.is_none_or(|said| said == virtual_size));
                pieces.size = virtual_size;
                pieces.found = decoder.found();
                return Ok(pieces);
            }
            Finish::AnotherPass => {}
        }
    }
}

pub(crate) fn stream(format: Format, bytes: &[u8], chunk: usize, len: bool) -> Result<Pieces> {
    let len = len.then_some(bytes.len() as u64);
    push_all(forward::decoder(format, options(len))?, bytes, chunk)
}

/// The stream, with the file at hand.
pub(crate) fn stream_with_side(format: Format, bytes: &[u8], chunk: usize) -> Result<Pieces> {
    let options = Options {
        side: Some(Arc::new(bytes.to_vec())),
        ..options(Some(bytes.len() as u64))
    };
    push_all(forward::decoder(format, options)?, bytes, chunk)
}

/// Both ways fail like this.
#[track_caller]
pub(crate) fn both_fail(format: Format, bytes: &[u8], kind: ErrorKind) {
    random_fails(format, bytes, kind);
    stream_fails(format, bytes, kind);
}

#[track_caller]
pub(crate) fn random_fails(format: Format, bytes: &[u8], kind: ErrorKind) {
    let e = random(format, bytes).expect_err("random access reads it");
    assert_eq!(e.kind(), kind, "random access: {e:?}");
}

#[track_caller]
pub(crate) fn stream_fails(format: Format, bytes: &[u8], kind: ErrorKind) {
    for chunk in [1 << 20, 97] {
        let e = stream(format, bytes, chunk, false).expect_err("the stream is read");
        assert_eq!(e.kind(), kind, "stream: {e:?}");
    }
}

#[track_caller]
pub(crate) fn same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: size of the disk");
    if found != expected {
        let at = found.iter().zip(expected).position(|(a, b)| a != b);
        panic!("{what}: the disk differs at {at:#x?}");
    }
}

/// Both ways read `expected`, the stream in chunks of any size.
#[track_caller]
pub(crate) fn both_read(format: Format, bytes: &[u8], expected: &[u8]) {
    same(&random(format, bytes).unwrap(), expected, "random access");
    for chunk in [usize::MAX, 1 << 20, 65_537, 4096, 511, 7] {
        if chunk < 600 && bytes.len() > 2 << 20 {
            continue;
        }
        for len in [false, true] {
            let pieces = stream(format, bytes, chunk, len).unwrap();
            same(&pieces.disk(), expected, &format!("in chunks of {chunk}"));
        }
        let pieces = stream_with_side(format, bytes, chunk).unwrap();
        assert!(pieces.geometry.as_ref().unwrap().virtual_size.is_some());
        same(&pieces.disk(), expected, "with a side");
    }
}

impl Bench {
    /// The disk as `qemu-img` reads it with driver `driver` (and its options).
    pub(crate) fn read_by(&self, driver: &str, image: &str) -> Vec<u8> {
        self.img(&format!(
            "convert -O raw --image-opts driver={driver},file.filename={image} oracle.raw"
        ));
        self.read("oracle.raw")
    }
}

/// Bytes that differ from place to place, and hold zeros too.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
