//! Random access: a lazy walk over the block allocation table and sector bitmaps, a slice at a time.

use std::ops::Range;

use super::header::Regions;
use super::map::{BitRuns, Place, SLICE, Shape, bitmap_start};
use crate::num::{le64_entry, to_u64, to_usize};
use crate::read_at::check_inside;
use crate::{Error, Extent, ExtentKind, Limits, ReadAt, Reservation, Result};

/// What a walk reads from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a dyn ReadAt,
    pub(super) shape: &'a Shape,
    pub(super) regions: &'a Regions,
    /// What is in the parent: zeros if it was left out.
    pub(super) parent: ExtentKind,
    pub(super) limits: &'a Limits,
}

/// Extents of a range, not joined yet.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    source: Source<'a>,
    window: Range<u64>,
    /// The next block.
    block: u64,
    /// Entries of the table from `first` on.
    slice: Vec<u8>,
    first: u64,
    /// The block at hand, if its sectors are in two places.
    partial: Option<Partial>,
    charge: Option<Reservation>,
    done: bool,
}

/// A block that is partly in the parent.
#[derive(Debug)]
struct Partial {
    guest: u64,
    at: u64,
    runs: BitRuns,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: Source<'a>, range: Range<u64>) -> Self {
        let window = range.start..range.end.min(source.shape.virtual_size);
        Self {
            source,
            block: source.shape.block_of(window.start),
            slice: Vec::new(),
            first: 0,
            partial: None,
            charge: None,
            done: window.is_empty(),
            window,
        }
    }

    fn step(&mut self) -> Result<Option<Extent>> {
        loop {
            if let Some(extent) = self.next_run() {
                if let Some(extent) = extent.clip(&self.window) {
                    return Ok(Some(extent));
                }
                continue;
            }
            let block = self.block;
            let guest = self.source.shape.guest_range(block);
            if guest.start >= self.window.end {
                return Ok(None);
            }
            let place = self.place(block)?;
            self.block = block.saturating_add(1);
            let kind = match place {
                Place::Zero => ExtentKind::Zero,
                Place::Parent => self.source.parent,
                Place::Data { at } => {
                    self.check_inside(at, &guest)?;
                    ExtentKind::Data { at }
                }
                Place::Partial { at } => {
                    self.check_inside(at, &guest)?;
                    self.partial = Some(Partial {
                        guest: guest.start,
                        at,
                        runs: self.bitmap(block)?,
                    });
                    continue;
                }
            };
            let mut extent = Extent { guest, kind };
            if place == Place::Zero || place == Place::Parent {
                self.extend(&mut extent, place)?;
            }
            if let Some(extent) = extent.clip(&self.window) {
                return Ok(Some(extent));
            }
        }
    }

    /// Takes in the blocks that follow and are nowhere in the file either.
    fn extend(&mut self, extent: &mut Extent, place: Place) -> Result<()> {
        while extent.guest.end < self.window.end && self.place(self.block)? == place {
            extent.guest.end = self.source.shape.guest_range(self.block).end;
            self.block = self.block.saturating_add(1);
        }
        Ok(())
    }

    /// The next sectors of a block that are all here or all in the parent.
    fn next_run(&mut self) -> Option<Extent> {
        let partial = self.partial.as_mut()?;
        let Some((sectors, here)) = partial.runs.next() else {
            self.partial = None;
            return None;
        };
        let len = sectors.saturating_mul(self.source.shape.sector_size);
        let (start, at) = (partial.guest, partial.at);
        partial.guest = start.saturating_add(len);
        partial.at = at.saturating_add(len);
        Some(Extent {
            guest: start..partial.guest,
            kind: if here {
                ExtentKind::Data { at }
            } else {
                self.source.parent
            },
        })
    }

    fn place(&mut self, block: u64) -> Result<Place> {
        let Source { shape, regions, .. } = self.source;
        let index = shape.entry_of(block);
        let at = self.entry_at(index);
        shape.payload(self.entry(index)?, block, at, regions)
    }

    fn entry_at(&self, index: u64) -> u64 {
        self.source
            .regions
            .bat
            .start
            .saturating_add(index.saturating_mul(8))
    }

    /// Entry `index` of the table.
    fn entry(&mut self, index: u64) -> Result<u64> {
        let position = |first: u64| index.checked_sub(first).map(to_usize);
        let found = position(self.first).and_then(|position| le64_entry(&self.slice, position));
        if let Some(entry) = found {
            return Ok(entry);
        }
        let last = self
            .source
            .shape
            .block_of(self.window.end.saturating_sub(1));
        let entries = self.source.shape.entry_of(last).saturating_add(1);
        self.load(index, entries.saturating_sub(index))?;
        le64_entry(&self.slice, 0).ok_or_else(|| {
            Error::malformed("the block allocation table is too short").at(self.entry_at(index))
        })
    }

    /// Reads up to `entries` entries from `first` on.
    fn load(&mut self, first: u64, entries: u64) -> Result<()> {
        if self.charge.is_none() {
            // A bitmap is no longer than a slice.
            let both = SLICE.saturating_mul(2);
            self.charge = Some(self.source.limits.reserve(both, "a walk over the tables")?);
        }
        let len = entries.saturating_mul(8).min(SLICE);
        let at = self.entry_at(first);
        let what = "the block allocation table";
        check_inside(self.source.file.len(), at, len, what)?;
        self.slice.resize(to_usize(len), 0);
        self.first = first;
        self.source
            .file
            .read_exact_at(&mut self.slice, at)
            .map_err(|e| Error::io(format!("reading {what}"), e).at(at))
    }

    /// The bitmap of the sectors of `block`.
    fn bitmap(&mut self, block: u64) -> Result<BitRuns> {
        let Source {
            shape,
            regions,
            file,
            ..
        } = self.source;
        let index = shape.bitmap_entry_of(block);
        let at = self.entry_at(index);
        if at.saturating_add(8) > regions.bat.end {
            return Err(Error::malformed(
                "the block allocation table ends before the last sector bitmap",
            )
            .at(at));
        }
        let mut raw = [0; 8];
        // Behind the entries of its chunk, so usually in another slice: it is read by itself.
        check_inside(file.len(), at, 8, "the block allocation table")?;
        file.read_exact_at(&mut raw, at)
            .map_err(|e| Error::io("reading the block allocation table", e).at(at))?;
        let start = bitmap_start(u64::from_le_bytes(raw), at, regions)?;
        let range = shape.bitmap_range(block);
        let start = start.saturating_add(range.start);
        let mut bits =
            vec![0; to_usize(range.end.saturating_sub(range.start)).min(to_usize(SLICE))];
        check_inside(file.len(), start, to_u64(bits.len()), "a sector bitmap")?;
        file.read_exact_at(&mut bits, start)
            .map_err(|e| Error::io("reading a sector bitmap", e).at(start))?;
        Ok(BitRuns::new(bits))
    }

    /// As much of a block as the disk has is in the file.
    fn check_inside(&self, at: u64, guest: &Range<u64>) -> Result<()> {
        let len = guest.end.saturating_sub(guest.start);
        check_inside(self.source.file.len(), at, len, "a block")
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}
