//! The disk in order, with many requests under way.
//!
//! No thread of its own: requests are small and always fit into the socket, and while the caller is busy
//! the answers wait there, or in the server. Whoever calls writes requests until the window is full and
//! then reads what has come. The window's bytes are those of requests and of what came before its turn;
//! they are the memory this takes.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Instant;

use longshore_transfer::{Allowance, Piece, Served};

use super::areas::Areas;
use super::error::NbdError;
use super::fleet::Fleet;
use super::session::{Attempts, Session, Setup, sleep};
use super::wire::{Answer, Extent, Finished};
use super::{Failed, Naming};
use crate::http::TICK;

/// Bytes of a request, where the server takes that many.
pub(crate) const REQUEST: u32 = 512 << 10;
/// Most bytes under way: what keeps a line of 10 Gbit/s with a delay of 10 ms busy.
const MOST_AHEAD: u64 = 12 << 20;
/// Most pieces under way, which matters where data is in crumbs.
const MOST_SLOTS: usize = 128;
/// Extents of this many bytes are asked for at once.
const LOOK: u64 = 1 << 30;
/// A next question is sent when so few extents are left.
const FEW: usize = 64;

/// What comes next, with the bytes in [`Disk::bytes`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Data(Range<u64>),
    Zeros(Range<u64>),
    Waiting,
    End,
}

/// A piece that was not handed out yet.
#[derive(Debug)]
struct Slot {
    range: Range<u64>,
    state: State,
    failed: u32,
}

#[derive(Debug)]
enum State {
    Zeros,
    /// To be asked for, not before this.
    Wanted(Option<Instant>),
    Asked(u64),
    Come(Vec<u8>),
}

/// A disk being read from front to back.
pub(crate) struct Disk {
    setup: Setup,
    naming: Naming,
    fleet: Fleet,
    /// Not before this.
    reconnect: Option<Instant>,
    attempts: Attempts,
    size: u64,
    block: u32,
    request: u32,
    areas: Areas,
    /// What extents are asked of.
    area: Range<u64>,
    asked: Option<u64>,
    /// The server tells extents.
    tells: bool,
    plan: VecDeque<(Range<u64>, bool)>,
    slots: VecDeque<Slot>,
    ahead: u64,
    free: Vec<Vec<u8>>,
    current: Vec<u8>,
    allowance: Allowance,
    waited: bool,
}

impl Disk {
    pub(crate) fn new(
        setup: Setup,
        naming: Naming,
        session: Session,
        areas: Areas,
        allowance: Allowance,
    ) -> Self {
        let export = session.export();
        let most = export.most / export.block * export.block;
        Self {
            attempts: Attempts::new(setup.policy),
            fleet: Fleet::new(setup.clone(), session),
            setup,
            naming,
            reconnect: None,
            size: export.size,
            block: export.block,
            request: most.min(REQUEST).max(export.block),
            areas,
            area: 0..0,
            asked: None,
            tells: export.terms.context.is_some(),
            plan: VecDeque::new(),
            slots: VecDeque::new(),
            ahead: 0,
            free: Vec::new(),
            current: Vec::new(),
            allowance,
            waited: false,
        }
    }

    /// The bytes of the last [`Next::Data`].
    pub(crate) fn bytes(&self, range: &Range<u64>) -> &[u8] {
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        self.current.get(..len).unwrap_or_default()
    }

    /// What comes next.
    pub(crate) fn step(&mut self) -> Result<Next, Failed> {
        if !self.waited {
            self.fleet.refresh();
        }
        self.waited = false;
        if !self.current.is_empty() {
            self.free.push(std::mem::take(&mut self.current));
        }
        let next = self.advance();
        self.waited = matches!(next, Ok(Next::Waiting));
        next
    }

