//! The disk at random, for looking at it and for images of other formats in it: one request at a time.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use longshore_image::ReadAt;

use super::disk::REQUEST;
use super::error::NbdError;
use super::session::{Attempts, Session, Setup, sleep};
use super::wire::{Answer, Finished};

/// Extents are asked for so many bytes at once.
const LOOK: u64 = 1 << 30;

/// Reads that wait for each other.
pub(crate) struct Random {
    setup: Setup,
    size: u64,
    block: u64,
    tells: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    session: Option<Session>,
    buf: Vec<u8>,
    /// Data and zeros, as last told: where it ends, and whether it is zero.
    known: Vec<(u64, bool)>,
    known_from: u64,
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Random {
    pub(crate) fn new(setup: Setup, session: Session) -> Self {
        let export = session.export();
        Self {
            setup,
            size: export.size,
            block: u64::from(export.block),
            tells: export.terms.context.is_some(),
            inner: Mutex::new(Inner {
                session: Some(session),
                ..Inner::default()
            }),
        }
    }

    /// Asks until there is an answer, on new connections where it takes that.
    fn answered(
        &self,
        inner: &mut Inner,
        at: u64,
        len: u32,
        ask: impl Fn(&mut Session, Vec<u8>) -> Result<u64, NbdError>,
    ) -> Result<Answer, NbdError> {
        let mut attempts = Attempts::new(self.setup.policy);
        loop {
            let attempt = (|| {
                let session = match &mut inner.session {
                    Some(session) => session,
                    none => none.insert(Session::open(&self.setup)?),
                };
                let export = session.export();
                if export.size != self.size {
                    return Err(NbdError::Changed {
                        was: self.size,
                        now: export.size,
                    });
                }
                let mut buf = std::mem::take(&mut inner.buf);
                buf.resize(buf.len().max(len as usize), 0);
                session.refresh();
                let handle = ask(session, buf)?;
                let Finished { buf, outcome, .. } = session.finish(handle)?;
                inner.buf = buf.unwrap_or_default();
                Ok(outcome)
            })();
            let error = match attempt {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(number)) => NbdError::Failed {
                    action: "read",
                    at,
                    len,
                    source: io::Error::from_raw_os_error(i32::try_from(number).unwrap_or(5)),
                },
                Err(e) => {
                    inner.session = None;
                    e
                }
            };
            sleep(attempts.pause(error)?, &self.setup)?;
        }
    }

    fn look(&self, inner: &mut Inner, from: u64) -> Result<(), NbdError> {
        let from = from / self.block * self.block;
        let len = u32::try_from((self.size - from).min(LOOK)).unwrap_or(0);
        let answer = self.answered(inner, from, len, |session, _| session.status(from, len))?;
        inner.known.clear();
        inner.known_from = from;
        let mut at = from;
        if let Answer::Status(extents) = answer {
            for extent in extents {
                at = at.saturating_add(u64::from(extent.len)).min(self.size);
                inner.known.push((at, extent.zero));
            }
        }
        Ok(())
    }
}

impl ReadAt for Random {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            // Whole blocks, from the one that `at` is in.
            let start = at / self.block * self.block;
            let skip = at - start;
            let wanted = (skip + rest.len() as u64).next_multiple_of(self.block);
            let most = u64::from(REQUEST).max(self.block);
            let len = wanted.min(most).min(self.size - start);
            let len = u32::try_from(len).unwrap_or(REQUEST);
            self.answered(&mut inner, start, len, |session, buf| {
                session.read(start, len, buf)
            })
            .map_err(io::Error::other)?;
            let skip = usize::try_from(skip).unwrap_or(0);
            let there = inner.buf.get(skip..len as usize).unwrap_or_default();
            let n = there.len().min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            now.copy_from_slice(&there[..n]);
            rest = later;
            at += n as u64;
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.size
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        if from >= self.size {
            return Ok(None);
        }
        if !self.tells {
            return Ok(Some(from..self.size));
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = from;
        while at < self.size {
            let end = inner.known.last().map_or(0, |(end, _)| *end);
            if at < inner.known_from || at >= end {
                self.look(&mut inner, at).map_err(io::Error::other)?;
            }
            let Some((end, zero)) = inner.known.iter().find(|(end, _)| at < *end) else {
                return Ok(Some(at..self.size));
            };
            if !zero {
                return Ok(Some(at..*end));
            }
            at = *end;
        }
        Ok(None)
    }
}
