//! The content from front to back, across connections that break.
//!
//! ```text
//!            +--------------------- pause, ask for the rest <----------------+
//!            v                                                               | broke, stalled, 5xx
//! first -> body -> skip what the reader has -> pass on -> ends where it should -> end
//!            |
//!            +-> not the same content any more -> error
//! ```
//!
//! What the reader gets is the content in one state, or an error. A server that names that state (`ETag`,
//! Last-Modified) is asked for the rest of it, or for all of it to skip what came before. Of one that
//! does not, all is read again, and what is skipped must have the digest of what came before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use longshore_transfer::Allowance;

use super::agent::{Agent, Asked};
use super::answer::{Answer, Content, Identity};
use super::digest::Hasher;
use super::error::{Cause, HttpError, Retry};
use super::fleet::{Fleet, Gauge, LONG_LINE};
use super::pipe::{Feed, Unwanted};
use super::random::Fetch;
use super::retry::{Attempts, Policy, after_headway, dice};

/// An answer that ends before the content does, as it said it would, is no failure if it brought this
/// much.
const FAIR_SHARE: u64 = 64 << 10;

/// A buffer that is not full waits so long for more. On a fast line it then is passed on full, on a slow
/// one nobody notices.
const LINGER: Duration = Duration::from_millis(10);

/// The digest of all of the content, once it was read to its end.
pub(crate) type Whole = Arc<Mutex<Option<String>>>;

/// One pass over the content.
pub(crate) struct Pass {
    agent: Arc<Agent>,
    identity: Identity,
    policy: Policy,
    /// Asking for a part has not failed yet.
    ranges: bool,
    /// Where the reader is.
    at: u64,
    digest: Option<(Hasher, Whole)>,
    /// Most requests at the same time, and the memory for what they bring too early.
    several: (usize, Allowance),
    /// How one connection after the other does.
    gauge: Gauge,
}

/// Why a pass stopped, or did not.
enum Step {
    /// All of it was passed on.
    Complete,
    /// The answer is used up, the content is not.
    More,
    /// Nobody reads any more.
    Unwanted,
}

impl From<Unwanted> for Step {
    fn from(Unwanted: Unwanted) -> Self {
        Self::Unwanted
    }
}

impl Pass {
    pub(crate) fn new(
        agent: Arc<Agent>,
        identity: Identity,
        policy: Policy,
        ranges: bool,
        whole: &Whole,
    ) -> Self {
        let digest = match identity.validator() {
            Some(_) => None,
            None => Some((Hasher::default(), Arc::clone(whole))),
        };
        Self {
            agent,
            identity,
            policy,
            ranges,
            at: 0,
            digest,
            several: (1, Allowance::default()),
            gauge: Gauge::start(),
        }
    }

    /// Up to `most` requests at the same time, where one alone is slow.
    pub(crate) fn several(mut self, most: usize, memory: Allowance) -> Self {
        self.several = (most, memory);
        self
    }

    /// The reader has all before `at`. Only of content that has a name for its state.
    pub(crate) fn from(mut self, at: u64) -> Self {
        self.at = at;
        self
    }

    /// Feeds the reader until the end. `first` is an answer that is there already.
    pub(crate) async fn run(mut self, first: Option<Answer>, mut feed: Feed) {
        match self.read_all(first, &mut feed).await {
            Ok(Step::Unwanted) => {}
            Ok(Step::Complete | Step::More) => feed.end(self.finish()),
            Err(e) => feed.end(Err(e)),
        }
    }

    async fn read_all(
        &mut self,
        mut first: Option<Answer>,
        feed: &mut Feed,
    ) -> Result<Step, HttpError> {
        let mut attempts = Attempts::new(self.policy, None);
        loop {
            let before = self.at;
            let asked = Instant::now();
            let answer = match first.take() {
                Some(answer) => Ok(Some(answer)),
                None => self.ask().await,
            };
            self.gauge.came(0, asked.elapsed());
            let outcome = match answer {
                Ok(Some(answer)) => self.read(answer, feed, &mut attempts).await,
                Ok(None) => Ok(Step::Complete),
                Err(e) => Err(e),
            };
            let error = match outcome {
                Ok(Step::More) if self.at - before >= FAIR_SHARE => continue,
                Ok(Step::More) => HttpError::Truncated {
                    expected: self.identity.len.unwrap_or(self.at),
                    found: self.at,
                },
                Ok(done) => return Ok(done),
                Err(e) => e,
            };
            let Some(pause) = attempts.pause(&error, std::time::Instant::now(), dice()) else {
                return Err(self.give_up(error, attempts.failed()));
            };
            self.agent.tally.add();
            let pause = after_headway(pause, &error, self.at - before);
            tracing::warn!(
                received = self.at,
                attempt = attempts.failed(),
                pause = pause.as_secs_f32(),
                cause = &error as &dyn std::error::Error,
                "the transfer broke off and is resumed"
            );
            tokio::time::sleep(pause).await;
        }
    }

