//! qcow, version 1.

use std::io::Write as _;

use longshore_image::ErrorKind::{Denied, LimitExceeded, Malformed, NotThisFormat, Unsupported};
use longshore_image::chain::Chain;
use longshore_image::{Compression, DenyAll, Format, Probe, ReferenceKind, Result, probe};
use proptest::prelude::*;

use crate::support::{
    Bench, MIB, both_fail, both_read, check_extents, open, pattern, random, same, stream,
};

const Q: Format = Format::Qcow;

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

fn get64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// An image of `size` bytes, with these clusters in this order, compressed or not; and its disk.
fn build(
    size: u64,
    cluster_bits: u8,
    l2_bits: u8,
    clusters: &[(u64, Vec<u8>, bool)],
) -> (Vec<u8>, Vec<u8>) {
    let cluster = 1_usize << cluster_bits;
    let l2_entries = 1_u64 << l2_bits;
    let l1_entries = size.div_ceil(cluster as u64 * l2_entries) as usize;
    let mut bytes = b"QFI\xfb\0\0\0\x01".to_vec();
    bytes.resize(48 + 8 * l1_entries, 0);
    put64(&mut bytes, 24, size);
    bytes[32] = cluster_bits;
    bytes[33] = l2_bits;
    put64(&mut bytes, 40, 48);
    let mut disk = vec![0; size as usize / 512 * 512];
    for (number, data, packed) in clusters {
        let l1 = 48 + 8 * (number / l2_entries) as usize;
        if get64(&bytes, l1) == 0 {
            let at = bytes.len().next_multiple_of(cluster);
            bytes.resize(at + 8 * l2_entries as usize, 0);
            put64(&mut bytes, l1, at as u64);
        }
        let l2 = get64(&bytes, l1) as usize + 8 * (number % l2_entries) as usize;
        if *packed {
            let at = bytes.len() as u64;
            let mut e = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            let mut whole = data.clone();
            whole.resize(cluster, 0);
            e.write_all(&whole).unwrap();
            let deflated = e.finish().unwrap();
            assert!(deflated.len() < cluster, "it does not compress");
            bytes.extend_from_slice(&deflated);
            let len = (deflated.len() as u64) << (63 - cluster_bits);
            put64(&mut bytes, l2, 1 << 63 | len | at);
        } else {
            let at = bytes.len().next_multiple_of(cluster);
            bytes.resize(at, 0);
            bytes.extend_from_slice(data);
            bytes.resize(at + cluster, 0);
            put64(&mut bytes, l2, at as u64);
        }
        let start = *number as usize * cluster;
        let end = (start + data.len()).min(disk.len());
        disk[start..end].copy_from_slice(&data[..end - start]);
    }
    (bytes, disk)
}

/// Half noise, half zeros: it compresses, but not to nothing.
fn soft(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = pattern(seed | 2, len / 3);
    bytes.resize(len, 0x5A);
    bytes
}

fn sample() -> (Vec<u8>, Vec<u8>) {
    let clusters = [
        (70, soft(1, 4096), true),
        (3, pattern(2, 4096), false),
        (0, soft(3, 4096), true),
        (71, soft(4, 4096), true),
    ];
    build(4096 * 72 + 700, 12, 6, &clusters)
}

/// Makes `name` of `raw`. QEMU 10 ends with 1, and without a word, after it wrote a compressed qcow as it
/// should; whether it did is for the caller to see.
fn convert(bench: &Bench, flags: &str, name: &str) {
    let mut command = std::process::Command::new("qemu-img");
    command.arg("convert").args(flags.split_whitespace());
    command.args(["-f", "raw", "-O", "qcow", "raw", name]);
    let out = command.current_dir(bench.path(".")).output().unwrap();
    assert!(out.stderr.is_empty(), "{out:?}");
}

#[test]
fn what_qemu_img_writes_reads_as_qemu_img_reads_it() {
    let Some(bench) = Bench::new("qcow") else {
        return;
    };
    for (name, disk) in [
        ("empty", vec![0; 5 * MIB]),
        ("dense", pattern(1, 3 * MIB)),
        ("unaligned", pattern(2, 2 * MIB + 3 * 512)),
        ("tiny", pattern(6, 512)),
    ] {
        bench.write("raw", &disk);
        for flags in ["", "-c"] {
            convert(&bench, flags, "disk.qcow");
            let expected = bench.oracle("disk.qcow");
            same(&expected[..disk.len()], &disk, "what qemu-img wrote");
            eprintln!("{name} {flags}");
            both_read(Q, &bench.read("disk.qcow"), &expected, false);
        }
    }
    bench.img("create -q -f qcow disk.qcow 9M");
    bench.io("disk.qcow", &["write -P 1 8M 300k", "write -P 2 0 1M"]);
    bench.io("disk.qcow", &["write -P 3 5M 2M", "write -P 4 600k 100k"]);
    both_read(
        Q,
        &bench.read("disk.qcow"),
        &bench.oracle("disk.qcow"),
        false,
    );
}

