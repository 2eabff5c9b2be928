//! Images with a field or three changed, beside qemu: where both read one, they read the same; where only
//! one does, the reason is known (`docs/decisions/0011-fixed-vhd-probing.md`).

use std::process::Command;

use longshore_image::Format;

use crate::support::{Bench, VHD, pattern, random, same};
use crate::vhd_builder::{Footer, fixed, put, seal_footer, seal_header};
use crate::{vdi_builder, vhd_builder};

/// What we refuse and qemu reads.
const ONLY_QEMU: [&str; 11] = [
    "the footer in front of this VHD",
    "is not known",
    "is past the end of the image",
    "would be over",
    "a fixed disk of",
    "no footer",
    "extra data",
    "undo image",
    "differencing image",
    "only what differs from a parent",
    "are not read, from 4096 on",
];

/// What qemu refuses and we read.
const ONLY_US: [&str; 6] = [
    // Entries of blocks behind the end of the disk.
    "free_data_block_offset",
    "too many blocks",
    // The front is damaged, the end is not.
    "Incorrect header checksum",
    "invalid VPC image",
    // Blocks may be anywhere, and of any size.
    "unaligned data offset",
    "(block size",
];

/// Numbers, the same every time.
struct Dice(std::vec::IntoIter<u8>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(pattern(seed, 1 << 16).into_iter())
    }

    fn roll(&mut self, sides: usize) -> usize {
        let bytes = [(); 2].map(|()| self.0.next().unwrap());
        usize::from(u16::from_le_bytes(bytes)) % sides
    }

    /// Something near `old`, or far from it.
    fn change(&mut self, old: u64, len: usize) -> u64 {
        let ones = u64::MAX >> (64 - 8 * len);
        let new = match self.roll(9) {
            0 => old.wrapping_add(1),
            1 => old.wrapping_sub(1),
            2 => old << 1,
            3 => old >> 1,
            4 => 0,
            5 => ones,
            6 => old ^ (1 << self.roll(8 * len)),
            _ => self.roll(16) as u64,
        };
        new & ones
    }
}

/// One of two readers was content.
fn compare(bench: &Bench, format: Format, driver: &str, image: &[u8], case: &str) -> [bool; 2] {
    bench.write("image", image);
    let qemu = Command::new("qemu-img")
        .current_dir(bench.path(""))
        .args(["convert", "-f", driver, "-O", "raw", "image", "oracle.raw"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&qemu.stderr);
    let ours = random(format, image);
    match (&ours, qemu.status.success()) {
        (Ok(disk), true) => same(disk, &bench.read("oracle.raw"), case),
        (Ok(_), false) => assert!(
            ONLY_US.iter().any(|why| said.contains(why)),
            "{case}: {said}"
        ),
        (Err(e), true) => {
            let known = ONLY_QEMU.iter().any(|why| e.to_string().contains(why));
            assert!(known, "{case}: only qemu reads it: {e}");
        }
        (Err(_), false) => {}
    }
    [ours.is_ok(), qemu.status.success()]
}

#[test]
fn changed_vhds_are_read_as_qemu_reads_them_or_refused_for_a_reason() {
    let Some(bench) = Bench::new("vpc") else {
        return;
    };
    let mut dice = Dice::new(1);
    let dynamic = vhd_builder::Builder::new(5 * 4096, 4096)
        .block(3, pattern(1, 4096))
        .block(0, pattern(2, 4096));
    let by_geometry = vhd_builder::Builder {
        footer: Footer {
            creator: *b"vpc ",
            geometry: (9, 1, 4),
            ..dynamic.footer.clone()
        },
        ..dynamic.clone()
    };
    let seeds = [
        dynamic.build().0,
        by_geometry.build().0,
        fixed(&pattern(3, 5120), &Footer::new(2, 5120)),
    ];
    let in_footer = [
        (8, 4),
        (12, 4),
        (16, 8),
        (28, 4),
        (48, 8),
        (56, 2),
        (58, 1),
        (59, 1),
        (60, 4),
        (68, 4),
    ];
    let in_header = [
        (8, 8),
        (16, 8),
        (24, 4),
        (28, 4),
        (32, 4),
        (40, 4),
        (1024, 4),
        (1028, 4),
        (1036, 4),
    ];
    let mut both = 0;
    for n in 0..150 {
        let which = dice.roll(3);
        let mut image = seeds[which].clone();
        let end = image.len() - 512;
        for _ in 0..=dice.roll(3) {
            let footer = [0, end][if which == 2 { 1 } else { dice.roll(2) }];
            let (base, (at, len)) = match dice.roll(2) {
                0 if which != 2 => (512, in_header[dice.roll(in_header.len())]),
                _ => (footer, in_footer[dice.roll(in_footer.len())]),
            };
            let place = base + at..base + at + len;
            let old = image[place.clone()]
                .iter()
                .fold(0, |old, &byte| old << 8 | u64::from(byte));
            let new = dice.change(old, len).to_be_bytes();
            put(&mut image, place.start, &new[8 - len..]);
        }
        if which != 2 {
            seal_footer(&mut image, 0);
            seal_header(&mut image);
        }
        seal_footer(&mut image, end);
        if dice.roll(12) == 0 {
            // To qemu a file ends where a sector does.
            image.truncate(dice.roll(image.len()) / 512 * 512);
        }
        let read = compare(&bench, VHD, "vpc", &image, &format!("image {n}"));
        both += usize::from(read == [true; 2]);
    }
    assert!(both > 40, "only {both} are read at all");
}

#[test]
fn changed_vdis_are_read_as_qemu_reads_them_or_refused_for_a_reason() {
    let Some(bench) = Bench::new("vpc") else {
        return;
    };
    let mut dice = Dice::new(2);
    let mut seed = vdi_builder::Builder::new(4 << 20, 1 << 20)
        .block(2, &pattern(1, 1 << 20))
        .block(0, &pattern(2, 1 << 20));
    seed.map[1] = vdi_builder::ZERO;
    seed.gap = 496;
    let mut fields = vec![
        (68, 4),
        (76, 4),
        (340, 4),
        (344, 4),
        (360, 4),
        (368, 3),
        (376, 4),
        (380, 4),
        (384, 4),
        (424, 4),
        (440, 4),
        (72, 4),
        (80, 4),
        (348, 4),
        (388, 4),
        (392, 4),
    ];
    // What the map says, more often.
    for entry in 0..4 {
        fields.extend([(512 + 4 * entry, 4); 5]);
    }
    let mut both = 0;
    for n in 0..60 {
        let mut image = seed.build();
        for _ in 0..=dice.roll(2) {
            let (at, len) = fields[dice.roll(fields.len())];
            let old = image[at..at + len]
                .iter()
                .rev()
                .fold(0, |old, &byte| old << 8 | u64::from(byte));
            let new = dice.change(old, len).to_le_bytes();
            put(&mut image, at, &new[..len]);
        }
        let read = compare(&bench, Format::Vdi, "vdi", &image, &format!("image {n}"));
        both += usize::from(read == [true; 2]);
    }
    assert!(both > 10, "only {both} are read at all");
}
