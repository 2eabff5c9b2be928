//! What holds for every image: extents cover the disk exactly, the same for any window, and both ways
//! read the same.

use std::sync::Arc;

use longshore_image::forward::{MemoryHold, Options};
use longshore_image::{Extent, Limits, ReadAt, all_extents};
use proptest::prelude::*;

use crate::builder::{Block, Builder, Built, EntryHead, log_entry, pattern};
use crate::support::{open, push_all, random, same};

#[derive(Debug, Clone)]
struct Sample {
    builder: Builder,
    blocks: Vec<(u64, Block)>,
    /// Entries of the table that are only in the log.
    logged: usize,
}

impl Sample {
    fn build(&self) -> Built {
        let mut built = self.builder.build(&self.blocks);
        if !self.builder.dirty {
            return built;
        }
        let sector = built.bat_at;
        let write = built.sector(sector, &[]);
        let head = EntryHead {
            sequence: 1,
            tail: 8192,
            flushed: 0,
            last: 0,
        };
        built.log(8192, &[log_entry(head, &[write])]);
        for (block, _) in self.blocks.iter().take(self.logged) {
            let at = sector + self.builder.entry_of(*block) as usize * 8;
            built.put(at, &[4; 8]);
        }
        built
    }
}

fn sample() -> impl Strategy<Value = Sample> {
    let block = prop_oneof![
        6 => (0..200_u64).prop_map(|seed| Block::Data(pattern(seed, 3000 + seed as usize * 5000))),
        1 => Just(Block::State(0)),
        1 => Just(Block::State(1)),
        2 => Just(Block::State(2)),
        1 => Just(Block::State(3)),
        1 => Just(Block::State(5)),
    ];
    let shape = (
        0..9000_u64,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        0..4_usize,
    );
    (
        shape,
        prop::collection::vec((any::<prop::sample::Index>(), block), 0..5),
    )
        .prop_map(|((sectors, large, metadata_first, dirty, logged), picks)| {
            let builder = Builder {
                sector: if large { 4096 } else { 512 },
                metadata_first,
                dirty,
                ..Builder::new(if large {
                    sectors / 8 * 4096
                } else {
                    sectors * 512
                })
            };
            let count = builder.size.div_ceil(1 << 20) as usize;
            let mut blocks: Vec<(u64, Block)> = Vec::new();
            for (pick, block) in picks {
                if count > 0 {
                    let n = pick.index(count) as u64;
                    if blocks.iter().all(|(other, _)| *other != n) {
                        blocks.push((n, block));
                    }
                }
            }
            Sample {
                builder,
                blocks,
                logged,
            }
        })
}

/// Sorted, disjoint, coalesced, covering `range` exactly.
fn check_invariant(extents: &[Extent], range: std::ops::Range<u64>) {
    let mut next = range.start;
    for extent in extents {
        assert!(!extent.is_empty());
        assert_eq!(extent.guest.start, next);
        next = extent.guest.end;
    }
    for pair in extents.windows(2) {
        let mut joined = pair[0].clone();
        assert!(!joined.join(&pair[1]), "{pair:?} are one");
    }
    assert_eq!(next, range.end.max(range.start));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn extents_cover_the_disk_and_every_way_agrees(
        sample in sample(),
        chunk in 3000_usize..300_000,
        hold in prop_oneof![Just(0_u64), Just(100_000), Just(16 << 20)],
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let built = sample.build();
        let disk = sample.builder.disk(&sample.blocks);
        let image = open(&built.bytes).unwrap();
        let size = image.virtual_size();
        let whole = all_extents(image.as_ref()).unwrap();
        check_invariant(&whole, 0..size);
        same(&random(&built.bytes).unwrap(), &disk, "random access");

        let (a, b) = (a.index(size as usize + 1) as u64, b.index(size as usize + 1) as u64);
        let range = a.min(b)..a.max(b);
        let window: Vec<Extent> = image.extents(range.clone()).collect::<Result<_, _>>().unwrap();
        check_invariant(&window, range.clone());
        let clipped: Vec<Extent> = whole.iter().filter_map(|e| e.clip(&range)).collect();
        prop_assert_eq!(clipped, window);
        prop_assert_eq!(image.extents(size..u64::MAX).count(), 0);

        // A stream that helps itself: by holding, by asking, by reading again.
        let file: Arc<dyn ReadAt> = Arc::new(built.bytes.clone());
        for (side, reopenable) in [(Some(file), false), (None, true)] {
            let options = Options {
                limits: Limits::default(),
                hold: Box::new(MemoryHold::new(hold)),
                side,
                reopenable,
                stream_len: None,
            };
            let (found, passes) = push_all(&built.bytes, chunk, options).unwrap();
            same(&found, &disk, "stream");
            prop_assert!(passes == 1 || reopenable && passes <= 3);
        }
    }
}
