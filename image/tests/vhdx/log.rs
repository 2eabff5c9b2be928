//! Files that were not closed: their log is replayed in memory, the newest whole sequence of it and no other.

use longshore_image::{ErrorKind, Limits};

use crate::builder::{
    Block, Builder, Built, EntryHead, LOG_GUID, MIB, REGION_TABLES, Write, log_entry, pattern,
};
use crate::support::{
    Bench, both_fail, both_read, forward_fails, options, push_all, random, random_fails, same,
};

/// What is done to an entry.
type Change = fn(&mut Vec<u8>);

/// A disk of two blocks of which the table knows one; the other is in the file, and in the log.
fn unfinished() -> (Builder, Built, Vec<(u64, Block)>) {
    let builder = Builder {
        dirty: true,
        ..Builder::new(3 << 20)
    };
    let blocks = vec![
        (0, Block::Data(pattern(1, 1 << 20))),
        (2, Block::Data(pattern(2, 1 << 20))),
    ];
    let mut built = builder.build(&blocks);
    let at = built.bat_at;
    built.put(at + 16, &[0; 8]);
    (builder, built, blocks)
}

fn head(built: &Built, sequence: u64, tail: u32) -> EntryHead {
    EntryHead {
        sequence,
        tail,
        flushed: built.bytes.len() as u64,
        last: built.bytes.len() as u64,
    }
}

/// The write that the table lacks.
fn missing_entry(built: &Built) -> Write {
    let at = built.block_at[1].1 as u64;
    built.sector(built.bat_at + 16, &(at | 6).to_le_bytes())
}

/// qemu-img agrees once it has replayed the log into a copy.
#[track_caller]
fn check_replayed(built: &Built, expected: &[u8]) {
    both_read(&built.bytes, expected);
    let Some(bench) = Bench::new("vhdx") else {
        return;
    };
    let refusal = bench
        .refusal(&built.bytes)
        .expect("qemu-img reads it as it is");
    assert!(refusal.contains("needs to be replayed"), "{refusal}");
    bench.img("check -q -r all built.vhdx");
    same(&bench.oracle("built.vhdx"), expected, "qemu-img");
}

#[test]
fn an_entry_that_was_not_applied_is_applied() {
    let (builder, mut built, blocks) = unfinished();
    let entry = log_entry(head(&built, 1, 0), &[missing_entry(&built)]);
    built.log(0, &[entry]);
    check_replayed(&built, &builder.disk(&blocks));
}

#[test]
fn a_sequence_is_applied_in_order_from_its_tail() {
    let (builder, mut built, blocks) = unfinished();
    let wrong = built.sector(built.bat_at + 16, &(7_u64 << 40 | 6).to_le_bytes());
    let entries = [
        // Older than the tail: done already.
        log_entry(head(&built, 9, 0), &[Write::Zero(built.bat_at as u64, MIB)]),
        log_entry(head(&built, 10, 4096), &[wrong]),
        log_entry(head(&built, 11, 4096), &[]),
        log_entry(head(&built, 12, 4096), &[missing_entry(&built)]),
    ];
    built.log(0, &entries);
    check_replayed(&built, &builder.disk(&blocks));
}

#[test]
fn the_newest_sequence_counts_and_torn_entries_do_not() {
    let (builder, mut built, blocks) = unfinished();
    let zero = Write::Zero(built.bat_at as u64, 4096);
    let stale = log_entry(head(&built, 3, 0), std::slice::from_ref(&zero));
    built.log(0, &[stale]);
    let newest = [
        log_entry(head(&built, 20, 40_960), std::slice::from_ref(&zero)),
        log_entry(
            head(&built, 21, 40_960),
            &[built.sector(
                built.bat_at,
                &(built.block_at[0].1 as u64 | 6).to_le_bytes(),
            )],
        ),
        log_entry(head(&built, 22, 40_960), &[missing_entry(&built)]),
    ];
    // The second entry wrote the whole sector of the table: the third repeats what it has.
    let end = built.log(40_960, &newest);
    let mut torn = log_entry(
        head(&built, 23, 40_960),
        &[zero.clone(), missing_entry(&built)],
    );
    torn[4096 + 700] ^= 1;
    let end = built.log(end, &[torn]);
    // Of another life of the file.
    let mut other = log_entry(head(&built, 99, end as u32), &[zero]);
    other[32] ^= 1;
    crate::builder::seal(&mut other);
    built.log(end, &[other]);
    check_replayed(&built, &builder.disk(&blocks));
}

