//! What the block allocation table says: the one place for both ways of reading.
//!
//! Payload entries come in chunks; behind each chunk is the entry of its sector bitmap. Nothing is read here.

use std::ops::Range;

use super::header::Regions;
use super::layout::bat;
use crate::{Error, Result};

/// Sectors that one bitmap block describes.
const BITMAP_SECTORS: u64 = 1 << 23;

/// The table is read in slices of at most this many bytes.
pub(super) const SLICE: u64 = 64 << 10;

/// The numbers that say how to read the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) virtual_size: u64,
    pub(super) block_size: u64,
    pub(super) sector_size: u64,
    /// Payload blocks per bitmap block.
    pub(super) chunk_ratio: u64,
    pub(super) has_parent: bool,
}

impl Shape {
    /// Block and sector sizes are powers of two, and a block is no larger than a chunk.
    pub(super) fn new(virtual_size: u64, block: u32, sector: u32, has_parent: bool) -> Self {
        let block_size = u64::from(block);
        let sector_size = u64::from(sector);
        let chunk = BITMAP_SECTORS.saturating_mul(sector_size);
        Self {
            virtual_size,
            block_size,
            sector_size,
            chunk_ratio: chunk.checked_div(block_size).unwrap_or(1).max(1),
            has_parent,
        }
    }

    /// Payload blocks of the disk.
    pub(super) fn blocks(&self) -> u64 {
        self.virtual_size.div_ceil(self.block_size)
    }

    /// The block that guest offset `guest` is in.
    pub(super) fn block_of(&self, guest: u64) -> u64 {
        guest.checked_div(self.block_size).unwrap_or(0)
    }

    /// Entries up to that of the last payload block.
    pub(super) fn entries(&self) -> u64 {
        match self.blocks().checked_sub(1) {
            Some(last) => self.entry_of(last).saturating_add(1),
            None => 0,
        }
    }

    /// Index of the entry of payload block `block`.
    pub(super) fn entry_of(&self, block: u64) -> u64 {
        block.saturating_add(self.chunk_of(block))
    }

    /// The payload block whose entry `index` is; `None` for a bitmap's entry.
    pub(super) fn block_at(&self, index: u64) -> Option<u64> {
        let per_chunk = self.chunk_ratio.saturating_add(1);
        let chunk = index.checked_div(per_chunk)?;
        let within = index.checked_rem(per_chunk)?;
        (within < self.chunk_ratio).then(|| {
            chunk
                .saturating_mul(self.chunk_ratio)
                .saturating_add(within)
        })
    }

    fn chunk_of(&self, block: u64) -> u64 {
        block.checked_div(self.chunk_ratio).unwrap_or(0)
    }

    /// Index of the entry of the sector bitmap of payload block `block`.
    pub(super) fn bitmap_entry_of(&self, block: u64) -> u64 {
        self.chunk_of(block)
            .saturating_mul(self.chunk_ratio.saturating_add(1))
            .saturating_add(self.chunk_ratio)
    }

    /// Which bytes of its bitmap block describe the sectors of `block`.
    pub(super) fn bitmap_range(&self, block: u64) -> Range<u64> {
        let bits = self.block_size.checked_div(self.sector_size).unwrap_or(0);
        let len = bits / 8;
        let within = block.checked_rem(self.chunk_ratio).unwrap_or(0);
        let start = within.saturating_mul(len);
        start..start.saturating_add(len)
    }

    /// The guest range of `block`, which may end with the disk.
    pub(super) fn guest_range(&self, block: u64) -> Range<u64> {
        let start = block.saturating_mul(self.block_size);
        let end = start.saturating_add(self.block_size);
        start..end.min(self.virtual_size)
    }

    /// What the entry `raw` at offset `at` says of `block`.
    pub(super) fn payload(
        &self,
        raw: u64,
        block: u64,
        at: u64,
        regions: &Regions,
    ) -> Result<Place> {
        match raw & bat::STATE {
            bat::NOT_PRESENT if self.has_parent => Ok(Place::Parent),
            // What is undefined may read as anything. Zeros tell nobody's secrets, and QEMU does the same.
            bat::NOT_PRESENT | bat::UNDEFINED | bat::ZERO | bat::UNMAPPED | bat::UNMAPPED_095 => {
                Ok(Place::Zero)
            }
            bat::FULLY_PRESENT => Ok(Place::Data {
                at: self.block_start(raw, block, at, regions)?,
            }),
            bat::PARTIALLY_PRESENT if self.has_parent => Ok(Place::Partial {
                at: self.block_start(raw, block, at, regions)?,
            }),
            bat::PARTIALLY_PRESENT => Err(Error::malformed(format!(
                "block {block} is partly in a parent, and the image has none"
            ))
            .at(at)),
            state => Err(Error::malformed(format!(
                "block {block} is in state {state}, which does not exist"
            ))
            .at(at)),
        }
    }