    fn give_up(&self, error: HttpError, attempts: u32) -> HttpError {
        // What is final at the first attempt speaks for itself.
        if error.retry() == Retry::Permanent {
            return error;
        }
        HttpError::GaveUp {
            received: self.at,
            len: self.identity.len,
            attempts,
            source: Box::new(error),
        }
    }

    /// Asks for what the reader does not have. `None` if that is nothing.
    async fn ask(&mut self) -> Result<Option<Answer>, HttpError> {
        let asked = (self.ranges && self.at > 0 && self.digest.is_none()).then_some(Asked {
            first: self.at,
            last: None,
        });
        let if_range = asked.and_then(|_| self.identity.validator());
        let answer = match self.agent.ask(asked, if_range).await {
            Err(e @ HttpError::Range { .. }) => {
                self.ranges = false;
                return Err(e);
            }
            answer => answer?,
        };
        match answer.content {
            Content::Whole => {}
            Content::Part(range) => {
                let fits = range.first == self.at && self.identity.can_check(&answer.identity);
                if asked.is_none() || !fits {
                    return Err(self.no_more_ranges(range.to_string()));
                }
            }
            Content::PastEnd(total) => {
                // An answer of unknown length broke exactly at its end, if this is still the same.
                let complete = self.identity.len.is_none() && total == Some(self.at);
                if complete && self.identity.can_check(&answer.identity) {
                    self.identity.check(&answer.identity)?;
                    return Ok(None);
                }
                return Err(self.no_more_ranges("416 Range Not Satisfiable".to_owned()));
            }
        }
        self.identity.check(&answer.identity)?;
        Ok(Some(answer))
    }

    /// From here on all of it is asked for: a 200 can be checked.
    fn no_more_ranges(&mut self, found: String) -> HttpError {
        self.ranges = false;
        HttpError::Range {
            asked: format!("{}-", self.at),
            found,
        }
    }

