//! streamOptimized: what is legal though unusual, and one test per rule about what is not.

use longshore_image::ErrorKind::{Denied, LimitExceeded, Malformed, NotThisFormat, Unsupported};
use longshore_image::{DenyAll, Limits, vmdk};

use crate::builder::{
    Builder, Built, GRAIN_SECTORS as G, SECTOR, Tables, get32, pattern, put_marker, put32, put64,
    zlib,
};
use crate::support::{
    both_fail, both_read, forward, forward_fails, options, push_all, random, random_fails, same,
};

const GRAIN: usize = G as usize * SECTOR;
const DISK: u64 = 1200 * G;

fn grains() -> Vec<(u64, Vec<u8>)> {
    [2, 0, 600, 1, 1199]
        .into_iter()
        .map(|n| (n * G, pattern(n + 1, GRAIN)))
        .collect()
}

fn disk(capacity: u64, grains: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut disk = vec![0; capacity as usize * SECTOR];
    for (lba, data) in grains {
        let start = *lba as usize * SECTOR;
        let end = (start + data.len()).min(disk.len());
        disk[start..end].copy_from_slice(&data[..end - start]);
    }
    disk
}

fn stream() -> Built {
    Builder::stream(DISK).build(&grains())
}

fn every_kind() -> Vec<Built> {
    [Tables::Behind, Tables::Front, Tables::FrontWithEnd]
        .into_iter()
        .map(|tables| {
            Builder {
                tables,
                flags: if tables == Tables::Behind {
                    0x3_0001
                } else {
                    0x3_0003
                },
                ..Builder::stream(DISK)
            }
            .build(&grains())
        })
        .collect()
}

#[test]
fn grains_in_any_order_are_legal() {
    let mut grains = grains();
    for _ in 0..grains.len() {
        grains.rotate_left(1);
        both_read(
            &Builder::stream(DISK).build(&grains).bytes,
            &disk(DISK, &grains),
        );
    }
}

#[test]
fn tables_may_be_in_front_or_behind() {
    for built in every_kind() {
        both_read(&built.bytes, &disk(DISK, &grains()));
    }
}

#[test]
fn descriptors_with_dos_line_ends_and_padding_are_read() {
    let builder = Builder::stream(DISK);
    let builder = Builder {
        descriptor: builder.descriptor.replace('\n', "\r\n") + "\r\n   \r\n",
        ..builder
    };
    both_read(&builder.build(&grains()).bytes, &disk(DISK, &grains()));
}

#[test]
fn every_grain_and_table_size_of_the_specification_is_read() {
    for (grain, gtes, last) in [
        (8, 512, 700),
        (16, 512, 700),
        (1, 512, 700),
        (128, 1, 50),
        (128, 100, 250),
        (16, 300, 700),
        (4096, 512, 6),
    ] {
        for tables in [Tables::Behind, Tables::Front] {
            let capacity = grain * last + grain.min(3);
            let grains: Vec<_> = [last - 1, 0, 3, last]
                .into_iter()
                .map(|n| (n * grain, pattern(n, grain as usize * SECTOR)))
                .collect();
            let built = Builder {
                grain,
                gtes,
                tables,
                ..Builder::stream(capacity)
            }
            .build(&grains);
            both_read(&built.bytes, &disk(capacity, &grains));
        }
    }
}

#[test]
fn a_last_grain_is_whole_or_as_short_as_the_disk() {
    let capacity = 5 * G + 7;
    for len in [7 * SECTOR, 8 * SECTOR, GRAIN] {
        let grains = vec![(5 * G, pattern(9, len)), (0, pattern(2, GRAIN))];
        let built = Builder::stream(capacity).build(&grains);
        both_read(&built.bytes, &disk(capacity, &grains));
    }
    let grains = vec![(5 * G, pattern(9, 6 * SECTOR))];
    both_fail(&Builder::stream(capacity).build(&grains).bytes, Malformed);
}

#[test]
fn a_grain_in_the_middle_that_inflates_short_is_an_error() {
    for len in [0, 1, GRAIN - 1] {
        let grains = vec![(G, pattern(9, len)), (0, pattern(2, GRAIN))];
        both_fail(&Builder::stream(DISK).build(&grains).bytes, Malformed);
    }
}

