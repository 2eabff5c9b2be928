//! Images as qemu-img makes them read as qemu-img reads them.

use std::sync::Arc;

use longshore_image::{ErrorKind, Extent, ExtentKind, Limits, all_extents};

use crate::support::{Bench, Forward, disk, kind, options};

/// A disk of a size that ends inside every cluster, in sectors.
const SIZE: usize = (5 << 19) + 7 * 512;

/// Converts `raw` with each of the `flavours` in each of the cluster sizes, and compares.
fn matrix(clusters: &[&str], flavours: &[&str]) {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("raw", &disk(7, SIZE));
    for cluster in clusters {
        for (i, flavour) in flavours.iter().enumerate() {
            let name = format!("{cluster}-{i}");
            bench.img(&format!(
                "convert -f raw -O qcow2 -o cluster_size={cluster} {flavour} raw {name}"
            ));
            bench.check(&name);
        }
    }
}

const SIZES: &[&str] = &["512", "4k", "64k", "2M"];

#[test]
fn plain_images_of_both_versions_and_all_cluster_sizes() {
    matrix(SIZES, &["-o compat=0.10", "-o compat=1.1", "-S 0"]);
}

#[test]
fn zlib_images_of_both_versions_and_all_cluster_sizes() {
    matrix(SIZES, &["-c -o compat=0.10", "-c -o compat=1.1"]);
}

#[test]
fn zstd_images_of_all_cluster_sizes() {
    matrix(SIZES, &["-c -o compression_type=zstd"]);
}

#[test]
fn images_with_subclusters() {
    matrix(
        &["16k", "64k", "2M"],
        &[
            "-o extended_l2=on",
            "-c -o extended_l2=on",
            "-c -o extended_l2=on,compression_type=zstd",
        ],
    );
}

#[test]
fn clusters_written_out_of_order() {
    matrix(
        &["512", "4k", "64k"],
        &[
            "-m 16 -W",
            "-c -m 16 -W",
            "-c -m 16 -W -o compression_type=zstd",
        ],
    );
}

#[test]
fn preallocated_images() {
    matrix(
        &["4k", "64k", "2M"],
        &[
            "-o preallocation=metadata",
            "-o preallocation=falloc",
            "-o preallocation=full",
            "-o preallocation=metadata,compat=0.10",
        ],
    );
    matrix(&["64k"], &["-o preallocation=metadata,extended_l2=on"]);
}

#[test]
fn images_of_incompressible_and_of_tiny_compressed_clusters() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("raw", &vec![0x5a; SIZE]);
    bench.img("convert -f raw -O qcow2 -c -o cluster_size=4k raw tiny");
    bench.check("tiny");
    // Many tables, and clusters of many tables in one sector.
    let text: Vec<u8> = (0..16_u32 << 20).map(|i| (i >> 12) as u8 | 1).collect();
    bench.write("raw", &text);
    for codec in ["zlib", "zstd"] {
        bench.img(&format!(
            "convert -f raw -O qcow2 -c -m 16 -W -o cluster_size=4k,compression_type={codec} raw tiny"
        ));
        bench.check("tiny");
    }
    let mut noise = disk(3, SIZE);
    for (i, b) in noise.iter_mut().enumerate() {
        *b ^= ((i * i) >> 3) as u8;
    }
    bench.write("raw", &noise);
    bench.img("convert -f raw -O qcow2 -c -o cluster_size=2M,compression_type=zstd raw dense");
    bench.check("dense");
}

#[test]
fn empty_images_and_images_of_nothing() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.img("create -f qcow2 empty 5M");
    bench.check("empty");
    bench.img("create -f qcow2 nothing 0");
    bench.check("nothing");
    bench.img("create -f qcow2 -o preallocation=metadata allocated 1000003");
    bench.check("allocated");
    bench.img("create -f qcow2 -o preallocation=metadata,extended_l2=on parts 10241k");
    bench.check("parts");
}

#[test]
fn an_empty_image_of_8_tib_is_one_extent_and_costs_next_to_nothing() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.img("create -f qcow2 huge 8T");
    let gate = longshore_image::DenyAll;
    let limits = Limits::with_table_bytes(1 << 20);
    let image = longshore_image::qcow2::open(bench.file("huge"), &gate, &limits).unwrap();
    assert_eq!(
        all_extents(image.as_ref()).unwrap(),
        [Extent {
            guest: 0..8 << 40,
            kind: ExtentKind::Zero
        }]
    );
}

#[test]
fn zero_clusters_and_discarded_ones() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    for options in [
        "cluster_size=64k",
        "cluster_size=512",
        "extended_l2=on",
        "compat=0.10",
    ] {
        bench.img(&format!("create -f qcow2 -o {options} zero 3M"));
        bench.io(
            "zero",
            &[
                "write -P 7 0 2M",
                "write -z 64k 200k",
                "write -z -u 512k 128k",
                "discard 1M 256k",
                "write -z 2560k 64k",
                "write -P 9 600k 3k",
                "write -c -P 3 1M 64k",
            ],
        );
        bench.check("zero");
    }
}

