//! One test per rule that a VHD with tables has to keep.

use longshore_image::ErrorKind::{self, Malformed, NotThisFormat, Unsupported};
use longshore_image::forward::{self, MemoryHold, Options};
use longshore_image::vhd::SizeRule;
use longshore_image::{DenyAll, Format, Limits};
use std::sync::Arc;

use crate::support::{
    VHD, both_fail, both_read, options, pattern, push_all, random, random_fails, same, stream,
    stream_fails, stream_with_side,
};
use crate::vhd_builder::{
    Builder, Footer, HEADER_AT, TABLE_AT, fixed, put, seal_footer, seal_header,
};

const BLOCK: u32 = 4096;

fn sample() -> Builder {
    Builder::new(5 * 4096 + 512, BLOCK)
        .block(3, pattern(1, 4096))
        .block(0, pattern(2, 4096))
        .block(5, pattern(3, 512))
}

fn image() -> Vec<u8> {
    sample().build().0
}

/// The image with a field of both footers changed.
fn with_footers(at: usize, value: &[u8]) -> Vec<u8> {
    let mut image = image();
    let end = image.len() - 512;
    for footer in [0, end] {
        put(&mut image, footer + at, value);
        seal_footer(&mut image, footer);
    }
    image
}

fn with_header(at: usize, value: &[u8]) -> Vec<u8> {
    let mut image = image();
    put(&mut image, HEADER_AT + at, value);
    seal_header(&mut image);
    image
}

fn with_entry(block: usize, entry: u32) -> Vec<u8> {
    let mut image = image();
    put(&mut image, TABLE_AT + block * 4, &entry.to_be_bytes());
    image
}

#[test]
fn the_sample_is_read() {
    both_read(VHD, &image(), &sample().disk(&[]));
    let gap = Builder { gap: 9, ..sample() };
    both_read(VHD, &gap.build().0, &gap.disk(&[]));
}

#[test]
fn what_has_no_footer_is_no_vhd() {
    for bytes in [&[][..], &[0; 100], &[0; 511], &[0; 4096]] {
        both_fail(VHD, bytes, NotThisFormat);
    }
}

#[test]
fn a_footer_of_an_unknown_version_or_type_is_refused_by_name() {
    for (at, value) in [(12, 0x2_0000_u32), (60, 0), (60, 5), (60, 6)] {
        random_fails(VHD, &with_footers(at, &value.to_be_bytes()), Unsupported);
        stream_fails(VHD, &with_footers(at, &value.to_be_bytes()), Unsupported);
    }
}

#[test]
fn a_disk_larger_than_a_vhd_can_be_is_refused() {
    let size = 0xff00_0001_u64 * 512;
    both_fail(VHD, &with_footers(48, &size.to_be_bytes()), Malformed);
}

#[test]
fn the_copy_of_the_footer_does_where_the_footer_is_damaged_or_missing() {
    let good = image();
    let disk = sample().disk(&[]);
    let end = good.len() - 512;
    both_read(VHD, &good[..end], &disk);
    let mut damaged = good.clone();
    damaged[end + 30] ^= 1;
    both_read(VHD, &damaged, &disk);
    damaged[end..].fill(0xEE);
    both_read(VHD, &damaged, &disk);
}

#[test]
fn the_footer_does_where_its_copy_is_damaged_or_gone() {
    let disk = sample().disk(&[]);
    for damage in [&[b'x'][..], &[0; 512]] {
        let mut damaged = image();
        put(&mut damaged, 0, damage);
        same(&random(VHD, &damaged).unwrap(), &disk, "random access");
        let pieces = stream_with_side(VHD, &damaged, 1000).unwrap();
        same(&pieces.disk(), &disk, "a stream with a side");
        // Without one, the end is seen too late.
        stream_fails(VHD, &damaged, Unsupported);
    }
    let mut damaged = image();
    damaged[100] ^= 1;
    let old: Vec<u8> = damaged[..damaged.len() - 1].to_vec();
    for image in [damaged, old] {
        same(&random(VHD, &image).unwrap(), &disk, "a wrong checksum");
        stream_fails(VHD, &image, Unsupported);
    }
}

/// A checksum that is right means that it is not damage.
#[test]
fn a_front_that_is_not_damaged_but_unknown_is_not_passed_over() {
    for (at, value) in [(60, 1_u32), (12, 0x2_0000)] {
        let mut unknown = image();
        put(&mut unknown, at, &value.to_be_bytes());
        seal_footer(&mut unknown, 0);
        both_fail(VHD, &unknown, Unsupported);
    }
    let mut other = image();
    put(&mut other, 60, &2_u32.to_be_bytes());
    seal_footer(&mut other, 0);
    random_fails(VHD, &other, Malformed);
    stream_fails(VHD, &other, Unsupported);
}

#[test]
fn two_damaged_footers_are_an_error() {
    let mut damaged = image();
    let end = damaged.len() - 512;
    damaged[100] ^= 1;
    damaged[end + 100] ^= 1;
    both_fail(VHD, &damaged, Malformed);
}

/// A guest can write a footer into the first sector of a fixed disk.
#[test]
fn a_front_that_contradicts_a_fixed_end_is_believed_neither_way() {
    let footer = Footer::new(2, 12 << 10);
    let mut disk = image();
    disk.resize(12 << 10, 0);
    let both = fixed(&disk, &footer);
    both_fail(VHD, &both, Malformed);
    // A fixed footer that does not account for the file contradicts nothing.
    let mut longer = image();
    longer.extend(Footer::new(2, 1 << 20).bytes());
    both_read(VHD, &longer, &sample().disk(&[]));
}

