//! What a table names and the stream has passed: out of the hold, from the side, or in another pass.

use std::cmp::Reverse;

use super::{Mapped, SECTOR, Window};
use crate::forward::{Emit, Layout, MAX_PASSES, Segment, SegmentKind, Table, tables_follow_data};
use crate::num::{to_u64, to_usize};
use crate::read_at::{ReadAtExt, check_inside};
use crate::{Reservation, Result};

/// Something whose beginning had passed when it was found, and whose end has not arrived.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) what: What,
    bytes: Vec<u8>,
    _charge: Reservation,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
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

/// Where bytes that had gone by came from.
#[derive(Debug, Clone, Copy)]
enum Recalled {
    FromHold,
    FromSide,
    Not,
}

impl<L: Layout> Mapped<L> {
    /// Goes on at `at`, with all that is before it from the side, as far as it is wanted.
    pub(super) fn go_on_at(&mut self, at: u64, out: &mut dyn Emit) -> Result<()> {
        self.buf.clear();
        self.options.hold.clear();
        self.ends.clear();
        self.held_to = 0;
        (self.base, self.pos, self.cursor) = (at, at, at);
        let window = Window {
            base: at,
            bytes: &[],
        };
        for partial in std::mem::take(&mut self.partials) {
            match partial.what {
                What::Packed(segment) => self.stray(segment, window, out)?,
                What::Table(table) => self.stray_table(table, window, out)?,
            }
        }
        let segments = std::mem::take(&mut self.segments).into_vec();
        for Reverse(segment) in segments {
            if segment.at < at {
                self.stray(segment, window, out)?;
            } else {
                self.segments.push(Reverse(segment));
            }
        }
        while let Some((&key, _)) = self.tables.first_key_value()
            && key.0 < at
        {
            if let Some(table) = self.tables.remove(&key) {
                self.stray_table(table, window, out)?;
            }
        }
        Ok(())
    }

    /// A segment that began before the window.
    pub(super) fn stray(
        &mut self,
        segment: Segment,
        window: Window<'_>,
        out: &mut dyn Emit,
    ) -> Result<()> {
        if segment.kind == SegmentKind::Compressed {
            if !out.wants(&segment.guest_range()) {
                return Ok(());
            }
            return match self.piece_together(What::Packed(segment), window)? {
                Some(partial) => self.complete_partial(partial, window, out),
                None => self.miss(segment),
            };
        }
        let gone = window.base.saturating_sub(segment.at).min(segment.len);
        let mut ahead = segment;
        ahead.advance(gone);
        if ahead.len > 0 {
            self.expect(ahead)?;
        }
        if segment.kind == SegmentKind::Skip {
            return Ok(());
        }
        let behind = Segment {
            len: gone,
            guest_len: gone,
            ..segment
        };
        self.stray_behind(behind, out)
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
        match (self.recall(what.at(), &mut bytes)?, what) {
            (Recalled::Not, _) => return Ok(None),
            (Recalled::FromHold, What::Packed(_)) => {
                self.give_back_shared(what.at(), end, &bytes)?;
            }
            (Recalled::FromHold | Recalled::FromSide, _) => {}
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

    /// `held` was taken from offset `at` for a compressed cluster of `at..end`. Its first sector may
    /// hold the nominal end of another cluster, its last sector the start of one.
    fn give_back_shared(&mut self, at: u64, end: u64, held: &[u8]) -> Result<()> {
        let held_end = at.saturating_add(to_u64(held.len()));
        let first_end = sector_end(at).min(held_end);
        let last_start = sector_start(end.saturating_sub(1)).max(first_end);
        for (from, to) in [(at, first_end), (last_start, held_end)] {
            let range = to_usize(from.saturating_sub(at))..to_usize(to.saturating_sub(at));
            if let Some(bytes) = held.get(range).filter(|bytes| !bytes.is_empty()) {
                // There was room for more a moment ago; without it the other cluster is missed.
                self.options.hold.put(from, bytes)?;
            }
        }
        Ok(())
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
    pub(super) fn continue_partials(
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
            if out.wants(&part.guest_range()) {
                match self.recall(part.at, &mut bytes)? {
                    Recalled::Not => self.miss(part)?,
                    Recalled::FromHold | Recalled::FromSide => self.emit(&part, &bytes, out)?,
                }
            }
            rest.advance(n);
        }
        Ok(())
    }

    /// Bytes that have gone by: from the hold, else from the side.
    fn recall(&mut self, at: u64, buf: &mut [u8]) -> Result<Recalled> {
        if self.options.hold.take(at, buf)? {
            return Ok(Recalled::FromHold);
        }
        if let Some(side) = &self.options.side {
            side.read_padded_at(buf, at)?;
            return Ok(Recalled::FromSide);
        }
        Ok(Recalled::Not)
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
    pub(super) fn stray_table(
        &mut self,
        table: Table,
        window: Window<'_>,
        out: &mut dyn Emit,
    ) -> Result<()> {
        if let Some(partial) = self.piece_together(What::Table(table), window)? {
            return self.complete_partial(partial, window, out);
        }
        if table.peek {
            return Ok(());
        }
        if !self.options.reopenable || self.passes >= MAX_PASSES {
            return Err(tables_follow_data(self.format()));
        }
        self.missed_tables.push(table);
        Ok(())
    }

    /// Reads a table that is still to come from the side.
    pub(super) fn fetch_table(
        &mut self,
        table: Table,
        window: Window<'_>,
        out: &mut dyn Emit,
    ) -> Result<()> {
        let Some(side) = &self.options.side else {
            return Err(tables_follow_data(self.format()));
        };
        let mut bytes = vec![0; table.len];
        if !self.options.hold.take(table.at, &mut bytes)? {
            bytes = side.read_vec_at(table.at, table.len, "a table")?;
        }
        self.read_table(table, &bytes, window, out)
    }
}

/// Start of the sector that `offset` is in.
pub(super) fn sector_start(offset: u64) -> u64 {
    offset & !(SECTOR.wrapping_sub(1))
}

/// End of the sector that `offset` is in.
pub(super) fn sector_end(offset: u64) -> u64 {
    sector_start(offset).saturating_add(SECTOR)
}
