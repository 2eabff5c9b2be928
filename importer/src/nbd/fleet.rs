//! Several connections to one export, used as one.
//!
//! A server answers each connection by one thread at a time, so several connections are answered by several
//! processors. Whoever reads from them is one thread all the same: it waits for the connection that has to
//! answer first, and what comes on the others waits in their sockets.
//!
//! It begins with one connection. The others are made once that has brought some bytes, and slowly: to a
//! quick server on this machine four of them were slower than one (0.64 and 0.56 s for 600 MB), to one that
//! takes 20 ms for each read they were faster (1.11 and 1.57 s). The server must say that they see the same
//! disk (`NBD_FLAG_CAN_MULTI_CONN`), and they are made without patience: one is enough.

use std::time::{Duration, Instant};

use super::error::NbdError;
use super::link::Patience;
use super::session::{Session, Setup};
use super::wire::Finished;

/// What nbdcopy makes, and more brought no more.
pub(crate) const MOST: usize = 4;
/// Bytes before there is more than one: small disks are done by then.
const GROWS_AFTER: u64 = 16 << 20;
/// One connection that brings them in this time is all that a disk can be written from.
const QUICK: Duration = Duration::from_millis(25);
/// For a connection that is not needed.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Fleet {
    setup: Setup,
    sessions: Vec<Session>,
    /// The one that was used last, and so the one that failed if any did.
    using: usize,
    came: u64,
    since: Instant,
    grown: bool,
}

impl Fleet {
    pub(crate) fn new(setup: Setup, session: Session) -> Self {
        Self {
            setup,
            sessions: vec![session],
            using: 0,
            came: 0,
            since: Instant::now(),
            grown: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The first of a new life.
    pub(crate) fn begin(&mut self, session: Session) {
        self.sessions = vec![session];
        (self.using, self.came, self.grown) = (0, 0, false);
        self.since = Instant::now();
    }

    /// Patience starts anew: it was not the server that kept us waiting.
    pub(crate) fn refresh(&mut self) {
        for session in &mut self.sessions {
            session.refresh();
        }
    }

    /// Asks for bytes, where the fewest requests are under way. `None` if there is no connection.
    pub(crate) fn read(
        &mut self,
        at: u64,
        len: u32,
        buf: Vec<u8>,
    ) -> Result<Option<u64>, NbdError> {
        let all = self.sessions.iter().enumerate();
        let idlest = all.min_by_key(|(_, session)| session.pending());
        self.using = idlest.map_or(0, |(at, _)| at);
        let session = self.sessions.get_mut(self.using);
        session.map(|s| s.read(at, len, buf)).transpose()
    }

    /// Asks for extents. All connections tell the same.
    pub(crate) fn status(&mut self, at: u64, len: u32) -> Result<Option<u64>, NbdError> {
        self.using = 0;
        let session = self.sessions.first_mut();
        session.map(|s| s.status(at, len)).transpose()
    }

    /// What was finished, if anything was within a moment, where `handle` was asked for.
    pub(crate) fn receive(&mut self, handle: Option<u64>) -> Result<Option<Finished>, NbdError> {
        let owner = |handle| self.sessions.iter().position(|s| s.owns(handle));
        let at = handle.and_then(owner).unwrap_or(0);
        let Some(session) = self.sessions.get_mut(at) else {
            return Ok(None);
        };
        if at != self.using {
            // Its answers have waited for us.
            session.refresh();
        }
        self.using = at;
        session.receive()
    }

    /// So many bytes came.
    pub(crate) fn headway(&mut self, bytes: u64) {
        self.came = self.came.saturating_add(bytes);
        if !self.grown && self.came >= GROWS_AFTER {
            self.grown = true;
            if self.since.elapsed() > QUICK {
                self.grow();
            }
        }
    }

    fn grow(&mut self) {
        let Some(first) = self.sessions.first().map(Session::export) else {
            return;
        };
        if !first.several {
            return;
        }
        let hasty = Setup {
            patience: Patience {
                connect: PATIENCE.min(self.setup.patience.connect),
                stall: PATIENCE.min(self.setup.patience.stall),
                ..self.setup.patience.clone()
            },
            ..self.setup.clone()
        };
        while self.sessions.len() < self.setup.connections.min(MOST) {
            match Session::open(&hasty) {
                Ok(mut session) if session.export() == first => {
                    session.be_patient(self.setup.patience.stall);
                    self.sessions.push(session);
                }
                Ok(_) => {
                    tracing::info!("the server shows another disk on another connection");
                    return;
                }
                Err(error) => {
                    tracing::info!(
                        cause = &error as &dyn std::error::Error,
                        connections = self.sessions.len(),
                        "the server takes no more connections"
                    );
                    return;
                }
            }
        }
    }

    /// Gives up the connection that failed; it may still be waited for.
    pub(crate) fn lose(&mut self) -> Option<Session> {
        (self.using < self.sessions.len()).then(|| self.sessions.swap_remove(self.using))
    }
}
