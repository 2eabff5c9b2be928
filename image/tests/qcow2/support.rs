//! What the qcow2 tests share: the oracle, and both ways of reading into memory.

use std::ops::Range;
use std::sync::Arc;

use longshore_image::chain::Chain;
use longshore_image::cluster::{ClusterCodec, ClusterDecoder};
use longshore_image::forward::{
    self, Emit, Finish, Geometry, Hold, MemoryHold, Options, PieceKind,
};
use longshore_image::{
    DenyAll, Error, ErrorKind, ExtentKind, Image, Limits, ReadAt, ReadAtExt, Result,
};

pub(crate) use crate::qemu::Bench;

impl Bench {
    /// Both ways of reading `name` give what qemu-img gives.
    pub(crate) fn check(&self, name: &str) {
        let expected = self.oracle(name);
        self.check_random(name, &expected);
        self.check_forward(name, &expected);
    }

    pub(crate) fn check_random(&self, name: &str, expected: &[u8]) {
        let image = longshore_image::qcow2::open(self.file(name), &self.gate(), &Limits::default())
            .unwrap_or_else(|e| panic!("{name}: {e:?}"));
        same(name, &random(&image).unwrap(), expected);
    }

    pub(crate) fn check_forward(&self, name: &str, expected: &[u8]) {
        let bytes = self.read(name);
        for chunk in chunk_sizes(bytes.len()) {
            let seen = Forward::new(options()).chunk(chunk).run(&bytes);
            let seen = seen.unwrap_or_else(|e| panic!("{name} in chunks of {chunk}: {e:?}"));
            same(
                &format!("{name} in chunks of {chunk}"),
                &seen.disk,
                expected,
            );
        }
    }

    pub(crate) fn file(&self, name: &str) -> Arc<dyn ReadAt> {
        Arc::new(self.read(name))
    }
}

/// Small chunks cost a call per byte: only where the image is small.
pub(crate) fn chunk_sizes(len: usize) -> Vec<usize> {
    let mut sizes = vec![4096, 1 << 20];
    if len <= 8 << 20 {
        sizes.push(7);
    }
    if len <= 3 << 19 {
        sizes.push(1);
    }
    sizes
}

/// Fails with the first difference, not with megabytes of dump.
pub(crate) fn same(what: &str, seen: &[u8], expected: &[u8]) {
    assert_eq!(seen.len(), expected.len(), "{what}: size of the disk");
    if let Some(at) = seen.iter().zip(expected).position(|(a, b)| a != b) {
        panic!(
            "{what}: byte {at:#x} is {:#x} instead of {:#x}",
            seen[at], expected[at]
        );
    }
}

/// The disk by random access, parents included. Checks the invariant on the way.
pub(crate) fn random(image: &Arc<dyn Image>) -> Result<Vec<u8>> {
    let chain = Chain::new(Arc::clone(image))?;
    let mut disk = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    let mut next = 0;
    for found in chain.extents() {
        let found = found?;
        assert_eq!(found.visible.start, next, "a gap or an overlap");
        next = found.visible.end;
        let layer = chain.layer(found.layer)?;
        match found.extent.kind {
            ExtentKind::Zero => {}
            ExtentKind::Parent => panic!("a chain has no parent left"),
            ExtentKind::Data { at } => {
                layer
                    .data()
                    .read_padded_at(&mut disk[index(&found.visible)], at)?;
            }
            ExtentKind::Compressed { at, len } => {
                let len = u64::from(len).min(layer.data().len() - at);
                let mut packed = vec![0; usize::try_from(len).unwrap()];
                layer.data().read_padded_at(&mut packed, at)?;
                let mut cluster = vec![0; usize::try_from(layer.cluster_size()).unwrap()];
                ClusterDecoder::new(layer.cluster_codec()).decode(&packed, &mut cluster)?;
                let skip = found.visible.start - found.extent.guest.start;
                let inner = skip..skip + (found.visible.end - found.visible.start);
                disk[index(&found.visible)].copy_from_slice(&cluster[index(&inner)]);
            }
        }
    }
    assert_eq!(next, image.virtual_size(), "the walk ended early");
    Ok(disk)
}

