//! The driver for formats whose tables map the disk: holds, side reads and passes live here, once.
//!
//! Segments and wanted tables are kept sorted by their offset in the image. As the stream passes,
//! whatever comes next is handed out; what lies between is unknown, and is held while any table is
//! still missing.

mod late;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Debug;

use self::late::{Partial, What, sector_end, sector_start};
use super::{
    Emit, Finish, Layout, MAX_PASSES, Options, PieceKind, Plan, Segment, SegmentKind, Table,
    tables_follow_data,
};
use crate::chain::Sharing;
use crate::num::{to_u64, to_usize};
use crate::read_at::check_inside;
use crate::{Error, Extent, ExtentKind, Reservation, Result};

/// Compressed clusters are packed to this granularity; neighbours share such a sector.
const SECTOR: u64 = 512;

/// Memory for segments and wants is charged this many at a time.
const CHARGE_STEP: u64 = 4096;

/// What a segment or want costs, in bytes: itself, its key, and the slack of what it is kept in.
const CHARGE_EACH: u64 = 96;

/// How many ends of compressed clusters are held for neighbours that are not known yet. Such a
/// neighbour's table follows within a cluster or a few, so old ones make way.
const MAX_ENDS: usize = 1024;

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
    /// Shared sectors in the hold, oldest first: offset and length.
    ends: VecDeque<(u64, usize)>,
    /// End of the last bytes that went into the hold.
    held_to: u64,
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
            ends: VecDeque::new(),
            held_to: 0,
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

    fn expect(&mut self, segment: Segment) -> Result<()> {
        self.charge_one()?;
        self.segments.push(Reverse(segment));
        Ok(())
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
                SegmentKind::Plain | SegmentKind::Skip => {
                    let there = end.saturating_sub(segment.at);
                    if segment.kind == SegmentKind::Plain {
                        self.emit(&segment, cut(segment.at, end), out)?;
                    }
                    self.cursor = self.cursor.max(end);
                    segment.advance(there);
                    if segment.len > 0 {
                        self.segments.push(Reverse(segment));
                    }
                }
                SegmentKind::Compressed => {
                    if segment.end() > self.pos && !eof {
                        self.segments.push(Reverse(segment));
                        break;
                    }
                    self.emit(&segment, cut(segment.at, end), out)?;
                    self.pass_packed(segment.at, end, window, out)?;
                }
            }
        }
        if eof {
            self.check_nothing_beyond()?;
        }
        if self.complete() {
            self.options.hold.clear();
            self.ends.clear();
        }
        Ok(self.next_at().unwrap_or(self.pos).min(self.pos).max(base))
    }

    /// Moves on past a compressed cluster of `at..end`. Clusters that are not known yet may share its
    /// first sector, where they nominally end, and its last, where they may start: those stay.
    fn pass_packed(
        &mut self,
        at: u64,
        end: u64,
        window: Window<'_>,
        out: &mut dyn Emit,
    ) -> Result<()> {
        // Only if what was held goes right up to this one can it be the start of such a cluster.
        if self.held_to == at && self.cursor == at && at > sector_start(at) {
            self.keep_end(sector_end(at).min(end), window, out)?;
        }
        // One that is known and starts in the last sector moves on past it itself.
        let next = self.segments.peek().map_or(end, |Reverse(next)| next.at);
        self.cursor = self
            .cursor
            .max(sector_start(end.saturating_sub(1)).min(next));
        self.keep_end(next.min(end), window, out)?;
        self.cursor = self.cursor.max(next.min(end));
        Ok(())
    }

    /// Holds what is between the cursor and `to`, and lets go of what has been held like this longest.
    fn keep_end(&mut self, to: u64, window: Window<'_>, out: &mut dyn Emit) -> Result<()> {
        let from = self.cursor.max(window.base);
        if to <= from || self.lossy || self.complete() {
            return Ok(());
        }
        self.cursor = to;
        self.keep(from, window.cut(from, to), window, out)?;
        let len = to_usize(to.saturating_sub(from));
        self.ends.push_back((from, len));
        if self.ends.len() > MAX_ENDS
            && let Some((at, len)) = self.ends.pop_front()
        {
            self.options.hold.take(at, &mut vec![0; len])?;
        }
        Ok(())
    }

    /// At the end of the stream: what is still expected has to be the unwritten rest of a cluster.
    fn check_nothing_beyond(&mut self) -> Result<()> {
        if let Some(table) = self.tables.values().find(|table| !table.peek) {
            check_inside(self.pos, table.at, to_u64(table.len), "a table")?;
        }
        self.tables.clear();
        while let Some(Reverse(segment)) = self.segments.pop() {
            let missing_is_fine = match segment.kind {
                SegmentKind::Skip => true,
                SegmentKind::Plain => self.layout.tail_is_zeros(&segment, self.pos),
                SegmentKind::Compressed => false,
            };
            if !missing_is_fine {
                check_inside(self.pos, segment.at, segment.len, "data")?;
            }
        }
        Ok(())
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
        if self.hold(at, bytes)? {
            return Ok(());
        }
        if self.options.side.is_some() {
            // Fetch tables, the farthest first (an L1 at the end of the file is the usual culprit),
            // until what they claim has made room or nothing is unknown any more.
            while let Some((_, table)) = self.tables.pop_last() {
                if table.peek {
                    continue;
                }
                self.fetch_table(table, window, out)?;
                if self.complete() || self.hold(at, bytes)? {
                    return Ok(());
                }
            }
            // Nothing is unknown any more, or what is comes from the side when it is found.
            return Ok(());
        }
        if self.options.reopenable && self.passes < MAX_PASSES {
            self.lossy = true;
            self.options.hold.clear();
            self.ends.clear();
            return Ok(());
        }
        Err(tables_follow_data(self.format()))
    }

    fn hold(&mut self, at: u64, bytes: &[u8]) -> Result<bool> {
        let held = self.options.hold.put(at, bytes)?;
        if held {
            self.held_to = at.saturating_add(to_u64(bytes.len()));
        }
        Ok(held)
    }

    fn format(&self) -> crate::Format {
        self.layout.format()
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
            if segment.at >= window.base {
                self.expect(segment)?;
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
            SegmentKind::Skip => return Ok(()),
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
            let bytes = CHARGE_STEP.saturating_mul(CHARGE_EACH);
            self.charged
                .push(self.options.limits.reserve(bytes, "the map of the disk")?);
        }
        Ok(())
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
        self.ends.clear();
        self.held_to = 0;
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

    fn safe_point(&self) -> Option<u64> {
        Some(self.base)
    }

    fn skip_to(&mut self, at: u64, out: &mut dyn Emit) -> Result<bool> {
        if self.options.side.is_none() || at < self.pos {
            return Ok(false);
        }
        self.go_on_at(at, out)?;
        Ok(true)
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
