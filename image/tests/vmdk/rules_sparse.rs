//! monolithicSparse: one test per rule.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use longshore_image::ErrorKind::{LimitExceeded, Malformed, Unsupported};
use longshore_image::{DenyAll, Extent, ExtentKind, Limits, ReadAt, all_extents, vmdk};

use crate::builder::{Builder, Built, GRAIN_SECTORS as G, SECTOR, get32, pattern, put32, put64};
use crate::support::{both_fail, both_read, open, options, push_all, random_fails};

const GRAIN: usize = G as usize * SECTOR;
const DISK: u64 = 1200 * G + 5;

fn grains() -> Vec<(u64, Vec<u8>)> {
    [2, 0, 600, 1, 1200]
        .into_iter()
        .map(|n| {
            (
                n * G,
                pattern(n + 1, if n == 1200 { 5 * SECTOR } else { GRAIN }),
            )
        })
        .collect()
}

fn disk() -> Vec<u8> {
    let mut disk = vec![0; DISK as usize * SECTOR];
    for (lba, data) in grains() {
        let start = lba as usize * SECTOR;
        disk[start..start + data.len()].copy_from_slice(&data);
    }
    disk
}

fn sparse() -> Built {
    Builder::sparse(DISK).build(&grains())
}

#[test]
fn grains_in_any_order_are_read() {
    both_read(&sparse().bytes, &disk());
}

/// An image with holes, which remembers what was read.
#[derive(Debug)]
struct Holey {
    bytes: Vec<u8>,
    data: Vec<Range<u64>>,
    read: Mutex<Vec<Range<u64>>>,
}

impl ReadAt for Holey {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        let range = offset..offset + buf.len() as u64;
        self.read.lock().unwrap().push(range);
        self.bytes.read_exact_at(buf, offset)
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn next_data(&self, from: u64) -> std::io::Result<Option<Range<u64>>> {
        let found = self.data.iter().find(|data| data.end > from);
        Ok(found.map(|data| data.start.max(from)..data.end))
    }
}

#[test]
fn grain_tables_that_lie_in_holes_are_not_read() {
    // 1000 tables of 2 KiB; one grain is in the first, one in the 700th.
    let (tables, span) = (1000, 512 * G);
    let grains = [(5 * G, pattern(1, GRAIN)), (700 * span, pattern(2, GRAIN))];
    let built = Builder::sparse(tables * span).build(&grains);
    let (first, last) = (built.tables[&0] as u64, built.tables[&(tables - 1)] as u64);
    let written = built.tables[&700] as u64;
    let page = written / 4096 * 4096;
    let file = Arc::new(Holey {
        data: vec![
            0..first + 4096,
            page..page + 4096,
            last + 2048..built.bytes.len() as u64,
        ],
        bytes: built.bytes.clone(),
        read: Mutex::default(),
    });
    let image = vmdk::open(Arc::clone(&file) as _, &DenyAll, &Limits::default()).unwrap();
    file.read.lock().unwrap().clear();
    let found = all_extents(image.as_ref()).unwrap();
    assert_eq!(
        found,
        all_extents(open(&built.bytes).unwrap().as_ref()).unwrap()
    );
    assert_eq!(found.len(), 5, "{found:?}");
    let read = file.read.lock().unwrap().clone();
    assert_eq!(read.len(), 2, "{read:x?}");
    assert!(read[1].contains(&written), "{read:x?}");
}

#[test]
fn neighbours_in_the_file_are_one_extent() {
    let grains: Vec<_> = (3..9).map(|n| (n * G, pattern(n, GRAIN))).collect();
    let built = Builder::sparse(20 * G).build(&grains);
    let at = built.grains[&(3 * G)] as u64;
    let grain = GRAIN as u64;
    assert_eq!(
        all_extents(open(&built.bytes).unwrap().as_ref()).unwrap(),
        [
            Extent {
                guest: 0..3 * grain,
                kind: ExtentKind::Zero
            },
            Extent {
                guest: 3 * grain..9 * grain,
                kind: ExtentKind::Data { at }
            },
            Extent {
                guest: 9 * grain..20 * grain,
                kind: ExtentKind::Zero
            },
        ]
    );
}

