//! The driver for formats whose tables map the disk: holds, side reads and passes live here, once.
//!
//! Segments and wanted tables are kept sorted by their offset in the image. As the stream passes,
//! whatever comes next is handed out; what lies between is unknown, and is held while any table is
//! still missing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Debug;

use super::{
    Emit, Finish, Layout, MAX_PASSES, Options, PieceKind, Plan, Segment, SegmentKind, Table,
    tables_follow_data,
};
use crate::chain::Sharing;
use crate::num::{to_u64, to_usize};
use crate::read_at::{ReadAtExt, check_inside};
use crate::{Error, Extent, ExtentKind, Reservation, Result};

/// Compressed clusters are packed to this granularity; neighbours share such a sector.
const SECTOR: u64 = 512;

/// Memory for segments and wants is charged this many at a time.
const CHARGE_STEP: u64 = 4096;

/// The bytes at hand, and where in the image they start.
#[derive(Debug, Clone, Copy)]
struct Window<'a> {
    base: u64,
    bytes: &'a [u8],
}

impl<'a> Window<'a> {
    /// The bytes of `from..to`, which lie in the window.
    fn cut(&self, from: u64, to: u64) -> &'a [u8] {
        let start = to_usize(from.saturating_sub(self.base));
        let end = to_usize(to.saturating_sub(self.base));
        self.bytes.get(start..end).unwrap_or_default()
    }
}

/// Something whose beginning had passed when it was found, and whose end has not arrived.
#[derive(Debug)]
struct Partial {
    what: What,
    bytes: Vec<u8>,
    _charge: Reservation,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Packed(Segment),
    Table(Table),
}

impl What {
    fn at(&self) -> u64 {
        match self {
            Self::Packed(segment) => segment.at,
            Self::Table(table) => table.at,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Packed(segment) => segment.len,
            Self::Table(table) => to_u64(table.len),
        }
    }
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
    /// Found when they had begun to pass, and not over yet.
    partials: Vec<Partial>,
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
            partials: Vec::new(),
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
        self.tables.is_empty()
            && self.missed_tables.is_empty()
            && !self
                .partials
                .iter()
                .any(|p| matches!(p.what, What::Table(_)))
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

