//! Changing an image: a few fields, now and then its length or a line of its descriptor; then checksums are
//! made right, so that what was changed is looked at.

use std::fmt;

use longshore_image::Format;

use super::cases::{Files, Kind};
use super::fields::{self, Field};
use super::vmdk;
use crate::dice::Dice;

/// What was changed.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) field: &'static str,
    how: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.how)
    }
}

pub(crate) fn mutate(kind: &Kind, files: &mut Files, dice: &mut Dice) -> Vec<Change> {
    let mut changes = Vec::new();
    let fields = fields::of(kind.format, files);
    let mut names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    names.sort_unstable();
    names.dedup();
    for _ in 0..[1, 1, 1, 2, 2, 3, 4][dice.roll(7)] {
        let in_text = kind.format == Format::Vmdk && (names.is_empty() || dice.roll(3) == 0);
        if in_text {
            let file = &mut files[0].1;
            if let Some((field, how)) = vmdk::change_line(file, dice) {
                changes.push(Change { field, how });
            }
            continue;
        }
        if names.is_empty() {
            continue;
        }
        // Names first: a header's fields are as interesting as a thousand entries.
        let name = *dice.pick(&names);
        let of_name: Vec<&Field> = fields.iter().filter(|field| field.name == name).collect();
        let field = *dice.pick(&of_name);
        let old = field.get(files);
        let new = value(field, old, &fields, files, dice);
        field.set(files, new);
        let file = &files[field.file].0;
        changes.push(Change {
            field: field.name,
            how: format!("{old:#x} -> {new:#x} at {:#x} of {file}", field.at),
        });
    }
    if dice.roll(16) == 0 {
        changes.push(length(files, dice));
    }
    if dice.roll(24) != 0 {
        seal(kind.format, &mut files[0].1);
    }
    changes
}

/// Something near the old value, or far from it, or that belongs elsewhere.
fn value(field: &Field, old: u64, all: &[Field], files: &Files, dice: &mut Dice) -> u64 {
    let bits = 8 * field.len;
    let ones = u64::MAX >> (64 - bits);
    let len = files[field.file].1.len() as u64;
    let new = match dice.roll(17) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old << 1,
        3 => old >> 1,
        4 => 0,
        5 => ones,
        6 | 7 => old ^ (1 << dice.roll(bits)),
        8 | 9 => dice.next() % 16,
        10 => dice.pick(all).get(files),
        11 => old.wrapping_add(*dice.pick(&[512, 4096, 65536, 1 << 20])),
        12 => old.wrapping_sub(*dice.pick(&[512, 4096, 65536, 1 << 20])),
        13 => len.wrapping_sub(dice.next() % 3 * 512),
        14 => len / 512,
        15 => dice.next() >> dice.roll(64),
        // Bits that stand for something are often the first or the last.
        _ => old ^ (1 << (bits - 1 - dice.roll(4))) ^ (1 << dice.roll(4)),
    };
    new & ones
}

/// Cuts a file, or lets it grow.
fn length(files: &mut Files, dice: &mut Dice) -> Change {
    let n = dice.roll(files.len());
    let bytes = &mut files[n].1;
    let old = bytes.len();
    // QEMU sees sectors: what ends inside one is a difference of its own, and known.
    let new = match dice.roll(4) {
        0 => old + 512 * dice.roll(300),
        1 => old.saturating_sub(512 * dice.roll(8)),
        _ => dice.roll(old + 1) / 512 * 512,
    };
    bytes.resize(new, 0);
    Change {
        field: "length of the file",
        how: format!("{old:#x} -> {new:#x}"),
    }
}

/// Makes the checksums right.
fn seal(format: Format, bytes: &mut [u8]) {
    match format {
        Format::Vhd(_) => {
            let end = bytes.len().saturating_sub(512);
            for (at, len, field) in [(0, 512, 64), (512, 1024, 36), (end, 512, 64)] {
                seal_vhd(bytes, at, len, field);
            }
        }
        Format::Vhdx => {
            for at in [64 << 10, 128 << 10] {
                seal_vhdx(bytes, at, 4096, b"head");
            }
            for at in [192 << 10, 256 << 10] {
                seal_vhdx(bytes, at, 64 << 10, b"regi");
            }
            for at in (1 << 20..bytes.len()).step_by(4096) {
                let len = fields::number(bytes, at + 8, 4, false).unwrap_or(0);
                let len = usize::try_from(len).unwrap();
                if (4096..=64 << 10).contains(&len) {
                    seal_vhdx(bytes, at, len, b"loge");
                }
            }
        }
        _ => {}
    }
}

fn seal_vhd(bytes: &mut [u8], at: usize, len: usize, field: usize) {
    let Some(part) = bytes.get_mut(at..at + len) else {
        return;
    };
    if part.starts_with(b"conectix") || part.starts_with(b"cxsparse") {
        part[field..field + 4].fill(0);
        let sum = part.iter().fold(0_u32, |sum, &byte| sum + u32::from(byte));
        part[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
    }
}

fn seal_vhdx(bytes: &mut [u8], at: usize, len: usize, signature: &[u8]) {
    let part = bytes.get_mut(at..at + len);
    if let Some(part) = part.filter(|part| part.starts_with(signature)) {
        part[4..8].fill(0);
        let crc = crc32c::crc32c(part).to_le_bytes();
        part[4..8].copy_from_slice(&crc);
    }
}
