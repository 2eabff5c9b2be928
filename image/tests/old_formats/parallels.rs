//! Parallels.

use longshore_image::ErrorKind::{LimitExceeded, Malformed, NotThisFormat, Unsupported};
use longshore_image::chain::Chain;
use longshore_image::{Compression, DenyAll, Format, Probe, Result, probe};
use proptest::prelude::*;

use crate::support::{
    Bench, MIB, both_fail, both_read, check_extents, open, pattern, random, same,
};

const SECTOR: usize = 512;
const P: Format = Format::Parallels;

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// An image of `sectors` in clusters of `tracks`, with these clusters in this order, and its disk.
fn build(
    extended: bool,
    sectors: u64,
    tracks: u32,
    clusters: &[(u64, Vec<u8>)],
) -> (Vec<u8>, Vec<u8>) {
    let cluster = tracks as usize * SECTOR;
    let entries = (sectors as usize * SECTOR).div_ceil(cluster);
    let align = if extended { cluster } else { SECTOR };
    let mut bytes = vec![0; (64 + 4 * entries).next_multiple_of(align)];
    let magic: &[u8] = if extended {
        b"WithouFreSpacExt"
    } else {
        b"WithoutFreeSpace"
    };
    bytes[..16].copy_from_slice(magic);
    for (at, word) in [
        (16, 2),
        (20, 16),
        (24, 40),
        (28, tracks),
        (32, entries as u32),
    ] {
        put32(&mut bytes, at, word);
    }
    bytes[36..44].copy_from_slice(&sectors.to_le_bytes());
    let mut disk = vec![0; sectors as usize * SECTOR];
    for (number, data) in clusters {
        let at = bytes.len();
        put32(&mut bytes, 64 + 4 * *number as usize, (at / align) as u32);
        bytes.extend_from_slice(data);
        bytes.resize(at + cluster, 0);
        let start = *number as usize * cluster;
        let end = (start + data.len()).min(disk.len());
        disk[start..end].copy_from_slice(&data[..end - start]);
    }
    (bytes, disk)
}

fn sample() -> (Vec<u8>, Vec<u8>) {
    let clusters = [(2, pattern(2, 63 * SECTOR)), (0, pattern(3, 63 * SECTOR))];
    build(false, 63 * 9 + 5, 63, &clusters)
}

#[test]
fn what_qemu_img_writes_reads_as_qemu_img_reads_it() {
    let Some(bench) = Bench::new("parallels") else {
        return;
    };
    for (name, disk) in [
        ("empty", vec![0; 5 * MIB]),
        ("dense", pattern(1, 3 * MIB)),
        ("unaligned", pattern(2, 2 * MIB + 3 * SECTOR)),
        ("tiny", pattern(6, SECTOR)),
    ] {
        bench.write("raw", &disk);
        for options in ["cluster_size=1M", "cluster_size=64k", "cluster_size=4096"] {
            bench.img(&format!(
                "convert -f raw -O parallels -o {options} raw disk.hdd"
            ));
            let expected = bench.oracle("disk.hdd");
            eprintln!("{name}, {options}");
            both_read(P, &bench.read("disk.hdd"), &expected, false);
        }
    }
    bench.img("create -q -f parallels -o cluster_size=64k disk.hdd 9M");
    bench.io("disk.hdd", &["write -P 1 8M 300k", "write -P 2 0 1M"]);
    bench.io("disk.hdd", &["write -P 3 5M 2M", "write -P 4 600k 100k"]);
    bench.io("disk.hdd", &["write -z 5M 1M"]);
    both_read(P, &bench.read("disk.hdd"), &bench.oracle("disk.hdd"), false);
}

#[test]
fn both_kinds_of_all_cluster_sizes_read_as_qemu_img_reads_them() {
    let Some(bench) = Bench::new("parallels") else {
        return;
    };
    for extended in [false, true] {
        for tracks in [1, 8, 63, 504, 2048] {
            let cluster = tracks as usize * SECTOR;
            let clusters = [
                (5, pattern(5, cluster)),
                (0, pattern(6, cluster)),
                (6, pattern(7, 2 * SECTOR.min(cluster))),
            ];
            let (bytes, _) = build(extended, u64::from(tracks) * 6 + 1, tracks, &clusters);
            bench.write("disk.hdd", &bytes);
            both_read(P, &bytes, &bench.oracle("disk.hdd"), false);
        }
    }
}

