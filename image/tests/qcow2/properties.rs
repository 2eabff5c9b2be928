//! Properties of any image: generated tables in any order, and damaged ones.

use std::ops::Range;
use std::sync::Arc;

use longshore_image::forward::{MAX_PASSES, MemoryHold};
use longshore_image::{ErrorKind, Extent, ExtentKind, Image, all_extents};
use proptest::prelude::*;

use crate::builder::{COMPRESSED, COPIED, ZERO, deflate};
use crate::support::{Forward, open, options, random, same, with_side};

/// What a cluster of a generated image is.
#[derive(Debug, Clone)]
enum Kind {
    Nothing,
    Zero,
    /// Zero with a place in the file.
    ZeroAllocated,
    Data,
    /// In the same cluster of the file as the data before it.
    Shared,
    Compressed,
    /// Subclusters: allocated, zero. As [`Kind::Data`] where entries are not extended.
    Split(u32, u32),
}

/// An image, and the disk that it means.
#[derive(Clone)]
struct Generated {
    image: Vec<u8>,
    disk: Vec<u8>,
    /// Where damage is interesting.
    tables: Vec<Range<usize>>,
}

impl std::fmt::Debug for Generated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, tables {:x?}", self.image.len(), self.tables)
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Nothing),
        1 => Just(Kind::Zero),
        1 => Just(Kind::ZeroAllocated),
        4 => Just(Kind::Data),
        1 => Just(Kind::Shared),
        4 => Just(Kind::Compressed),
        3 => (any::<u32>(), any::<u32>()).prop_map(|(a, z)| Kind::Split(a, z & !a)),
    ]
}

/// Runs of clusters of one kind, so that there is something to join and skip.
fn images() -> impl Strategy<Value = Generated> {
    (
        prop_oneof![Just((9_u32, false)), Just((11, false)), Just((14, true))],
        proptest::collection::vec((kinds(), 1..20_usize), 1..30),
        0..20_usize,
        any::<u64>(),
        any::<bool>(),
    )
        .prop_map(|((bits, extended), runs, cut, seed, shuffled)| {
            let clusters: Vec<Kind> = runs
                .into_iter()
                .flat_map(|(kind, n)| {
                    std::iter::repeat_n(kind, if extended { n.min(3) } else { n })
                })
                .collect();
            generate(bits, extended, &clusters, cut, shuffled.then_some(seed))
        })
}

/// How far from the start of the file tables and clusters begin.
const LEAD: usize = 64 << 10;

/// Where everything is in a generated image: in the order of the disk, or shuffled by `seed`.
struct Layout {
    /// Bytes per cluster, per entry, and entries per table.
    size: usize,
    width: usize,
    per_table: usize,
    tables: usize,
    l1: usize,
    /// Offsets of the tables, then of clusters as they are needed.
    places: Vec<usize>,
    next: usize,
    image: Vec<u8>,
}

impl Layout {
    fn new(bits: u32, extended: bool, clusters: &[Kind], seed: Option<u64>) -> Self {
        let size = 1_usize << bits;
        let width = if extended { 16 } else { 8 };
        let tables = clusters.len().div_ceil(size / width);
        let l1_clusters = (tables * 8).div_ceil(size);
        let elsewhere = |kind: &&Kind| !matches!(kind, Kind::Nothing | Kind::Zero | Kind::Shared);
        let blocks = tables + clusters.iter().filter(elsewhere).count();
        let mut order: Vec<usize> = (0..blocks).collect();
        if let Some(mut state) = seed {
            for i in (1..order.len()).rev() {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                order.swap(i, (state >> 33) as usize % (i + 1));
            }
        }
        let l1_first = seed.is_none_or(|seed| seed % 3 > 0);
        // Behind what a stream holds until the whole header may have passed: else that sees it all.
        let start = LEAD >> bits;
        let l1 = if l1_first { start } else { start + blocks };
        let first = start + if l1_first { l1_clusters } else { 0 };
        Self {
            size,
            width,
            per_table: size / width,
            tables,
            l1: l1 * size,
            places: order.iter().map(|at| (first + at) * size).collect(),
            next: tables,
            image: vec![0; (start + blocks + l1_clusters) * size],
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn be64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_be_bytes());
    }