#[test]
fn every_cluster_and_table_size_reads_as_qemu_img_reads_it() {
    let Some(bench) = Bench::new("qcow") else {
        return;
    };
    for (cluster_bits, l2_bits) in [(9, 6), (9, 13), (12, 9), (16, 6), (16, 13)] {
        let cluster = 1_usize << cluster_bits;
        let clusters = [
            (66, pattern(1, cluster), false),
            (1, soft(2, cluster), true),
            (2, soft(3, cluster), true),
            (0, pattern(4, cluster), false),
            (67, soft(5, cluster), true),
        ];
        let (bytes, _) = build(68 * cluster as u64 - 512, cluster_bits, l2_bits, &clusters);
        bench.write("disk.qcow", &bytes);
        both_read(Q, &bytes, &bench.oracle("disk.qcow"), false);
    }
    let (bytes, disk) = sample();
    bench.write("disk.qcow", &bytes);
    same(&disk, &bench.oracle("disk.qcow"), "the builder");
}

#[test]
fn backing_files_read_as_qemu_img_reads_them_and_only_through_the_gate() {
    let Some(bench) = Bench::new("qcow") else {
        return;
    };
    bench.write("raw", &pattern(1, 3 * MIB));
    convert(&bench, "-c", "base.qcow");
    bench.img("create -q -f qcow -b base.qcow -F qcow middle.qcow");
    bench.io("middle.qcow", &["write -P 7 1000k 70k"]);
    bench.img("create -q -f qcow2 -b middle.qcow -F qcow top.qcow2");
    bench.img("create -q -f qcow -b top.qcow2 -F qcow2 top.qcow");
    bench.io("top.qcow", &["write -P 8 512 512", "write -P 9 2M 1000"]);
    let bytes = bench.read("top.qcow");
    let image = open(Q, &bytes, &bench.gate()).unwrap();
    let reference = &image.info().references[0];
    assert_eq!(
        (reference.name.as_str(), reference.kind),
        ("top.qcow2", ReferenceKind::Backing)
    );
    same(
        &random(Q, &bytes, &bench.gate()).unwrap(),
        &bench.oracle("top.qcow"),
        "the chain",
    );
    both_fail(Q, &bytes, Denied);
    // An image that is its own backing file ends.
    bench.write("top.qcow2", &bytes);
    let e = open(Q, &bytes, &bench.gate()).unwrap_err();
    assert_eq!(e.kind(), Malformed);
}

#[test]
fn info_says_what_it_is_and_versions_are_not_mixed_up() {
    let (bytes, disk) = sample();
    assert_eq!(probe(&bytes), Probe::Image(Q));
    let info = open(Q, &bytes, &DenyAll).unwrap().info();
    assert_eq!((info.format, info.variant.as_str()), (Q, "v1"));
    assert_eq!(info.virtual_size, disk.len() as u64);
    assert_eq!(info.cluster_size, Some(4096));
    assert_eq!(info.compression, Compression::Zlib);
    both_fail(Format::Qcow2, &bytes, Unsupported);
    let mut bytes = bytes;
    bytes[7] = 2;
    both_fail(Q, &bytes, NotThisFormat);
    both_fail(Q, b"QFI\xfb", NotThisFormat);
    assert!(random(Q, &[], &DenyAll).is_err());
}

#[test]
fn headers_that_can_not_be_are_errors() {
    let (good, disk) = sample();
    both_read(Q, &good, &disk, false);
    let with = |at: usize, new: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    for (at, new, kind) in [
        (24, 0_u64, Malformed),
        (24, 1, Malformed),
        (24, u64::MAX, Malformed),
        (24, 1 << 61, Unsupported),
        (40, 0, Malformed),
        (40, 47, Malformed),
        (40, u64::MAX, Malformed),
        (40, 1 << 40, Malformed),
        (8, 1 << 40, Malformed),
    ] {
        let mut bytes = with(at, &new.to_be_bytes());
        bytes[16..20].copy_from_slice(&8_u32.to_be_bytes());
        both_fail(Q, &bytes, kind);
    }
    for (at, byte, kind) in [
        (32, 8, Malformed),
        (32, 17, Malformed),
        (33, 5, Malformed),
        (33, 14, Malformed),
        (39, 1, Unsupported),
        (39, 2, Unsupported),
    ] {
        both_fail(Q, &with(at, &[byte]), kind);
    }
    let mut bytes = with(8, &100_u64.to_be_bytes());
    bytes[16..20].copy_from_slice(&1024_u32.to_be_bytes());
    both_fail(Q, &bytes, Malformed);
    for cut in [8, 47, 48, 55, 4096, 4100] {
        both_fail(Q, &good[..cut], Malformed);
    }
}

