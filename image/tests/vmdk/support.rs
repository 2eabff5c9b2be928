//! Both ways of reading, into memory, and the oracle.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use longshore_image::chain::Chain;
use longshore_image::cluster::{ClusterCodec, ClusterDecoder};
use longshore_image::forward::{Emit, Finish, Geometry, MemoryHold, Options, PieceKind, Upcoming};
use longshore_image::{
    DenyAll, ErrorKind, ExtentKind, Image, Limits, ReadAt, ReadAtExt, Result, vmdk,
};

pub(crate) use crate::qemu::Bench;

/// Opens `bytes`, trusting nobody.
pub(crate) fn open(bytes: &[u8]) -> Result<Arc<dyn Image>> {
    vmdk::open(Arc::new(bytes.to_vec()), &DenyAll, &Limits::default())
}

/// The disk of `image`, by its extents.
pub(crate) fn read_image(image: &dyn Image) -> Result<Vec<u8>> {
    let mut disk = vec![0; image.virtual_size() as usize];
    let mut decoder = ClusterDecoder::new(image.cluster_codec());
    let mut next = 0;
    for extent in image.extents(0..image.virtual_size()) {
        let extent = extent?;
        assert_eq!(extent.guest.start, next, "a gap or an overlap");
        assert!(!extent.is_empty());
        next = extent.guest.end;
        let out = &mut disk[extent.guest.start as usize..extent.guest.end as usize];
        match extent.kind {
            ExtentKind::Zero | ExtentKind::Parent => {}
            ExtentKind::Data { at } => image.data().read_padded_at(out, at)?,
            ExtentKind::Compressed { at, len } => {
                let there = image.data().len().saturating_sub(at).min(u64::from(len));
                let packed = image.data().read_vec_at(at, there as usize, "a grain")?;
                decoder.decode(&packed, out)?;
            }
        }
    }
    assert_eq!(next, image.virtual_size(), "extents do not reach the end");
    Ok(disk)
}

/// The disk with random access.
pub(crate) fn random(bytes: &[u8]) -> Result<Vec<u8>> {
    read_image(open(bytes)?.as_ref())
}

/// What a forward decoder put out.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) geometry: Option<Geometry>,
    /// Disk by start of piece; plain neighbours are one, however they were cut.
    pub(crate) by_start: BTreeMap<u64, Vec<u8>>,
    /// Compressed pieces, as they came.
    pub(crate) packed: Vec<(Range<u64>, Vec<u8>)>,
}

impl Emit for Pieces {
    fn geometry(&mut self, geometry: &Geometry) -> Result<()> {
        assert!(self.geometry.is_none(), "geometry comes once");
        self.geometry = Some(geometry.clone());
        Ok(())
    }

    fn piece(&mut self, guest: Range<u64>, kind: PieceKind, bytes: &[u8]) -> Result<()> {
        let geometry = self.geometry.as_ref().expect("geometry comes first");
        assert!(guest.start < guest.end && guest.end <= geometry.virtual_size.unwrap());
        let len = (guest.end - guest.start) as usize;
        let bytes = match kind {
            PieceKind::Plain => {
                assert_eq!(bytes.len(), len);
                bytes.to_vec()
            }
            PieceKind::Compressed => {
                assert_eq!(geometry.codec, ClusterCodec::Zlib);
                self.packed.push((guest.clone(), bytes.to_vec()));
                let mut out = vec![0; len];
                ClusterDecoder::new(geometry.codec).decode(bytes, &mut out)?;
                out
            }
        };
        if let Some((start, last)) = self.by_start.range_mut(..guest.start).next_back() {
            let end = start + last.len() as u64;
            assert!(end <= guest.start, "pieces overlap at {:#x}", guest.start);
            if end == guest.start && kind == PieceKind::Plain {
                last.extend_from_slice(&bytes);
                return Ok(());
            }
        }
        assert!(
            self.by_start.insert(guest.start, bytes).is_none(),
            "a second piece at {:#x}",
            guest.start
        );
        Ok(())
    }
}

