//! One test per rule that a VDI has to keep.

use std::sync::Arc;

use longshore_image::ErrorKind::{self, Malformed, NotThisFormat, Unsupported};
use longshore_image::Format::Vdi;
use longshore_image::forward::{self, Options};
use longshore_image::{DenyAll, Limits, vdi};

use crate::support::{
    both_fail, both_read, open, options, pattern, push_all, random_fails, stream,
};
use crate::vdi_builder::{Builder, MAP_AT, ZERO};
use crate::vhd_builder::put;

fn sample() -> Builder {
    let mut builder = Builder::new(20_480 + 512, 4096)
        .block(4, &pattern(1, 4096))
        .block(0, &pattern(2, 4096))
        .block(5, &pattern(3, 512));
    builder.map[2] = ZERO;
    builder
}

fn with(at: usize, value: &[u8]) -> Vec<u8> {
    let mut image = sample().build();
    put(&mut image, at, value);
    image
}

fn word(at: usize, value: u32) -> Vec<u8> {
    with(at, &value.to_le_bytes())
}

#[test]
fn the_sample_is_read_wherever_its_blocks_start() {
    for gap in [0, 1, 488, 10_000] {
        let builder = Builder { gap, ..sample() };
        both_read(Vdi, &builder.build(), &builder.disk());
    }
}

#[test]
fn blocks_of_any_power_of_two_are_read() {
    for block in [512, 2048, 1 << 20, 4 << 20] {
        let builder = Builder::new(3 << 20, block).block(0, &pattern(1, block as usize));
        both_read(Vdi, &builder.build(), &builder.disk());
    }
}

#[test]
fn a_disk_of_no_bytes_is_read() {
    let builder = Builder::new(0, 4096);
    both_read(Vdi, &builder.build(), &[]);
}

#[test]
fn an_odd_size_is_rounded_up_to_a_sector() {
    let image = with(368, &20_481_u64.to_le_bytes());
    both_read(Vdi, &image, &sample().disk());
}

#[test]
fn what_has_no_signature_is_no_vdi() {
    random_fails(Vdi, &[], NotThisFormat);
    for bytes in [&[0; 300][..], &[0; 4096], &sample().build()[..400]] {
        both_fail(Vdi, bytes, NotThisFormat);
    }
}

#[test]
fn other_versions_and_kinds_are_refused_by_name() {
    for version in [0_u32, 1, 0x1_0000, 0x1_0002, 0x2_0001] {
        both_fail(Vdi, &word(68, version), Unsupported);
    }
    for (kind, name) in [
        (3, "undo"),
        (4, "differencing"),
        (0, "type 0"),
        (9, "type 9"),
    ] {
        both_fail(Vdi, &word(76, kind), Unsupported);
        let e = open(Vdi, &word(76, kind)).unwrap_err();
        assert!(e.to_string().contains(name), "{e}");
    }
}

#[test]
fn images_with_parents_extra_data_or_other_sectors_are_refused_by_name() {
    both_fail(Vdi, &with(424, &[1]), Unsupported);
    both_fail(Vdi, &with(455, &[1]), Unsupported);
    both_fail(Vdi, &word(380, 512), Unsupported);
    both_fail(Vdi, &word(360, 4096), Unsupported);
}

#[test]
fn sizes_that_are_not_possible_are_errors() {
    for block in [0, 256, 513, 4095, 6144] {
        both_fail(Vdi, &word(376, block), Malformed);
    }
    both_fail(Vdi, &word(384, 5), Malformed);
    both_fail(Vdi, &word(384, 0x4000_0000), Malformed);
    for size in [u64::MAX, u64::MAX - 511, 1 << 62, 6 * 4096 + 1] {
        both_fail(Vdi, &with(368, &size.to_le_bytes()), Malformed);
    }
    // More entries than the disk needs are none.
    let mut builder = sample();
    builder.map.extend([3, 77]);
    both_read(Vdi, &builder.build(), &builder.disk());
}

#[test]
fn a_map_outside_of_the_file_or_over_the_header_is_an_error() {
    for at in [0, 455, 1 << 30, u32::MAX] {
        let mut image = word(340, at);
        put(&mut image, 344, &u32::MAX.to_le_bytes());
        both_fail(Vdi, &image, Malformed);
    }
    both_fail(Vdi, &sample().build()[..MAP_AT + 20], Malformed);
}

#[test]
fn blocks_over_the_map_are_errors() {
    let data = sample().data_at() as u32;
    both_fail(Vdi, &word(344, data - 1), Malformed);
    both_fail(Vdi, &word(344, 0), Malformed);
}

#[test]
fn a_block_past_the_end_is_an_error() {
    for entry in [3_u32, 1000, 0xffff_fffd] {
        both_fail(Vdi, &with(MAP_AT + 4, &entry.to_le_bytes()), Malformed);
    }
    let builder = sample();
    both_fail(
        Vdi,
        &builder.build()[..builder.data_at() + 2 * 4096],
        Malformed,
    );
}

#[test]
fn the_unwritten_rest_of_the_last_block_reads_as_zeros() {
    let builder = sample();
    let image = builder.build();
    let mut disk = builder.disk();
    for cut in [1_usize, 100, 512] {
        let len = builder.data_at() + 2 * 4096 + cut;
        disk[20_480 + cut..].fill(0);
        let mut expected = disk.clone();
        expected[20_480..20_480 + cut].copy_from_slice(&builder.disk()[20_480..20_480 + cut]);
        both_read(Vdi, &image[..len], &expected);
    }
}

#[test]
fn tables_are_charged_before_they_are_read() {
    let image = Builder::new(4 << 20, 512).build();
    let limits = Limits::with_table_bytes(1000);
    let opened = vdi::open(Arc::new(image.clone()), &limits).unwrap();
    let e = longshore_image::all_extents(opened.as_ref()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    let options = Options {
        limits,
        ..options(None)
    };
    let decoder = forward::decoder(Vdi, options).unwrap();
    let e = push_all(decoder, &image, 4096).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
}

/// One block, and a map that names it over and over.
#[test]
fn one_block_named_over_and_over_is_not_read_for_ever() {
    let mut builder = Builder::new(1 << 30, 1 << 20).block(0, &pattern(1, 1 << 20));
    builder.map.fill(0);
    let image = builder.build();
    let file = Arc::new(image.clone());
    let opened = longshore_image::open(Vdi, file, &DenyAll, &Limits::default()).unwrap();
    let chain = longshore_image::chain::Chain::new(opened).unwrap();
    let e = chain
        .extents()
        .try_for_each(|extent| extent.map(drop))
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    let e = stream(Vdi, &image, 1 << 20, true).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
}