    fn block_start(&self, raw: u64, block: u64, at: u64, regions: &Regions) -> Result<u64> {
        let start = raw & bat::OFFSET;
        let end = start.checked_add(self.block_size);
        if !end.is_some_and(|end| regions.leave_room(&(start..end))) {
            return Err(Error::malformed(format!(
                "block {block} is at {start:#x}, over another part of the file"
            ))
            .at(at));
        }
        Ok(start)
    }
}

/// Where the sector bitmap is whose entry `raw` is at offset `at`.
pub(super) fn bitmap_start(raw: u64, at: u64, regions: &Regions) -> Result<u64> {
    let start = raw & bat::OFFSET;
    let end = start.saturating_add(1 << 20);
    if raw & bat::STATE != bat::FULLY_PRESENT || !regions.leave_room(&(start..end)) {
        return Err(Error::malformed(
            "a block is partly in the parent, and there is no bitmap of its sectors",
        )
        .at(at));
    }
    Ok(start)
}

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It reads as zeros.
    Zero,
    /// In the parent.
    Parent,
    /// At this offset of the file.
    Data { at: u64 },
    /// At this offset, as far as its bitmap says so, else in the parent.
    Partial { at: u64 },
}

/// Bits of a sector bitmap that are alike: their number and value, bit 0 of byte 0 first.
#[derive(Debug)]
pub(super) struct BitRuns {
    bits: Vec<u8>,
    next: usize,
}

impl BitRuns {
    pub(super) fn new(bits: Vec<u8>) -> Self {
        Self { bits, next: 0 }
    }

    fn byte(&self, bit: usize) -> Option<u8> {
        self.bits.get(bit / 8).copied()
    }
}

impl Iterator for BitRuns {
    type Item = (u64, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next;
        let first = self.byte(start)?;
        let is_set = |byte: u8, bit: usize| {
            byte.checked_shr(u32::try_from(bit % 8).unwrap_or(0))
                .unwrap_or(0)
                & 1
                == 1
        };
        let value = is_set(first, start);
        let whole = if value { 0xff } else { 0 };
        while let Some(byte) = self.byte(self.next) {
            // Most sectors are like their neighbours: eight at once.
            let step = if self.next.is_multiple_of(8) && byte == whole {
                8
            } else {
                1
            };
            if step == 1 && is_set(byte, self.next) != value {
                break;
            }
            self.next = self.next.saturating_add(step);
        }
        Some((crate::num::to_u64(self.next.saturating_sub(start)), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmap_entries_follow_each_chunk() {
        let shape = Shape::new(u64::from(u32::MAX) << 10, 256 << 20, 512, false);
        assert_eq!(shape.chunk_ratio, 16);
        assert_eq!((shape.entry_of(15), shape.entry_of(16)), (15, 17));
        assert_eq!(
            (shape.bitmap_entry_of(15), shape.bitmap_entry_of(16)),
            (16, 33)
        );
        for block in 0..200 {
            assert_eq!(shape.block_at(shape.entry_of(block)), Some(block));
            assert_eq!(shape.block_at(shape.bitmap_entry_of(block)), None);
        }
        // Each 256 MiB of sectors take 64 KiB of the bitmap, sixteen times.
        assert_eq!(shape.bitmap_range(17), 64 << 10..128 << 10);
        assert_eq!(Shape::new(0, 1 << 20, 512, false).entries(), 0);
        assert_eq!(Shape::new(4096 << 20, 1 << 20, 512, false).entries(), 4096);
        assert_eq!(Shape::new(4097 << 20, 1 << 20, 512, false).entries(), 4098);
    }

    #[test]
    fn runs_of_bits_are_found_across_bytes() {
        let runs: Vec<_> = BitRuns::new(vec![0, 0, 0b1000_0001, 0xff, 0xff, 0b0000_0011]).collect();
        let expected = [(16, false), (1, true), (6, false), (19, true), (6, false)];
        assert_eq!(runs, expected);
    }
}