#[test]
fn the_log_is_a_ring() {
    let (builder, mut built, blocks) = unfinished();
    let start = built.log_len - 4096;
    let entries = [
        // Its data is at the start of the log.
        log_entry(head(&built, 5, start as u32), &[missing_entry(&built)]),
        log_entry(head(&built, 6, start as u32), &[]),
    ];
    built.log(start, &entries);
    // QEMU never looks around the end of the ring: it replays the second entry alone.
    both_read(&built.bytes, &builder.disk(&blocks));
}

#[test]
fn many_descriptors_take_more_than_one_sector() {
    let (builder, mut built, blocks) = unfinished();
    let unused = (built.metadata_at + (512 << 10)) as u64;
    let mut writes: Vec<Write> = (0..60)
        .flat_map(|n| {
            [
                Write::Zero(unused + n * 4096, 4096),
                Write::Data(unused, vec![n as u8; 4096]),
            ]
        })
        .collect();
    writes.extend([
        Write::Zero(unused, 4096),
        Write::Zero(unused, 0),
        missing_entry(&built),
    ]);
    writes.extend((0..150).map(|n| Write::Zero(unused + n % 50 * 4096, 4096)));
    let entry = log_entry(head(&built, 1, 0), &writes);
    built.log(0, &[entry]);
    // QEMU 10.0.2 reads every sector of descriptors to the same place, and then finds them invalid.
    both_read(&built.bytes, &builder.disk(&blocks));
}

#[test]
fn the_log_may_change_any_table() {
    let (builder, clean, blocks) = unfinished();
    // Region tables and metadata that only the log has right.
    let mut built = clean.clone();
    let mut writes = vec![missing_entry(&built)];
    for at in [
        REGION_TABLES[0],
        REGION_TABLES[1],
        built.metadata_at,
        built.metadata_at + (64 << 10),
    ] {
        writes.push(built.sector(at, &[]));
        built.put(at, &[0xAA; 100]);
    }
    let entry = log_entry(head(&built, 1, 0), &writes);
    built.log(0, &[entry]);
    check_replayed(&built, &builder.disk(&blocks));
}

#[test]
fn data_in_the_log_is_for_random_access_only() {
    let (builder, mut built, blocks) = unfinished();
    let at = built.block_at[0].1;
    let mut expected = builder.disk(&blocks);
    let writes = [
        missing_entry(&built),
        built.sector(at + 5000, b"changed"),
        Write::Zero(at as u64 + 12_288, 8192),
    ];
    expected[5000..5007].copy_from_slice(b"changed");
    expected[12_288..20_480].fill(0);
    let entry = log_entry(head(&built, 1, 0), &writes);
    built.log(0, &[entry]);
    same(&random(&built.bytes).unwrap(), &expected, "random access");
    forward_fails(&built.bytes, ErrorKind::Unsupported);
}

