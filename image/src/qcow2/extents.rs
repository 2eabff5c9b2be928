//! Random access: a lazy walk over the tables.
//!
//! A walk holds one slice of L1 and one of L2, each read with one call and no longer than what its
//! range needs. Runs of empty entries become one extent without being looked at one by one.

use std::ops::Range;

use super::map::{Cluster, Parts, Place, RawEntry, SLICE, Shape, empty_run};
use crate::num::{be64_entry, to_u64, to_usize};
use crate::read_at::{ReadAtExt, check_inside};
use crate::{Error, Extent, ExtentKind, Limits, ReadAt, Reservation, Result};

/// How often the bytes of the file may be read as tables in one walk before it counts as an attack.
const MAX_SHARING: u64 = 16;

/// What any walk may read as tables, however small the file is, in bytes.
const SHARING_SLACK: u64 = 64 << 20;

/// What a walk reads from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a dyn ReadAt,
    /// Length of the file that extents point into.
    pub(super) data_len: u64,
    pub(super) shape: &'a Shape,
    /// What an unallocated cluster is.
    pub(super) hole: ExtentKind,
    pub(super) limits: &'a Limits,
}

/// Entries of a table from `first` on.
#[derive(Debug, Default)]
struct Slice {
    table: u64,
    first: u64,
    entries: u64,
    bytes: Vec<u8>,
}

impl Slice {
    /// Index within the slice of entry `index` of `table`.
    fn position(&self, table: u64, index: u64) -> Option<u64> {
        let position = index.checked_sub(self.first)?;
        (self.table == table && position < self.entries).then_some(position)
    }
}

