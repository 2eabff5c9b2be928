//! Fixed VHDs: known by their end only.

use longshore_image::ErrorKind::{Malformed, NotThisFormat};
use longshore_image::vhd::{self, SizeRule};
use longshore_image::{Format, probe_tail};

use crate::support::{
    Pieces, VHD, both_fail, both_read, options, pattern, push_all, random_fails, same, stream,
    stream_fails,
};
use crate::vhd_builder::{Footer, fixed, put, seal_footer};

const SIZE: u64 = 10_240;

fn disk() -> Vec<u8> {
    pattern(1, SIZE as usize)
}

/// The stream, of which nobody said what it is.
fn probed(bytes: &[u8], chunk: usize, len: bool) -> Pieces {
    let len = len.then_some(bytes.len() as u64);
    push_all(vhd::raw_or_fixed(&options(len)), bytes, chunk).unwrap()
}

/// Probing takes `bytes` for `format` both ways, and its disk for `disk`.
#[track_caller]
fn is_probed_as(bytes: &[u8], format: Format, disk: &[u8]) {
    let tail = &bytes[bytes.len().saturating_sub(512)..];
    let by_tail = probe_tail(tail, bytes.len() as u64).unwrap_or(Format::Raw);
    assert_eq!(by_tail, format);
    for chunk in [1, 5, 511, 512, 513, 4096, usize::MAX] {
        for len in [false, true] {
            let pieces = probed(bytes, chunk, len);
            same(&pieces.disk(), disk, &format!("in chunks of {chunk}"));
            let found = pieces.found.unwrap();
            assert_eq!(
                (found.format, found.virtual_size),
                (format, disk.len() as u64)
            );
        }
    }
}

#[test]
fn a_fixed_disk_is_read_without_its_footer() {
    let image = fixed(&disk(), &Footer::new(2, SIZE));
    both_read(VHD, &image, &disk());
    is_probed_as(&image, VHD, &disk());
}

/// The last byte of a footer is reserved, and old versions of Virtual PC leave it away.
#[test]
fn a_footer_of_511_bytes_is_a_footer() {
    let mut image = fixed(&disk(), &Footer::new(2, SIZE));
    image.pop();
    both_read(VHD, &image, &disk());
    is_probed_as(&image, VHD, &disk());
}

#[test]
fn what_does_not_end_in_a_footer_is_raw() {
    for bytes in [vec![], vec![1], pattern(1, 511), pattern(1, 512), disk()] {
        is_probed_as(&bytes, Format::Raw, &bytes);
    }
}

/// Each of these is a raw disk whose last sector looks a bit like a footer.
#[test]
fn a_footer_that_is_not_good_in_every_respect_is_the_end_of_a_raw_disk() {
    let good = fixed(&disk(), &Footer::new(2, SIZE));
    let end = SIZE as usize;
    let mut wrong_sum = good.clone();
    wrong_sum[end + 400] ^= 1;
    is_probed_as(&wrong_sum, Format::Raw, &wrong_sum);
    for (at, value) in [
        (0, &b"conectiy"[..]),
        (12, &0x2_0000_u32.to_be_bytes()),
        (48, &(SIZE - 512).to_be_bytes()),
        (48, &(SIZE + 512).to_be_bytes()),
        (48, &u64::MAX.to_be_bytes()),
        (60, &3_u32.to_be_bytes()),
        (60, &4_u32.to_be_bytes()),
    ] {
        let mut image = good.clone();
        put(&mut image, end + at, value);
        seal_footer(&mut image, end);
        is_probed_as(&image, Format::Raw, &image);
    }
    // Something behind it, or missing in front of it.
    let mut longer = good.clone();
    longer.extend([0; 512]);
    is_probed_as(&longer, Format::Raw, &longer);
    is_probed_as(&good[512..], Format::Raw, &good[512..]);
}

#[test]
fn whoever_asks_for_a_vhd_gets_an_error_where_the_footer_is_damaged() {
    let good = fixed(&disk(), &Footer::new(2, SIZE));
    both_fail(VHD, &good[..SIZE as usize], NotThisFormat);
    let mut damaged = good.clone();
    damaged[SIZE as usize + 400] ^= 1;
    both_fail(VHD, &damaged, Malformed);
}

/// Asked for a VHD, a footer need not account for every byte, as with qemu.
#[test]
fn room_between_data_and_footer_is_left_out() {
    let image = fixed(&disk(), &Footer::new(2, SIZE - 1024));
    let shorter = &disk()[..SIZE as usize - 1024];
    both_read(VHD, &image, shorter);
    is_probed_as(&image, Format::Raw, &image);
}

#[test]
fn a_fixed_disk_larger_than_its_file_is_an_error() {
    let image = fixed(&disk(), &Footer::new(2, SIZE + 512));
    both_fail(VHD, &image, Malformed);
    // By its geometry: what qemu would read behind the disk is the footer.
    let footer = Footer {
        creator: *b"vpc ",
        geometry: (21, 1, 1),
        ..Footer::new(2, SIZE)
    };
    let image = fixed(&disk(), &footer);
    both_fail(VHD, &image, Malformed);
    let e = stream(VHD, &image, 1000, false).unwrap_err();
    assert!(e.to_string().contains("--from vhd:current-size"), "{e}");
    both_read(Format::Vhd(SizeRule::CurrentSize), &image, &disk());
    // It is marked as one, so it is not silently raw.
    let e = push_all(vhd::raw_or_fixed(&options(None)), &image, 1000).unwrap_err();
    assert_eq!(e.kind(), Malformed);
}

#[test]
fn a_disk_that_its_geometry_ends_early_is_cut_there() {
    let footer = Footer {
        creator: *b"vpc ",
        geometry: (3, 2, 3),
        ..Footer::new(2, SIZE)
    };
    let image = fixed(&disk(), &footer);
    let cut = &disk()[..18 * 512];
    both_read(VHD, &image, cut);
    is_probed_as(&image, VHD, cut);
    both_read(Format::Vhd(SizeRule::CurrentSize), &image, &disk());
}

/// The guest's first sector may hold anything.
#[test]
fn what_a_guest_wrote_into_the_first_sector_of_a_fixed_disk_is_its_data() {
    let mut damaged = Footer::new(3, SIZE).bytes();
    damaged[300] = 1;
    for first in [damaged, Footer::new(2, 512).bytes(), b"conectix".to_vec()] {
        let mut disk = disk();
        put(&mut disk, 0, &first);
        let image = fixed(&disk, &Footer::new(2, SIZE));
        both_read(VHD, &image, &disk);
    }
}

#[test]
fn a_fixed_footer_in_front_and_none_at_the_end_is_a_truncated_disk() {
    let mut image = disk();
    put(&mut image, 0, &Footer::new(2, SIZE).bytes());
    random_fails(VHD, &image, Malformed);
    stream_fails(VHD, &image, NotThisFormat);
}

#[test]
fn a_stream_of_another_length_than_announced_is_an_error() {
    let image = fixed(&disk(), &Footer::new(2, SIZE));
    for announced in [image.len() as u64 - 1, image.len() as u64 + 1] {
        for decoder in [
            vhd::raw_or_fixed(&options(Some(announced))),
            vhd::decoder(options(Some(announced)), SizeRule::Creator).unwrap(),
        ] {
            let e = push_all(decoder, &image, 4096).unwrap_err();
            assert_eq!(e.kind(), Malformed);
        }
    }
}
