//! What formats with tables tell the driver: tables to catch, segments that belong to the disk.

use std::fmt::Debug;
use std::ops::Range;

use super::Geometry;
use crate::{Format, Result};

/// A table the driver should catch as it passes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// Offset in the image.
    pub at: u64,
    /// Length in bytes. The layout has charged or bounded it.
    pub len: usize,
    /// What it means to the layout.
    pub id: u64,
    /// Only look: the bytes stay in the stream, and at its end fewer will do. For headers.
    pub peek: bool,
}

/// What the bytes of a segment are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentKind {
    /// The guest's bytes.
    Plain,
    /// One compressed cluster.
    Compressed,
    /// Bytes that belong to the format and not to the disk: not held for tables to come.
    Skip,
}

/// A range of the image that belongs to a range of the disk. Ordered by offset in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Offset in the image.
    pub at: u64,
    /// Length in the image.
    pub len: u64,
    /// Where the guest range starts.
    pub guest: u64,
    /// How long the guest range is; equal to `len` for plain segments.
    pub guest_len: u64,
    /// What the bytes are.
    pub kind: SegmentKind,
}

impl Segment {
    pub(super) fn end(&self) -> u64 {
        self.at.saturating_add(self.len)
    }

    pub(super) fn guest_range(&self) -> Range<u64> {
        self.guest..self.guest.saturating_add(self.guest_len)
    }

    /// Drops the first `n` bytes of a segment that is not compressed.
    pub(super) fn advance(&mut self, n: u64) {
        self.at = self.at.saturating_add(n);
        self.guest = self.guest.saturating_add(n);
        self.len = self.len.saturating_sub(n);
        self.guest_len = self.guest_len.saturating_sub(n);
    }

    pub(super) fn continues(&self, next: &Self) -> bool {
        self.kind == SegmentKind::Plain
            && next.kind == SegmentKind::Plain
            && self.end() == next.at
            && self.guest_range().end == next.guest
    }
}

/// What a table said.
#[derive(Debug, Default)]
pub struct Plan {
    pub(super) tables: Vec<Table>,
    pub(super) segments: Vec<Segment>,
}

impl Plan {
    /// Another table to catch.
    pub fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Bytes `at..at+len` hold nothing of the disk.
    pub fn skip(&mut self, at: u64, len: u64) {
        self.segment(Segment {
            at,
            len,
            guest: 0,
            guest_len: len,
            kind: SegmentKind::Skip,
        });
    }

    /// A segment; joined with the one before where both are plain and continue each other.
    pub fn segment(&mut self, segment: Segment) {
        if segment.len == 0 || segment.guest_len == 0 {
            return;
        }
        if let Some(last) = self.segments.last_mut()
            && last.continues(&segment)
        {
            last.len = last.len.saturating_add(segment.len);
            last.guest_len = last.guest_len.saturating_add(segment.guest_len);
            return;
        }
        self.segments.push(segment);
    }
}

/// What a format knows: its header and tables. No I/O, no order of events.
pub trait Layout: Send + Debug {
    /// The tables to begin with, usually a peek at the header.
    fn start(&self) -> Plan;

    /// A wanted table has passed; `bytes` is as long as asked for (shorter only for a peek at the end
    /// of the stream).
    fn table(&mut self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()>;

    /// Known as soon as the header has passed.
    fn geometry(&self) -> Option<&Geometry>;

    /// For messages; asked for before the geometry is known, too.
    fn format(&self) -> Format {
        self.geometry().map_or(Format::Qcow2, |g| g.info.format)
    }

    /// The stream is over after `end` bytes and `missing`, a plain segment or what is left of one, did
    /// not arrive. True if it reads as zeros: its last cluster starts before the end, and the rest of
    /// that was never written.
    fn tail_is_zeros(&self, missing: &Segment, end: u64) -> bool {
        let size = self.geometry().and_then(|g| g.info.cluster_size);
        let Some(mask) = size.and_then(|size| size.checked_sub(1)) else {
            return false;
        };
        // Clusters start at multiples of their size on the disk, and a segment runs on equally there
        // and in the image.
        let last = missing.guest_range().end.saturating_sub(1);
        let back = (last & mask).saturating_add(1);
        missing.end().saturating_sub(back) < end
    }
}