#[test]
fn a_grain_that_inflates_long_is_read_as_qemu_reads_the_bytes_it_has() {
    let mut grains = vec![(G, pattern(9, GRAIN + 700)), (0, pattern(2, GRAIN))];
    let built = Builder::stream(DISK).build(&grains);
    grains[0].1.truncate(GRAIN);
    both_read(&built.bytes, &disk(DISK, &grains));
}

#[test]
fn a_grain_that_is_no_zlib_is_an_error() {
    let mut built = stream();
    let at = built.grains[&G];
    built.bytes[at + 12..at + 40].fill(0xFF);
    both_fail(&built.bytes, Malformed);
    // And one whose checksum is wrong.
    let mut built = stream();
    let at = built.grains[&G];
    let size = get32(&built.bytes, at + 8) as usize;
    built.bytes[at + 12 + size - 1] ^= 1;
    both_fail(&built.bytes, Malformed);
}

#[test]
fn markers_that_vsphere_writes_undocumented_are_skipped() {
    let grains = grains();
    let mut built = Builder::stream(DISK).build(&[]);
    built.bytes.truncate(128 * SECTOR);
    for value in [0, 3, u64::MAX] {
        put_marker(&mut built.bytes, value, 4);
    }
    let front = built.bytes.len() / SECTOR;
    // The rest is as the builder makes it, as if metadata took that much.
    let rest = Builder {
        overhead: front as u64,
        ..Builder::stream(DISK)
    }
    .build(&grains);
    let mut bytes = built.bytes;
    bytes.extend_from_slice(&rest.bytes[front * SECTOR..]);
    both_read(&bytes, &disk(DISK, &grains));
}

#[test]
fn zeroed_grains_are_zeros_and_not_missing() {
    let mut built = Builder {
        flags: 0x3_0005,
        ..Builder::stream(DISK)
    }
    .build(&grains());
    let table = built.tables[&0];
    put32(&mut built.bytes, table + 4 * 77, 1);
    both_read(&built.bytes, &disk(DISK, &grains()));
    // Without the flag it is a grain over the header.
    let mut built = stream();
    let table = built.tables[&0];
    put32(&mut built.bytes, table + 4 * 77, 1);
    both_fail(&built.bytes, Malformed);
}

#[test]
fn a_second_grain_for_one_address_is_an_error() {
    let grains = vec![
        (0, pattern(1, GRAIN)),
        (G, pattern(2, GRAIN)),
        (0, pattern(1, GRAIN)),
    ];
    for tables in [Tables::Behind, Tables::Front] {
        let built = Builder {
            tables,
            ..Builder::stream(DISK)
        }
        .build(&grains);
        forward_fails(&built.bytes, Malformed);
        // The tables can name only one of them, and with random access nobody sees the other.
        same(
            &random(&built.bytes).unwrap(),
            &disk(DISK, &grains),
            "random",
        );
    }
}

#[test]
fn a_table_that_names_a_grain_at_another_offset_is_an_error() {
    for mut built in every_kind() {
        let table = built.tables[&0];
        let (a, b) = (get32(&built.bytes, table), get32(&built.bytes, table + 4));
        put32(&mut built.bytes, table, b);
        put32(&mut built.bytes, table + 4, a);
        forward_fails(&built.bytes, Malformed);
    }
}

#[test]
fn a_table_whose_sectors_are_swapped_is_an_error() {
    for mut built in every_kind() {
        let table = built.tables[&0];
        let (head, tail) = built.bytes[table..].split_at_mut(SECTOR);
        head.swap_with_slice(&mut tail[..SECTOR]);
        forward_fails(&built.bytes, Malformed);
    }
}

#[test]
fn a_table_that_names_a_grain_that_never_passed_is_an_error() {
    for mut built in every_kind() {
        let table = built.tables[&1];
        let other = get32(&built.bytes, built.tables[&0]);
        put32(&mut built.bytes, table + 4 * 200, other);
        forward_fails(&built.bytes, Malformed);
    }
}

#[test]
fn a_table_that_omits_a_grain_is_an_error() {
    for mut built in every_kind() {
        let table = built.tables[&1];
        put32(&mut built.bytes, table + 4 * 88, 0);
        assert!(built.grains.contains_key(&(600 * G)));
        forward_fails(&built.bytes, Malformed);
    }
}

