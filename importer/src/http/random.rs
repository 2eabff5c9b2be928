//! The content at random: tables are fetched by ranged requests of a block each, and the last few
//! blocks are kept, for tables are read in little pieces that lie together.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use longshore_image::ReadAt;

use super::agent::{Agent, Asked};
use super::answer::{Answer, Content, Identity};
use super::error::{Cause, HttpError, Retry};
use super::net::Net;
use super::retry::{Attempts, Policy, after_headway, dice};
use super::trust::Clients;

/// What one request brings at least. Round trips cost more than these bytes.
const BLOCK: u64 = 256 << 10;
/// A server that gives less than this at once would take us thousands of requests.
const LEAST: u64 = 4 << 10;
/// Blocks kept: 2 MiB.
const KEPT: usize = 8;

/// Ranged reads of content that has a length and a name for its state.
pub(crate) struct Ranged {
    pub(crate) net: Arc<Net>,
    pub(crate) fetch: Fetch,
    pub(crate) len: u64,
    blocks: Mutex<VecDeque<(u64, Bytes)>>,
}

/// What it takes to fetch a range.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    pub(crate) agent: Arc<Agent>,
    /// Other connections than the agent's.
    own: Option<Arc<Clients>>,
    pub(crate) identity: Identity,
    pub(crate) policy: Policy,
    /// Attempts that failed.
    pub(crate) troubles: Arc<AtomicU32>,
}

impl fmt::Debug for Ranged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranged")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Ranged {
    pub(crate) fn new(net: Arc<Net>, fetch: Fetch, len: u64) -> Self {
        Self {
            net,
            fetch,
            len,
            blocks: Mutex::new(VecDeque::new()),
        }
    }

    /// A block, from what is kept or from the server. Two threads may fetch the same one: neither waits
    /// for the other.
    fn block(&self, start: u64) -> io::Result<Bytes> {
        if let Some(bytes) = self.kept(start) {
            return Ok(bytes);
        }
        let bytes = self.fetched(start, BLOCK.min(self.len - start))?;
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.push_front((start, bytes.clone()));
        blocks.truncate(KEPT);
        Ok(bytes)
    }

    fn kept(&self, start: u64) -> Option<Bytes> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let at = blocks.iter().position(|(s, _)| *s == start)?;
        let block = blocks.remove(at)?;
        let bytes = block.1.clone();
        blocks.push_front(block);
        Some(bytes)
    }

    fn fetched(&self, start: u64, len: u64) -> io::Result<Bytes> {
        let fetch = self.fetch.clone();
        self.net
            .wait(async move { fetch.range(start, len).await })
            .map_err(io::Error::other)
    }
}

impl ReadAt for Ranged {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let start = at - at % BLOCK;
            let bytes = self.block(start)?;
            let from = usize::try_from(at - start).map_err(io::Error::other)?;
            let there = &bytes[from..];
            let n = there.len().min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            now.copy_from_slice(&there[..n]);
            rest = later;
            at += n as u64;
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }
}

impl Fetch {
    pub(crate) fn new(agent: &Arc<Agent>, identity: &Identity, policy: Policy) -> Self {
        Self {
            agent: Arc::clone(agent),
            own: None,
            identity: identity.clone(),
            policy,
            troubles: Arc::default(),
        }
    }

    /// From here on over a connection that nobody else takes. One client's connections go to whoever asks
    /// first: a request that needs a new one gets another's, which is quick by now, and leaves it the new one.
    pub(crate) fn go_alone(&mut self) {
        if self.own.is_none() {
            let own = self.agent.other_clients();
            let own = own.inspect_err(|error| tracing::debug!(%error, "connections are shared"));
            self.own = own.ok().map(Arc::new);
        }
    }