    fn advance(&mut self) -> Result<Next, Failed> {
        if self.setup.patience.cancel.is_cancelled() {
            return Err(NbdError::Cancelled.into());
        }
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(Failed::Server(e)) => self.lost(e)?,
                Err(e) => return Err(e),
            }
            if let Some(next) = self.front() {
                return Ok(next);
            }
            if self.slots.is_empty() && self.is_planned() {
                return Ok(Next::End);
            }
            if self.fleet.is_empty() {
                std::thread::sleep(TICK.min(self.setup.policy.first_pause));
                return Ok(Next::Waiting);
            }
            let first = self.slots.iter().find_map(|slot| match slot.state {
                State::Asked(handle) => Some(handle),
                _ => None,
            });
            let Some(awaited) = first.or(self.asked) else {
                // All of them wait for their next attempt.
                sleep(TICK.min(self.setup.policy.first_pause), &self.setup)?;
                return Ok(Next::Waiting);
            };
            match self.fleet.receive(Some(awaited)) {
                Ok(Some(finished)) => self.take(finished)?,
                Ok(None) => return Ok(Next::Waiting),
                Err(e) => self.lost(e)?,
            }
        }
    }

    fn is_planned(&self) -> bool {
        self.plan.is_empty() && self.area.is_empty() && self.asked.is_none()
    }

    /// The first piece, if it has come.
    fn front(&mut self) -> Option<Next> {
        let ready = |slot: &Slot| matches!(slot.state, State::Zeros | State::Come(_));
        let slot = self.slots.pop_front_if(|slot| ready(slot))?;
        Some(match slot.state {
            State::Come(buf) => {
                self.ahead -= slot.range.end - slot.range.start;
                self.current = buf;
                Next::Data(slot.range)
            }
            _ => Next::Zeros(slot.range),
        })
    }

    /// Asks for as much as there is room for.
    fn fill(&mut self) -> Result<(), Failed> {
        if self.fleet.is_empty() {
            self.connect()?;
        }
        let now = Instant::now();
        for i in 0..self.slots.len() {
            let due =
                matches!(&self.slots[i].state, State::Wanted(at) if at.is_none_or(|at| at <= now));
            if due {
                self.ask(i)?;
            }
        }
        loop {
            self.look()?;
            if self.slots.len() >= MOST_SLOTS {
                return Ok(());
            }
            let Some((range, zero)) = self.plan.front_mut() else {
                return Ok(());
            };
            if *zero {
                let range = range.clone();
                self.plan.pop_front();
                self.slots.push_back(Slot {
                    range,
                    state: State::Zeros,
                    failed: 0,
                });
                continue;
            }
            // Cut where the disk is aligned, so that writes are too.
            let unit = u64::from(self.request);
            let end = ((range.start / unit + 1) * unit).min(range.end);
            let len = end - range.start;
            let window = self.allowance.bytes().min(MOST_AHEAD);
            if self.ahead > 0 && self.ahead + len > window {
                return Ok(());
            }
            let now = range.start..end;
            range.start = end;
            if range.is_empty() {
                self.plan.pop_front();
            }
            self.ahead += len;
            self.slots.push_back(Slot {
                range: now,
                state: State::Wanted(None),
                failed: 0,
            });
            self.ask(self.slots.len() - 1)?;
        }
    }

    /// Asks for the bytes of a slot. If that fails it stays wanted.
    fn ask(&mut self, slot: usize) -> Result<(), Failed> {
        let Some(slot) = self.slots.get_mut(slot) else {
            return Ok(());
        };
        if self.fleet.is_empty() {
            return Ok(());
        }
        let buf = self.free.pop();
        let buf = buf.unwrap_or_else(|| vec![0; self.request as usize]);
        let len = u32::try_from(slot.range.end - slot.range.start).unwrap_or(self.request);
        if let Some(handle) = self.fleet.read(slot.range.start, len, buf)? {
            slot.state = State::Asked(handle);
        }
        Ok(())
    }

    /// Keeps the plan ahead of the reads.
    fn look(&mut self) -> Result<(), Failed> {
        while self.asked.is_none() && self.plan.len() < FEW {
            if self.area.is_empty() {
                let Some(area) = self.areas.next()? else {
                    return Ok(());
                };
                self.area = area;
            }
            if !self.tells {
                let all = std::mem::replace(&mut self.area, 0..0);
                self.plan.push_back((all, false));
                continue;
            }
            if self.fleet.is_empty() {
                return Ok(());
            }
            let len = (self.area.end - self.area.start).min(LOOK);
            let len = u32::try_from(len).unwrap_or(self.block);
            self.asked = self.fleet.status(self.area.start, len)?;
        }
        Ok(())
    }

    /// A request was answered.
    fn take(&mut self, finished: Finished) -> Result<(), Failed> {
        let Finished {
            handle,
            buf,
            outcome,
        } = finished;
        if self.asked == Some(handle) {
            self.asked = None;
            match outcome {
                Ok(Answer::Status(extents)) if !extents.is_empty() => self.plan_for(&extents),
                outcome => {
                    // What can't be told is read.
                    tracing::info!(?outcome, "the server does not tell its extents");
                    self.tells = false;
                }
            }
            return Ok(());
        }
        let asked = |slot: &&mut Slot| matches!(slot.state, State::Asked(h) if h == handle);
        let (Some(slot), Some(buf)) = (self.slots.iter_mut().find(asked), buf) else {
            return Ok(());
        };
        let len = slot.range.end - slot.range.start;
        match outcome {
            Ok(_) => {
                slot.state = State::Come(buf);
                self.attempts.headway(len);
                self.fleet.headway(len);
            }
            Err(number) => {
                self.free.push(buf);
                let mut attempts = Attempts::new(self.setup.policy).after(slot.failed);
                let pause = attempts.pause(NbdError::Failed {
                    action: "read",
                    at: slot.range.start,
                    len: u32::try_from(len).unwrap_or(u32::MAX),
                    source: io::Error::from_raw_os_error(i32::try_from(number).unwrap_or(5)),
                })?;
                slot.failed += 1;
                slot.state = State::Wanted(Instant::now().checked_add(pause));
            }
        }
        Ok(())
    }

    fn plan_for(&mut self, extents: &[Extent]) {
        for extent in extents {
            let end = self.area.start.saturating_add(u64::from(extent.len));
            let end = end.min(self.area.end);
            let range = self.area.start..end;
            self.area.start = end;
            match self.plan.back_mut() {
                _ if range.is_empty() => {}
                Some((last, zero)) if *zero == extent.zero && last.end == range.start => {
                    last.end = range.end;
                }
                _ => self.plan.push_back((range, extent.zero)),
            }
        }
    }

    /// A connection is gone: all that was asked for on it is asked for again on another, or the next one.
    fn lost(&mut self, error: NbdError) -> Result<(), Failed> {
        if let Some(mut session) = self.fleet.lose() {
            self.free.extend(session.abandon());
            self.asked = self.asked.filter(|handle| !session.owns(*handle));
            for slot in &mut self.slots {
                if matches!(slot.state, State::Asked(handle) if session.owns(handle)) {
                    slot.state = State::Wanted(None);
                }
            }
        }
        let pause = self.attempts.pause(error)?;
        if self.fleet.is_empty() {
            self.reconnect = Instant::now().checked_add(pause);
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<(), Failed> {
        if self.reconnect.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let session = Session::open(&self.setup)?;
        let export = session.export();
        if export.size != self.size || export.block > self.block {
            return Err(NbdError::Changed {
                was: self.size,
                now: export.size,
            }
            .into());
        }
        self.tells &= export.terms.context.is_some();
        self.fleet.begin(session);
        Ok(())
    }
}

impl Served for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn only(&mut self, wanted: Vec<Range<u64>>) {
        self.areas.only(wanted);
    }

    fn next(&mut self) -> longshore_transfer::Result<Piece<'_>> {
        match self.step() {
            Ok(Next::Data(range)) => Ok(Piece::Data(range.start, self.bytes(&range))),
            Ok(Next::Zeros(range)) => Ok(Piece::Zeros(range)),
            Ok(Next::Waiting) => Ok(Piece::Waiting),
            Ok(Next::End) => Ok(Piece::End),
            Err(e) => Err(self.naming.error(e)),
        }
    }
}