#[test]
fn a_directory_that_omits_or_exchanges_tables_is_an_error() {
    for mut built in every_kind() {
        let directory = built.directory;
        let copy = built.directory_copy;
        let first = get32(&built.bytes, directory);
        let second = get32(&built.bytes, directory + 4);
        for (a, b) in [(0, second), (first, 0), (second, first), (first, first)] {
            for at in [directory, copy] {
                put32(&mut built.bytes, at, a);
                put32(&mut built.bytes, at + 4, b);
            }
            forward_fails(&built.bytes, Malformed);
        }
    }
}

#[test]
fn a_table_where_none_passed_is_an_error() {
    let built = stream();
    let grain = (built.grains[&0] / SECTOR) as u32;
    let end = (built.bytes.len() / SECTOR) as u32;
    for at in [1, 20, end - 3, end, u32::MAX] {
        let mut built = built.clone();
        let directory = built.directory;
        put32(&mut built.bytes, directory, at);
        both_fail(&built.bytes, Malformed);
    }
    // Random access would take a grain for a table, and then find that its entries are nowhere.
    let mut built = built;
    let directory = built.directory;
    put32(&mut built.bytes, directory, grain);
    both_fail(&built.bytes, Malformed);
}

#[test]
fn a_footer_that_contradicts_the_header_is_an_error() {
    let built = stream();
    let footer = built.footer.unwrap();
    for (at, value) in [
        (12, DISK + G),
        (12, 0),
        (20, 64),
        (56, u64::MAX),
        (56, 0),
        (56, 1),
        (56, 1 << 40),
    ] {
        let mut bytes = built.bytes.clone();
        put64(&mut bytes, footer + at, value);
        both_fail(&bytes, Malformed);
    }
    let mut bytes = built.bytes.clone();
    put32(&mut bytes, footer + 44, 256);
    both_fail(&bytes, Malformed);
    let mut bytes = built.bytes.clone();
    bytes[footer] = b'k';
    both_fail(&bytes, NotThisFormat);
}

#[test]
fn a_footer_whose_directory_is_another_table_is_an_error() {
    let mut built = stream();
    let at = (built.tables[&0] / SECTOR) as u64;
    let footer = built.footer.unwrap();
    put64(&mut built.bytes, footer + 56, at);
    forward_fails(&built.bytes, Malformed);
}

#[test]
fn streams_cut_at_any_structure_are_truncated() {
    for built in every_kind() {
        let mut cuts = vec![0, 3, 4, 511, 512, 513, 21 * SECTOR - 1, 21 * SECTOR];
        for &at in built
            .grains
            .values()
            .chain(built.tables.values())
            .chain([&built.directory])
            .chain(built.footer.as_ref())
        {
            cuts.extend([at - SECTOR, at, at + 1, at + 12, at + 13, at + SECTOR]);
        }
        // The last grain but one; the end.
        let size = built.bytes.len();
        let ended = built.footer.is_some();
        if ended {
            cuts.extend([
                size - 1,
                size - SECTOR,
                size - SECTOR - 1,
                size - 2 * SECTOR,
            ]);
        }
        let last = built.grains.values().max().copied().unwrap();
        let last_end = last + 12 + get32(&built.bytes, last + 8) as usize;
        for cut in cuts {
            if !ended && cut >= last_end || cut >= size {
                continue;
            }
            let kind = if cut < 4 { NotThisFormat } else { Malformed };
            both_fail(&built.bytes[..cut], kind);
        }
        if !ended {
            // Older QEMU leaves out the padding of the last grain.
            both_read(&built.bytes[..last_end], &disk(DISK, &grains()));
        }
    }
}

#[test]
fn bytes_behind_the_end_of_a_stream_are_an_error() {
    let built = stream();
    for tail in [&[0_u8][..], &[0; 512], &[7; 512]] {
        let mut bytes = built.bytes.clone();
        bytes.extend_from_slice(tail);
        both_fail(&bytes, Malformed);
    }
}