    fn headers(&mut self, bits: u32, extended: bool, virtual_size: usize) {
        self.put(0, b"QFI\xfb\0\0\0\x03");
        self.put(20, &bits.to_be_bytes());
        self.be64(24, virtual_size as u64);
        self.put(36, &(self.tables as u32).to_be_bytes());
        self.be64(40, self.l1 as u64);
        self.be64(72, if extended { 16 } else { 0 });
        self.put(96, &[0, 0, 0, 4, 0, 0, 0, 104]);
        for table in 0..self.tables {
            self.be64(self.l1 + table * 8, self.places[table] as u64 | COPIED);
        }
    }

    fn block(&mut self) -> usize {
        self.next += 1;
        self.places[self.next - 1]
    }

    fn full(&mut self, byte: u8) -> usize {
        let at = self.block();
        let size = self.size;
        self.image[at..at + size].fill(byte);
        at
    }

    /// Entry of cluster `index` of the disk.
    fn entry_at(&self, index: usize) -> usize {
        self.places[index / self.per_table] + index % self.per_table * self.width
    }
}

fn generate(
    bits: u32,
    extended: bool,
    clusters: &[Kind],
    cut: usize,
    seed: Option<u64>,
) -> Generated {
    let mut to = Layout::new(bits, extended, clusters, seed);
    let size = to.size;
    let virtual_size = clusters.len() * size - cut * 20;
    to.headers(bits, extended, virtual_size);
    let mut disk = vec![0; clusters.len() * size];
    let (mut last, mut pack) = (None, 0..0);
    let all = u64::from(u32::MAX);
    for (index, kind) in clusters.iter().enumerate() {
        let guest = &mut disk[index * size..(index + 1) * size];
        let byte = (index % 255) as u8 + 1;
        let zero = if extended { 0 } else { ZERO };
        let (entry, bitmap) = match kind {
            Kind::Nothing => (0, 0),
            Kind::Zero => (zero, all << 32),
            Kind::ZeroAllocated => (to.block() as u64 | zero, all << 32),
            Kind::Data => {
                let at = to.full(byte);
                guest.fill(byte);
                last = Some((at, byte));
                (at as u64 | COPIED, all)
            }
            Kind::Shared => match last {
                None => (0, 0),
                Some((at, byte)) => {
                    guest.fill(byte);
                    (at as u64, all)
                }
            },
            Kind::Split(allocated, zero) => {
                let allocated = if extended { *allocated } else { u32::MAX };
                let at = to.full(byte);
                for (sub, part) in guest.chunks_mut(size / 32).enumerate() {
                    if allocated >> sub & 1 == 1 {
                        part.fill(byte);
                    }
                }
                let bitmap = u64::from(*zero) << 32 | u64::from(allocated);
                (at as u64, bitmap)
            }
            Kind::Compressed => {
                let packed = deflate(&vec![byte; size]);
                if pack.len() < packed.len() {
                    let at = to.block();
                    pack = at..at + size;
                }
                let at = pack.start as u64;
                to.put(pack.start, &packed);
                pack.start += packed.len();
                guest.fill(byte);
                let sectors = (pack.start as u64).div_ceil(512) - at / 512;
                (COMPRESSED | (sectors - 1) << (70 - bits) | at, 0)
            }
        };
        let at = to.entry_at(index);
        to.be64(at, entry);
        if extended {
            to.be64(at + 8, bitmap);
        }
    }
    disk.truncate(virtual_size);
    let mut spots = vec![0..112, to.l1..to.l1 + to.tables * 8];
    spots.extend(to.places[..to.tables].iter().map(|&at| at..at + size));
    Generated {
        image: to.image,
        disk,
        tables: spots,
    }
}

