//! Images that qemu-img makes, and images of our builders, read as qemu-img reads them.

use longshore_image::vhd::SizeRule;
use longshore_image::{Format, Probe, probe, probe_tail};

use crate::support::{Bench, VHD, both_read, open, pattern, random, same, stream};
use crate::vhd_builder::{Builder, Footer, fixed};
use crate::{support, vdi_builder};

const MIB: usize = 1 << 20;

/// Disks: nothing, a little, everything; one ends inside a block.
fn contents() -> Vec<(&'static str, Vec<u8>)> {
    let mut sparse = vec![0; 9 * MIB];
    for (at, len) in [(0, 512), (3 * MIB + 511, 2), (8 * MIB, 100_000)] {
        sparse[at..at + len].copy_from_slice(&pattern(7, len));
    }
    vec![
        ("empty", vec![0; 5 * MIB]),
        ("sparse", sparse),
        ("dense", pattern(3, 4 * MIB)),
        ("unaligned", pattern(5, 2 * MIB + 3 * 512)),
    ]
}

#[test]
fn what_qemu_img_converts_reads_as_qemu_img_reads_it() {
    let Some(bench) = Bench::new("vpc") else {
        return;
    };
    for (name, disk) in contents() {
        bench.write("raw", &disk);
        for (driver, options, format) in [
            ("vpc", "subformat=dynamic", VHD),
            ("vpc", "subformat=dynamic,force_size=on", VHD),
            ("vpc", "subformat=fixed", VHD),
            ("vpc", "subformat=fixed,force_size=on", VHD),
            ("vdi", "static=off", Format::Vdi),
            ("vdi", "static=on", Format::Vdi),
        ] {
            eprintln!("{name}, {driver} {options}");
            bench.img(&format!(
                "convert -f raw -O {driver} -o {options} raw image"
            ));
            let image = bench.read("image");
            let fixed = options.contains("fixed");
            let head = probe(&image[..512]);
            if fixed {
                assert_eq!(head, Probe::Image(Format::Raw));
                let tail = &image[image.len() - 512..];
                assert_eq!(probe_tail(tail, image.len() as u64), Some(VHD));
            } else {
                assert_eq!(head, Probe::Image(format));
            }
            let expected = bench.read_by(driver, "image");
            assert!(expected.starts_with(&disk));
            both_read(format, &image, &expected);
        }
    }
}

#[test]
fn blocks_written_out_of_order_and_again_read_the_same() {
    for (driver, format) in [("vpc", VHD), ("vdi", Format::Vdi)] {
        let Some(bench) = Bench::new(driver) else {
            return;
        };
        bench.img(&format!("create -q -f {driver} image 40M"));
        bench.io("image", &["write -P 1 30M 300k", "write -P 2 0 1M"]);
        bench.io("image", &["write -P 3 9M 2M", "write -P 4 600k 100k"]);
        bench.io("image", &["write -z 9M 1M", "write -P 5 8M 70000"]);
        let expected = bench.oracle("image");
        both_read(format, &bench.read("image"), &expected);
    }
}

/// Disks of every creator, with a geometry that is smaller than the current size, or equal, or the one
/// that means neither.
#[test]
fn the_size_of_a_vhd_is_what_qemu_takes_it_for() {
    let Some(bench) = Bench::new("vpc") else {
        return;
    };
    let size = 1_200 * 1024_u64;
    let disk = pattern(4, size as usize);
    let creators = [
        "vpc ", "vs  ", "win ", "d2v ", "vbox", "qemu", "qem2", "tap ", "tap\0", "CTXS", "wa\0\0",
        "wa  ", "d2v\0", "\0\0\0\0",
    ];
    for creator in creators {
        let creator: [u8; 4] = creator.as_bytes().try_into().unwrap();
        for geometry in [(35, 4, 17), (2400, 1, 1), (65_535, 16, 255)] {
            for kind in [2, 3] {
                let footer = Footer {
                    creator,
                    geometry,
                    ..Footer::new(kind, size)
                };
                let image = if kind == 2 {
                    fixed(&disk, &footer)
                } else {
                    let builder = Builder {
                        footer,
                        ..Builder::new(size, 1 << 20)
                    };
                    builder
                        .block(1, disk[MIB..].to_vec())
                        .block(0, disk[..MIB].to_vec())
                        .build()
                        .0
                };
                bench.write("image", &image);
                for (forced, rule) in [
                    ("", SizeRule::Creator),
                    (",force_size_calc=chs", SizeRule::Geometry),
                    (",force_size_calc=current_size", SizeRule::CurrentSize),
                ] {
                    let expected = bench.read_by(&format!("vpc{forced}"), "image");
                    let found = random(Format::Vhd(rule), &image).unwrap();
                    same(
                        &found,
                        &expected,
                        &format!("{creator:?} {geometry:?} {rule:?}"),
                    );
                    for chunk in [1 << 20, 4097] {
                        let pieces = stream(Format::Vhd(rule), &image, chunk, false).unwrap();
                        same(&pieces.disk(), &expected, "stream");
                    }
                }
            }
        }
    }
}

