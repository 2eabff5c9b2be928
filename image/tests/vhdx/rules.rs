//! One test per rule: who breaks it is refused with the right kind, both ways.

use longshore_image::{ErrorKind, Limits};

use crate::builder::{
    BAT, Block, Builder, Built, HEADERS, ITEMS, METADATA, MIB, REGION_TABLES, pattern,
};
use crate::support::{Bench, both_fail, both_read, forward_fails, open, options, push_all, random};

fn small() -> (Builder, Vec<(u64, Block)>) {
    let blocks = vec![
        (2, Block::Data(pattern(2, 1 << 20))),
        (0, Block::Data(pattern(1, 1 << 20))),
    ];
    (Builder::new(3 << 20), blocks)
}

fn built() -> Built {
    let (builder, blocks) = small();
    builder.build(&blocks)
}

fn disk() -> Vec<u8> {
    let (builder, blocks) = small();
    builder.disk(&blocks)
}

/// Changes a file and demands a refusal.
#[track_caller]
fn refused(kind: ErrorKind, change: impl FnOnce(&mut Built)) {
    let mut built = built();
    change(&mut built);
    both_fail(&built.bytes, kind);
}

/// Changes entry `n` of both region tables.
fn set_region(built: &mut Built, n: usize, guid: [u8; 16], at: u64, len: u32, required: u32) {
    for table in REGION_TABLES {
        built.region(table, n, guid, at, len, required);
        let count = built.bytes[table + 8].max(n as u8 + 1);
        built.put(table + 8, &[count]);
        built.seal_regions(table);
    }
}

#[test]
fn the_signature_decides() {
    refused(ErrorKind::NotThisFormat, |b| b.put(0, b"vhdxfilf"));
    both_fail(b"vhdxfile", ErrorKind::Malformed);
    both_fail(&built().bytes[..300 << 10], ErrorKind::Malformed);
}

#[test]
fn either_header_will_do_and_the_newer_one_decides() {
    for (damaged, seal) in [(0, false), (1, false), (0, true), (1, true)] {
        let mut b = built();
        let at = HEADERS[damaged];
        if seal {
            // Older, and wrong about the log.
            b.put(at + 8, &3_u64.to_le_bytes());
            b.put(at + 72, &77_u64.to_le_bytes());
            b.put(at + 48, &[1; 16]);
            b.seal_header(at);
        } else {
            b.put(at + 4000, &[1]);
        }
        both_read(&b.bytes, &disk());
    }
    refused(ErrorKind::Malformed, |b| {
        for at in HEADERS {
            b.put(at + 4000, &[1]);
        }
    });
    refused(ErrorKind::Malformed, |b| b.in_headers(66, &[2]));
    refused(ErrorKind::Malformed, |b| b.in_headers(0, b"heat"));
}

#[test]
fn equally_new_headers_must_be_equal() {
    let mut b = built();
    b.in_headers(8, &[9; 8]);
    both_read(&b.bytes, &disk());
    b.put(HEADERS[1] + 16, b"another file guid"[..16].as_ref());
    b.seal_header(HEADERS[1]);
    both_fail(&b.bytes, ErrorKind::Malformed);
}

#[test]
fn impossible_logs_are_refused() {
    refused(ErrorKind::Malformed, |b| {
        b.in_headers(72, &[0, 0x10, 0x10]);
    });
    refused(ErrorKind::Malformed, |b| {
        b.in_headers(68, &4096_u32.to_le_bytes());
    });
    refused(ErrorKind::Malformed, |b| {
        b.in_headers(72, &0_u64.to_le_bytes());
    });
    refused(ErrorKind::Malformed, |b| {
        b.in_headers(72, &[0, 0, 0xF0, 255, 255, 255, 255, 255]);
    });
    // Where there is no log, its offset means nothing, and neither does its version.
    let mut b = built();
    b.in_headers(64, &[0, 0, 1, 0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5]);
    both_read(&b.bytes, &disk());
    refused(ErrorKind::Unsupported, |b| {
        b.in_headers(48, &[1; 18]);
    });
}

#[test]
fn either_region_table_will_do() {
    let mut b = built();
    b.put(REGION_TABLES[0] + 60_000, &[1]);
    both_read(&b.bytes, &disk());
    // QEMU has the first table only.
    if let Some(bench) = Bench::new("vhdx") {
        assert!(bench.refusal(&b.bytes).is_some());
        assert_eq!(bench.refusal(&built().bytes), None);
    }
    b.put(REGION_TABLES[1] + 60_000, &[1]);
    both_fail(&b.bytes, ErrorKind::Malformed);
    let mut b = built();
    b.put(REGION_TABLES[0] + 8, &3000_u32.to_le_bytes());
    b.seal_regions(REGION_TABLES[0]);
    both_read(&b.bytes, &disk());
}