    /// Hands out what can be handed out of `window`; returns the offset from
    /// which bytes are still needed.
    fn process(&mut self, window: Window<'_>, eof: bool, out: &mut dyn Emit) -> Result<u64> {
        let base = window.base;
        let cut = |from: u64, to: u64| window.cut(from, to);
        loop {
            let next = self.next_at();
            let known_from = next.unwrap_or(self.pos).min(self.pos);
            if known_from > self.cursor {
                let from = self.cursor.max(base);
                self.keep(from, cut(from, known_from), window, out)?;
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
                self.read_table(table, cut(table.at, end.min(self.pos)), window, out)?;
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
                    self.keep_shared_sector(end, window, out)?;
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
        window: Window<'_>,
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
        let from = sector.max(window.base);
        self.keep(from, window.cut(from, end), window, out)
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
    fn keep(
        &mut self,
        at: u64,
        bytes: &[u8],
        window: Window<'_>,
        out: &mut dyn Emit,
    ) -> Result<()> {
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
                self.fetch_table(table, window, out)?;
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
        window: Window<'_>,
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
        self.take_in(plan, window, out)
    }

    /// Sorts a plan into what is still to come and what has gone by.
    fn take_in(&mut self, plan: Plan, window: Window<'_>, out: &mut dyn Emit) -> Result<()> {
        for segment in plan.segments {
            self.charge_one()?;
            if segment.at >= window.base {
                self.segments.push(Reverse(segment));
            } else {
                self.stray(segment, window, out)?;
            }
        }
        for table in plan.tables {
            self.charge_one()?;
            if table.at >= window.base {
                self.want(table);
            } else {
                self.stray_table(table, window, out)?;
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

    /// A segment that began before the window.
    fn stray(&mut self, segment: Segment, window: Window<'_>, out: &mut dyn Emit) -> Result<()> {
        if segment.kind == SegmentKind::Compressed {
            return match self.piece_together(What::Packed(segment), window)? {
                Some(partial) => self.complete_partial(partial, window, out),
                None => self.miss(segment),
            };
        }
        let base = window.base;
        if segment.end() > base {
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

    /// As much of `what`, which begins before the window, as has arrived: from the hold (or the side)
    /// up to the window, then from it. `None` if that is not to be had.
    fn piece_together(&mut self, what: What, window: Window<'_>) -> Result<Option<Partial>> {
        let charge = self
            .options
            .limits
            .reserve(what.len(), "a cluster or table out of order")?;
        let end = what.at().saturating_add(what.len());
        let mut bytes = vec![0; to_usize(end.min(window.base).saturating_sub(what.at()))];
        if !self.recall(what.at(), &mut bytes, end <= window.base)? {
            return Ok(None);
        }
        if end > window.base {
            bytes.extend_from_slice(window.cut(window.base, end.min(self.pos)));
        }
        Ok(Some(Partial {
            what,
            bytes,
            _charge: charge,
        }))
    }

    /// Hands out something that began before the window if all of it is there, else waits for the rest.
    fn complete_partial(
        &mut self,
        partial: Partial,
        window: Window<'_>,
        out: &mut dyn Emit,
    ) -> Result<()> {
        if to_u64(partial.bytes.len()) < partial.what.len() {
            self.partials.push(partial);
            return Ok(());
        }
        match partial.what {
            What::Packed(segment) => self.emit(&segment, &partial.bytes, out),
            What::Table(table) => self.read_table(table, &partial.bytes, window, out),
        }
    }

    /// Gives new bytes, which follow what came before, to whatever waits for them.
    fn continue_partials(
        &mut self,
        window: Window<'_>,
        eof: bool,
        out: &mut dyn Emit,
    ) -> Result<()> {
        for mut partial in std::mem::take(&mut self.partials) {
            let have = partial
                .what
                .at()
                .saturating_add(to_u64(partial.bytes.len()));
            let end = partial.what.at().saturating_add(partial.what.len());
            partial
                .bytes
                .extend_from_slice(window.cut(have, end.min(self.pos)));
            match partial.what {
                // The last cluster's sectors may reach past the end of the file.
                What::Packed(segment) if eof => self.emit(&segment, &partial.bytes, out)?,
                What::Table(table) if eof && self.pos < end => {
                    check_inside(self.pos, table.at, to_u64(table.len), "a table")?;
                }
                _ => self.complete_partial(partial, window, out)?,
            }
        }
        Ok(())
    }

    fn stray_behind(&mut self, segment: Segment, out: &mut dyn Emit) -> Result<()> {
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

    /// A table that began before the window.
    fn stray_table(&mut self, table: Table, window: Window<'_>, out: &mut dyn Emit) -> Result<()> {
        if let Some(partial) = self.piece_together(What::Table(table), window)? {
            return self.complete_partial(partial, window, out);
        }
        if !self.options.reopenable || self.passes >= MAX_PASSES {
            return Err(tables_follow_data(self.format()));
        }
        self.missed_tables.push(table);
        Ok(())
    }

    fn fetch_table(&mut self, table: Table, window: Window<'_>, out: &mut dyn Emit) -> Result<()> {
        let Some(side) = &self.options.side else {
            return Err(tables_follow_data(self.format()));
        };
        let mut bytes = vec![0; table.len];
        if !self.options.hold.take(table.at, &mut bytes)? {
            bytes = side.read_vec_at(table.at, table.len, "a table")?;
        }
        self.read_table(table, &bytes, window, out)
    }

    /// Processes the buffer and drops what is done with.
    fn settle(&mut self, eof: bool, out: &mut dyn Emit) -> Result<()> {
        let mut buf = std::mem::take(&mut self.buf);
        let base = self.base;
        let window = Window { base, bytes: &buf };
        self.continue_partials(window, eof, out)?;
        let needed_from = self.process(window, eof, out)?;
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
        self.partials.clear();
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
            let window = Window { base, bytes };
            self.continue_partials(window, false, out)?;
            let needed_from = self.process(window, false, out)?;
            let done = to_usize(needed_from.saturating_sub(base));
            self.buf
                .extend_from_slice(bytes.get(done..).unwrap_or_default());
            self.base = needed_from;
        } else {
            self.pos = self.pos.saturating_add(to_u64(bytes.len()));
            self.buf.extend_from_slice(bytes);
            self.settle(false, out)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Emit) -> Result<Finish> {
        self.settle(true, out)?;
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