pub(crate) fn index(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// Opens bytes with the gate shut.
pub(crate) fn open(bytes: Vec<u8>) -> Result<Arc<dyn Image>> {
    longshore_image::qcow2::open(Arc::new(bytes), &DenyAll, &Limits::default())
}

pub(crate) fn options() -> Options {
    Options::one_pass(Limits::default())
}

/// A run of the forward way into memory.
pub(crate) struct Forward {
    options: Options,
    chunk: usize,
    bare: bool,
}

/// What came out.
pub(crate) struct Seen {
    pub(crate) disk: Vec<u8>,
    pub(crate) passes: u32,
    pub(crate) geometry: Geometry,
}

impl Forward {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            chunk: 1 << 16,
            bare: false,
        }
    }

    /// Throws the disk away: for disks larger than memory.
    pub(crate) fn bare(options: Options) -> Self {
        Self {
            bare: true,
            ..Self::new(options)
        }
    }

    pub(crate) fn chunk(mut self, chunk: usize) -> Self {
        self.chunk = chunk;
        self
    }

    pub(crate) fn run(self, bytes: &[u8]) -> Result<Seen> {
        let mut decoder = forward::decoder(longshore_image::Format::Qcow2, self.options)?;
        let mut disk = Disk {
            bare: self.bare,
            ..Disk::default()
        };
        let mut passes = 1;
        loop {
            for chunk in bytes.chunks(self.chunk) {
                decoder.push(chunk, &mut disk)?;
            }
            match decoder.finish(&mut disk)? {
                Finish::Done { virtual_size } => {
                    let geometry = disk.geometry.take().unwrap();
                    assert_eq!(geometry.virtual_size, Some(virtual_size));
                    return Ok(Seen {
                        disk: disk.bytes,
                        passes,
                        geometry,
                    });
                }
                Finish::AnotherPass => passes += 1,
            }
        }
    }
}

#[derive(Default)]
struct Disk {
    bare: bool,
    geometry: Option<Geometry>,
    bytes: Vec<u8>,
    written: Vec<bool>,
    codec: Option<ClusterDecoder>,
}

impl Emit for Disk {
    fn geometry(&mut self, geometry: &Geometry) -> Result<()> {
        assert!(self.geometry.is_none(), "told twice");
        self.geometry = Some(geometry.clone());
        if self.bare {
            return Ok(());
        }
        let size = usize::try_from(geometry.virtual_size.unwrap()).unwrap();
        if size > 2 << 30 {
            return Err(Error::limit("too large for a test", 0));
        }
        self.bytes = vec![0; size];
        self.written = vec![false; size / 512 + 1];
        self.codec = Some(ClusterDecoder::new(geometry.codec));
        Ok(())
    }

    fn piece(&mut self, guest: Range<u64>, kind: PieceKind, bytes: &[u8]) -> Result<()> {
        assert!(!guest.is_empty());
        let geometry = self.geometry.as_ref().expect("geometry comes first");
        if self.bare {
            return Ok(());
        }
        let range = index(&guest);
        match kind {
            PieceKind::Plain => self.bytes[range].copy_from_slice(bytes),
            PieceKind::Compressed => {
                assert_ne!(geometry.codec, ClusterCodec::None);
                for sector in &mut self.written[range.start / 512..range.end.div_ceil(512)] {
                    assert!(!*sector, "a cluster came out twice");
                    *sector = true;
                }
                let mut cluster = vec![0; usize::try_from(geometry.cluster_size).unwrap()];
                let codec = self.codec.as_mut().unwrap();
                codec.decode(bytes, &mut cluster)?;
                let len = range.len();
                self.bytes[range].copy_from_slice(&cluster[..len]);
            }
        }
        Ok(())
    }
}

/// The kind of error that `result` is.
pub(crate) fn kind<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(e) => {
            assert!(!e.to_string().is_empty());
            e.kind()
        }
    }
}

/// A hold that never has room.
pub(crate) fn no_hold() -> Box<dyn Hold> {
    Box::new(MemoryHold::new(0))
}

/// Bytes of a disk: by blocks of 4 KiB zeros, text, or noise.
pub(crate) fn disk(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = vec![0; len];
    for block in bytes.chunks_mut(4096) {
        match next() % 5 {
            0 | 1 => {}
            2 => block.fill((next() % 255) as u8 + 1),
            3 => {
                let word = next().to_le_bytes();
                for (i, b) in block.iter_mut().enumerate() {
                    *b = word[i % 8].wrapping_add((i / 512) as u8);
                }
            }
            _ => {
                for word in block.chunks_mut(8) {
                    let noise = next().to_le_bytes();
                    word.copy_from_slice(&noise[..word.len()]);
                }
            }
        }
    }
    bytes
}

/// Options with the whole image on the side, and a hold that is not worth much.
pub(crate) fn with_side(bytes: &[u8]) -> Options {
    let mut options = options();
    options.side = Some(Arc::new(bytes.to_vec()));
    options.hold = no_hold();
    options
}