#[test]
fn every_grain_and_table_size_is_read() {
    for (grain, gtes) in [(8, 512), (1, 512), (128, 1), (128, 100), (8192, 2)] {
        let capacity = grain * 70 + 3;
        let grains: Vec<_> = [65, 0, 3]
            .into_iter()
            .map(|n| (n * grain, pattern(n, grain as usize * SECTOR)))
            .collect();
        let mut disk = vec![0; capacity as usize * SECTOR];
        for (lba, data) in &grains {
            let start = *lba as usize * SECTOR;
            disk[start..start + data.len()].copy_from_slice(data);
        }
        let builder = Builder {
            grain,
            gtes,
            ..Builder::sparse(capacity)
        };
        both_read(&builder.build(&grains).bytes, &disk);
    }
}

#[test]
fn versions_one_to_three_are_read_and_others_are_not() {
    for version in 1..=3 {
        let built = Builder {
            version,
            ..Builder::sparse(DISK)
        }
        .build(&grains());
        both_read(&built.bytes, &disk());
    }
    for version in [0, 4] {
        let built = Builder {
            version,
            ..Builder::sparse(DISK)
        }
        .build(&grains());
        both_fail(&built.bytes, Unsupported);
    }
}

#[test]
fn the_redundant_directory_helps_where_the_first_is_unusable() {
    let built = sparse();
    // The directory is over the header, or gone; the stream of known length tells at once.
    for at in [0, 1, 1 << 40] {
        let mut bytes = built.bytes.clone();
        put64(&mut bytes, 56, at);
        let mut options = options(Some(bytes.len() as u64));
        options.side = Some(std::sync::Arc::new(bytes.clone()));
        assert!(push_all(&bytes, 4096, options).unwrap().disk() == disk());
        assert!(crate::support::random(&bytes).unwrap() == disk());
    }
    // An entry of it is bad: its copies have passed by then, so a stream needs a second look.
    for entry in [1, 20, u32::MAX] {
        let mut bytes = built.bytes.clone();
        put32(&mut bytes, built.directory + 4, entry);
        assert!(crate::support::random(&bytes).unwrap() == disk(), "{entry}");
        for (side, reopenable) in [(true, false), (false, true)] {
            let mut options = options(Some(bytes.len() as u64));
            options.side = side.then(|| {
                let side: std::sync::Arc<dyn longshore_image::ReadAt> =
                    std::sync::Arc::new(bytes.clone());
                side
            });
            options.reopenable = reopenable;
            assert!(
                push_all(&bytes, 4096, options).unwrap().disk() == disk(),
                "{entry}"
            );
        }
        // Nothing helps if both are bad, or if there is no other.
        put32(&mut bytes, built.directory_copy + 4, entry);
        random_fails(&bytes, Malformed);
        let mut bytes = built.bytes.clone();
        put32(&mut bytes, built.directory + 4, entry);
        put32(&mut bytes, 8, 1);
        both_fail(&bytes, Malformed);
    }
}

#[test]
fn zeroed_grains_hide_what_a_parent_has_and_read_as_zeros() {
    let mut built = Builder {
        flags: 7,
        version: 2,
        ..Builder::sparse(DISK)
    }
    .build(&grains());
    for table in [built.tables[&0], built.copies[&0]] {
        put32(&mut built.bytes, table + 4 * 7, 1);
    }
    both_read(&built.bytes, &disk());
    let mut bytes = built.bytes.clone();
    put32(&mut bytes, 8, 3);
    both_fail(&bytes, Malformed);
}

#[test]
fn tables_that_can_not_be_where_they_are_said_to_be_are_errors() {
    let built = Builder {
        flags: 1,
        ..Builder::sparse(DISK)
    }
    .build(&grains());
    let sectors = (built.bytes.len() / SECTOR) as u64;
    for at in [0, 1, 20, sectors, 1 << 40, 1 << 60] {
        let mut bytes = built.bytes.clone();
        put64(&mut bytes, 56, at);
        both_fail(&bytes, Malformed);
    }
    for at in [1, 20, sectors as u32 - 1, sectors as u32, u32::MAX] {
        let mut bytes = built.bytes.clone();
        put32(&mut bytes, built.directory + 8, at);
        both_fail(&bytes, Malformed);
    }
}