#[test]
fn resized_images_whose_l1_moved_behind_the_data() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("raw", &disk(11, 1 << 20));
    for (cluster, codec) in [("512", ""), ("512", "-c"), ("4k", ""), ("4k", "-c")] {
        bench.img(&format!(
            "convert -f raw -O qcow2 {codec} -o cluster_size={cluster} raw grown"
        ));
        bench.img("resize grown 10M");
        bench.check("grown");
        bench.io("grown", &["write -P 5 1020k 2M", "write -P 6 9M 1M"]);
        bench.check("grown");
        bench.img("resize --shrink grown 900k");
        bench.check("grown");
    }
}

#[test]
fn internal_snapshots_are_ignored() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("raw", &disk(13, 3 << 20));
    for options in ["cluster_size=64k", "cluster_size=4k", "extended_l2=on"] {
        bench.img(&format!("convert -f raw -O qcow2 -o {options} raw snap"));
        bench.img("snapshot -c one snap");
        bench.io("snap", &["write -P 5 100k 1M", "write -z 2M 100k"]);
        bench.img("snapshot -c two snap");
        bench.io("snap", &["write -P 6 300k 2M"]);
        bench.check("snap");
        let image = crate::support::open(bench.read("snap")).unwrap();
        assert!(
            image
                .info()
                .features
                .contains(&"internal snapshots".to_owned())
        );
    }
}

#[test]
fn a_dirty_image_is_read_and_says_so() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("raw", &disk(17, 1 << 20));
    bench.img("convert -f raw -O qcow2 -o lazy_refcounts=on raw dirty");
    let mut bytes = bench.read("dirty");
    bytes[79] |= 1;
    bench.write("dirty", &bytes);
    bench.check("dirty");
    let info = crate::support::open(bytes).unwrap().info();
    assert_eq!(info.features, ["dirty", "lazy refcounts"]);
    assert_eq!(info.variant, "v3");
}

#[test]
fn backing_chains_are_read_through_the_gate_only() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("base.raw", &disk(19, (1 << 20) + 512));
    bench.img("create -f qcow2 -b base.raw -F raw middle 3M");
    bench.io("middle", &["write -P 5 100k 100k", "write -z 512k 100k"]);
    bench.img("create -f qcow2 -o cluster_size=4k,extended_l2=off -b middle -F qcow2 top 4000k");
    bench.io("top", &["write -P 6 120k 20k", "write -c -P 9 2M 4k"]);
    bench.img("create -f qcow2 -o extended_l2=on -b top -F qcow2 parts");
    bench.io("parts", &["write -P 7 130k 3k", "write -z 2M 2k"]);
    bench.img("create -f qcow2 -o compat=0.10 -b middle -F qcow2 old");
    bench.io("old", &["write -P 8 150k 90k"]);
    for name in ["middle", "top", "parts", "old"] {
        bench.check_random(name, &bench.oracle(name));
        let bytes = bench.read(name);
        assert_eq!(kind(crate::support::open(bytes.clone())), ErrorKind::Denied);
        assert_eq!(kind(Forward::new(options()).run(&bytes)), ErrorKind::Denied);
    }
}

#[test]
fn a_backing_file_without_a_format_is_probed_as_qemu_does() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("base.raw", &disk(23, 1 << 20));
    bench.img("convert -f raw -O qcow2 base.raw base.qcow2");
    for (base, format) in [("base.raw", "raw"), ("base.qcow2", "qcow2")] {
        bench.img(&format!("create -f qcow2 -b {base} -F {format} top 2M"));
        let mut bytes = bench.read("top");
        // Makes the extension one that nobody knows.
        let at = bytes
            .windows(4)
            .position(|w| w == [0xe2, 0x79, 0x2a, 0xca])
            .unwrap();
        bytes[at] = 0x11;
        bench.write("top", &bytes);
        bench.check_random("top", &bench.oracle("top"));
    }
}

#[test]
fn external_data_files_are_read_through_the_gate_only() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    for raw in ["off", "on"] {
        bench.img(&format!(
            "create -f qcow2 -o data_file=data,data_file_raw={raw} external 3001k"
        ));
        bench.io(
            "external",
            &[
                "write -P 5 0 100k",
                "write -P 6 2900k 101k",
                "write -z 20k 100k",
            ],
        );
        bench.check_random("external", &bench.oracle("external"));
        let bytes = bench.read("external");
        assert_eq!(kind(crate::support::open(bytes.clone())), ErrorKind::Denied);
        assert_eq!(kind(Forward::new(options()).run(&bytes)), ErrorKind::Denied);
        let gate = bench.gate();
        let image =
            longshore_image::qcow2::open(Arc::new(bytes), &gate, &Limits::default()).unwrap();
        let info = image.info();
        assert_eq!(info.features[0], "external data file");
        assert_eq!(info.references[0].name, "data");
        assert_eq!(image.cluster_size(), 0, "nothing in it is compressed");
    }
}

#[test]
fn geometry_and_info_are_the_same_both_ways() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    bench.write("raw", &disk(29, 1 << 20));
    bench.img("convert -f raw -O qcow2 -c -o compression_type=zstd,extended_l2=on raw image");
    let bytes = bench.read("image");
    let seen = Forward::new(options()).run(&bytes).unwrap();
    let image = crate::support::open(bytes).unwrap();
    assert_eq!(seen.geometry.info, image.info());
    assert_eq!(seen.geometry.codec, image.cluster_codec());
    assert_eq!(seen.geometry.cluster_size, image.cluster_size());
    assert_eq!(image.info().compression, longshore_image::Compression::Zstd);
    assert_eq!(image.info().features, ["extended l2"]);
}