    /// Passes an answer's body on, less what the reader has.
    async fn read(
        &mut self,
        mut answer: Answer,
        feed: &mut Feed,
        attempts: &mut Attempts,
    ) -> Result<Step, HttpError> {
        let (mut pos, end) = match answer.content {
            Content::Part(range) => (range.first, Some(range.end())),
            Content::Whole | Content::PastEnd(_) => (0, answer.identity.len),
        };
        let end_is_certain = !answer.ends_with_connection();
        if end.is_none() && !end_is_certain {
            tracing::warn!(
                "the server announces no length: an answer that breaks off looks like a complete one"
            );
        }
        self.identity.len = self.identity.len.or(answer.identity.len);
        let most = end.or(self.identity.len);
        // What is read again without a name for its state must be what came before.
        let mut again = (self.digest.is_some() && pos < self.at).then(Hasher::default);
        let mut fleet: Option<Fleet> = None;
        loop {
            if let Err(gone) = feed.ready().await {
                return Ok(gone.into());
            }
            let asked = Instant::now();
            let mut bytes = match self.chunk(&mut answer, feed).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => break,
                Ok(Err(e)) => match &mut fleet {
                    // Others are there already.
                    Some(fleet) if e.is_of_the_line() => {
                        self.agent.tally.add();
                        fleet.take_over(self.at);
                        return self.sail(fleet, feed, attempts).await;
                    }
                    _ => return Err(e),
                },
                Err(gone) => return Ok(gone.into()),
            };
            self.gauge.came(bytes.len() as u64, asked.elapsed());
            if let Some(fleet) = &fleet {
                let room = usize::try_from(fleet.first().saturating_sub(pos));
                bytes.truncate(room.unwrap_or(usize::MAX));
            }
            let start = pos;
            pos = pos.saturating_add(bytes.len() as u64);
            if let Some(most) = most
                && pos > most
            {
                return Err(HttpError::Overlong { expected: most });
            }
            if start < self.at {
                let known = usize::try_from(self.at - start).unwrap_or(usize::MAX);
                let known = bytes.split_to(known.min(bytes.len()));
                if let Some(hasher) = &mut again {
                    hasher.update(&known);
                }
                if pos >= self.at {
                    self.same_so_far(again.take())?;
                }
            }
            if bytes.is_empty() {
                continue;
            }
            let n = bytes.len() as u64;
            if let Some((hasher, _)) = &mut self.digest {
                hasher.update(&bytes);
            }
            if let Err(gone) = feed.send(&bytes).await {
                return Ok(gone.into());
            }
            // Gone before more is asked for: the client reads into the same memory again.
            drop(bytes);
            self.at = self.at.saturating_add(n);
            attempts.headway(n);
            match &mut fleet {
                None => fleet = self.fleet(),
                Some(fleet) if self.at == fleet.first() => {
                    drop(answer);
                    return self.sail(fleet, feed, attempts).await;
                }
                Some(_) => {}
            }
        }
        self.ended(pos, end, end_is_certain)
    }

    /// An answer ended at `pos`, where it said it would or not.
    fn ended(&self, pos: u64, end: Option<u64>, end_is_certain: bool) -> Result<Step, HttpError> {
        if let Some(end) = end
            && pos < end
        {
            return Err(HttpError::Truncated {
                expected: end,
                found: pos,
            });
        }
        // The whole, and less than there was before.
        let least = self.identity.len.unwrap_or(self.at);
        if end.is_none() && pos < least {
            if !end_is_certain {
                return Err(HttpError::Truncated {
                    expected: least,
                    found: pos,
                });
            }
            return Err(HttpError::Changed {
                what: "its length",
                was: least.to_string(),
                now: pos.to_string(),
            });
        }
        match self.identity.len {
            Some(len) if self.at < len => Ok(Step::More),
            _ => Ok(Step::Complete),
        }
    }

    /// More connections for the rest, if this one is slow and the rest can be had in parts.
    fn fleet(&mut self) -> Option<Fleet> {
        let (most, memory) = &self.several;
        if !self.ranges || *most < 2 {
            return None;
        }
        self.identity.validator()?;
        let end = self.identity.len?;
        let rate = self.gauge.slow_line(self.agent.delay() >= LONG_LINE)?;
        let fetch = Fetch::new(&self.agent, &self.identity, self.policy);
        Fleet::start(fetch, self.at, end, rate, *most, memory)
    }

    /// The rest, by a fleet.
    async fn sail(
        &mut self,
        fleet: &mut Fleet,
        feed: &mut Feed,
        attempts: &mut Attempts,
    ) -> Result<Step, HttpError> {
        let at = &mut self.at;
        let outcome = fleet.run(feed, |n| {
            *at = at.saturating_add(n);
            attempts.headway(n);
        });
        match outcome.await {
            Ok(Ok(())) => Ok(Step::Complete),
            Ok(Err(gone)) => Ok(gone.into()),
            Err(e) => {
                // It worked for the first part, and may again for one that is all the rest.
                // To us it is one failed attempt: the rest is asked for as one again, and a fleet only
                // sails from a connection that works.
                let e = match e {
                    HttpError::GaveUp { source, .. } => *source,
                    e => e,
                };
                if matches!(e, HttpError::Range { .. }) {
                    self.ranges = false;
                }
                Err(e)
            }
        }
    }

    /// The next bytes of an answer. If they take their time, the reader gets what it can have.
    async fn chunk(
        &self,
        answer: &mut Answer,
        feed: &mut Feed,
    ) -> Result<Result<Option<Bytes>, HttpError>, Unwanted> {
        let stall = self.agent.stall();
        let mut next = std::pin::pin!(answer.response.chunk());
        let mut soon = None;
        if feed.holds() {
            soon = tokio::time::timeout(LINGER, &mut next).await.ok();
        }
        let chunk = if let Some(chunk) = soon {
            Ok(chunk)
        } else {
            feed.flush()?;
            tokio::time::timeout(stall, next).await
        };
        Ok(match chunk {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(e)) => Err(HttpError::Broken {
                host: answer.host.clone(),
                source: Cause::of(&e),
            }),
            Err(_) => Err(HttpError::Stalled {
                host: answer.host.clone(),
                after: stall,
            }),
        })
    }

    /// Compares what was read again with what the reader has.
    fn same_so_far(&self, again: Option<Hasher>) -> Result<(), HttpError> {
        let (Some(again), Some((before, _))) = (again, &self.digest) else {
            return Ok(());
        };
        same_digest(before.hex(), again.hex())
    }

    /// The reader has everything: it must be what an earlier pass had.
    fn finish(self) -> Result<(), HttpError> {
        let Some((hasher, whole)) = self.digest else {
            return Ok(());
        };
        let now = hasher.hex();
        let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
        same_digest(whole.get_or_insert_with(|| now.clone()).clone(), now)
    }
}

fn same_digest(was: String, now: String) -> Result<(), HttpError> {
    if was == now {
        return Ok(());
    }
    Err(HttpError::Changed {
        what: "the SHA-256 of what came before",
        was,
        now,
    })
}