#[test]
fn a_header_that_is_none_or_elsewhere_is_an_error() {
    both_fail(VHD, &with_header(0, b"cxsparsf"), Malformed);
    both_fail(VHD, &with_footers(16, &u64::MAX.to_be_bytes()), Malformed);
    both_fail(VHD, &with_footers(16, &0_u64.to_be_bytes()), Malformed);
    both_fail(VHD, &with_footers(16, &511_u64.to_be_bytes()), Malformed);
    let cut = &image()[..1000];
    both_fail(VHD, cut, Malformed);
}

#[test]
fn a_header_with_a_wrong_checksum_or_version_is_refused() {
    let mut damaged = image();
    damaged[HEADER_AT + 900] ^= 1;
    both_fail(VHD, &damaged, Malformed);
    both_fail(
        VHD,
        &with_header(24, &0x2_0000_u32.to_be_bytes()),
        Unsupported,
    );
}

#[test]
fn block_sizes_are_powers_of_two_from_eight_sectors_on() {
    for size in [0_u32, 1, 256, 4095, 4097, 6144, u32::MAX] {
        both_fail(VHD, &with_header(32, &size.to_be_bytes()), Malformed);
    }
    for size in [512_u32, 1024, 2048] {
        both_fail(VHD, &with_header(32, &size.to_be_bytes()), Unsupported);
    }
    for block in [4096, 8192, 1 << 20] {
        let builder = Builder::new(3 << 20, block).block(2, pattern(4, block as usize));
        both_read(VHD, &builder.build().0, &builder.disk(&[]));
    }
}

#[test]
fn a_table_too_small_for_the_disk_is_an_error() {
    both_fail(VHD, &with_header(28, &5_u32.to_be_bytes()), Malformed);
    // One that is larger than needed is not.
    both_read(
        VHD,
        &with_header(28, &7_u32.to_be_bytes()),
        &sample().disk(&[]),
    );
}

#[test]
fn tables_outside_of_the_file_or_over_each_other_are_errors() {
    for at in [0_u64, 511, 512, 1500, 1 << 40, u64::MAX - 3] {
        both_fail(VHD, &with_header(16, &at.to_be_bytes()), Malformed);
    }
}

#[test]
fn a_block_that_is_not_whole_or_lies_over_tables_is_an_error() {
    let len = image().len() as u32;
    for entry in [0, 1, 2, 3, len / 512, len / 512 - 8, 0xffff_fffe] {
        both_fail(VHD, &with_entry(1, entry), Malformed);
    }
    // The last block of the disk is one sector long, and takes the room of a block.
    let (image, places) = sample().build();
    let last = places[&5];
    for cut in [image.len() - 513, last + 1024, last + 512, last + 1] {
        both_fail(VHD, &image[..cut], Malformed);
    }
}

#[test]
fn tables_are_charged_before_they_are_read() {
    let builder = Builder::new(4 << 20, 4096);
    let (image, _) = builder.build();
    let limits = Limits::with_table_bytes(1000);
    let file = Arc::new(image.clone());
    let opened = longshore_image::open(VHD, file, &DenyAll, &limits).unwrap();
    let e = longshore_image::all_extents(opened.as_ref()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    let options = Options {
        limits,
        ..options(None)
    };
    let decoder = forward::decoder(VHD, options).unwrap();
    let e = push_all(decoder, &image, 4096).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
}

/// 4 KiB of data, and a table that names it half a million times.
#[test]
fn one_block_named_over_and_over_is_not_read_for_ever() {
    let builder = Builder::new(1 << 30, BLOCK).block(0, pattern(1, 4096));
    let (mut image, places) = builder.build();
    let entry = (places[&0] as u32 / 512).to_be_bytes();
    for n in 0..builder.entries() as usize {
        put(&mut image, TABLE_AT + n * 4, &entry);
    }
    let e = crate::support::open(VHD, &image)
        .and_then(|image| {
            let chain = longshore_image::chain::Chain::new(image)?;
            chain.extents().try_for_each(|extent| extent.map(drop))
        })
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    let e = stream(VHD, &image, 1 << 20, true).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
}

/// The table need not come first; then blocks wait for it, or the image is refused.
#[test]
fn a_table_behind_its_blocks_is_read_as_any_other() {
    let (mut image, _) = sample().build();
    let end = image.len() - 512;
    let table = image[TABLE_AT..TABLE_AT + 512].to_vec();
    image[TABLE_AT..TABLE_AT + 512].fill(0);
    image.splice(end..end, table);
    put(&mut image, HEADER_AT + 16, &(end as u64).to_be_bytes());
    seal_header(&mut image);
    both_read(VHD, &image, &sample().disk(&[]));
    let options = Options {
        hold: Box::new(MemoryHold::new(600)),
        ..options(None)
    };
    let decoder = forward::decoder(VHD, options).unwrap();
    let e = push_all(decoder, &image, 4096).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TablesFollowData);
    assert!(e.to_string().contains("-O vpc"), "{e}");
}

#[test]
fn names_of_the_format_are_ours_and_qemus() {
    for (name, rule) in [
        ("vhd", SizeRule::Creator),
        ("vpc", SizeRule::Creator),
        ("vhd:chs", SizeRule::Geometry),
        ("vpc:chs", SizeRule::Geometry),
        ("vhd:current-size", SizeRule::CurrentSize),
    ] {
        assert_eq!(Format::from_name(name), Some(Format::Vhd(rule)));
    }
    assert_eq!(Format::from_name("vdi"), Some(Format::Vdi));
    for name in ["vhd:", "vhd:size", "vhdy", "vp", "vdi:chs"] {
        assert_eq!(Format::from_name(name), None, "{name}");
    }
}
