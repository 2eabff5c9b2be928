//! One connection to one export, and how it is made again.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::address::Address;
use super::error::NbdError;
use super::greeting::{Export, greet};
use super::link::{Link, Patience};
use super::wire::{self, Finished, Replies};
use crate::Retry;
use crate::http::{PATIENCE, Policy, TICK, dice};

/// Headway that earns a fresh set of attempts.
const HEADWAY: u64 = 1 << 20;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How to reach an export.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) address: Address,
    pub(crate) patience: Patience,
    pub(crate) policy: Policy,
    /// Most connections at the same time.
    pub(crate) connections: usize,
}

/// A connection past its greeting.
#[derive(Debug)]
pub(crate) struct Session {
    link: Link,
    replies: Replies,
    export: Export,
    /// No other connection has it.
    number: u64,
    next: u64,
}

/// Connections so far.
static OPENED: AtomicU64 = AtomicU64::new(0);
/// Bits of a handle that count requests; the others are the connection's number.
const COUNT: u32 = 40;

impl Session {
    /// One attempt.
    pub(crate) fn open(setup: &Setup) -> Result<Self, NbdError> {
        let mut link = Link::connect(&setup.address, &setup.patience)?;
        let export = greet(&mut link, &setup.address.export)?;
        let number = OPENED.fetch_add(1, Ordering::Relaxed) & (u64::MAX >> COUNT);
        tracing::debug!(?export, number, "opened");
        Ok(Self {
            link,
            replies: Replies::new(export.terms),
            export,
            number,
            next: (number << COUNT) + 1,
        })
    }

    /// Attempts for some seconds.
    pub(crate) fn open_patiently(setup: &Setup) -> Result<Self, NbdError> {
        let until = Instant::now().checked_add(PATIENCE);
        let mut attempts = Attempts::new(setup.policy);
        loop {
            let error = match Self::open(setup) {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            let pause = attempts.pause(error)?;
            let then = Instant::now().checked_add(pause);
            if then.is_none_or(|then| until.is_some_and(|until| then > until)) {
                return Err(attempts.give_up());
            }
            sleep(pause, setup)?;
        }
    }

    pub(crate) fn export(&self) -> Export {
        self.export
    }

    /// Whether `handle` was asked for here.
    pub(crate) fn owns(&self, handle: u64) -> bool {
        handle >> COUNT == self.number
    }

    /// How many requests are not answered.
    pub(crate) fn pending(&self) -> usize {
        self.replies.pending()
    }

    /// From now on a request may take so long.
    pub(crate) fn be_patient(&mut self, stall: Duration) {
        self.link.be_patient(stall);
    }

    /// Asks for bytes. `buf` has room for them.
    pub(crate) fn read(&mut self, at: u64, len: u32, buf: Vec<u8>) -> Result<u64, NbdError> {
        let handle = self.send(wire::READ, at, len)?;
        self.replies.expect_read(handle, at, len, buf);
        Ok(handle)
    }

    /// Asks for extents.
    pub(crate) fn status(&mut self, at: u64, len: u32) -> Result<u64, NbdError> {
        let handle = self.send(wire::BLOCK_STATUS, at, len)?;
        self.replies.expect_status(handle);
        Ok(handle)
    }

    fn send(&mut self, command: u16, at: u64, len: u32) -> Result<u64, NbdError> {
        let handle = self.next;
        self.next += 1;
        if self.replies.pending() == 0 {
            self.link.refresh();
        }
        self.link
            .write_all(&wire::request(command, handle, at, len))?;
        Ok(handle)
    }

    /// What was finished, if anything was within a moment.
    pub(crate) fn receive(&mut self) -> Result<Option<Finished>, NbdError> {
        if !self.link.ready()? {
            return Ok(None);
        }
        let finished = self.replies.receive(&mut self.link)?;
        if finished.is_some() {
            self.link.refresh();
        }
        Ok(finished)
    }

    /// Patience starts anew: it was not the server that kept us waiting.
    pub(crate) fn refresh(&mut self) {
        self.link.refresh();
    }

    /// No more is expected: gives the buffers back.
    pub(crate) fn abandon(&mut self) -> Vec<Vec<u8>> {
        self.replies.abandon()
    }

    /// Asks for something and waits for it.
    pub(crate) fn finish(&mut self, handle: u64) -> Result<Finished, NbdError> {
        loop {
            if let Some(finished) = self.receive()?
                && finished.handle == handle
            {
                return Ok(finished);
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A courtesy: the socket closes anyway.
        let _ = self
            .link
            .write_all(&wire::request(wire::DISCONNECT, 0, 0, 0));
    }
}

/// Waits, and looks whether anyone still wants to.
pub(crate) fn sleep(pause: Duration, setup: &Setup) -> Result<(), NbdError> {
    let until = Instant::now().checked_add(pause);
    while until.is_some_and(|until| Instant::now() < until) {
        if setup.patience.cancel.is_cancelled() {
            return Err(NbdError::Cancelled);
        }
        std::thread::sleep(TICK.min(pause));
    }
    Ok(())
}

/// Attempts that failed, and what comes of that.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: Policy,
    failed: u32,
    headway: u64,
    last: Option<NbdError>,
}

impl Attempts {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            failed: 0,
            headway: 0,
            last: None,
        }
    }

    /// So many failed before.
    pub(crate) fn after(mut self, failed: u32) -> Self {
        self.failed = failed;
        self
    }

    /// Bytes came.
    pub(crate) fn headway(&mut self, bytes: u64) {
        self.headway = self.headway.saturating_add(bytes);
        if self.headway >= HEADWAY {
            self.headway = 0;
            self.failed = 0;
        }
    }

    /// An attempt failed: the pause before the next one, or the end.
    pub(crate) fn pause(&mut self, error: NbdError) -> Result<Duration, NbdError> {
        self.failed = self.failed.saturating_add(1);
        if error.retry() != Retry::Transient {
            return Err(error);
        }
        let doublings = (self.failed - 1).min(16);
        let spent = self.failed > self.policy.retries;
        tracing::warn!(
            attempt = self.failed,
            cause = &error as &dyn std::error::Error,
            "the NBD server failed"
        );
        self.last = Some(error);
        if spent {
            return Err(self.give_up());
        }
        let pause = self.policy.first_pause.saturating_mul(1 << doublings);
        Ok(pause.min(LONGEST_PAUSE).mul_f64(0.5 + dice() / 2.0))
    }

    /// The last error, as the end of all attempts.
    pub(crate) fn give_up(&mut self) -> NbdError {
        match self.last.take() {
            Some(error) if self.failed <= 1 => error,
            Some(error) => NbdError::GaveUp {
                attempts: self.failed,
                source: Box::new(error),
            },
            None => NbdError::Cancelled,
        }
    }
}