fn invariant(extents: &[Extent], range: Range<u64>) {
    let mut next = range.start;
    for (i, extent) in extents.iter().enumerate() {
        let first_is_whole = i == 0 && matches!(extent.kind, ExtentKind::Compressed { .. });
        assert!(extent.guest.start == next || first_is_whole && extent.guest.start < next);
        assert!(extent.guest.start < extent.guest.end);
        next = extent.guest.end;
    }
    assert_eq!(next, range.end, "the range is covered");
    for pair in extents.windows(2) {
        assert!(!pair[0].clone().join(&pair[1]), "not coalesced: {pair:?}");
    }
}

fn window(image: &Arc<dyn Image>, range: Range<u64>) -> Vec<Extent> {
    image.extents(range).collect::<Result<_, _>>().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn extents_are_sorted_disjoint_coalesced_and_covering(generated in images(), a: u64, b: u64) {
        let image = open(generated.image).unwrap();
        let size = image.virtual_size();
        let all = all_extents(image.as_ref()).unwrap();
        invariant(&all, 0..size);
        // Any window shows what the whole shows there.
        let (a, b) = (a % size, b % size);
        let range = a.min(b)..a.max(b) + 1;
        let part = window(&image, range.clone());
        invariant(&part, range.clone());
        let cut: Vec<Extent> = all.iter().filter_map(|extent| extent.clip(&range)).collect();
        prop_assert_eq!(part, cut);
        prop_assert_eq!(window(&image, size..size + 10), []);
    }

    #[test]
    fn tables_in_any_order_mean_the_same_disk_along_every_road(
        generated in images(),
        chunk in prop_oneof![1..100_usize, 500..520_usize, 1000..100_000_usize],
        hold in 0..20_000_u64,
    ) {
        let Generated { image, disk, .. } = generated;
        same("random", &random(&open(image.clone()).unwrap()).unwrap(), &disk);
        let run = |options| Forward::new(options).chunk(chunk).run(&image);
        let some_hold = || Box::new(MemoryHold::new(hold));
        let mut side = with_side(&image);
        side.hold = some_hold();
        let seen = run(side).unwrap();
        same("side", &seen.disk, &disk);
        prop_assert_eq!(seen.passes, 1);
        let mut again = options();
        again.hold = some_hold();
        again.reopenable = true;
        let seen = run(again).unwrap();
        same("passes", &seen.disk, &disk);
        prop_assert!(seen.passes <= MAX_PASSES);
        let mut small = options();
        small.hold = some_hold();
        for options in [options(), small] {
            match run(options) {
                Ok(seen) => same("one shot", &seen.disk, &disk),
                Err(e) => prop_assert_eq!(e.kind(), ErrorKind::TablesFollowData),
            }
        }
    }

    #[test]
    fn tables_in_front_of_their_data_need_no_hold(
        clusters in proptest::collection::vec(prop_oneof![Just(Kind::Data), Just(Kind::Nothing), Just(Kind::Zero)], 1..300),
        chunk in 1..2000_usize,
    ) {
        let generated = generate(9, false, &clusters, 0, None);
        let mut options = options();
        // The gap behind the header is all that nothing is known about.
        options.hold = Box::new(MemoryHold::new(LEAD as u64));
        let seen = Forward::new(options).chunk(chunk).run(&generated.image).unwrap();
        same("in order", &seen.disk, &generated.disk);
    }

    #[test]
    fn damaged_tables_are_read_the_same_or_refused_both_ways(
        generated in images(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
        chunk in 1..5000_usize,
    ) {
        let Generated { mut image, tables, .. } = generated;
        for (table, byte, value) in damage {
            let table = table.get(&tables).clone();
            let at = table.start + byte.index(table.len());
            image[at] = value;
        }
        let opened = open(image.clone());
        if opened.as_ref().is_ok_and(|image| image.virtual_size() > 64 << 20) {
            return Ok(());
        }
        let at_random = opened.and_then(|image| random(&image));
        let forward = Forward::new(with_side(&image)).chunk(chunk).run(&image);
        match (at_random, forward) {
            (Ok(a), Ok(b)) => same("damaged", &b.disk, &a),
            (Err(_), Err(_)) => {}
            (a, b) => prop_assert!(false, "random {:?}, forward {:?}", a.err(), b.err()),
        }
    }
}
