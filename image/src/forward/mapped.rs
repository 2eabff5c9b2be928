//! The driver for formats whose tables map the disk: holds, side reads and passes live here, once.
//!
//! Segments and wanted tables are kept sorted by their offset in the image. As the stream passes,
//! whatever comes next is handed out; what lies between is unknown, and is held while any table is
//! still missing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Debug;
use std::ops::Range;

use super::{Emit, Finish, Geometry, MAX_PASSES, Options, PieceKind, tables_follow_data};
use crate::chain::Sharing;
use crate::num::{to_u64, to_usize};
use crate::read_at::{ReadAtExt, check_inside};
use crate::{Error, Extent, ExtentKind, Reservation, Result};

/// Compressed clusters are packed to this granularity; neighbours share such a sector.
const SECTOR: u64 = 512;

/// Memory for segments and wants is charged this many at a time.
const CHARGE_STEP: u64 = 4096;

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
    fn end(&self) -> u64 {
        self.at.saturating_add(self.len)
    }

    fn guest_range(&self) -> Range<u64> {
        self.guest..self.guest.saturating_add(self.guest_len)
    }

    /// Drops the first `n` bytes of a plain segment.
    fn advance(&mut self, n: u64) {
        self.at = self.at.saturating_add(n);
        self.guest = self.guest.saturating_add(n);
        self.len = self.len.saturating_sub(n);
        self.guest_len = self.guest_len.saturating_sub(n);
    }

    fn continues(&self, next: &Self) -> bool {
        self.kind == SegmentKind::Plain
            && next.kind == SegmentKind::Plain
            && self.end() == next.at
            && self.guest_range().end == next.guest
    }
}

/// What a table said.
#[derive(Debug, Default)]
pub struct Plan {
    tables: Vec<Table>,
    segments: Vec<Segment>,
}

impl Plan {
    /// Another table to catch.
    pub fn table(&mut self, table: Table) {
        self.tables.push(table);
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
}

/// See the module.
#[derive(Debug)]
pub struct Mapped<L> {
    layout: L,
    options: Options,
    /// Bytes from `base` on that may still be needed.
    buf: Vec<u8>,
    base: u64,
    /// Offset of the next byte to come.
    pos: u64,
    /// What is before it was handed out, held or dropped.
    cursor: u64,
    tables: BTreeMap<(u64, u64), Table>,
    segments: BinaryHeap<Reverse<Segment>>,
    /// What could not be had in this pass.
    missed_tables: Vec<Table>,
    missed_segments: Vec<Segment>,
    /// Found to start before `base` and end behind it.
    straddling: Vec<Segment>,
    /// The hold overflowed: read on for tables only, then again.
    lossy: bool,
    passes: u32,
    begun: bool,
    seq: u64,
    sharing: Option<Sharing>,
    /// How much of the file the allowance has been made out for.
    allowed_for: u64,
    charged: Vec<Reservation>,
}

impl<L: Layout> Mapped<L> {
    /// A driver for `layout`.
    pub fn new(layout: L, options: Options) -> Self {
        let mut this = Self {
            layout,
            options,
            buf: Vec::new(),
            base: 0,
            pos: 0,
            cursor: 0,
            tables: BTreeMap::new(),
            segments: BinaryHeap::new(),
            missed_tables: Vec::new(),
            missed_segments: Vec::new(),
            straddling: Vec::new(),
            lossy: false,
            passes: 1,
            begun: false,
            seq: 0,
            sharing: None,
            allowed_for: 0,
            charged: Vec::new(),
        };
        for table in this.layout.start().tables {
            this.want(table);
        }
        this
    }

    /// The layout, for what it learnt.
    pub fn layout(&self) -> &L {
        &self.layout
    }

    fn want(&mut self, table: Table) {
        self.seq = self.seq.wrapping_add(1);
        self.tables.insert((table.at, self.seq), table);
    }

