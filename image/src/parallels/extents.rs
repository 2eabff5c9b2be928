//! Random access: a walk over the BAT in slices.

use std::ops::Range;
use std::sync::Arc;

use super::header::Header;
use crate::num::{le32_entry, to_usize};
use crate::read_at::ReadAtExt;
use crate::{Error, Extent, ExtentKind, ReadAt, Result};

/// Bytes of the BAT that are read at once.
pub(super) const SLICE: u64 = 64 << 10;

/// Extents of a range, not joined yet.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    file: &'a Arc<dyn ReadAt>,
    header: &'a Header,
    range: Range<u64>,
    /// Entries from `first` on.
    slice: Vec<u8>,
    first: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(file: &'a Arc<dyn ReadAt>, header: &'a Header, range: Range<u64>) -> Self {
        Self {
            file,
            header,
            range,
            slice: Vec::new(),
            first: 0,
        }
    }

    /// Entry `index` of the BAT, which is in the file.
    fn entry(&mut self, index: u64) -> Result<u32> {
        let skip = |first: u64| index.checked_sub(first).map_or(usize::MAX, to_usize);
        if let Some(entry) = le32_entry(&self.slice, skip(self.first)) {
            return Ok(entry);
        }
        let bat = self.header.bat();
        let at = bat.start.saturating_add(index.saturating_mul(4));
        // No more than the range needs.
        let last = self.range.end.div_ceil(self.header.cluster().max(1));
        let end = bat.start.saturating_add(last.saturating_mul(4));
        let len = end.min(bat.end).saturating_sub(at).min(SLICE);
        self.slice = self
            .file
            .read_vec_at(at, to_usize(len), "the block allocation table")?;
        self.first = index;
        le32_entry(&self.slice, 0)
            .ok_or_else(|| Error::malformed("the block allocation table is too short").at(at))
    }

    fn step(&mut self) -> Result<Extent> {
        let start = self.range.start;
        let cluster = self.header.cluster();
        let index = start.checked_div(cluster).unwrap_or(0);
        let first = index.saturating_mul(cluster);
        let end = first.saturating_add(cluster).min(self.range.end);
        let entry = self.entry(index)?;
        let place = self.header.place(entry, self.file.len())?;
        self.range.start = end;
        Ok(Extent {
            guest: start..end,
            kind: place.map_or(ExtentKind::Zero, |at| ExtentKind::Data {
                at: at.saturating_add(start.saturating_sub(first)),
            }),
        })
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.range.is_empty()).then(|| self.step())
    }
}