#[test]
fn entries_that_can_not_be_are_errors() {
    let (good, disk) = sample();
    let l2 = get64(&good, 48) as usize;
    let len = good.len() as u64;
    for (at, entry) in [
        (48, len - 100),
        (48, u64::MAX),
        (48, 1 << 62),
        (l2 + 8, 513),
        (l2 + 8, len.next_multiple_of(512)),
        (l2 + 8, 1 << 62),
        (l2 + 8, 1 << 63 | 4096),
        (l2 + 8, 1 << 63 | 100 << 51 | len),
        (l2 + 8, 1 << 63 | 3 << 51 | l2 as u64),
        (l2 + 8, u64::MAX),
    ] {
        let mut bytes = good.clone();
        put64(&mut bytes, at, entry);
        both_fail(Q, &bytes, Malformed);
    }
    // The last cluster ends early; what is cut of a compressed one is not there.
    let clusters = [(1, pattern(9, 4096), false)];
    let (bytes, mut disk_of_two) = build(8192, 12, 6, &clusters);
    disk_of_two[4096 + 1000..].fill(0);
    both_read(Q, &bytes[..bytes.len() - 3096], &disk_of_two, false);
    both_fail(Q, &good[..good.len() - 9], Malformed);
    drop(disk);
}

#[test]
fn tables_behind_their_data_need_help_and_get_it() {
    let (good, disk) = sample();
    let l2 = get64(&good, 48) as usize;
    let mut bytes = good;
    let table = bytes[l2..l2 + 512].to_vec();
    bytes[l2..l2 + 512].fill(0xEE);
    let at = bytes.len();
    bytes.extend(table);
    put64(&mut bytes, 48, at as u64);
    both_read(Q, &bytes, &disk, false);
}

#[test]
fn one_cluster_is_not_a_disk_many_times() {
    // 64 GiB out of 64 KiB: a new L1 of 128 times the same table.
    let (mut bytes, _) = build(65536, 16, 13, &[(0, pattern(1, 65536), false)]);
    let l2 = get64(&bytes, 48);
    put64(&mut bytes, 24, 1 << 36);
    let l1 = bytes.len() as u64;
    put64(&mut bytes, 40, l1);
    for _ in 0..128 {
        bytes.extend(l2.to_be_bytes());
    }
    let cluster = get64(&bytes, l2 as usize);
    for n in 0..8192 {
        put64(&mut bytes, l2 as usize + 8 * n, cluster);
    }
    let chain = Chain::new(open(Q, &bytes, &DenyAll).unwrap()).unwrap();
    let e = chain.extents().find_map(Result::err).unwrap();
    assert_eq!(e.kind(), LimitExceeded);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn extents_cover_the_disk_and_both_ways_agree(
        cluster_bits in 9_u8..13,
        l2_bits in 6_u8..9,
        clusters in 1_u64..200,
        tail in 0_u64..512,
        picks in prop::collection::vec((any::<u64>(), any::<bool>()), 0..12),
    ) {
        let cluster = 1_usize << cluster_bits;
        let mut chosen: Vec<(u64, bool)> = picks.iter().map(|(p, c)| (p % clusters, *c)).collect();
        chosen.sort_unstable();
        chosen.dedup_by_key(|c| c.0);
        chosen.sort_by_key(|c| c.0.wrapping_mul(0x9E37_79B9));
        let list: Vec<_> = chosen
            .into_iter()
            .map(|(n, packed)| (n, soft(n + 1, cluster), packed))
            .collect();
        let (bytes, disk) = build(clusters * cluster as u64 + tail, cluster_bits, l2_bits, &list);
        let image = open(Q, &bytes, &DenyAll).unwrap();
        check_extents(image.as_ref(), 0..disk.len() as u64);
        same(&random(Q, &bytes, &DenyAll).unwrap(), &disk, "random");
        same(&stream(Q, &bytes, 777, false).unwrap(), &disk, "stream");
    }
}
