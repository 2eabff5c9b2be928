//! Where the fields of an image are that can be changed: headers by their offsets, tables as the header
//! says where they are.

use longshore_image::Format;

use super::cases::Files;
use super::{tables, vmdk};

/// A number in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Which of the image's files.
    pub(crate) file: usize,
    pub(crate) name: &'static str,
    pub(crate) at: usize,
    pub(crate) len: usize,
    pub(crate) big_endian: bool,
}

impl Field {
    pub(crate) fn get(&self, files: &Files) -> u64 {
        number(&files[self.file].1, self.at, self.len, self.big_endian).unwrap_or(0)
    }

    pub(crate) fn set(&self, files: &mut Files, value: u64) {
        let (big, little) = (value.to_be_bytes(), value.to_le_bytes());
        let bytes = if self.big_endian {
            &big[8 - self.len..]
        } else {
            &little[..self.len]
        };
        if let Some(place) = files[self.file].1.get_mut(self.at..self.at + self.len) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The number at a place, if the file is that long.
pub(crate) fn number(bytes: &[u8], at: usize, len: usize, big_endian: bool) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(if big_endian {
        bytes.iter().fold(0, push)
    } else {
        bytes.iter().rev().fold(0, push)
    })
}

/// Collects the fields of one file.
#[derive(Debug)]
pub(crate) struct Finder<'a> {
    file: usize,
    pub(crate) bytes: &'a [u8],
    big_endian: bool,
    pub(crate) found: Vec<Field>,
}

/// Most entries of one table that are taken.
const MOST_ENTRIES: usize = 48;

impl<'a> Finder<'a> {
    pub(crate) fn new(file: usize, bytes: &'a [u8], big_endian: bool) -> Self {
        Self {
            file,
            bytes,
            big_endian,
            found: Vec::new(),
        }
    }

    pub(crate) fn number(&self, at: usize, len: usize) -> usize {
        let number = number(self.bytes, at, len, self.big_endian);
        usize::try_from(number.unwrap_or(0)).unwrap_or(0)
    }

    pub(crate) fn field(&mut self, name: &'static str, at: usize, len: usize) {
        if at
            .checked_add(len)
            .is_some_and(|end| end <= self.bytes.len())
        {
            self.found.push(Field {
                file: self.file,
                name,
                at,
                len,
                big_endian: self.big_endian,
            });
        }
    }

    /// Several fields of a header that begins at `base`.
    pub(crate) fn header(&mut self, base: usize, fields: &[(&'static str, usize, usize)]) {
        for &(name, at, len) in fields {
            self.field(name, base + at, len);
        }
    }

    /// Entries of a table, `len` bytes each; gives the numbers in those that were taken. Of a long table
    /// these are its first ones and others that are in use.
    pub(crate) fn table(
        &mut self,
        name: &'static str,
        at: usize,
        count: usize,
        len: usize,
    ) -> Vec<usize> {
        let mut entries = Vec::new();
        let mut taken = 0;
        for n in 0..count.min(1 << 16) {
            let place = at.saturating_add(n * len);
            let number = self.number(place, len);
            if n < 8 || number != 0 {
                self.field(name, place, len);
                entries.push(number);
                taken += 1;
            }
            if taken == MOST_ENTRIES {
                break;
            }
        }
        entries
    }
}

/// All fields of an image.
pub(crate) fn of(format: Format, files: &Files) -> Vec<Field> {
    let main = &files[0].1;
    let big_endian = matches!(format, Format::Qcow2 | Format::Qcow | Format::Vhd(_));
    let mut finder = Finder::new(0, main, big_endian);
    match format {
        Format::Qcow2 => tables::qcow2(&mut finder),
        Format::Qcow => tables::qcow(&mut finder),
        Format::Vhd(_) => tables::vhd(&mut finder),
        Format::Vhdx => tables::vhdx(&mut finder),
        Format::Vdi => tables::vdi(&mut finder),
        Format::Parallels => tables::parallels(&mut finder),
        _ => {
            for (n, (_, bytes)) in files.iter().enumerate() {
                let mut one = Finder::new(n, bytes, false);
                vmdk::fields(&mut one);
                finder.found.append(&mut one.found);
            }
        }
    }
    finder.found
}