#[test]
fn regions_that_a_reader_must_know_are_refused_by_name() {
    refused(ErrorKind::Unsupported, |b| {
        set_region(b, 2, *b"something needed", 64 * MIB, 1 << 20, 1);
    });
    let mut b = built();
    set_region(&mut b, 2, *b"something needed", 64 * MIB, 1 << 20, 0);
    both_read(&b.bytes, &disk());
    let e = {
        set_region(&mut b, 2, BAT.map(|byte| byte ^ 1), 64 * MIB, 1 << 20, 1);
        open(&b.bytes).unwrap_err()
    };
    assert!(
        e.to_string()
            .contains("2cc37667-f722-4301-9c65-105f9afc4b09"),
        "{e}"
    );
}

#[test]
fn regions_are_there_once_apart_and_inside() {
    let b = built();
    let (bat, metadata) = (b.bat_at as u64, b.metadata_at as u64);
    for (n, guid, at, len) in [
        (0, METADATA, bat, 1 << 20),
        (2, BAT, 64 * MIB, 1 << 20),
        (2, METADATA, 64 * MIB, 1 << 20),
        (1, BAT, metadata, 1 << 20),
        (0, BAT, metadata, 1 << 20),
        (0, BAT, metadata + 4096, 4096),
        (0, BAT, MIB / 2, 4096),
        (1, METADATA, MIB, 1 << 20),
        (0, BAT, u64::MAX - 5, 4096),
        (0, BAT, 640 * MIB, 1 << 20),
        (1, METADATA, 640 * MIB, 1 << 20),
        (1, METADATA, metadata, 4096),
        (0, BAT, bat, 16),
    ] {
        let mut b = built();
        set_region(&mut b, n, guid, at, len, 1);
        both_fail(&b.bytes, ErrorKind::Malformed);
    }
    for n in 0..2 {
        let mut b = built();
        set_region(&mut b, n, *b"something unused", 64 * MIB, 1 << 20, 0);
        both_fail(&b.bytes, ErrorKind::Malformed);
    }
}

#[test]
fn metadata_that_a_reader_must_know_is_refused_by_name() {
    for (flags, kind) in [(4, Some(ErrorKind::Unsupported)), (3, None)] {
        let mut b = built();
        let at = b.metadata_at;
        b.put(at + 10, &[6]);
        b.put(at + 32 + 5 * 32, b"something needed");
        b.put(at + 32 + 5 * 32 + 24, &[flags]);
        match kind {
            Some(kind) => both_fail(&b.bytes, kind),
            None => both_read(&b.bytes, &disk()),
        }
    }
}

#[test]
fn metadata_items_are_there_once_and_inside() {
    let item = |b: &Built, n: usize| b.metadata_at + 32 + n * 32;
    refused(ErrorKind::Malformed, |b| b.put(b.metadata_at, b"metadatb"));
    refused(ErrorKind::Malformed, |b| {
        b.put(b.metadata_at + 10, &3000_u16.to_le_bytes());
    });
    for (n, guid) in ITEMS.iter().enumerate().take(5) {
        // Gone, twice, in front of its place, behind its region, too short.
        refused(ErrorKind::Malformed, |b| b.put(item(b, n), &[0; 28]));
        refused(ErrorKind::Malformed, |b| {
            b.put(item(b, (n + 1) % 5), guid);
        });
        refused(ErrorKind::Malformed, |b| b.put(item(b, n) + 16, &[0; 4]));
        refused(ErrorKind::Malformed, |b| {
            b.put(item(b, n) + 16, &0xF_FFFF_u32.to_le_bytes());
        });
        refused(ErrorKind::Malformed, |b| b.put(item(b, n) + 20, &[2]));
        refused(ErrorKind::Malformed, |b| b.put(item(b, n) + 16, &[255; 8]));
    }
}

#[test]
fn impossible_disks_are_refused() {
    let at = |b: &Built| b.metadata_at + (64 << 10);
    for block in [0, 1, 512 << 10, 3 << 20, 512 << 20, u32::MAX] {
        refused(ErrorKind::Malformed, |b| b.put(at(b), &block.to_le_bytes()));
    }
    for sector in [0_u32, 1024, 8192, 511] {
        refused(ErrorKind::Malformed, |b| {
            b.put(at(b) + 32, &sector.to_le_bytes());
        });
    }
    for size in [513, (64 << 40) + 512, u64::MAX, u64::MAX - 511, 1 << 40] {
        refused(ErrorKind::Malformed, |b| {
            b.put(at(b) + 8, &size.to_le_bytes());
        });
    }
}

