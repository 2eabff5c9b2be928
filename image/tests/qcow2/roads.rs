//! Forward only with tables behind their data: the hold, side reads, another pass, refusal.

use longshore_image::ErrorKind;
use longshore_image::forward::{MAX_PASSES, MemoryHold, Options};

use crate::builder::{Builder, COPIED, deflate};
use crate::support::{Bench, Forward, disk, kind, no_hold, options, same, with_side};

const CHUNKS: [usize; 5] = [1, 7, 600, 4096, 1 << 20];

fn reopenable(hold: u64) -> Options {
    let mut options = options();
    options.hold = Box::new(MemoryHold::new(hold));
    options.reopenable = true;
    options
}

fn one_shot_without_hold() -> Options {
    let mut options = options();
    options.hold = no_hold();
    options
}

/// Reads `bytes` along every road; says how many passes it takes without a hold.
fn all_roads(what: &str, bytes: &[u8], expected: &[u8]) -> u32 {
    let mut passes = 0;
    for chunk in CHUNKS {
        let roads = [
            ("hold", options(), 1),
            ("side", with_side(bytes), 1),
            (
                "side and some hold",
                {
                    let mut options = with_side(bytes);
                    options.hold = Box::new(MemoryHold::new(50_000));
                    options
                },
                1,
            ),
            ("passes", reopenable(0), MAX_PASSES),
            ("passes and some hold", reopenable(50_000), MAX_PASSES),
        ];
        for (road, options, most) in roads {
            let what = format!("{what}, {road}, chunks of {chunk}");
            let seen = Forward::new(options).chunk(chunk).run(bytes);
            let seen = seen.unwrap_or_else(|e| panic!("{what}: {e:?}"));
            same(&what, &seen.disk, expected);
            assert!(seen.passes <= most, "{what}: {} passes", seen.passes);
            if road == "passes" {
                passes = seen.passes.max(passes);
            }
        }
    }
    passes
}

fn refused_without_any_help(bytes: &[u8]) {
    for chunk in CHUNKS {
        let run = Forward::new(one_shot_without_hold())
            .chunk(chunk)
            .run(bytes);
        assert_eq!(kind(run), ErrorKind::TablesFollowData);
    }
}

#[test]
fn an_l1_behind_all_data_takes_every_road() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("raw", &disk(31, 600 << 10));
    for (cluster, codec) in [("512", ""), ("512", "-c"), ("4k", ""), ("4k", "-c")] {
        bench.img(&format!(
            "convert -f raw -O qcow2 {codec} -o cluster_size={cluster} raw grown"
        ));
        // Far enough that L1 has to move, the table staying sparse.
        bench.img(if cluster == "512" {
            "resize grown 4M"
        } else {
            "resize grown 1100M"
        });
        let bytes = bench.read("grown");
        let l1 = u64::from_be_bytes(bytes[40..48].try_into().unwrap());
        assert!(
            l1 > bytes.len() as u64 / 2,
            "{cluster}{codec}: L1 is at {l1:#x}"
        );
        bench.img("resize --shrink grown 1M");
        let bytes = bench.read("grown");
        let passes = all_roads(cluster, &bytes, &bench.oracle("grown"));
        // Compressed clusters may also come before their L2 table, as the sectors fill up.
        let enough = if codec.is_empty() { 2..=2 } else { 2..=3 };
        assert!(enough.contains(&passes), "{cluster}{codec}: {passes}");
        refused_without_any_help(&bytes);
    }
}

#[test]
fn rewritten_images_with_snapshots_take_every_road() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("raw", &disk(37, 1 << 20));
    for options in [
        "cluster_size=4k",
        "cluster_size=512",
        "extended_l2=on,cluster_size=16k",
    ] {
        bench.img(&format!("convert -f raw -O qcow2 -c -o {options} raw snap"));
        bench.img("snapshot -c one snap");
        bench.io("snap", &["write -P 5 700k 100k", "write -P 6 3k 5k"]);
        bench.img("snapshot -c two snap");
        bench.io("snap", &["write -P 7 300k 300k", "write -z 20k 50k"]);
        all_roads(options, &bench.read("snap"), &bench.oracle("snap"));
    }
}