#[test]
fn sector_bitmaps_of_dynamic_disks_are_not_looked_at_as_qemu_does_not() {
    let Some(bench) = Bench::new("vpc") else {
        return;
    };
    let mut builder = Builder::new(5 << 20, 2 << 20)
        .block(2, pattern(1, MIB))
        .block(0, pattern(2, 2 * MIB));
    for (_, _, sectors) in &mut builder.blocks {
        sectors.fill(false);
        sectors[9] = true;
    }
    let (image, _) = builder.build();
    bench.write("image", &image);
    let expected = bench.read_by("vpc", "image");
    assert_eq!(&expected[..2 * MIB], &pattern(2, 2 * MIB));
    both_read(VHD, &image, &expected);
}

#[test]
fn blocks_that_share_their_bytes_read_as_qemu_reads_them() {
    let Some(bench) = Bench::new("vpc") else {
        return;
    };
    let (mut image, places) = Builder::new(6 << 20, 2 << 20)
        .block(1, pattern(1, 2 * MIB))
        .build();
    let entry = (places[&1] as u32 / 512).to_be_bytes();
    crate::vhd_builder::put(&mut image, crate::vhd_builder::TABLE_AT, &entry);
    bench.write("image", &image);
    both_read(VHD, &image, &bench.read_by("vpc", "image"));

    let mut vdi = vdi_builder::Builder::new(4 << 20, 1 << 20).block(2, &pattern(1, MIB));
    vdi.gap = 512 - 16;
    vdi.map[0] = vdi.map[2];
    vdi.map[3] = vdi_builder::ZERO;
    bench.write("image", &vdi.build());
    both_read(Format::Vdi, &vdi.build(), &bench.read_by("vdi", "image"));
}

#[test]
fn info_says_what_the_image_is_both_ways() {
    let Some(bench) = Bench::new("vpc") else {
        return;
    };
    bench.write("raw", &pattern(1, MIB));
    for (driver, options, format, variant, cluster) in [
        (
            "vpc",
            "subformat=dynamic,force_size=on",
            VHD,
            "dynamic",
            Some(2 << 20),
        ),
        ("vpc", "subformat=fixed,force_size=on", VHD, "fixed", None),
        ("vdi", "static=off", Format::Vdi, "dynamic", Some(1 << 20)),
        ("vdi", "static=on", Format::Vdi, "static", Some(1 << 20)),
    ] {
        bench.img(&format!(
            "convert -f raw -O {driver} -o {options} raw image"
        ));
        let image = bench.read("image");
        let info = open(format, &image).unwrap().info();
        assert_eq!(info.format, format);
        assert_eq!(info.variant, variant);
        assert_eq!((info.virtual_size, info.cluster_size), (1 << 20, cluster));
        if driver == "vpc" {
            assert_eq!(info.features, ["creator \"qem2\"", "size by current size"]);
        }
        let pieces = stream(format, &image, 4096, false).unwrap();
        let geometry = pieces.geometry.unwrap();
        let known = pieces.found.unwrap_or(geometry.info);
        assert_eq!(known, info);
        let pieces = support::stream_with_side(format, &image, 4096).unwrap();
        assert_eq!(pieces.geometry.unwrap().info, info);
    }
}
