//! The walk over the block allocation table, and over bitmaps where they count.

use std::ops::Range;

use super::SECTOR;
use super::image::Dynamic;
use crate::num::to_usize;
use crate::read_at::ReadAtExt;
use crate::table::Entries;
use crate::{Extent, ExtentKind, Image, Reservation, Result};

/// Extents of a range, not joined yet.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    image: &'a Dynamic,
    entries: Entries<'a>,
    range: Range<u64>,
    /// The block at hand, if its bitmap counts.
    block: Option<Block>,
    charge: Option<Reservation>,
}

/// A block of a differencing disk.
#[derive(Debug)]
struct Block {
    guest: Range<u64>,
    /// Where its bytes are.
    at: u64,
    bitmap: Vec<u8>,
}

impl Block {
    /// How many sectors from `sector` on are all here, or all not, and which.
    fn run(&self, sector: u64, end: u64) -> (u64, bool) {
        let here = self.bit(sector);
        let uniform = if here { 0xff } else { 0 };
        let mut next = sector.saturating_add(1);
        while next < end {
            let byte = self.bitmap.get(to_usize(next / 8)).copied();
            if next.is_multiple_of(8) && byte == Some(uniform) {
                next = next.saturating_add(8);
            } else if self.bit(next) == here {
                next = next.saturating_add(1);
            } else {
                break;
            }
        }
        (next.min(end), here)
    }

    /// The first sector is the highest bit of the first byte.
    fn bit(&self, sector: u64) -> bool {
        let byte = self.bitmap.get(to_usize(sector / 8)).copied().unwrap_or(0);
        let mask = 0x80_u8 >> (sector % 8);
        byte & mask != 0
    }

    /// The extent at `start`, which lies in the block.
    fn extent(&self, start: u64, elsewhere: ExtentKind) -> Extent {
        let inside = start.saturating_sub(self.guest.start);
        let sectors = self
            .guest
            .end
            .saturating_sub(self.guest.start)
            .div_ceil(SECTOR);
        let (end, here) = self.run(inside / SECTOR, sectors);
        let end = self.guest.start.saturating_add(end.saturating_mul(SECTOR));
        Extent {
            guest: start..end.min(self.guest.end),
            kind: if here {
                ExtentKind::Data {
                    at: self.at.saturating_add(inside),
                }
            } else {
                elsewhere
            },
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(image: &'a Dynamic, range: Range<u64>) -> Self {
        let header = image.header();
        Self {
            image,
            entries: Entries::new(
                image.data().as_ref(),
                header.table(),
                header.blocks(),
                "the block allocation table",
                image.limits(),
            ),
            range,
            block: None,
            charge: None,
        }
    }

    fn step(&mut self) -> Result<Extent> {
        let start = self.range.start;
        let extent = match &self.block {
            Some(block) if block.guest.contains(&start) => {
                block.extent(start, self.image.elsewhere())
            }
            _ => self.next_block()?,
        };
        let extent = extent.clip(&self.range).unwrap_or(extent);
        self.range.start = extent.guest.end;
        Ok(extent)
    }

    fn next_block(&mut self) -> Result<Extent> {
        let header = self.image.header();
        let size = header.block_size();
        let start = self.range.start;
        let index = start.checked_div(size).unwrap_or(0);
        let entry = self.entries.get(index, self.range.end.div_ceil(size))?;
        let file = self.image.data();
        let guest = header.guest(index);
        let Some(place) = header.place(entry, file.len())? else {
            return Ok(Extent {
                guest,
                kind: self.image.elsewhere(),
            });
        };
        let at = place.start.saturating_add(header.bitmap_len());
        if !self.image.has_bitmaps() {
            return Ok(Extent {
                guest,
                kind: ExtentKind::Data { at },
            });
        }
        if self.charge.is_none() {
            let bytes = header.bitmap_len();
            self.charge = Some(self.image.limits().reserve(bytes, "a sector bitmap")?);
        }
        let len = to_usize(header.bitmap_len());
        let bitmap = file.read_vec_at(place.start, len, "a sector bitmap")?;
        let block = self.block.insert(Block { guest, at, bitmap });
        Ok(block.extent(start, self.image.elsewhere()))
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.range.is_empty()).then(|| self.step())
    }
}