/// See the module. Extents are not coalesced yet.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    source: Source<'a>,
    window: Range<u64>,
    /// Start of the next cluster.
    next: u64,
    parts: Option<Parts>,
    l1: Slice,
    l2: Slice,
    /// Bytes of tables this walk may still read.
    allowance: u64,
    charge: Option<Reservation>,
    done: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: Source<'a>, range: Range<u64>) -> Self {
        let window = range.start..range.end.min(source.shape.virtual_size);
        Self {
            source,
            next: source.shape.cluster_start(window.start),
            parts: None,
            l1: Slice::default(),
            l2: Slice::default(),
            allowance: source
                .file
                .len()
                .saturating_mul(MAX_SHARING)
                .saturating_add(SHARING_SLACK),
            charge: None,
            done: window.is_empty(),
            window,
        }
    }

    fn step(&mut self) -> Result<Option<Extent>> {
        loop {
            if let Some((guest, place)) = self.parts.as_mut().and_then(Iterator::next) {
                let kind = match place {
                    Place::Unallocated => self.source.hole,
                    Place::Zero => ExtentKind::Zero,
                    Place::Data { at } => ExtentKind::Data { at },
                    Place::Compressed { at, len } => ExtentKind::Compressed { at, len },
                };
                if let Some(extent) = (Extent { guest, kind }).clip(&self.window) {
                    return Ok(Some(extent));
                }
                continue;
            }
            if self.next >= self.window.end {
                return Ok(None);
            }
            if let Some(hole) = self.advance()? {
                return Ok(Some(hole));
            }
        }
    }

    /// Goes on to the next cluster, or past a run of empty entries.
    fn advance(&mut self) -> Result<Option<Extent>> {
        let shape = self.source.shape;
        let guest = self.next;
        let (position, raw, at) = self.l1_entry(shape.l1_index(guest))?;
        if raw == 0 {
            let run = empty_run(&self.l1.bytes, position, 8).max(1);
            let bytes = run.saturating_mul(shape.l1_covers());
            return Ok(self.hole(guest, shape.l1_start(guest).saturating_add(bytes)));
        }
        let Some(table) = shape.l2_table(raw, at)? else {
            let end = shape.l1_start(guest).saturating_add(shape.l1_covers());
            return Ok(self.hole(guest, end));
        };
        let index = shape.l2_index(guest);
        let position = self.load_l2(table, index, at)?;
        let width = shape.entry_size();
        let entry = RawEntry::of(&self.l2.bytes, to_usize(position), shape.extended_l2)
            .ok_or_else(|| Error::malformed("L2 table is too short").at(table))?;
        if entry.is_empty() {
            let run = empty_run(&self.l2.bytes, position, width).max(1);
            let bytes = run.saturating_mul(shape.cluster_size());
            return Ok(self.hole(guest, guest.saturating_add(bytes)));
        }
        let at = table.saturating_add(index.saturating_mul(width));
        let cluster = shape.cluster(entry, guest, at)?;
        self.check_inside(&cluster, at)?;
        self.parts = Some(cluster.parts(guest, shape.cluster_size()));
        self.next = guest.saturating_add(shape.cluster_size());
        Ok(None)
    }

    fn hole(&mut self, from: u64, to: u64) -> Option<Extent> {
        self.next = to;
        let whole = Extent {
            guest: from..to,
            kind: self.source.hole,
        };
        whole.clip(&self.window)
    }

    /// A cluster may end after the file, and reads as zeros there, but it has to start inside.
    fn check_inside(&self, cluster: &Cluster, at: u64) -> Result<()> {
        match cluster.host() {
            Some(host) if host >= self.source.data_len => Err(outside(host, at)),
            _ => Ok(()),
        }
    }

    /// Entry `index` of L1, its position in the slice, and its offset in the file.
    fn l1_entry(&mut self, index: u64) -> Result<(u64, u64, u64)> {
        let shape = self.source.shape;
        if self.l1.position(shape.l1_at, index).is_none() {
            let last = shape.l1_index(self.window.end.saturating_sub(1));
            let entries = last.saturating_sub(index).saturating_add(1);
            let slice = std::mem::take(&mut self.l1);
            self.l1 = self.load(slice, shape.l1_at, index, entries, 8, "the L1 table")?;
        }
        let position = index.saturating_sub(self.l1.first);
        let at = shape.l1_at.saturating_add(index.saturating_mul(8));
        let raw = be64_entry(&self.l1.bytes, to_usize(position))
            .ok_or_else(|| Error::malformed("L1 table is too short").at(at))?;
        Ok((position, raw, at))
    }

    /// Has entry `index` of the L2 table at `table`, which the L1 entry at `at` names, in the slice.
    fn load_l2(&mut self, table: u64, index: u64, at: u64) -> Result<u64> {
        if let Some(position) = self.l2.position(table, index) {
            // Another L1 entry names the same table: looking through it again is work, too.
            if index == 0 {
                self.spend(to_u64(self.l2.bytes.len()), table)?;
            }
            return Ok(position);
        }
        let shape = self.source.shape;
        let clusters_to = |end: u64| end.saturating_sub(self.next).div_ceil(shape.cluster_size());
        let rest = shape.l2_entries().saturating_sub(index);
        // All that the disk needs of it has to be there, asked for or not.
        let needed = index.saturating_add(rest.min(clusters_to(shape.virtual_size)));
        check_inside(
            self.source.file.len(),
            table,
            needed.saturating_mul(shape.entry_size()),
            "an L2 table",
        )
        .map_err(|e| e.at(at))?;
        let entries = rest.min(clusters_to(self.window.end));
        let slice = std::mem::take(&mut self.l2);
        self.l2 = self.load(
            slice,
            table,
            index,
            entries,
            shape.entry_size(),
            "an L2 table",
        )?;
        Ok(0)
    }

    /// Takes `bytes` of tables, at offset `at`, from the allowance.
    fn spend(&mut self, bytes: u64, at: u64) -> Result<()> {
        self.allowance = self.allowance.checked_sub(bytes).ok_or_else(|| {
            Error::limit(
                "the image refers to the same tables over and over: it is damaged or hostile",
                0,
            )
            .at(at)
        })?;
        Ok(())
    }

    /// Reads up to `entries` entries of `width` bytes into `slice`.
    fn load(
        &mut self,
        mut slice: Slice,
        table: u64,
        first: u64,
        entries: u64,
        width: u64,
        what: &'static str,
    ) -> Result<Slice> {
        if self.charge.is_none() {
            let both = SLICE.saturating_mul(2);
            self.charge = Some(self.source.limits.reserve(both, "a walk over the tables")?);
        }
        let entries = entries.min(SLICE.checked_div(width).unwrap_or(0));
        let len = entries.saturating_mul(width);
        let at = table.saturating_add(first.saturating_mul(width));
        self.spend(len, at)?;
        check_inside(self.source.file.len(), at, len, what)?;
        slice.bytes.resize(to_usize(len), 0);
        self.source
            .file
            .read_exact_at(&mut slice.bytes, at)
            .map_err(|e| Error::io(format!("reading {what}"), e).at(at))?;
        Ok(Slice {
            table,
            first,
            entries,
            bytes: slice.bytes,
        })
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

/// The refusal of a cluster that starts behind the end of its file.
fn outside(host: u64, at: u64) -> Error {
    Error::malformed(format!(
        "L2 entry names data at {host:#x}, behind the end of the file: it is truncated or damaged"
    ))
    .at(at)
}

/// Reads the start of `file`, as much as [`super::header::Header::parse`] wants.
pub(super) fn read_head(file: &dyn ReadAt) -> Result<Vec<u8>> {
    let len = file.len().min(to_u64(super::header::HEAD_LEN));
    file.read_vec_at(0, to_usize(len), "the header")
}