impl Pieces {
    /// What was put out, however plain pieces were cut.
    fn joined(&self) -> Vec<(u64, Vec<u8>)> {
        let mut joined: Vec<(u64, Vec<u8>)> = Vec::new();
        for (&start, bytes) in &self.by_start {
            match joined.last_mut() {
                Some((at, last)) if *at + last.len() as u64 == start => last.extend(bytes),
                _ => joined.push((start, bytes.clone())),
            }
        }
        joined
    }

    pub(crate) fn disk(&self) -> Vec<u8> {
        let geometry = self.geometry.as_ref().unwrap();
        let mut disk = vec![0; geometry.virtual_size.unwrap() as usize];
        for (&start, bytes) in &self.by_start {
            disk[start as usize..start as usize + bytes.len()].copy_from_slice(bytes);
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
pub(crate) fn push_all(bytes: &[u8], chunk: usize, options: Options) -> Result<Pieces> {
    let mut pieces = Pieces::default();
    let mut decoder = vmdk::decoder(options)?;
    loop {
        for part in bytes.chunks(chunk) {
            decoder.push(part, &mut pieces)?;
        }
        match decoder.finish(&mut pieces)? {
            Finish::Done { virtual_size } => {
                assert_eq!(
                    pieces.geometry.as_ref().and_then(|g| g.virtual_size),
                    Some(virtual_size)
                );
                return Ok(pieces);
            }
            Finish::AnotherPass => {}
        }
    }
}

/// Shows the decoder only what it has to see, as somebody does who can read at random.
pub(crate) fn show_some(bytes: &[u8]) -> Result<Pieces> {
    let mut pieces = Pieces::default();
    let mut decoder = vmdk::decoder(options(Some(bytes.len() as u64)))?;
    let mut rest = bytes;
    loop {
        let (taken, left) = match decoder.upcoming() {
            Upcoming::Padding(n) if n == 0 || !rest.is_empty() => {
                rest.split_at(rest.len().min(n as usize))
            }
            Upcoming::Compressed { guest, len } if len as usize <= rest.len() => {
                let (grain, left) = rest.split_at(len as usize);
                pieces.piece(guest, PieceKind::Compressed, grain)?;
                (grain, left)
            }
            Upcoming::Padding(_) | Upcoming::Compressed { .. } => {
                decoder.push(rest, &mut pieces)?;
                break;
            }
            Upcoming::Bytes(_) if rest.is_empty() => break,
            Upcoming::Bytes(n) => {
                let (shown, left) = rest.split_at(rest.len().min(n));
                decoder.push(shown, &mut pieces)?;
                rest = left;
                continue;
            }
        };
        decoder.pass(taken.len() as u64)?;
        rest = left;
    }
    match decoder.finish(&mut pieces)? {
        Finish::Done { .. } => Ok(pieces),
        Finish::AnotherPass => panic!("no hold was needed"),
    }
}

/// True if the decoder of `bytes` lets grains pass.
fn is_stream(bytes: &[u8]) -> bool {
    open(bytes).is_ok_and(|image| image.best_read_forward())
}

/// The disk from a stream of unknown length.
pub(crate) fn forward(bytes: &[u8], chunk: usize) -> Result<Vec<u8>> {
    push_all(bytes, chunk, options(None)).map(|pieces| pieces.disk())
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
    for chunk in [1 << 20, 97] {
        let e = forward(bytes, chunk).expect_err("the stream is read");
        assert_eq!(e.kind(), kind, "stream: {e:?}");
    }
    if is_stream(bytes) {
        let e = show_some(bytes).expect_err("the stream is read where it is looked at");
        assert_eq!(e.kind(), kind, "stream, partly shown: {e:?}");
    }
}

#[track_caller]
pub(crate) fn same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: size of the disk");
    if let Some(at) = (0..found.len()).find(|&i| found[i] != expected[i]) {
        panic!("{what}: the disk differs at {at:#x}");
    }
}

/// Both ways read `expected`, the stream in chunks of any size with the same pieces.
#[track_caller]
pub(crate) fn both_read(bytes: &[u8], expected: &[u8]) {
    same(&random(bytes).unwrap(), expected, "random access");
    let whole = push_all(bytes, usize::MAX, options(None)).unwrap();
    same(&whole.disk(), expected, "stream");
    if is_stream(bytes) {
        let some = show_some(bytes).unwrap();
        assert_eq!(some.geometry, whole.geometry, "partly shown");
        assert!(some.packed == whole.packed, "partly shown");
    }
    for chunk in [1, 7, 4096, 1 << 20] {
        if chunk < 10 && bytes.len() > 4 << 20 {
            continue;
        }
        let cut = push_all(bytes, chunk, options(Some(bytes.len() as u64))).unwrap();
        assert_eq!(cut.geometry, whole.geometry, "in chunks of {chunk}");
        assert!(cut.joined() == whole.joined(), "in chunks of {chunk}");
        assert!(cut.packed == whole.packed, "in chunks of {chunk}");
    }
}

impl Bench {
    /// Both ways read of `name` what qemu-img reads.
    #[track_caller]
    pub(crate) fn check(&self, name: &str) {
        both_read(&self.read(name), &self.oracle(name));
    }

    /// The disk of `name`, extents and parents let in, is what qemu-img reads.
    #[track_caller]
    pub(crate) fn check_files(&self, name: &str) {
        let found = self.files(name).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        same(&found, &self.oracle(name), name);
    }

    /// The disk of `name`, extents and parents let in.
    pub(crate) fn files(&self, name: &str) -> Result<Vec<u8>> {
        let file: Arc<dyn ReadAt> = Arc::new(self.read(name));
        read_chain(vmdk::open(file, &self.gate(), &Limits::default())?)
    }
}

/// The disk of a chain of images.
pub(crate) fn read_chain(top: Arc<dyn Image>) -> Result<Vec<u8>> {
    let chain = Chain::new(top)?;
    let mut disk = vec![0; chain.virtual_size() as usize];
    let mut next = 0;
    for found in chain.extents() {
        let found = found?;
        assert_eq!(found.visible.start, next, "a gap or an overlap");
        next = found.visible.end;
        let out = &mut disk[found.visible.start as usize..found.visible.end as usize];
        let layer = chain.layer(found.layer)?;
        match found.extent.kind {
            ExtentKind::Zero => {}
            ExtentKind::Parent => panic!("a chain has no parent left"),
            ExtentKind::Data { at } => layer.data().read_padded_at(out, at)?,
            ExtentKind::Compressed { at, len } => {
                let there = layer.data().len().saturating_sub(at).min(u64::from(len));
                let packed = layer.data().read_vec_at(at, there as usize, "a grain")?;
                let skip = (found.visible.start - found.extent.guest.start) as usize;
                let mut grain = vec![0; skip + out.len()];
                ClusterDecoder::new(layer.cluster_codec()).decode(&packed, &mut grain)?;
                out.copy_from_slice(&grain[skip..]);
            }
        }
    }
    assert_eq!(next, chain.virtual_size(), "extents do not reach the end");
    Ok(disk)
}

/// Reads a stream without keeping its disk; returns how many bytes of it there were.
pub(crate) fn count_forward(bytes: &[u8], options: Options) -> Result<u64> {
    struct Count(u64);
    impl Emit for Count {
        fn geometry(&mut self, _: &Geometry) -> Result<()> {
            Ok(())
        }
        fn piece(&mut self, guest: Range<u64>, _: PieceKind, _: &[u8]) -> Result<()> {
            self.0 += guest.end - guest.start;
            Ok(())
        }
    }
    let mut count = Count(0);
    let mut decoder = vmdk::decoder(options)?;
    for part in bytes.chunks(1 << 16) {
        decoder.push(part, &mut count)?;
    }
    decoder.finish(&mut count)?;
    Ok(count.0)
}
