//! VHDX: a file is mebibytes of zeros between a few pages, and checksums keep most changes out.
//!
//! So an input is the pages that are not zero, and checksums are made right before it is read: the number of
//! pages of the file, then for each page its number, how many bytes follow, and these (two, two and two
//! bytes, little-endian). What is left over or does not fit is dropped.

use std::sync::Arc;

use longshore_image::Format;

use super::dice::Dice;
use super::{both_ways, forward, random};

const PAGE: usize = 4096;
/// Header section, log, table, metadata, and the disk that is looked at.
const MOST_PAGES: usize = 9 << 8;

/// Every way to read a VHDX file.
pub fn vhdx(data: &[u8]) {
    let Some(file) = unpack(data).map(Arc::new) else {
        return;
    };
    // Megabytes are read each time, so one thing at a time.
    match Dice::new(data).roll(3) {
        0 => random::open(Format::Vhdx, &file),
        1 => drop(forward::read(Format::Vhdx, &file, &mut Dice::new(data))),
        _ => {
            both_ways(&file);
        }
    }
}

/// The file that `data` stands for.
pub fn unpack(data: &[u8]) -> Option<Vec<u8>> {
    let number = |bytes: &[u8; 2]| usize::from(u16::from_le_bytes(*bytes));
    let (pages, mut rest) = data.split_first_chunk::<2>()?;
    let mut file = vec![0; number(pages).min(MOST_PAGES) * PAGE];
    while let Some((page, after)) = rest.split_first_chunk::<2>()
        && let Some((len, after)) = after.split_first_chunk::<2>()
    {
        let (bytes, after) = after.split_at(number(len).min(PAGE).min(after.len()));
        let start = number(page) * PAGE;
        if let Some(place) = file.get_mut(start..start + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        rest = after;
    }
    for (at, len, signature) in [
        (64 << 10, PAGE, b"head"),
        (128 << 10, PAGE, b"head"),
        (192 << 10, 64 << 10, b"regi"),
        (256 << 10, 64 << 10, b"regi"),
    ] {
        seal(&mut file, at, len, signature);
    }
    for at in (1 << 20..file.len()).step_by(PAGE) {
        let len = file[at + 8..]
            .first_chunk::<4>()
            .map_or(0, |len| u32::from_le_bytes(*len));
        let len = usize::try_from(len).unwrap();
        if (PAGE..=16 * PAGE).contains(&len) {
            seal(&mut file, at, len, b"loge");
        }
    }
    Some(file)
}

/// Makes the checksum right of a structure that has this signature.
fn seal(file: &mut [u8], at: usize, len: usize, signature: &[u8]) {
    let Some(bytes) = file
        .get_mut(at..at + len)
        .filter(|b| b.starts_with(signature))
    else {
        return;
    };
    bytes[4..8].fill(0);
    let crc = crc32c::crc32c(bytes).to_le_bytes();
    bytes[4..8].copy_from_slice(&crc);
}