#[test]
fn info_says_what_it_is() {
    let (mut bytes, _) = sample();
    put32(&mut bytes, 44, 0x746f_6e59);
    assert_eq!(probe(&bytes), Probe::Image(P));
    let info = open(P, &bytes, &DenyAll).unwrap().info();
    assert_eq!(
        (info.format, info.variant.as_str()),
        (P, "WithoutFreeSpace")
    );
    assert_eq!(info.cluster_size, Some(63 * 512));
    assert_eq!(info.compression, Compression::None);
    assert_eq!(info.features, ["unclean shutdown"]);
}

#[test]
fn headers_that_can_not_be_are_errors() {
    let (good, disk) = sample();
    both_read(P, &good, &disk, false);
    for (at, word, kind) in [
        (0, 0, NotThisFormat),
        (16, 1, Unsupported),
        (16, 3, Unsupported),
        (28, 0, Malformed),
        (28, 4_186_128, Malformed),
        (28, u32::MAX, Malformed),
        (32, 9, Malformed),
        (32, 0, Malformed),
        (36, u32::MAX, Malformed),
    ] {
        let mut bytes = good.clone();
        put32(&mut bytes, at, word);
        both_fail(P, &bytes, kind);
    }
    // Only the new kind has more than 32 bits of sectors.
    let mut bytes = good.clone();
    put32(&mut bytes, 40, u32::MAX);
    both_read(P, &bytes, &disk, false);
    bytes[..16].copy_from_slice(b"WithouFreSpacExt");
    both_fail(P, &bytes, Malformed);
    for cut in [16, 63, 64, 64 + 39] {
        both_fail(P, &good[..cut], Malformed);
    }
}

#[test]
fn clusters_that_can_not_be_where_they_are_said_to_be_are_errors() {
    let (good, mut disk) = sample();
    let sectors = (good.len() / SECTOR) as u32;
    for entry in [sectors, sectors + 9, u32::MAX] {
        let mut bytes = good.clone();
        put32(&mut bytes, 64 + 4, entry);
        both_fail(P, &bytes, Malformed);
    }
    let entries = 40_u32 << 7;
    let (mut bytes, _) = build(false, u64::from(entries), 1, &[(3, pattern(1, SECTOR))]);
    for entry in [1, 40] {
        put32(&mut bytes, 64 + 4, entry);
        both_fail(P, &bytes, Malformed);
    }
    // Cut inside the last cluster: the rest was never written.
    let cut = good.len() - 60 * SECTOR;
    disk[3 * SECTOR..63 * SECTOR].fill(0);
    both_read(P, &good[..cut], &disk, false);
}

#[test]
fn one_cluster_is_not_a_disk_many_times() {
    // 256 GiB out of a megabyte, by tables of another.
    let entries = 1_u32 << 18;
    let (mut bytes, _) = build(true, 2048, 2048, &[]);
    put32(&mut bytes, 32, entries);
    put32(&mut bytes, 36, entries << 11);
    bytes.truncate(64);
    for _ in 0..entries {
        bytes.extend(2_u32.to_le_bytes());
    }
    bytes.resize(3 * MIB, 1);
    let chain = Chain::new(open(P, &bytes, &DenyAll).unwrap()).unwrap();
    let e = chain.extents().find_map(Result::err).unwrap();
    assert_eq!(e.kind(), LimitExceeded);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn extents_cover_the_disk_and_both_ways_agree(
        extended in any::<bool>(),
        tracks in prop_oneof![Just(1_u32), Just(3), Just(63), Just(64)],
        sectors in 1_u64..2000,
        picks in prop::collection::vec(any::<u64>(), 0..10),
        window in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let count = sectors.div_ceil(u64::from(tracks));
        let mut numbers: Vec<u64> = picks.iter().map(|p| p % count).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.sort_by_key(|n| n.wrapping_mul(0x9E37_79B9));
        let clusters: Vec<_> = numbers
            .into_iter()
            .map(|n| (n, pattern(n + 1, tracks as usize * SECTOR)))
            .collect();
        let (bytes, disk) = build(extended, sectors, tracks, &clusters);
        let image = open(P, &bytes, &DenyAll).unwrap();
        let (a, b) = (window.0.index(disk.len() + 1) as u64, window.1.index(disk.len() + 1) as u64);
        check_extents(image.as_ref(), a.min(b)..a.max(b));
        same(&random(P, &bytes, &DenyAll).unwrap(), &disk, "random");
        same(&crate::support::stream(P, &bytes, 999, false).unwrap(), &disk, "stream");
    }
}
