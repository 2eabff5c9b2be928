//! Both ways of reading, into memory, and the oracle.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use longshore_image::chain::Chain;
use longshore_image::forward::{Emit, Finish, Geometry, MemoryHold, Options, PieceKind};
use longshore_image::{
    DenyAll, Error, ErrorKind, ExtentKind, Image, Limits, OpenGate, ReadAt, ReadAtExt, Reference,
    Result, vhdx,
};

pub(crate) use crate::qemu::Bench;

/// Opens `bytes`, trusting nobody.
pub(crate) fn open(bytes: &[u8]) -> Result<Arc<dyn Image>> {
    vhdx::open(Arc::new(bytes.to_vec()), &DenyAll, &Limits::default())
}

/// The disk of `image` and its parents, by their extents.
pub(crate) fn read_image(image: Arc<dyn Image>) -> Result<Vec<u8>> {
    let chain = Chain::new(image)?;
    let mut disk = vec![0xEE; chain.virtual_size() as usize];
    let mut next = 0;
    for extent in chain.extents() {
        let extent = extent?;
        assert_eq!(extent.visible.start, next, "a gap or an overlap");
        next = extent.visible.end;
        let out = &mut disk[extent.visible.start as usize..extent.visible.end as usize];
        match extent.extent.kind {
            ExtentKind::Zero => out.fill(0),
            ExtentKind::Data { at } => chain.layer(extent.layer)?.data().read_padded_at(out, at)?,
            other => panic!("{other:?} in a chain"),
        }
    }
    assert_eq!(next, chain.virtual_size(), "extents do not reach the end");
    Ok(disk)
}

/// The disk with random access.
pub(crate) fn random(bytes: &[u8]) -> Result<Vec<u8>> {
    read_image(open(bytes)?)
}

/// Files that an image may name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf(pub(crate) BTreeMap<String, Arc<Vec<u8>>>);

impl OpenGate for Shelf {
    fn open(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let file = self.0.get(&reference.name).cloned();
        let file = file.ok_or_else(|| Error::new(ErrorKind::Denied, reference.name.clone()))?;
        Ok(file)
    }

    fn nested(&self, _reference: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(self.clone())
    }
}

/// What a forward decoder put out.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) geometry: Option<Geometry>,
    disk: Vec<u8>,
    seen: Vec<Range<u64>>,
}

impl Emit for Pieces {
    fn geometry(&mut self, geometry: &Geometry) -> Result<()> {
        assert!(self.geometry.is_none(), "geometry comes once");
        self.geometry = Some(geometry.clone());
        Ok(())
    }

    fn piece(&mut self, guest: Range<u64>, kind: PieceKind, bytes: &[u8]) -> Result<()> {
        assert_eq!(kind, PieceKind::Plain);
        assert_eq!(bytes.len() as u64, guest.end - guest.start);
        if guest.end > self.disk.len() as u64 {
            self.disk.resize(guest.end as usize, 0);
        }
        self.disk[guest.start as usize..guest.end as usize].copy_from_slice(bytes);
        match self.seen.last_mut() {
            Some(last) if last.end == guest.start => last.end = guest.end,
            _ => self.seen.push(guest),
        }
        Ok(())
    }
}

pub(crate) fn options(len: Option<u64>) -> Options {
    Options {
        limits: Limits::default(),
        hold: Box::new(MemoryHold::new(16 << 20)),
        side: None,
        reopenable: false,
        stream_len: len,
    }
}

/// Pushes all of `bytes` in chunks, as often as the decoder wants: the disk, and the number of passes.
pub(crate) fn push_all(bytes: &[u8], chunk: usize, options: Options) -> Result<(Vec<u8>, u32)> {
    let mut pieces = Pieces::default();
    let mut decoder = vhdx::decoder(options)?;
    for pass in 1.. {
        for part in bytes.chunks(chunk) {
            decoder.push(part, &mut pieces)?;
        }
        if let Finish::Done { virtual_size } = decoder.finish(&mut pieces)? {
            let geometry = pieces.geometry.unwrap();
            assert_eq!(geometry.virtual_size, Some(virtual_size));
            let mut seen = pieces.seen;
            seen.sort_by_key(|range| range.start);
            for pair in seen.windows(2) {
                assert!(pair[0].end <= pair[1].start, "pieces overlap: {pair:?}");
            }
            pieces.disk.resize(virtual_size as usize, 0);
            return Ok((pieces.disk, pass));
        }
    }
    unreachable!("the loop ends by returning")
}

/// Both ways fail like this.
#[track_caller]
pub(crate) fn both_fail(bytes: &[u8], kind: ErrorKind) {
    random_fails(bytes, kind);
    forward_fails(bytes, kind);
}

#[track_caller]
pub(crate) fn random_fails(bytes: &[u8], kind: ErrorKind) {
    let e = random(bytes).expect_err("random access reads it");
    assert_eq!(e.kind(), kind, "random access: {e:?}");
}

#[track_caller]
pub(crate) fn forward_fails(bytes: &[u8], kind: ErrorKind) {
    for (chunk, len) in [(1 << 20, None), (4099, Some(bytes.len() as u64))] {
        let e = push_all(bytes, chunk, options(len)).expect_err("the stream is read");
        assert_eq!(e.kind(), kind, "stream: {e:?}");
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

/// Both ways read `expected`, the stream in chunks of any size.
#[track_caller]
pub(crate) fn both_read(bytes: &[u8], expected: &[u8]) {
    same(&random(bytes).unwrap(), expected, "random access");
    for (chunk, len) in [
        (usize::MAX, None),
        (1 << 16, None),
        (70_001, Some(bytes.len() as u64)),
    ] {
        let (disk, passes) = push_all(bytes, chunk, options(len)).unwrap();
        same(&disk, expected, &format!("stream in chunks of {chunk}"));
        assert_eq!(passes, 1);
    }
}

impl Bench {
    /// Both ways read of `name` what qemu-img reads.
    #[track_caller]
    pub(crate) fn check(&self, name: &str) {
        both_read(&self.read(name), &self.oracle(name));
    }

    /// Why qemu-img does not read `bytes`; none if it does, and then it reads what we read.
    #[track_caller]
    pub(crate) fn refusal(&self, bytes: &[u8]) -> Option<String> {
        self.write("built.vhdx", bytes);
        let words = [
            "convert",
            "-f",
            "vhdx",
            "-O",
            "raw",
            "built.vhdx",
            "built.raw",
        ];
        let (ok, text) = self.attempt("qemu-img", &words);
        if ok {
            same(&random(bytes).unwrap(), &self.read("built.raw"), "qemu-img");
        }
        (!ok).then_some(text)
    }
}