    /// Fetches `len` bytes, which are not 0, from `start`, with retries.
    pub(crate) async fn range(&self, start: u64, len: u64) -> Result<Bytes, HttpError> {
        let mut attempts = self.attempts();
        let mut all = BytesMut::new();
        loop {
            let have = all.len() as u64;
            if have == 0 {
                all.reserve(usize::try_from(len).unwrap_or(0));
            }
            let (start, len) = (start + have, len - have);
            let outcome = self.more(start, len, |b| all.extend_from_slice(b)).await;
            let brought = all.len() as u64 - have;
            match outcome {
                Ok(()) if brought == len => return Ok(all.freeze()),
                Ok(()) => {}
                Err(e) => {
                    let pause = self.again(e, &mut attempts, start, len, brought)?;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.policy, None)
    }

    /// After how long what a failed request for `len` bytes from `start` left is asked for again;
    /// `brought` it did bring.
    pub(crate) fn again(
        &self,
        error: HttpError,
        attempts: &mut Attempts,
        start: u64,
        len: u64,
        brought: u64,
    ) -> Result<Duration, HttpError> {
        // What broke on the way says nothing of the server.
        if brought == 0 || !error.is_of_the_line() {
            self.troubles.fetch_add(1, Ordering::Relaxed);
        }
        attempts.headway(brought);
        let Some(pause) = attempts.pause(&error, Instant::now(), dice()) else {
            return Err(match error.retry() {
                Retry::Permanent => error,
                _ => HttpError::GaveUp {
                    received: start + brought,
                    len: self.identity.len,
                    attempts: attempts.failed(),
                    source: Box::new(error),
                },
            });
        };
        self.agent.tally.add();
        let pause = after_headway(pause, &error, brought);
        tracing::warn!(
            start,
            len,
            attempt = attempts.failed(),
            pause = pause.as_secs_f32(),
            cause = &error as &dyn std::error::Error,
            "a ranged read failed and is tried again"
        );
        Ok(pause)
    }

    /// The same in one request, or the first part of it from a server that gives less at once. Also tells whether a server does ranges at all.
    pub(crate) async fn once(&self, start: u64, len: u64) -> Result<Bytes, HttpError> {
        let mut all = BytesMut::new();
        all.reserve(usize::try_from(len).unwrap_or(0));
        self.more(start, len, |b| all.extend_from_slice(b)).await?;
        Ok(all.freeze())
    }

    /// One request. `came` gets what comes, in order, also of an answer that breaks off, and never more
    /// than `len`.
    pub(crate) async fn more(
        &self,
        start: u64,
        len: u64,
        came: impl FnMut(&[u8]),
    ) -> Result<(), HttpError> {
        let asked = Asked {
            first: start,
            last: Some(start + len - 1),
        };
        let validator = self.identity.validator();
        let mut answer = match &self.own {
            Some(own) => self.agent.ask_by(own, Some(asked), validator).await?,
            None => self.agent.ask(Some(asked), validator).await?,
        };
        // A 200 comes where the content has changed, which this finds out first.
        self.identity.check(&answer.identity)?;
        let found = match answer.content {
            Content::Part(range) if range.first == asked.first && range.end() <= start + len => {
                let n = range.end() - start;
                if n == len || n >= LEAST {
                    return self.body(&mut answer, n, came).await;
                }
                range.to_string()
            }
            Content::Part(range) => range.to_string(),
            Content::Whole => "the whole".to_owned(),
            Content::PastEnd(_) => "416 Range Not Satisfiable".to_owned(),
        };
        Err(HttpError::Range {
            asked: asked.to_string(),
            found,
        })
    }

    /// The `len` bytes of an answer.
    async fn body(
        &self,
        answer: &mut Answer,
        len: u64,
        mut came: impl FnMut(&[u8]),
    ) -> Result<(), HttpError> {
        let stall = self.agent.stall();
        let mut found = 0;
        loop {
            let chunk = tokio::time::timeout(stall, answer.response.chunk()).await;
            let chunk = chunk.map_err(|_| HttpError::Stalled {
                host: answer.host.clone(),
                after: stall,
            })?;
            let chunk = chunk.map_err(|e| HttpError::Broken {
                host: answer.host.clone(),
                source: Cause::of(&e),
            })?;
            let Some(chunk) = chunk else { break };
            let now = found + chunk.len() as u64;
            if now > len {
                return Err(HttpError::Overlong { expected: len });
            }
            found = now;
            came(&chunk);
        }
        if found < len {
            return Err(HttpError::Truncated {
                expected: len,
                found,
            });
        }
        Ok(())
    }
}
