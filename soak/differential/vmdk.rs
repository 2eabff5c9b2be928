//! Fields of a VMDK's sparse extents, of every kind, and the lines of its descriptor.

use std::ops::Range;

use super::fields::Finder;
use crate::dice::Dice;

pub(crate) fn fields(f: &mut Finder) {
    match f.bytes.get(..4) {
        Some(b"KDMV") => sparse(f),
        Some(b"COWD") => cowd(f),
        Some([0xbe, 0xba, 0xfe, 0xca]) => se_sparse(f),
        _ => {}
    }
}

const HEADER: &[(&str, usize, usize)] = &[
    ("version", 4, 4),
    ("flags", 8, 4),
    ("capacity", 12, 8),
    ("grain size", 20, 8),
    ("descriptor offset", 28, 8),
    ("descriptor size", 36, 8),
    ("entries per table", 44, 4),
    ("redundant directory", 48, 8),
    ("directory", 56, 8),
    ("overhead", 64, 8),
    ("unclean", 72, 1),
    ("end of line", 73, 4),
    ("compression", 77, 2),
];

fn sparse(f: &mut Finder) {
    f.header(0, HEADER);
    let mut directory = f.number(56, 8);
    // A stream has its directory at the end; the footer says where.
    let footer = f.bytes.len().saturating_sub(1024);
    if f.bytes[footer..].starts_with(b"KDMV") {
        f.header(footer, HEADER);
        f.field("footer marker", footer - 512 + 12, 4);
        directory = f.number(footer + 56, 8);
    }
    let (capacity, grain, entries) = (f.number(12, 8), f.number(20, 8), f.number(44, 4));
    let tables = capacity.div_ceil((grain * entries).max(1));
    let is_stream = f.number(8, 4) & (1 << 16) != 0;
    for (name, table_name, at) in [
        ("directory entry", "grain table entry", directory),
        ("redundant entry", "redundant table entry", f.number(48, 8)),
    ] {
        for table in f.table(name, at.saturating_mul(512), tables, 4) {
            if table == 0 {
                continue;
            }
            let grains = f.table(table_name, table * 512, entries.min(512), 4);
            for at in grains.into_iter().filter(|&at| is_stream && at > 1) {
                f.field("marker LBA", at * 512, 8);
                f.field("marker size", at * 512 + 8, 4);
                f.field("compressed data", at * 512 + 12, 1);
                f.field("compressed data", at * 512 + 20, 2);
            }
        }
    }
}

fn cowd(f: &mut Finder) {
    f.header(
        0,
        &[
            ("version", 4, 4),
            ("flags", 8, 4),
            ("capacity", 12, 4),
            ("grain size", 16, 4),
            ("directory", 20, 4),
            ("directory entries", 24, 4),
            ("free sector", 28, 4),
        ],
    );
    let directory = f.number(20, 4) * 512;
    for table in f.table("directory entry", directory, f.number(24, 4), 4) {
        if table != 0 {
            f.table("grain table entry", table * 512, 4096, 4);
        }
    }
}

fn se_sparse(f: &mut Finder) {
    f.header(
        0,
        &[
            ("magic", 0, 8),
            ("version", 8, 8),
            ("capacity", 16, 8),
            ("grain size", 24, 8),
            ("grain table size", 32, 8),
            ("flags", 40, 8),
            ("volatile header", 80, 8),
            ("volatile header size", 88, 8),
            ("journal header", 96, 8),
            ("directory", 128, 8),
            ("directory size", 136, 8),
            ("grain tables", 144, 8),
            ("grain tables size", 152, 8),
            ("free bitmap", 160, 8),
            ("back map", 176, 8),
            ("grains", 192, 8),
        ],
    );
    let volatile = f.number(80, 8) * 512;
    f.header(
        volatile,
        &[("volatile magic", 0, 8), ("replay journal", 16, 1)],
    );
    let (directory, tables) = (f.number(128, 8) * 512, f.number(144, 8) * 512);
    f.table("directory entry", directory, 16, 8);
    f.table("grain table entry", tables, 64, 8);
}

/// Where a file's descriptor is.
pub(crate) fn descriptor(bytes: &[u8]) -> Option<Range<usize>> {
    if bytes.starts_with(b"# Disk Desc") {
        return Some(0..bytes.len());
    }
    let f = Finder::new(0, bytes, false);
    // It may have been changed already.
    let start = f.number(28, 8).saturating_mul(512);
    let end = start.saturating_add(f.number(36, 8).saturating_mul(512));
    let inside = bytes.starts_with(b"KDMV") && start > 0 && end <= bytes.len();
    inside.then_some(start..end)
}

/// Changes one line of a descriptor; gives what was done.
pub(crate) fn change_line(bytes: &mut Vec<u8>, dice: &mut Dice) -> Option<(&'static str, String)> {
    let place = descriptor(bytes)?;
    let old = &bytes[place.clone()];
    let end = old.iter().position(|&b| b == 0).unwrap_or(old.len());
    let text = String::from_utf8_lossy(&old[..end]).into_owned();
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let n = dice.roll(lines.len());
    let line = lines[n].clone();
    let what = match dice.roll(9) {
        0 => {
            lines.remove(n);
            "line removed"
        }
        1 => {
            lines.insert(n, line.clone());
            "line twice"
        }
        2 => {
            let other = dice.roll(lines.len());
            lines.swap(n, other);
            "lines swapped"
        }
        3 | 4 => {
            lines[n] = other_number(&line, dice)?;
            "number in a line"
        }
        5 => {
            lines[n] = line.replace('"', "");
            "quotes removed"
        }
        6 => {
            lines[n] += *dice.pick(&["\r", " ", " # x", "\t", "\n"]);
            "end of a line"
        }
        7 => {
            let words = ["RW", "RDONLY", "NOACCESS", "SPARSE", "FLAT", "ZERO", "VMFS"];
            let (old, new) = (dice.pick(&words), dice.pick(&words));
            lines[n] = line.replace(old, new);
            "word of an extent"
        }
        _ => {
            let at = dice.roll(line.len().max(1));
            let mut bytes = line.clone().into_bytes();
            *bytes.get_mut(at)? ^= 1 << dice.roll(7);
            lines[n] = String::from_utf8_lossy(&bytes).into_owned();
            "character of a line"
        }
    };
    let mut new = lines.join("\n").into_bytes();
    let whole = place == (0..bytes.len());
    if !whole {
        new.resize(place.len(), 0);
    }
    let shown = format!("line {n}, {line:?}, now {:?}", lines.get(n));
    bytes.splice(place, new);
    Some((what, shown))
}

fn other_number(line: &str, dice: &mut Dice) -> Option<String> {
    let starts: Vec<usize> = line
        .char_indices()
        .filter(|(_, c)| c.is_ascii_digit())
        .map(|(at, _)| at)
        .collect();
    let start = *starts.get(dice.roll(starts.len().max(1)))?;
    let digits = line[start..]
        .chars()
        .take_while(char::is_ascii_digit)
        .count();
    let old: u64 = line[start..start + digits].parse().ok()?;
    let new = match dice.roll(6) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old.wrapping_mul(2),
        3 => 0,
        4 => u64::MAX >> dice.roll(64),
        _ => dice.next() % 5000,
    };
    Some(format!(
        "{}{new}{}",
        &line[..start],
        &line[start + digits..]
    ))
}