#[test]
fn a_log_without_a_valid_sequence_is_refused() {
    let (_, built, _) = unfinished();
    both_fail(&built.bytes, ErrorKind::Malformed);
    let changes: [(&str, Change); 12] = [
        ("signature", |e| e[0] = b'L'),
        ("length is no multiple", |e| e[8] = 1),
        ("length of nothing", |e| e[8..12].fill(0)),
        ("longer than the log", |e| {
            e[8..12].copy_from_slice(&(2_u32 << 20).to_le_bytes());
        }),
        ("tail elsewhere", |e| e[13] = 0x40),
        ("tail is no multiple", |e| e[12] = 1),
        ("sequence number 0", |e| {
            e[16..24].fill(0);
            e[64 + 24..64 + 32].fill(0);
            e[4092 + 4096] = 0;
        }),
        ("more descriptors than fit", |e| {
            e[24..28].copy_from_slice(&400_u32.to_le_bytes());
        }),
        ("another guid", |e| e[32] ^= 1),
        ("unknown descriptor", |e| e[64] ^= 1),
        ("descriptor at no sector", |e| e[64 + 16] = 1),
        ("data of another entry", |e| e[4096 + 4092] ^= 1),
    ];
    for (what, change) in changes {
        let mut built = built.clone();
        let mut entry = log_entry(head(&built, 1, 0), &[missing_entry(&built)]);
        change(&mut entry);
        crate::builder::seal(&mut entry);
        built.log(0, &[entry]);
        assert!(random(&built.bytes).is_err(), "{what}");
        both_fail(&built.bytes, ErrorKind::Malformed);
    }
    // And a checksum that is wrong.
    let mut built = built.clone();
    let mut entry = log_entry(head(&built, 1, 0), &[missing_entry(&built)]);
    entry[5] ^= 1;
    built.log(0, &[entry]);
    both_fail(&built.bytes, ErrorKind::Malformed);
}

#[test]
fn a_file_shorter_than_its_log_knows_is_truncated() {
    let (_, mut built, _) = unfinished();
    let flushed = EntryHead {
        flushed: built.bytes.len() as u64 + MIB,
        ..head(&built, 1, 0)
    };
    let entry = log_entry(flushed, &[missing_entry(&built)]);
    built.log(0, &[entry]);
    random_fails(&built.bytes, ErrorKind::Malformed);
    let len = Some(built.bytes.len() as u64);
    let e = push_all(&built.bytes, 1 << 20, options(len)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed);
    // More than a crash leaves to be added.
    let (_, mut built, _) = unfinished();
    let huge = EntryHead {
        last: 1 << 60,
        ..head(&built, 1, 0)
    };
    let entry = log_entry(huge, &[missing_entry(&built)]);
    built.log(0, &[entry]);
    random_fails(&built.bytes, ErrorKind::Malformed);
}

#[test]
fn a_block_that_was_being_added_reads_as_zeros() {
    let (builder, mut built, mut blocks) = unfinished();
    let at = built.block_at[1].1;
    let grown = EntryHead {
        flushed: at as u64,
        last: at as u64 + MIB,
        ..head(&built, 1, 0)
    };
    let entry = log_entry(grown, &[missing_entry(&built)]);
    built.log(0, &[entry]);
    // The file was to grow by that block and did not, or by a part of it.
    for kept in [0, 4096] {
        let Block::Data(data) = &mut blocks[1].1 else {
            unreachable!("it is data")
        };
        data[kept..].fill(0);
        both_read(&built.bytes[..at + kept], &builder.disk(&blocks));
        blocks[1].1 = Block::Data(pattern(2, 1 << 20));
    }
}

#[test]
fn a_log_is_charged_and_looked_at_a_bounded_number_of_times() {
    let (_, mut built, _) = unfinished();
    let limits = Limits::with_table_bytes(900 << 10);
    let e = longshore_image::vhdx::open(
        std::sync::Arc::new(built.bytes.clone()),
        &longshore_image::DenyAll,
        &limits,
    )
    .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    // Every sector says that it is an entry as long as the log.
    for sector in 0..built.log_len / 4096 {
        let mut entry = vec![0; 64];
        entry[..4].copy_from_slice(b"loge");
        entry[8..12].copy_from_slice(&(built.log_len as u32).to_le_bytes());
        entry[16] = 1;
        entry[32..48].copy_from_slice(&LOG_GUID);
        let at = built.log_at + sector * 4096;
        built.put(at, &entry);
    }
    both_fail(&built.bytes, ErrorKind::Malformed);
}