#[test]
fn markers_of_wrong_types_and_sizes_are_errors() {
    let built = stream();
    let marker_of = |at: usize| at - SECTOR;
    let table = marker_of(built.tables[&0]);
    let directory = marker_of(built.directory);
    let footer = marker_of(built.footer.unwrap());
    let end = built.bytes.len() - SECTOR;
    let cases = [
        (table, 4, 5),
        (table, 4, 0xFFFF),
        (table, 3, 1),
        (table, 1 << 60, 1),
        (table, u64::MAX, 4),
        (table, 0, 0),
        (directory, 0, 2),
        (directory, 1 << 50, 2),
        (directory, 1, 3),
        (footer, 0, 3),
        (footer, 2, 3),
        (footer, 1, 2),
        (footer, 1, 0),
        (end, 1, 0),
        (end, 0, 1),
        (end, 1, 3),
    ];
    for (at, value, kind) in cases {
        let mut bytes = built.bytes.clone();
        put64(&mut bytes, at, value);
        put32(&mut bytes, at + 12, kind);
        for chunk in [1 << 20, 97] {
            let e = forward(&bytes, chunk).expect_err("a wrong marker");
            assert!(
                matches!(e.kind(), Malformed | NotThisFormat),
                "{value} sectors of type {kind}: {e:?}"
            );
        }
        if at >= footer {
            random_fails(&bytes, Malformed);
        }
    }
}

