//! Images that qemu-img makes, and images of our builder, read as qemu-img reads them.

use crate::builder::{Builder, Tables, pattern};
use crate::support::{Bench, both_read, open, options, push_all};

const MIB: usize = 1 << 20;

/// Disks: nothing, a little, everything, noise; some end inside a grain.
fn contents() -> Vec<(&'static str, Vec<u8>)> {
    let mut sparse = vec![0; 34 * MIB];
    for (at, len) in [(0, 512), (3 * MIB + 511, 2), (33 * MIB, 100_000)] {
        sparse[at..at + len].copy_from_slice(&pattern(7, len));
    }
    let last = sparse.len() - 1;
    sparse[last] = 1;
    let noise: Vec<u8> = {
        let mut x = 1_u64;
        std::iter::repeat_with(|| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 40) as u8
        })
        .take(3 * MIB)
        .collect()
    };
    vec![
        ("empty", vec![0; 33 * MIB]),
        ("sparse", sparse),
        ("dense", pattern(3, 4 * MIB)),
        ("noise", noise),
        ("unaligned", pattern(5, 2 * MIB + 3 * 512)),
        ("tiny", pattern(6, 512)),
    ]
}

#[test]
fn what_qemu_img_converts_reads_as_qemu_img_reads_it() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    for (name, disk) in contents() {
        bench.write("raw", &disk);
        for options in [
            "subformat=monolithicSparse",
            "subformat=monolithicSparse,zeroed_grain=on",
            "subformat=streamOptimized",
        ] {
            eprintln!("{name}, {options}");
            bench.img(&format!(
                "convert -f raw -O vmdk -o {options} raw disk.vmdk"
            ));
            assert!(bench.oracle("disk.vmdk") == disk);
            bench.check("disk.vmdk");
        }
    }
}

#[test]
fn streams_written_out_of_order_by_qemu_img_read_the_same() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    bench.write("raw", &pattern(11, 20 * MIB));
    bench.img("convert -f raw -O vmdk -m 16 -W -o subformat=streamOptimized raw disk.vmdk");
    bench.check("disk.vmdk");
    bench.img("convert -f raw -O vmdk -m 16 -W -o subformat=monolithicSparse raw disk.vmdk");
    bench.check("disk.vmdk");
}

#[test]
fn sparse_images_rewritten_out_of_order_read_the_same() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    for zeroed in ["off", "on"] {
        bench.img(&format!(
            "create -f vmdk -o subformat=monolithicSparse,zeroed_grain={zeroed} disk.vmdk 90M"
        ));
        bench.io("disk.vmdk", &["write -P 1 80M 300k", "write -P 2 0 1M"]);
        bench.io("disk.vmdk", &["write -P 3 40M 2M", "write -P 4 600k 100k"]);
        bench.io("disk.vmdk", &["write -z 40M 1M", "write -P 5 39M 70000"]);
        bench.check("disk.vmdk");
    }
}

#[test]
fn a_stream_that_qemu_went_on_writing_has_gaps_and_reads_the_same() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    bench.img("create -f vmdk -o subformat=streamOptimized disk.vmdk 9M");
    bench.io("disk.vmdk", &["write -P 1 1M 64k"]);
    bench.io("disk.vmdk", &["write -P 2 64k 64k"]);
    bench.io("disk.vmdk", &["write -P 3 8M 64k"]);
    bench.check("disk.vmdk");
}

#[test]
fn qemu_agrees_with_the_builder_about_streams_of_other_tools() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    let grains: Vec<(u64, Vec<u8>)> = [3, 1, 700, 0, 1200]
        .into_iter()
        .map(|n| (n * 128, pattern(n, 65536)))
        .collect();
    for tables in [Tables::Behind, Tables::Front, Tables::FrontWithEnd] {
        for flags in [0x3_0001, 0x3_0003] {
            if tables == Tables::Behind && flags & 2 != 0 {
                continue;
            }
            let built = Builder {
                tables,
                flags,
                grain: 128,
                ..Builder::stream(1300 * 128)
            }
            .build(&grains);
            bench.write("disk.vmdk", &built.bytes);
            bench.check("disk.vmdk");
        }
    }
}

#[test]
fn info_says_what_the_image_is_both_ways() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    bench.write("raw", &pattern(1, MIB));
    for (name, cluster, compression) in [
        (
            "monolithicSparse",
            65536,
            longshore_image::Compression::None,
        ),
        ("streamOptimized", 65536, longshore_image::Compression::Zlib),
    ] {
        bench.img(&format!(
            "convert -f raw -O vmdk -o subformat={name} raw disk.vmdk"
        ));
        let bytes = bench.read("disk.vmdk");
        let info = open(&bytes).unwrap().info();
        assert_eq!(info.variant, name);
        assert_eq!(info.virtual_size, 1 << 20);
        assert_eq!(info.cluster_size, Some(cluster));
        assert_eq!(info.compression, compression);
        assert_eq!(info.features, ["redundant grain directory"]);
        assert!(info.references.is_empty());
        let forward = open(&bytes).unwrap().best_read_forward();
        assert_eq!(forward, name == "streamOptimized");
        let pieces = push_all(&bytes, 4096, options(None)).unwrap();
        assert_eq!(pieces.geometry.unwrap().info, info);
    }
}

#[test]
fn a_disk_of_no_bytes_is_read() {
    for builder in [Builder::stream(0), Builder::sparse(0)] {
        both_read(&builder.build(&[]).bytes, &[]);
    }
}
