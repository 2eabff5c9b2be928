//! What holds for every image: extents cover the disk exactly, the same for any window, and both ways
//! read the same.

use longshore_image::{Extent, ExtentKind, all_extents};
use proptest::prelude::*;

use crate::builder::{Builder, SECTOR, Tables, pattern};
use crate::esx_builder::{Se, cowd, sesparse};
use crate::files::descriptor;
use crate::support::{open, options, push_all, random, read_chain, same};

#[derive(Debug, Clone)]
struct Sample {
    builder: Builder,
    grains: Vec<(u64, Vec<u8>)>,
}

impl Sample {
    fn disk(&self) -> Vec<u8> {
        let mut disk = vec![0; self.builder.capacity as usize * SECTOR];
        for (lba, data) in &self.grains {
            let start = *lba as usize * SECTOR;
            let end = (start + data.len()).min(disk.len());
            disk[start..end].copy_from_slice(&data[..end - start]);
        }
        disk
    }
}

fn sample() -> impl Strategy<Value = Sample> {
    let shape = (
        prop_oneof![Just(1_u64), Just(8), Just(16)],
        prop_oneof![Just(1_u32), Just(5), Just(128), Just(130), Just(512)],
        0_u64..3000,
        0..4_u8,
    );
    (
        shape,
        prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        any::<u64>(),
    )
        .prop_map(|((grain, gtes, capacity, kind), picks, seed)| {
            let base = if kind == 3 {
                Builder::sparse(capacity)
            } else {
                Builder::stream(capacity)
            };
            let builder = Builder {
                grain,
                gtes,
                tables: match kind {
                    0 => Tables::Behind,
                    1 => Tables::FrontWithEnd,
                    _ => Tables::Front,
                },
                flags: if kind == 0 {
                    base.flags
                } else {
                    base.flags | 2
                },
                ..base
            };
            let count = capacity.div_ceil(grain) as usize;
            let mut numbers: Vec<u64> = picks
                .iter()
                .filter(|_| count > 0)
                .map(|pick| pick.index(count) as u64)
                .collect();
            numbers.sort_unstable();
            numbers.dedup();
            // In an order of its own.
            numbers.sort_by_key(|n| n.wrapping_mul(seed | 1));
            let grains = numbers
                .into_iter()
                .map(|n| {
                    let data = pattern(seed.wrapping_add(n), grain as usize * SECTOR);
                    (n * grain, data)
                })
                .collect();
            Sample { builder, grains }
        })
}