#[test]
fn a_grain_that_follows_the_footer_is_an_error() {
    let built = stream();
    let mut bytes = built.bytes[..built.bytes.len() - SECTOR].to_vec();
    let packed = zlib(&pattern(1, GRAIN));
    let at = bytes.len();
    bytes.extend_from_slice(&(300 * G).to_le_bytes());
    bytes.extend_from_slice(&(packed.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&packed);
    bytes.resize((at + 12 + packed.len()).next_multiple_of(SECTOR), 0);
    put_marker(&mut bytes, 0, 0);
    both_fail(&bytes, Malformed);
}

#[test]
fn grains_at_impossible_addresses_are_errors() {
    let built = stream();
    let at = built.grains[&G];
    for lba in [1, 8, DISK, DISK + G, 1 << 40, 1 << 55, u64::MAX] {
        let mut bytes = built.bytes.clone();
        put64(&mut bytes, at, lba);
        forward_fails(&bytes, Malformed);
    }
}

#[test]
fn grains_of_impossible_sizes_are_errors() {
    let built = stream();
    let at = built.grains[&G];
    for size in [1, 10_241, 1 << 20, u32::MAX] {
        let mut bytes = built.bytes.clone();
        put32(&mut bytes, at + 8, size);
        forward_fails(&bytes, Malformed);
    }
}

#[test]
fn grain_table_entries_that_lead_nowhere_are_errors() {
    let built = stream();
    let end = (built.bytes.len() / SECTOR) as u32;
    for gte in [2, 127, end, end + 1, u32::MAX] {
        let mut bytes = built.bytes.clone();
        put32(&mut bytes, built.tables[&0] + 8, gte);
        both_fail(&bytes, Malformed);
    }
}

#[test]
fn the_redundant_directory_helps_where_the_first_points_nowhere() {
    let mut built = every_kind().remove(1);
    let directory = built.directory;
    put32(&mut built.bytes, directory + 4, u32::MAX);
    both_read(&built.bytes, &disk(DISK, &grains()));
    let mut gone = every_kind().remove(1);
    put64(&mut gone.bytes, 56, 1 << 50);
    both_read(&gone.bytes, &disk(DISK, &grains()));
    // Not if the header knows of none.
    put32(&mut built.bytes, 8, 0x3_0001);
    both_fail(&built.bytes, Malformed);
}

#[test]
fn the_redundant_directory_stands_in_for_the_same_faults_both_ways() {
    let built = every_kind().remove(1);
    // Inside the file, but no table: with random access nobody knows that.
    let mut bytes = built.bytes.clone();
    let grain = (built.grains[&0] / SECTOR) as u32;
    put32(&mut bytes, built.directory, grain);
    both_fail(&bytes, Malformed);
    // A directory where a grain is.
    let mut bytes = built.bytes.clone();
    put64(&mut bytes, 56, u64::from(grain));
    forward_fails(&bytes, Malformed);
}

#[test]
fn absurd_headers_are_errors() {
    let built = stream();
    let header32 = [
        (4, 0, Unsupported),
        (4, 4, Unsupported),
        (8, 0x7_0001, Unsupported),
        (8, 0x8000_0000 | 0x3_0001, Unsupported),
        (8, 0x1_0001, Unsupported),
        (8, 0x2_0001, Malformed),
        (8, 1, Malformed),
        (44, 0, Malformed),
        (44, 513, Malformed),
        (44, u32::MAX, Malformed),
        (73, 0x0a0d_0d0a, Malformed),
    ];
    for (at, value, kind) in header32 {
        let mut bytes = built.bytes.clone();
        put32(&mut bytes, at, value);
        both_fail(&bytes, kind);
    }
    let header64 = [
        (12, 1 << 55, Malformed),
        (12, u64::MAX, Malformed),
        (12, 1 << 53, Malformed),
        (20, 0, Malformed),
        (20, 3, Malformed),
        (20, 0x40_0000, Malformed),
        (20, 1 << 63, Malformed),
        (20, 8192, Unsupported),
        (28, 1 << 60, Malformed),
        (36, 1 << 40, Malformed),
        (36, u64::MAX, Malformed),
        (64, 1 << 50, Malformed),
        (64, u64::MAX, Malformed),
    ];
    for (at, value, kind) in header64 {
        let mut bytes = built.bytes.clone();
        put64(&mut bytes, at, value);
        both_fail(&bytes, kind);
    }
    let mut bytes = built.bytes.clone();
    bytes[77] = 2;
    both_fail(&bytes, Unsupported);
    bytes[77] = 0;
    both_fail(&bytes, Malformed);
}

#[test]
fn relatives_are_refused_by_name() {
    let built = stream();
    let with = |from: &str, to: &str| {
        let builder = Builder::stream(DISK);
        Builder {
            descriptor: builder.descriptor.replace(from, to),
            ..builder
        }
        .build(&grains())
        .bytes
    };
    for kind in ["monolithicFlat", "twoGbMaxExtentSparse", "vmfs", "custom"] {
        both_fail(&with("streamOptimized", kind), Unsupported);
    }
    both_fail(&with("RW 1024", "RW 1 ZERO\nRW 1024"), Unsupported);
    both_fail(
        &with("version=1", "encryption.keySafe = \"x\""),
        Unsupported,
    );
    both_fail(&with("12345678", "no number"), Malformed);
    both_fail(&with("parentCID=ffffffff", "parentCID=00000001"), Malformed);
    both_fail(
        &with(
            "parentCID=ffffffff",
            "parentCID=00000001\nparentFileNameHint=\"/etc/passwd\"",
        ),
        Denied,
    );
    let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n";
    both_fail(text.as_bytes(), Malformed);
    let text = format!("{text}RW 1 FLAT \"x\" 0\n");
    random_fails(text.as_bytes(), Denied);
    forward_fails(text.as_bytes(), Unsupported);
    both_fail(b"COWD\x01\0\0\0", Malformed);
    both_fail(b"\xbe\xba\xfe\xca\0\0\0\0\x01\0\0\0", Unsupported);
    both_fail(b"QFI\xfb\0\0\0\x03", NotThisFormat);
    both_fail(&[], NotThisFormat);
    drop(built);
}

#[test]
fn a_stream_needs_no_descriptor() {
    let mut built = stream();
    built.bytes[28..44].fill(0);
    let footer = built.footer.unwrap();
    built.bytes[footer + 28..footer + 44].fill(0);
    built.bytes[SECTOR..21 * SECTOR].fill(0);
    both_read(&built.bytes, &disk(DISK, &grains()));
}

#[test]
fn tables_that_need_more_memory_than_allowed_are_refused_with_the_amount() {
    // A grain table per sector of the disk.
    let mut built = Builder {
        grain: 1,
        gtes: 1,
        ..Builder::stream(3 << 20)
    }
    .build(&[]);
    let limits = Limits::with_table_bytes(4 << 20);
    let e = vmdk::open(std::sync::Arc::new(built.bytes.clone()), &DenyAll, &limits).unwrap_err();
    assert_eq!(
        (e.kind(), e.needed().unwrap() >= 12 << 20),
        (LimitExceeded, true)
    );
    let mut options = options(None);
    options.limits = limits;
    let e = push_all(&built.bytes, 4096, options).unwrap_err();
    assert_eq!(
        (e.kind(), e.needed().unwrap() >= 12 << 20),
        (LimitExceeded, true)
    );
    // And beyond what anyone allows.
    for at in [12, built.footer.unwrap() + 12] {
        put64(&mut built.bytes, at, (32 << 20) + 1);
    }
    both_fail(&built.bytes, Malformed);
}