    /// Every table has been seen, so every byte that no segment names is of no use.
    fn complete(&self) -> bool {
        self.tables.is_empty() && self.missed_tables.is_empty()
    }

    /// Where the next known thing starts.
    fn next_at(&self) -> Option<u64> {
        let table = self.tables.keys().next().map(|&(at, _)| at);
        let segment = self.segments.peek().map(|Reverse(s)| s.at);
        match (table, segment) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Hands out what can be handed out of `view`, which starts at `base`; returns the offset from
    /// which bytes are still needed.
    fn process(&mut self, base: u64, view: &[u8], eof: bool, out: &mut dyn Emit) -> Result<u64> {
        let cut = |from: u64, to: u64| {
            view.get(to_usize(from.saturating_sub(base))..to_usize(to.saturating_sub(base)))
                .unwrap_or_default()
        };
        loop {
            let next = self.next_at();
            let known_from = next.unwrap_or(self.pos).min(self.pos);
            if known_from > self.cursor {
                let from = self.cursor.max(base);
                self.keep(from, cut(from, known_from), base, out)?;
                self.cursor = self.cursor.max(known_from);
                continue;
            }
            let Some(next) = next.filter(|&next| next < self.pos) else {
                break;
            };
            if self.tables.keys().next().is_some_and(|&(at, _)| at == next) {
                let Some((_, table)) = self.tables.pop_first() else {
                    break;
                };
                let end = table.at.saturating_add(to_u64(table.len));
                if end > self.pos && !(eof && table.peek) {
                    if eof {
                        check_inside(self.pos, table.at, to_u64(table.len), "a table")?;
                    }
                    self.want(table);
                    break;
                }
                if !table.peek {
                    self.cursor = self.cursor.max(end);
                }
                self.read_table(table, cut(table.at, end.min(self.pos)), base, out)?;
                continue;
            }
            let Some(Reverse(mut segment)) = self.segments.pop() else {
                break;
            };
            let end = segment.end().min(self.pos);
            match segment.kind {
                SegmentKind::Plain => {
                    let there = end.saturating_sub(segment.at);
                    self.emit(&segment, cut(segment.at, end), out)?;
                    segment.advance(there);
                    if segment.len > 0 {
                        if eof {
                            self.check_tail(&segment)?;
                        } else {
                            self.segments.push(Reverse(segment));
                        }
                    }
                }
                SegmentKind::Compressed => {
                    if segment.end() > self.pos && !eof {
                        self.segments.push(Reverse(segment));
                        break;
                    }
                    self.emit(&segment, cut(segment.at, end), out)?;
                    self.keep_shared_sector(end, base, view, out)?;
                }
            }
            self.cursor = self.cursor.max(end);
        }
        if eof {
            self.check_nothing_beyond()?;
        }
        Ok(self.next_at().unwrap_or(self.pos).min(self.pos).max(base))
    }

    /// The last sector of a compressed cluster may hold the start of one that is not known yet.
    fn keep_shared_sector(
        &mut self,
        end: u64,
        base: u64,
        view: &[u8],
        out: &mut dyn Emit,
    ) -> Result<()> {
        if self.complete() || end == 0 {
            return Ok(());
        }
        let sector = end.saturating_sub(1) & !(SECTOR.wrapping_sub(1));
        let known = self
            .segments
            .peek()
            .is_some_and(|Reverse(next)| next.at < end);
        if known || sector < self.cursor && self.cursor >= end {
            return Ok(());
        }
        let from = sector.max(base);
        let bytes = view
            .get(to_usize(from.saturating_sub(base))..to_usize(end.saturating_sub(base)))
            .unwrap_or_default();
        self.keep(from, bytes, base, out)
    }

    /// At the end of the stream: only the unwritten rest of a last cluster may be missing.
    fn check_tail(&self, missing: &Segment) -> Result<()> {
        let cluster = self
            .layout
            .geometry()
            .and_then(|g| g.info.cluster_size)
            .unwrap_or(1);
        if missing.len < cluster {
            return Ok(());
        }
        check_inside(self.pos, missing.at, missing.len, "data")
    }

    fn check_nothing_beyond(&self) -> Result<()> {
        if let Some(table) = self.tables.values().next() {
            check_inside(self.pos, table.at, to_u64(table.len), "a table")?;
        }
        match self.segments.peek() {
            Some(Reverse(segment)) => check_inside(self.pos, segment.at, segment.len, "data"),
            None => Ok(()),
        }
    }

    /// Holds bytes whose place is not known, if anything can still claim them.
    fn keep(&mut self, at: u64, bytes: &[u8], base: u64, out: &mut dyn Emit) -> Result<()> {
        if bytes.is_empty() || self.lossy || self.complete() {
            return Ok(());
        }
        if self.options.hold.put(at, bytes)? {
            return Ok(());
        }
        if self.options.side.is_some() {
            // Fetch tables, the farthest first (an L1 at the end of the file is the usual culprit),
            // until what they claim has made room or nothing is unknown any more.
            while let Some((_, table)) = self.tables.pop_last() {
                self.fetch_table(table, base, out)?;
                if self.complete() || self.options.hold.put(at, bytes)? {
                    return Ok(());
                }
            }
            // Nothing is missing: the bytes may have been claimed meanwhile, and then `strays` reads
            // them from the side.
            return Ok(());
        }
        if self.options.reopenable && self.passes < MAX_PASSES {
            self.lossy = true;
            self.options.hold.clear();
            return Ok(());
        }
        Err(tables_follow_data(self.format()))
    }

    fn format(&self) -> crate::Format {
        self.layout
            .geometry()
            .map_or(crate::Format::Qcow2, |g| g.info.format)
    }

    fn read_table(
        &mut self,
        table: Table,
        bytes: &[u8],
        base: u64,
        out: &mut dyn Emit,
    ) -> Result<()> {
        let mut plan = Plan::default();
        self.layout.table(&table, bytes, &mut plan)?;
        if !self.begun
            && let Some(geometry) = self.layout.geometry()
        {
            self.begun = true;
            out.geometry(geometry)?;
        }
        self.take_in(plan, base, out)
    }

    /// Sorts a plan into what is still to come and what has gone by.
    fn take_in(&mut self, plan: Plan, base: u64, out: &mut dyn Emit) -> Result<()> {
        for segment in plan.segments {
            self.charge_one()?;
            if segment.at >= base {
                self.segments.push(Reverse(segment));
            } else {
                self.stray(segment, base, out)?;
            }
        }
        for table in plan.tables {
            self.charge_one()?;
            if table.at >= base {
                self.want(table);
            } else {
                self.stray_table(table, base, out)?;
            }
        }
        Ok(())
    }

    /// Hands a piece out, against the allowance of what has been seen of the file: kilobytes of
    /// tables that all point at one cluster must not become terabytes.
    fn emit(&mut self, segment: &Segment, bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        let Some(codec) = self.layout.geometry().map(|g| g.codec) else {
            return Err(Error::malformed("data before the image's header"));
        };
        let seen = self.pos.max(self.options.stream_len.unwrap_or(0));
        let sharing = self.sharing.get_or_insert_with(|| Sharing::new(0, codec));
        sharing.grow(seen.saturating_sub(self.allowed_for), codec);
        self.allowed_for = self.allowed_for.max(seen);
        let (guest, kind, piece) = match segment.kind {
            SegmentKind::Plain => {
                let end = segment.guest.saturating_add(to_u64(bytes.len()));
                (
                    segment.guest..end,
                    ExtentKind::Data { at: segment.at },
                    PieceKind::Plain,
                )
            }
            SegmentKind::Compressed => {
                let kind = ExtentKind::Compressed {
                    at: segment.at,
                    len: 0,
                };
                (segment.guest_range(), kind, PieceKind::Compressed)
            }
        };
        sharing.charge(&Extent {
            guest: guest.clone(),
            kind,
        })?;
        out.piece(guest, piece, bytes)
    }

    fn charge_one(&mut self) -> Result<()> {
        let waiting = [
            self.segments.len(),
            self.tables.len(),
            self.missed_tables.len(),
            self.missed_segments.len(),
        ]
        .into_iter()
        .fold(0, usize::saturating_add);
        let allowed = to_u64(self.charged.len()).saturating_mul(CHARGE_STEP);
        if to_u64(waiting) >= allowed {
            let bytes =
                CHARGE_STEP.saturating_mul(to_u64(size_of::<Segment>().max(size_of::<Table>())));
            self.charged
                .push(self.options.limits.reserve(bytes, "the map of the disk")?);
        }
        Ok(())
    }

    /// A segment that began before `base`.
    fn stray(&mut self, segment: Segment, base: u64, out: &mut dyn Emit) -> Result<()> {
        if segment.end() > base {
            if segment.kind == SegmentKind::Compressed {
                self.straddling.push(segment);
                return Ok(());
            }
            let gone = base.saturating_sub(segment.at);
            let mut ahead = segment;
            ahead.advance(gone);
            self.segments.push(Reverse(ahead));
            let behind = Segment {
                len: gone,
                guest_len: gone,
                ..segment
            };
            return self.stray_behind(behind, out);
        }
        self.stray_behind(segment, out)
    }

    fn stray_behind(&mut self, segment: Segment, out: &mut dyn Emit) -> Result<()> {
        if segment.kind == SegmentKind::Compressed {
            let mut bytes = vec![0; to_usize(segment.len)];
            if self.recall(segment.at, &mut bytes, true)? {
                return self.emit(&segment, &bytes, out);
            }
            return self.miss(segment);
        }
        // In steps of a cluster: parts of a joined run may be held and others not.
        let cluster = self
            .layout
            .geometry()
            .and_then(|g| g.info.cluster_size)
            .unwrap_or(1 << 16);
        let step = cluster.clamp(SECTOR, 1 << 20);
        let mut rest = segment;
        let mut bytes = Vec::new();
        while rest.len > 0 {
            let n = rest.len.min(step);
            bytes.resize(to_usize(n), 0);
            let part = Segment {
                len: n,
                guest_len: n,
                ..rest
            };
            if self.recall(part.at, &mut bytes, false)? {
                self.emit(&part, &bytes, out)?;
            } else {
                self.miss(part)?;
            }
            rest.advance(n);
        }
        Ok(())
    }

    /// Bytes that have gone by: from the hold, else from the side.
    fn recall(&mut self, at: u64, buf: &mut [u8], packed: bool) -> Result<bool> {
        if self.options.hold.take(at, buf)? {
            if packed {
                // Its last sector may hold the start of another cluster.
                let end = at.saturating_add(to_u64(buf.len()));
                let sector = end.saturating_sub(1) & !(SECTOR.wrapping_sub(1));
                let from = sector.max(at);
                let tail = buf
                    .get(to_usize(from.saturating_sub(at))..)
                    .unwrap_or_default();
                self.options.hold.put(from, tail)?;
            }
            return Ok(true);
        }
        if let Some(side) = &self.options.side {
            side.read_padded_at(buf, at)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn miss(&mut self, segment: Segment) -> Result<()> {
        if !self.options.reopenable || self.passes >= MAX_PASSES {
            return Err(tables_follow_data(self.format()));
        }
        match self.missed_segments.last_mut() {
            Some(last) if last.continues(&segment) => {
                last.len = last.len.saturating_add(segment.len);
                last.guest_len = last.guest_len.saturating_add(segment.guest_len);
            }
            _ => {
                self.charge_one()?;
                self.missed_segments.push(segment);
            }
        }
        Ok(())
    }

    /// A table that began before `base`.
    fn stray_table(&mut self, table: Table, base: u64, out: &mut dyn Emit) -> Result<()> {
        if self.options.side.is_some() {
            return self.fetch_table(table, base, out);
        }
        let mut bytes = vec![0; table.len];
        if self.options.hold.take(table.at, &mut bytes)? {
            return self.read_table(table, &bytes, base, out);
        }
        if !self.options.reopenable || self.passes >= MAX_PASSES {
            return Err(tables_follow_data(self.format()));
        }
        self.missed_tables.push(table);
        Ok(())
    }

    fn fetch_table(&mut self, table: Table, base: u64, out: &mut dyn Emit) -> Result<()> {
        let Some(side) = &self.options.side else {
            return Err(tables_follow_data(self.format()));
        };
        let mut bytes = vec![0; table.len];
        if !self.options.hold.take(table.at, &mut bytes)? {
            bytes = side.read_vec_at(table.at, table.len, "a table")?;
        }
        self.read_table(table, &bytes, base, out)
    }

    /// Compressed clusters found to start before `base`: their start comes out of the hold and goes
    /// back in front of the buffer.
    fn unfold_straddling(&mut self, eof: bool, out: &mut dyn Emit) -> Result<()> {
        while let Some(segment) = self.straddling.pop() {
            if segment.at < self.base {
                let mut front = vec![0; to_usize(self.base.saturating_sub(segment.at))];
                if !self.recall(segment.at, &mut front, false)? {
                    self.miss(segment)?;
                    continue;
                }
                front.append(&mut self.buf);
                self.buf = front;
                self.base = segment.at;
            }
            self.segments.push(Reverse(segment));
            self.settle(eof, out)?;
        }
        Ok(())
    }

    /// Processes the buffer and drops what is done with.
    fn settle(&mut self, eof: bool, out: &mut dyn Emit) -> Result<()> {
        let mut buf = std::mem::take(&mut self.buf);
        let base = self.base;
        let needed_from = self.process(base, &buf, eof, out)?;
        buf.drain(..to_usize(needed_from.saturating_sub(base)).min(buf.len()));
        self.buf = buf;
        self.base = needed_from;
        Ok(())
    }

    fn restart(&mut self) {
        self.passes = self.passes.saturating_add(1);
        self.lossy = false;
        self.options.hold.clear();
        self.buf.clear();
        self.base = 0;
        self.pos = 0;
        self.cursor = 0;
        self.segments = std::mem::take(&mut self.missed_segments)
            .into_iter()
            .map(Reverse)
            .collect();
        for table in std::mem::take(&mut self.missed_tables) {
            self.want(table);
        }
    }
}

impl<L: Layout> super::Decoder for Mapped<L> {
    fn push(&mut self, bytes: &[u8], out: &mut dyn Emit) -> Result<()> {
        if self.buf.is_empty() {
            // The usual case for plain data: nothing is copied.
            let base = self.pos;
            self.pos = self.pos.saturating_add(to_u64(bytes.len()));
            let needed_from = self.process(base, bytes, false, out)?;
            let done = to_usize(needed_from.saturating_sub(base));
            self.buf
                .extend_from_slice(bytes.get(done..).unwrap_or_default());
            self.base = needed_from;
        } else {
            self.pos = self.pos.saturating_add(to_u64(bytes.len()));
            self.buf.extend_from_slice(bytes);
            self.settle(false, out)?;
        }
        self.unfold_straddling(false, out)
    }

    fn finish(&mut self, out: &mut dyn Emit) -> Result<Finish> {
        self.settle(true, out)?;
        self.unfold_straddling(true, out)?;
        let Some(virtual_size) = self.layout.geometry().and_then(|g| g.virtual_size) else {
            return Err(Error::malformed(
                "the stream ended inside the image's header",
            ));
        };
        if self.missed_tables.is_empty() && self.missed_segments.is_empty() {
            return Ok(Finish::Done { virtual_size });
        }
        self.restart();
        Ok(Finish::AnotherPass)
    }
}
