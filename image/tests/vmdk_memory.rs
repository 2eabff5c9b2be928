//! Damaged VMDKs: whatever is wrong with them, nothing panics, and memory stays within the limits. A
//! process of its own, so that its peak is this test's.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests build small images by hand and fail by panicking"
)]

#[path = "vmdk/builder.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod builder;

use std::ops::Range;
use std::sync::Arc;

use longshore_image::chain::Chain;
use longshore_image::cluster::ClusterDecoder;
use longshore_image::forward::{Emit, Finish, Geometry, MemoryHold, Options, PieceKind};
use longshore_image::{DenyAll, ExtentKind, Limits, ReadAt, ReadAtExt, Result, vmdk};

use builder::{Builder, GRAIN_SECTORS as G, SECTOR, Tables, pattern};

/// Tables may take this much, in bytes.
const TABLES: u64 = 1 << 20;

/// More extents than an honest image of this size has.
const ENOUGH: usize = 5000;

/// Pseudo-random numbers, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }
}

fn images() -> Vec<Vec<u8>> {
    let grains: Vec<_> = [40, 0, 3, 520]
        .into_iter()
        .map(|n| (n * G, pattern(n, G as usize * SECTOR)))
        .collect();
    let mut images = vec![Builder::sparse(530 * G).build(&grains).bytes];
    for tables in [Tables::Behind, Tables::Front, Tables::FrontWithEnd] {
        let builder = Builder {
            tables,
            ..Builder::stream(530 * G)
        };
        images.push(builder.build(&grains).bytes);
    }
    images
}

/// Reads all that a grain at most can make us read, and keeps nothing.
struct Sink {
    decoder: Option<ClusterDecoder>,
    out: Vec<u8>,
}

impl Emit for Sink {
    fn geometry(&mut self, geometry: &Geometry) -> Result<()> {
        assert!(geometry.cluster_size <= 2 << 20);
        self.decoder = Some(ClusterDecoder::new(geometry.codec));
        Ok(())
    }

    fn piece(&mut self, guest: Range<u64>, kind: PieceKind, bytes: &[u8]) -> Result<()> {
        assert!(!guest.is_empty());
        if kind == PieceKind::Compressed {
            self.out.resize((guest.end - guest.start) as usize, 0);
            // What does not inflate is the caller's to report.
            let _ = self.decoder.as_mut().unwrap().decode(bytes, &mut self.out);
        }
        Ok(())
    }
}

fn walk(bytes: &Arc<Vec<u8>>) -> Result<()> {
    let file: Arc<dyn ReadAt> = Arc::clone(bytes) as Arc<dyn ReadAt>;
    let limits = Limits::with_table_bytes(TABLES);
    let image = vmdk::open(file, &DenyAll, &limits)?;
    let chain = Chain::new(Arc::clone(&image))?;
    let mut decoder = ClusterDecoder::new(image.cluster_codec());
    let mut out = Vec::new();
    for extent in chain.extents().take(ENOUGH) {
        let extent = extent?.extent;
        if let ExtentKind::Compressed { at, len } = extent.kind {
            assert!(extent.len() <= 2 << 20 && len < 3 << 20);
            let there = image.data().len().saturating_sub(at).min(u64::from(len));
            let packed = image.data().read_vec_at(at, there as usize, "a grain")?;
            out.resize(extent.len() as usize, 0);
            let _ = decoder.decode(&packed, &mut out);
        }
    }
    Ok(())
}

fn pass(bytes: &Arc<Vec<u8>>, chunk: usize, side: bool) -> Result<()> {
    let mut sink = Sink {
        decoder: None,
        out: Vec::new(),
    };
    let mut decoder = vmdk::decoder(Options {
        limits: Limits::with_table_bytes(TABLES),
        hold: Box::new(MemoryHold::new(64 << 10)),
        side: side.then(|| Arc::clone(bytes) as Arc<dyn ReadAt>),
        reopenable: !side,
        stream_len: side.then_some(ReadAt::len(bytes)),
    })?;
    for _ in 0..4 {
        for part in bytes.chunks(chunk) {
            decoder.push(part, &mut sink)?;
        }
        if let Finish::Done { .. } = decoder.finish(&mut sink)? {
            return Ok(());
        }
    }
    panic!("passes do not end");
}

#[test]
fn damaged_images_are_read_or_refused_in_bounded_memory() {
    let mut dice = Dice(0x1234_5678_9ABC_DEF1);
    let images = images();
    let mut refused = 0_u32;
    for round in 0..6000 {
        let mut bytes = images[round % images.len()].clone();
        for _ in 0..=dice.roll(3) {
            // Mostly where structures are: the header, the first tables, the end.
            let at = match dice.roll(5) {
                0 | 1 => dice.roll(90),
                2 => 21 * SECTOR + dice.roll(16 * SECTOR),
                3 => bytes.len() - 1 - dice.roll(8 * SECTOR).min(bytes.len() - 1),
                _ => dice.roll(bytes.len()),
            };
            let at = at.min(bytes.len() - 4);
            match dice.roll(4) {
                0 => bytes[at] ^= 1 << dice.roll(8),
                1 => bytes[at] = dice.roll(256) as u8,
                2 => bytes[at..at + 4].fill(if dice.roll(2) == 0 { 0 } else { 0xFF }),
                _ => bytes.truncate(at.max(4)),
            }
            if bytes.len() < 8 {
                break;
            }
        }
        let bytes = Arc::new(bytes);
        let results = [
            walk(&bytes),
            pass(&bytes, 1 << 20, false),
            pass(&bytes, 1000, true),
        ];
        refused += u32::from(results.iter().any(Result::is_err));
    }
    assert!(
        refused > 1000,
        "only {refused} were refused: the dice are loaded"
    );
    // Memory of the process: the images, the sinks and twice the limit; nothing an image asked for.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        assert!(peak.unwrap() < 48 << 10, "the peak was {peak:?} KiB");
    }
}