/// Data, then the L2 table, then L1.
fn backwards() -> (Vec<u8>, Vec<u8>) {
    let mut b = Builder::new(12, 300 << 12);
    let (l1, l2) = (b.l1, b.l2);
    b.append(&vec![0; 64 << 10]);
    let mut disk = vec![0; 300 << 12];
    for index in 0..300_usize {
        let byte = (index % 251) as u8 + 1;
        if index % 7 == 3 {
            continue;
        }
        let entry = if index % 3 == 0 {
            let packed = deflate(&vec![byte; 1 << 12]);
            let at = b.append(&packed);
            b.compressed(at, packed.len() as u64)
        } else {
            b.data(byte) | COPIED
        };
        b.l2_entry(index as u64, entry);
        disk[index << 12..(index + 1) << 12].fill(byte);
    }
    // Both tables move to the end.
    let table = b.image[l2 as usize..(l2 + b.cluster) as usize].to_vec();
    let at = b.data(0);
    b.put(at, &table);
    b.put(l2, &vec![0xee; b.cluster as usize]);
    let moved = b.data(0);
    b.be64(moved, at | COPIED);
    b.put(l1, &vec![0xdd; b.cluster as usize]);
    b.be64(40, moved);
    (b.image, disk)
}

#[test]
fn an_image_written_backwards_takes_three_passes() {
    let (bytes, disk) = backwards();
    assert_eq!(all_roads("backwards", &bytes, &disk), 3);
    refused_without_any_help(&bytes);
}

#[test]
fn side_reads_need_no_second_look_at_the_stream() {
    let (bytes, disk) = backwards();
    let seen = Forward::new(with_side(&bytes)).run(&bytes).unwrap();
    assert_eq!(seen.passes, 1);
    same("side", &seen.disk, &disk);
}

#[test]
fn compressed_clusters_that_share_sectors_with_unknown_ones_are_not_lost() {
    // Two L2 tables of 512 clusters: the first is in front of the data, the second behind. Their
    // clusters alternate in every way within shared sectors.
    for pattern in 0..1 << 6_u32 {
        let mut b = Builder::new(12, 1024 << 12);
        // Nothing is done before the whole header may have passed.
        b.append(&vec![0; 64 << 10]);
        let mut disk = vec![0; 1024 << 12];
        let mut late = vec![0; 1 << 12];
        for index in 0..40_usize {
            let byte = index as u8 + 1;
            let mut cluster = vec![byte; 1 << 12];
            // Some are larger than a sector.
            let noise = if index % 5 == 0 { 700 } else { index * 3 };
            let mut state = index as u32 + 1;
            for b in &mut cluster[..noise] {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *b = (state >> 24) as u8;
            }
            let packed = deflate(&cluster);
            let at = b.append(&packed);
            let entry = b.compressed(at, packed.len() as u64);
            let guest = if pattern >> (index % 6) & 1 == 0 {
                b.l2_entry(index as u64, entry);
                index
            } else {
                // Found in the order of the file, or the other way round.
                let place = if pattern % 4 < 2 { index } else { 40 - index };
                late[place * 8..place * 8 + 8].copy_from_slice(&entry.to_be_bytes());
                512 + place
            };
            disk[guest << 12..(guest + 1) << 12].copy_from_slice(&cluster);
        }
        let at = b.data(0);
        b.put(at, &late);
        b.l1_entry(1, at | COPIED);
        for chunk in [1, 100, 512, 4096, 1 << 20] {
            let seen = Forward::new(options()).chunk(chunk).run(&b.image);
            let what = format!("pattern {pattern:#b}, chunks of {chunk}");
            let seen = seen.unwrap_or_else(|e| panic!("{what}: {e:?}"));
            same(&what, &seen.disk, &disk);
            assert_eq!(seen.passes, 1, "{what}");
        }
    }
}

#[test]
fn what_is_known_not_to_be_the_disks_is_not_held() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("raw", &disk(41, 5 << 20));
    bench.img("convert -f raw -O qcow2 -o cluster_size=2M raw image");
    let bytes = bench.read("image");
    let mut options = options();
    options.hold = Box::new(MemoryHold::new(64 << 10));
    let seen = Forward::new(options).run(&bytes).unwrap();
    same("image", &seen.disk, &bench.oracle("image"));
}