#[test]
fn an_empty_disk_is_a_disk() {
    let b = Builder::new(0).build(&[]);
    both_read(&b.bytes, &[]);
}

#[test]
fn blocks_lie_over_nothing_else() {
    let b = built();
    for at in [
        0,
        MIB / 2,
        b.log_at as u64,
        b.bat_at as u64,
        b.metadata_at as u64,
    ] {
        refused(ErrorKind::Malformed, |b| {
            b.put(b.bat_at, &((at & !0xF_FFFF) | 6).to_le_bytes());
        });
    }
    // The end of the file, and of numbers.
    for at in [512 * MIB, 1 << 50, !0xF_FFFF] {
        refused(ErrorKind::Malformed, |b| {
            b.put(b.bat_at, &(at | 6).to_le_bytes());
        });
    }
}

#[test]
fn states_that_do_not_exist_are_refused() {
    refused(ErrorKind::Malformed, |b| b.put(b.bat_at + 8, &[4]));
    // Partly in a parent that there is not.
    refused(ErrorKind::Malformed, |b| {
        let at = b.data_at as u64;
        b.put(b.bat_at + 8, &(at | 7).to_le_bytes());
    });
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let b = built();
    let ends = [
        b.log_at,
        b.bat_at + 8,
        b.metadata_at + 100,
        b.metadata_at + (64 << 10) + 5,
        b.data_at,
        b.data_at + 4096,
        b.bytes.len() - 1,
    ];
    for end in ends {
        both_fail(&b.bytes[..end], ErrorKind::Malformed);
    }
    // What the disk does not need of its last block may be missing.
    let builder = Builder::new((1 << 20) + 512);
    let blocks = [(1, Block::Data(pattern(1, 512)))];
    let built = builder.build(&blocks);
    let end = built.data_at + 512;
    both_read(&built.bytes[..end], &builder.disk(&blocks));
    both_fail(&built.bytes[..end - 1], ErrorKind::Malformed);
}

#[test]
fn the_same_block_many_times_is_read_and_counted() {
    let mut b = built();
    let at = b.data_at as u64;
    b.put(b.bat_at + 8, &(at | 6).to_le_bytes());
    let disk = random(&b.bytes).unwrap();
    assert!(disk[1 << 20..2 << 20] == disk[2 << 20..]);
    assert!(push_all(&b.bytes, 50_000, options(None)).unwrap().0 == disk);
    // A gibibyte out of one block of a few mebibytes is an attack.
    let builder = Builder::new(1 << 30);
    let mut b = builder.build(&[(0, Block::Data(pattern(1, 1 << 20)))]);
    let at = b.data_at as u64;
    for block in 0..1024 {
        b.put(
            b.bat_at + builder.entry_of(block) as usize * 8,
            &(at | 6).to_le_bytes(),
        );
    }
    let image = open(&b.bytes).unwrap();
    let chain = longshore_image::chain::Chain::new(image).unwrap();
    let e = chain.extents().find_map(Result::err).unwrap();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    forward_fails(&b.bytes, ErrorKind::LimitExceeded);
}

#[test]
fn tables_are_charged_before_they_are_read() {
    let b = built();
    let limits = Limits::with_table_bytes(100 << 10);
    let e = longshore_image::vhdx::open(
        std::sync::Arc::new(b.bytes.clone()),
        &longshore_image::DenyAll,
        &limits,
    )
    .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    // A table for 64 TiB in 1 MiB blocks, all of them there: 512 MiB of it, and as many pieces to expect.
    let builder = Builder {
        block: 1 << 20,
        ..Builder::new(48 << 30)
    };
    let mut b = builder.build(&[]);
    for block in 0..48 << 10 {
        let at = (b.data_at as u64) + (block * 2 + 1) * MIB;
        b.put(
            b.bat_at + builder.entry_of(block) as usize * 8,
            &(at | 6).to_le_bytes(),
        );
    }
    let mut options = options(None);
    options.limits = Limits::with_table_bytes(2 << 20);
    let e = push_all(&b.bytes, 1 << 20, options).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    // With random access a few pages of it will do.
    let limits = Limits::with_table_bytes(1 << 20);
    let image = longshore_image::vhdx::open(
        std::sync::Arc::new(b.bytes),
        &longshore_image::DenyAll,
        &limits,
    )
    .unwrap();
    let first = image.extents(0..1 << 20).next().unwrap();
    assert_eq!(
        first.unwrap_err().kind(),
        ErrorKind::Malformed,
        "that is not in the file"
    );
}
