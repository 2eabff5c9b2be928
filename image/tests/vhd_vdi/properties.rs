//! What holds for every image: extents cover the disk exactly, the same for any window, and both ways
//! read the same.

use std::ops::Range;

use longshore_image::{Extent, Format, Image, all_extents};
use proptest::prelude::*;

use crate::support::{VHD, open, pattern, random, same, stream};
use crate::{vdi_builder, vhd_builder};

#[derive(Debug, Clone)]
struct Sample {
    format: Format,
    image: Vec<u8>,
    disk: Vec<u8>,
}

fn sample() -> impl Strategy<Value = Sample> {
    let shape = (
        prop_oneof![Just(512_u32), Just(1024), Just(4096), Just(32_768)],
        0_u64..80_000,
        0..3_u8,
        0..4_usize,
    );
    let picks = prop::collection::vec(any::<prop::sample::Index>(), 0..30);
    (shape, picks, any::<u64>()).prop_map(|((block, size, kind, gap), picks, seed)| {
        let size = size / 512 * 512;
        let count = size.div_ceil(u64::from(block)) as usize;
        let mut numbers: Vec<usize> = picks
            .iter()
            .filter(|_| count > 0)
            .map(|pick| pick.index(count))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        // In an order of its own.
        numbers.sort_by_key(|&n| (n as u64).wrapping_mul(seed | 1));
        let data = |n: usize| pattern(seed.wrapping_add(n as u64), block as usize);
        if kind == 0 {
            let disk = pattern(seed, size as usize);
            let image = vhd_builder::fixed(&disk, &vhd_builder::Footer::new(2, size));
            return Sample {
                format: VHD,
                image,
                disk,
            };
        }
        if kind == 1 {
            let block = block.max(4096);
            let count = size.div_ceil(u64::from(block)) as usize;
            numbers.retain(|&n| n < count);
            let data = |n: usize| pattern(seed.wrapping_add(n as u64), block as usize);
            let mut builder = vhd_builder::Builder::new(size, block);
            builder.gap = gap;
            for n in numbers {
                builder = builder.block(n as u32, data(n));
            }
            return Sample {
                format: VHD,
                image: builder.build().0,
                disk: builder.disk(&[]),
            };
        }
        let mut builder = vdi_builder::Builder::new(size, block);
        builder.gap = gap * 100;
        for n in numbers {
            builder = builder.block(n, &data(n));
        }
        if let Some(first) = builder.map.first_mut()
            && *first >= vdi_builder::ZERO
        {
            *first = vdi_builder::ZERO;
        }
        Sample {
            format: Format::Vdi,
            image: builder.build(),
            disk: builder.disk(),
        }
    })
}

/// Sorted, disjoint, coalesced, covering `range` exactly.
fn check_invariant(extents: &[Extent], range: Range<u64>) {
    let mut next = range.start;
    for extent in extents {
        assert!(!extent.is_empty());
        assert_eq!(extent.guest.start, next);
        next = extent.guest.end;
    }
    assert_eq!(next, range.end.max(range.start));
    for pair in extents.windows(2) {
        assert!(!pair[0].clone().join(&pair[1]), "{pair:?} are one");
    }
}

fn window(image: &dyn Image, range: Range<u64>) -> Vec<Extent> {
    image.extents(range).map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn extents_cover_the_disk_and_both_ways_agree(sample in sample(), chunk in 1_usize..5000) {
        let image = open(sample.format, &sample.image).unwrap();
        check_invariant(&all_extents(image.as_ref()).unwrap(), 0..image.virtual_size());
        same(&random(sample.format, &sample.image).unwrap(), &sample.disk, "random access");
        let pieces = stream(sample.format, &sample.image, chunk, chunk % 2 == 0).unwrap();
        same(&pieces.disk(), &sample.disk, "stream");
    }

    #[test]
    fn a_window_shows_what_the_whole_shows(sample in sample(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let image = open(sample.format, &sample.image).unwrap();
        let size = image.virtual_size();
        let (a, b) = (a.index(size as usize + 1) as u64, b.index(size as usize + 1) as u64);
        let range = a.min(b)..a.max(b);
        let found = window(image.as_ref(), range.clone());
        check_invariant(&found, range.clone());
        let whole = all_extents(image.as_ref()).unwrap();
        let cut: Vec<_> = whole.iter().filter_map(|extent| extent.clip(&range)).collect();
        prop_assert_eq!(found, cut);
        // Beyond the disk there is nothing.
        prop_assert_eq!(image.extents(size..u64::MAX).count(), 0);
    }
}