/// Sorted, disjoint, coalesced, covering `range` exactly.
fn check_invariant(extents: &[Extent], range: std::ops::Range<u64>) {
    let mut next = None;
    for pair in extents.windows(2) {
        let mut joined = pair[0].clone();
        assert!(!joined.join(&pair[1]), "{pair:?} are one");
    }
    for (i, extent) in extents.iter().enumerate() {
        assert!(!extent.is_empty());
        match next {
            None if i == 0 => {
                let early = matches!(extent.kind, ExtentKind::Compressed { .. });
                assert!(
                    extent.guest.start == range.start || early && extent.guest.start < range.start
                );
                assert!(extent.guest.end > range.start);
            }
            _ => assert_eq!(Some(extent.guest.start), next),
        }
        next = Some(extent.guest.end);
    }
    assert_eq!(next.unwrap_or(range.start), range.end.max(range.start));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn extents_cover_the_disk_and_both_ways_agree(sample in sample(), chunk in 1_usize..5000) {
        let built = sample.builder.build(&sample.grains);
        let disk = sample.disk();
        let image = open(&built.bytes).unwrap();
        check_invariant(&all_extents(image.as_ref()).unwrap(), 0..image.virtual_size());
        same(&random(&built.bytes).unwrap(), &disk, "random access");
        let pieces = push_all(&built.bytes, chunk, options(None)).unwrap();
        same(&pieces.disk(), &disk, "stream");
    }

    #[test]
    fn a_window_shows_what_the_whole_shows(sample in sample(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let built = sample.builder.build(&sample.grains);
        let image = open(&built.bytes).unwrap();
        let size = image.virtual_size();
        let (a, b) = (a.index(size as usize + 1) as u64, b.index(size as usize + 1) as u64);
        let range = a.min(b)..a.max(b);
        let window: Vec<Extent> = image.extents(range.clone()).collect::<Result<_, _>>().unwrap();
        check_invariant(&window, range.clone());
        let whole = all_extents(image.as_ref()).unwrap();
        for extent in &window {
            let same_kind = whole.iter().find(|e| e.guest.start <= extent.guest.start && e.guest.end >= extent.guest.end).unwrap();
            let cut = same_kind.clip(&extent.guest).unwrap();
            match (cut.kind, extent.kind) {
                // How much there is at most depends on what the walk has seen.
                (ExtentKind::Compressed { at: a, .. }, ExtentKind::Compressed { at: b, .. }) => assert_eq!(a, b),
                (a, b) => assert_eq!(a, b),
            }
        }
        // Beyond the disk there is nothing.
        prop_assert_eq!(image.extents(size..u64::MAX).count(), 0);
    }
}

/// A part of a disk of several files: its line, its file, its bytes of the disk.
fn part(kind: u8, sectors: u64, picks: &[u64], number: usize) -> (String, Vec<u8>, Vec<u8>) {
    let name = format!("{number}.vmdk");
    let mut disk = vec![0; sectors as usize * SECTOR];
    let grain = match kind {
        2 => 16,
        3 => 4,
        _ => 8,
    };
    let mut chosen: Vec<u64> = picks.iter().map(|p| p % sectors.div_ceil(grain)).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen.sort_by_key(|n| n.wrapping_mul(0x9E37_79B9));
    let grains: Vec<(u64, Vec<u8>)> = chosen
        .into_iter()
        .map(|n| (n * grain, pattern(n + 1, grain as usize * SECTOR)))
        .collect();
    for (lba, data) in &grains {
        let start = *lba as usize * SECTOR;
        let end = (start + data.len()).min(disk.len());
        disk[start..end].copy_from_slice(&data[..end - start]);
    }
    let (word, bytes) = match kind {
        0 => {
            return (
                format!("RW {sectors} ZERO"),
                Vec::new(),
                vec![0; disk.len()],
            );
        }
        1 => {
            let mut bytes = vec![0xEE; 3 * SECTOR];
            bytes.extend(&disk);
            return (format!("RW {sectors} FLAT \"{name}\" 3"), bytes, disk);
        }
        2 => ("SPARSE", Builder::sparse(sectors).build(&grains).bytes),
        3 => ("VMFSSPARSE", cowd(sectors as u32, 4, &grains).bytes),
        _ => {
            let grains: Vec<_> = grains
                .into_iter()
                .map(|(lba, data)| (lba / 8, Se::Data(data)))
                .collect();
            ("SESPARSE", sesparse(sectors, &grains).bytes)
        }
    };
    (format!("RW {sectors} {word} \"{name}\""), bytes, disk)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_of_any_kind_cover_the_disk_and_any_window_of_it(
        parts in prop::collection::vec((0..5_u8, 1_u64..600, prop::collection::vec(any::<u64>(), 0..6)), 1..8),
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let mut lines = Vec::new();
        let mut disk = Vec::new();
        let mut files = crate::rules_files::Files::default();
        for (number, (kind, sectors, picks)) in parts.iter().enumerate() {
            let (line, bytes, part) = part(*kind, *sectors, picks, number);
            lines.push(line);
            disk.extend(part);
            files = files.with(&format!("{number}.vmdk"), &bytes);
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let image = files.open(&descriptor("custom", &lines)).unwrap();
        let whole = all_extents(image.as_ref()).unwrap();
        check_invariant(&whole, 0..disk.len() as u64);
        let (a, b) = (a.index(disk.len() + 1) as u64, b.index(disk.len() + 1) as u64);
        let range = a.min(b)..a.max(b);
        let window: Vec<Extent> = image.extents(range.clone()).collect::<Result<_, _>>().unwrap();
        check_invariant(&window, range.clone());
        let clipped: Vec<Extent> = whole.iter().filter_map(|extent| extent.clip(&range)).collect();
        prop_assert_eq!(clipped, window);
        same(&read_chain(image).unwrap(), &disk, "the disk");
    }
}