#[test]
fn grains_that_can_not_be_where_they_are_said_to_be_are_errors() {
    let built = sparse();
    let sectors = (built.bytes.len() / SECTOR) as u32;
    for at in [1, 20, sectors, sectors + 1000, u32::MAX] {
        let mut bytes = built.bytes.clone();
        put32(&mut bytes, built.tables[&0] + 8, at);
        both_fail(&bytes, Malformed);
    }
}

#[test]
fn images_cut_at_any_structure_are_truncated() {
    let built = sparse();
    let last = built.grains.values().max().copied().unwrap();
    let mut cuts = vec![4, 511, 512, 21 * SECTOR - 1, 21 * SECTOR];
    for &at in built
        .tables
        .values()
        .chain([&built.directory])
        .chain(built.grains.values())
    {
        cuts.extend([at - 1, at, at + 1, at + SECTOR]);
    }
    for cut in cuts {
        if cut > last {
            continue;
        }
        both_fail(&built.bytes[..cut], Malformed);
    }
    // What QEMU has not written of the last grain is zeros.
    let cut = last + 2 * SECTOR;
    let mut disk = disk();
    let end = disk.len();
    disk[end - 3 * SECTOR..].fill(0);
    both_read(&built.bytes[..cut], &disk);
}

#[test]
fn shared_grains_are_legal_but_not_thousands_of_times() {
    let built = sparse();
    let grain = get32(&built.bytes, built.tables[&0]);
    let mut bytes = built.bytes.clone();
    put32(&mut bytes, built.tables[&0] + 40, grain);
    put32(&mut bytes, built.copies[&0] + 40, grain);
    let mut expected = disk();
    expected.copy_within(0..GRAIN, 10 * GRAIN);
    assert!(crate::support::random(&bytes).unwrap() == expected);

    // A terabyte out of one grain.
    let mut built = Builder::sparse(1 << 28).build(&[(0, pattern(1, GRAIN))]);
    let grain = get32(&built.bytes, built.tables[&0]);
    let table = (built.tables[&0] / SECTOR) as u32;
    for &number in built.tables.keys() {
        put32(
            &mut built.bytes,
            built.directory + 4 * number as usize,
            table,
        );
    }
    for entry in 0..512 {
        put32(&mut built.bytes, built.tables[&0] + 4 * entry, grain);
    }
    let image = open(&built.bytes).unwrap();
    let chain = longshore_image::chain::Chain::new(image).unwrap();
    let e = chain.extents().find_map(Result::err).unwrap();
    assert_eq!(e.kind(), LimitExceeded);
    let e = crate::support::count_forward(&built.bytes, options(None)).unwrap_err();
    assert_eq!(e.kind(), LimitExceeded);
}

#[test]
fn an_extent_of_a_split_disk_is_refused() {
    let mut built = sparse();
    built.bytes[28..44].fill(0);
    both_fail(&built.bytes, Unsupported);
    let builder = Builder::sparse(DISK);
    let built = Builder {
        descriptor: builder
            .descriptor
            .replace("monolithicSparse", "twoGbMaxExtentSparse"),
        ..builder
    }
    .build(&grains());
    both_fail(&built.bytes, Unsupported);
}

#[test]
fn a_directory_at_the_end_is_only_for_streams() {
    let mut built = sparse();
    put64(&mut built.bytes, 56, u64::MAX);
    both_fail(&built.bytes, Malformed);
}

#[test]
fn directories_larger_than_allowed_are_refused_with_the_amount() {
    let mut built = Builder {
        grain: 1,
        gtes: 2,
        flags: 1,
        ..Builder::sparse(4)
    }
    .build(&[]);
    put64(&mut built.bytes, 12, 4 << 20);
    built.bytes.resize(9 << 20, 0);
    let limits = Limits::with_table_bytes(1 << 20);
    let e = vmdk::open(std::sync::Arc::new(built.bytes.clone()), &DenyAll, &limits).unwrap_err();
    assert_eq!(
        (e.kind(), e.needed().unwrap() >= 8 << 20),
        (LimitExceeded, true)
    );
    let mut options = options(None);
    options.limits = limits;
    let e = push_all(&built.bytes, 1 << 16, options).unwrap_err();
    assert_eq!(
        (e.kind(), e.needed().unwrap() >= 8 << 20),
        (LimitExceeded, true)
    );
}
