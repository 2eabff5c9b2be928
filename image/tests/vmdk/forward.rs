//! monolithicSparse from streams whose tables come late, and how that ends.

use std::sync::Arc;

use longshore_image::forward::MemoryHold;
use longshore_image::{ErrorKind, Limits, ReadAt, vmdk};

use crate::builder::{Builder, Built, GRAIN_SECTORS as G, SECTOR, get32, pattern, put32, put64};
use crate::support::{both_read, options, push_all, random};

/// An image whose tables have been moved to the end of the file, and its disk.
fn tables_last() -> (Vec<u8>, Vec<u8>) {
    let grains: Vec<_> = [5, 0, 700, 3]
        .into_iter()
        .map(|n| (n * G, pattern(n, G as usize * SECTOR)))
        .collect();
    let capacity = 800 * G;
    let built = Builder {
        flags: 1,
        ..Builder::sparse(capacity)
    }
    .build(&grains);
    let Built {
        mut bytes,
        tables,
        directory,
        ..
    } = built;
    let count = tables.len();
    let first = bytes.len();
    for (&number, &at) in &tables {
        let table = bytes[at..at + 4 * SECTOR].to_vec();
        bytes[at..at + 4 * SECTOR].fill(0xEE);
        put32(
            &mut bytes,
            directory + 4 * number as usize,
            ((first + number as usize * 4 * SECTOR) / SECTOR) as u32,
        );
        bytes.extend_from_slice(&table);
    }
    let moved = bytes[directory..directory + SECTOR].to_vec();
    assert!(get32(&moved, 0) as usize == first / SECTOR && count == 2);
    bytes[directory..directory + SECTOR].fill(0xEE);
    let at = (bytes.len() / SECTOR) as u64;
    put64(&mut bytes, 56, at);
    bytes.extend_from_slice(&moved);
    let mut disk = vec![0; capacity as usize * SECTOR];
    for (lba, data) in grains {
        let start = lba as usize * SECTOR;
        disk[start..start + data.len()].copy_from_slice(&data);
    }
    (bytes, disk)
}

#[test]
fn tables_at_the_end_are_read_while_the_data_fits_the_hold() {
    let (bytes, disk) = tables_last();
    both_read(&bytes, &disk);
}

#[test]
fn a_side_reader_or_another_pass_helps_where_it_does_not_fit() {
    let (bytes, disk) = tables_last();
    for chunk in [333, 4096, 1 << 20] {
        let mut with_side = options(None);
        with_side.hold = Box::new(MemoryHold::new(4096));
        let side: Arc<dyn ReadAt> = Arc::new(bytes.clone());
        with_side.side = Some(side);
        assert!(push_all(&bytes, chunk, with_side).unwrap().disk() == disk);
        let mut again = options(None);
        again.hold = Box::new(MemoryHold::new(4096));
        again.reopenable = true;
        assert!(push_all(&bytes, chunk, again).unwrap().disk() == disk);
    }
}

#[test]
fn nothing_helps_a_stream_that_passes_once() {
    let (bytes, disk) = tables_last();
    assert!(random(&bytes).unwrap() == disk);
    let mut once = options(None);
    once.hold = Box::new(MemoryHold::new(4096));
    let e = push_all(&bytes, 4096, once).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TablesFollowData);
    assert!(e.to_string().contains("-O vmdk"), "{e}");
}

#[test]
fn redundant_tables_in_front_do_not_fill_the_hold() {
    // A mebibyte of tables, twice, and a hold of some kilobytes.
    let built = Builder {
        gtes: 4,
        ..Builder::sparse(8000 * G)
    }
    .build(&[(7999 * G, pattern(1, G as usize * SECTOR))]);
    for chunk in [100, 1 << 20] {
        let mut small = options(None);
        small.hold = Box::new(MemoryHold::new(16 << 10));
        let disk = push_all(&built.bytes, chunk, small).unwrap().disk();
        assert!(disk == random(&built.bytes).unwrap());
    }
}

#[test]
fn nothing_happens_after_a_head_that_could_not_be_read() {
    struct None;
    impl longshore_image::forward::Emit for None {
        fn geometry(
            &mut self,
            _: &longshore_image::forward::Geometry,
        ) -> longshore_image::Result<()> {
            panic!("there is no geometry");
        }
        fn piece(
            &mut self,
            _: std::ops::Range<u64>,
            _: longshore_image::forward::PieceKind,
            _: &[u8],
        ) -> longshore_image::Result<()> {
            panic!("there is no piece");
        }
    }
    let mut decoder = vmdk::decoder(options(Option::None)).unwrap();
    assert!(decoder.push(&[7; 600], &mut None).is_err());
    assert!(decoder.push(&[7; 600], &mut None).is_err());
    assert!(decoder.finish(&mut None).is_err());
    drop(Limits::default());
}
