//! The walk over grain tables, some tables at a time.

use std::ops::Range;

use super::grains::Grains;
use super::layout::{MARKER_LEN, SECTOR};
use super::map::{self, Grain};
use crate::num::{to_u64, to_usize};
use crate::read_at::ReadAtExt;
use crate::{Error, Extent, ExtentKind, Result};

/// Grain tables that lie next to each other are read together, up to this many bytes.
const SLICE: u64 = 64 << 10;

/// Extents of a range, not joined yet.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    extent: &'a Grains,
    /// What a grain is that is in no table.
    missing: ExtentKind,
    /// Where the walk is on the disk, and where it ends.
    range: Range<u64>,
    /// Bytes of the file from an offset on: some grain tables.
    slice: Vec<u8>,
    slice_at: u64,
    /// Bytes of the file that are known to be data, or a hole.
    known: Range<u64>,
    known_hole: bool,
    /// What the table at hand says, last grain first.
    pending: Vec<Extent>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(extent: &'a Grains, range: Range<u64>, missing: ExtentKind) -> Self {
        Self {
            extent,
            missing,
            range,
            slice: Vec::new(),
            slice_at: 0,
            known: 0..0,
            known_hole: false,
            pending: Vec::new(),
        }
    }

    /// Takes in the table at the start of the range, and goes on behind it.
    fn next_table(&mut self) -> Result<()> {
        let header = self.extent.header();
        let table = self
            .range
            .start
            .checked_div(header.table_span())
            .unwrap_or(0);
        let start = table.saturating_mul(header.table_span());
        let end = start
            .saturating_add(header.table_span())
            .min(header.virtual_size());
        let wanted = self.range.start..end.min(self.range.end);
        self.range.start = end;
        let Some(at) = self.written_table(table)? else {
            self.pending.push(Extent {
                guest: wanted,
                kind: self.missing,
            });
            return Ok(());
        };
        let skip = to_usize(at.saturating_sub(self.slice_at));
        let bytes = self.slice.get(skip..).unwrap_or_default();
        let mut extents = Vec::with_capacity(to_usize(header.gtes()));
        for entry in map::grains(header, table, bytes, self.extent.file().len()) {
            let (guest, grain) = entry?;
            if guest.end <= wanted.start {
                continue;
            }
            if guest.start >= wanted.end {
                break;
            }
            extents.push((guest, grain));
        }
        self.pending = self.place(&extents, &wanted);
        Ok(())
    }

    /// The place of a table, which is in the slice then; `None` if there is none or it has no grain. An
    /// empty disk may be set aside with all of its tables, 64 KiB for a GiB, which were never written.
    fn written_table(&mut self, table: u64) -> Result<Option<u64>> {
        let Some(at) = self.extent.table(table) else {
            return Ok(None);
        };
        let len = self.extent.header().table_bytes();
        let end = at.saturating_add(to_u64(len));
        if !self.loaded(at, end) && self.in_hole(at, end)? {
            return Ok(None);
        }
        self.load(table, at)?;
        let skip = to_usize(at.saturating_sub(self.slice_at));
        let bytes = self.slice.get(skip..).unwrap_or_default();
        Ok(bytes.iter().take(len).any(|&byte| byte != 0).then_some(at))
    }

    /// All of `at..end` is in a hole of the file, which is asked once for each run of data or hole.
    fn in_hole(&mut self, at: u64, end: u64) -> Result<bool> {
        if !self.known.contains(&at) {
            let file = self.extent.file();
            let found = file
                .next_data(at)
                .map_err(|e| Error::io("looking for grain tables that were never written", e))?;
            let data = found.unwrap_or_else(|| file.len()..u64::MAX);
            self.known_hole = data.start > at;
            self.known = at..if self.known_hole {
                data.start
            } else {
                data.end
            };
        }
        Ok(self.known_hole && end <= self.known.end)
    }

    /// `at..end` is in the slice.
    fn loaded(&self, at: u64, end: u64) -> bool {
        let have = self.slice_at..self.slice_at.saturating_add(to_u64(self.slice.len()));
        have.start <= at && end <= have.end
    }

    /// Where the bytes of these grains of one table are; last one first.
    fn place(&self, grains: &[(Range<u64>, Grain)], wanted: &Range<u64>) -> Vec<Extent> {
        let header = self.extent.header();
        let mut starts = Vec::new();
        if header.is_stream() {
            starts.extend(grains.iter().filter_map(|(_, grain)| match grain {
                Grain::At(at) => Some(*at),
                _ => None,
            }));
            starts.sort_unstable();
        }
        grains
            .iter()
            .rev()
            .filter_map(|(guest, grain)| {
                let kind = match *grain {
                    Grain::Unallocated => self.missing,
                    Grain::Zero => ExtentKind::Zero,
                    Grain::At(at) if header.is_stream() => self.packed(at, &starts),
                    Grain::At(at) => ExtentKind::Data { at },
                };
                Extent {
                    guest: guest.clone(),
                    kind,
                }
                .clip(wanted)
            })
            .collect()
    }

    /// The zlib data behind the marker at `at`. How much there is, the marker says; reading it here would
    /// take a read per grain. It ends at the next grain at the latest, and the decoder stops by itself.
    fn packed(&self, at: u64, starts: &[u64]) -> ExtentKind {
        let next = starts.get(starts.partition_point(|&start| start <= at));
        let most = self.extent.header().max_packed();
        let start = at.saturating_add(MARKER_LEN);
        let len = next.map_or(most, |next| next.saturating_sub(start).min(most));
        ExtentKind::Compressed {
            at: start,
            len: u32::try_from(len).unwrap_or(u32::MAX),
        }
    }

    /// Reads the table at offset `at`, and those that follow in the directory as well as in the file.
    fn load(&mut self, table: u64, at: u64) -> Result<()> {
        let header = self.extent.header();
        let len = to_u64(header.table_bytes());
        if self.loaded(at, at.saturating_add(len)) {
            return Ok(());
        }
        let step = header.table_sectors().saturating_mul(SECTOR);
        let mut end = at.saturating_add(len);
        for next in table.saturating_add(1)..header.tables() {
            let follows = end.next_multiple_of(SECTOR);
            let wanted = next.saturating_mul(header.table_span()) < self.range.end;
            if !wanted
                || self.extent.table(next) != Some(follows)
                || follows.saturating_add(step).saturating_sub(at) > SLICE
            {
                break;
            }
            end = follows.saturating_add(len);
        }
        self.slice =
            self.extent
                .file()
                .read_vec_at(at, to_usize(end.saturating_sub(at)), "grain tables")?;
        self.slice_at = at;
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(extent) = self.pending.pop() {
                return Some(Ok(extent));
            }
            if self.range.is_empty() {
                return None;
            }
            if let Err(e) = self.next_table() {
                return Some(Err(e));
            }
        }
    }
}
