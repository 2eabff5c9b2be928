//! Web servers as sources.
//!
//! Opening one sends a GET for everything (never a HEAD: signed URLs and small servers refuse it). The
//! answer tells length, state and whether parts can be had, and its body is what the first pass reads,
//! so that an import usually is one request. What the first bytes are asked for as, a range from 0, is
//! the cheapest way to learn whether ranges really work: many a server announces them and does not.
//!
//! It does not interpret bytes, keeps none on disk, and knows nothing of pods.

pub(crate) mod agent;
pub(crate) mod answer;
mod bare;
pub(crate) mod call;
mod digest;
pub(crate) mod error;
mod fleet;
pub(crate) mod location;
pub(crate) mod net;
mod pace;
pub(crate) mod passport;
mod pipe;
mod random;
pub(crate) mod retry;
mod stream;
pub(crate) mod trust;

use std::fmt;
use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use longshore_image::ReadAt;
use longshore_transfer::{Allowance, Exchange, Fingerprint, Source};
use reqwest::header::ACCEPT_RANGES;
use url::Url;

use self::agent::{Agent, Asked};
use self::answer::{Answer, Content, Identity, text};
pub(crate) use self::bare::{client_for, exchange, read_through};
pub(crate) use self::error::HttpError;
use self::location::Location;
pub(crate) use self::net::Net;
pub(crate) use self::net::TICK;
use self::passport::Passport;
use self::pipe::pipe;
pub(crate) use self::random::{Fetch, Ranged};
use self::retry::Attempts;
pub(crate) use self::retry::{PATIENCE, Policy, dice};
use self::stream::{Pass, Whole};
use crate::{Error, Result, SourceOptions};

/// A file on a web server.
pub(crate) struct HttpSource {
    name: String,
    /// The name, and what tells it from the same with another query.
    place: String,
    net: Arc<Net>,
    agent: Arc<Agent>,
    policy: Policy,
    identity: Identity,
    ranges: Ranges,
    /// The answer to the first request, until a pass takes it.
    first: Option<Answer>,
    whole: Whole,
    /// Most requests at the same time.
    connections: usize,
    /// Memory for what is fetched ahead.
    allowance: Allowance,
    /// Random access is settled once, when someone asks.
    random: OnceLock<Option<Arc<Ranged>>>,
}

/// What is known about ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ranges {
    /// One has come.
    Work,
    /// They are announced, but the range that is everything came as a 200. Apache does that.
    Announced,
    None,
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSource")
            .field("name", &self.name)
            .field("identity", &self.identity)
            .field("ranges", &self.ranges)
            .finish_non_exhaustive()
    }
}

impl HttpSource {
    /// Asks the server for `spec`. Errors that may pass are tried again for a few seconds.
    pub(crate) fn open(spec: &str, options: &SourceOptions) -> Result<Self> {
        let location = Location::parse(spec)?;
        let name = location::shown(&location.url);
        let net = Net::open(&name, options)?;
        Self::behind(name, location, None, net, options)
    }

    /// An object at `url` that is reached with the papers of `passport`; people know it as `name`.
    pub(crate) fn object(
        name: String,
        url: Url,
        passport: Arc<dyn Passport>,
        net: Arc<Net>,
        options: &SourceOptions,
    ) -> Result<Self> {
        let location = Location {
            url,
            basic_auth: None,
        };
        Self::behind(name, location, Some(passport), net, options)
    }

    fn behind(
        name: String,
        location: Location,
        passport: Option<Arc<dyn Passport>>,
        net: Arc<Net>,
        options: &SourceOptions,
    ) -> Result<Self> {
        let place = location::recorded(&location.url);
        let fail = |source| Error::Open {
            name: name.clone(),
            source,
        };
        let agent = Arc::new(Agent::new(location, passport, options)?);
        let policy = Policy::of(options);
        let asking = Arc::clone(&agent);
        let first = net
            .wait(async move { first_answer(&asking, policy).await })
            .map_err(fail)?;
        let announced = text(first.response.headers(), &ACCEPT_RANGES)
            .is_some_and(|units| units.to_ascii_lowercase().contains("bytes"));
        let ranges = match first.content {
            Content::Part(_) => Ranges::Work,
            _ if announced => Ranges::Announced,
            _ => Ranges::None,
        };
        let identity = first.identity.clone();
        tracing::debug!(?identity, ?ranges, "opened");
        if identity.validator().is_none() {
            tracing::info!(
                "the server gives neither a strong ETag nor Last-Modified: what is read again is compared"
            );
        }
        Ok(Self {
            name,
            place,
            net,
            agent,
            policy,
            identity,
            ranges,
            first: Some(first),
            whole: Whole::default(),
            connections: options.connections,
            allowance: Allowance::default(),
            random: OnceLock::new(),
        })
    }

    /// Starts to read from the front.
    fn front(&mut self) -> pipe::Reader {
        let pass = self.pass();
        let first = self.first.take();
        pipe(Arc::clone(&self.net), |feed| pass.run(first, feed))
    }

    fn pass(&self) -> Pass {
        Pass::new(
            Arc::clone(&self.agent),
            self.identity.clone(),
            self.policy,
            self.ranges != Ranges::None,
            &self.whole,
        )
        .several(self.connections, self.allowance.clone())
    }

    /// Random access needs ranges that work, a length, and a name for the content's state: a table of
    /// one state must never be applied to data of another.
    fn try_random(&self) -> Option<Arc<Ranged>> {
        let len = self.identity.len?;
        self.identity.validator()?;
        let fetch = Fetch::new(&self.agent, &self.identity, self.policy);
        match self.ranges {
            Ranges::Work => {}
            Ranges::None => return None,
            Ranges::Announced if len == 0 => return None,
            Ranges::Announced => {
                let probe = fetch.clone();
                let outcome = self.net.wait(async move { probe.once(0, 1).await });
                if let Err(error) = outcome {
                    tracing::info!(%error, "the server announces ranges that do not work");
                    return None;
                }
            }
        }
        Some(Arc::new(Ranged::new(Arc::clone(&self.net), fetch, len)))
    }
}

/// The first request, until it is answered with content from byte 0 on.
async fn first_answer(agent: &Agent, policy: Policy) -> Result<Answer, HttpError> {
    let until = Instant::now().checked_add(PATIENCE);
    let mut attempts = Attempts::new(policy, until);
    let everything = Asked {
        first: 0,
        last: None,
    };
    let mut asked = Some(everything);
    loop {
        let error = match agent.ask(asked, None).await {
            Ok(answer) => match answer.content {
                Content::Whole => return Ok(answer),
                Content::Part(range) if asked.is_some() && range.first == 0 => return Ok(answer),
                // 416 is how some answer for an empty file.
                Content::Part(_) | Content::PastEnd(_) => HttpError::Range {
                    asked: asked.map_or_else(|| "everything".to_owned(), |a| a.to_string()),
                    found: match answer.content {
                        Content::Part(range) => range.to_string(),
                        _ => "416 Range Not Satisfiable".to_owned(),
                    },
                },
            },
            Err(e) => e,
        };
        // A range that was answered with nonsense is not asked for again; that costs no attempt.
        if matches!(error, HttpError::Range { .. }) && asked.take().is_some() {
            continue;
        }
        let Some(pause) = attempts.pause(&error, Instant::now(), dice()) else {
            return Err(error.after(attempts.failed()));
        };
        agent.tally.add();
        tracing::warn!(
            attempt = attempts.failed(),
            pause = pause.as_secs_f32(),
            cause = &error as &dyn std::error::Error,
            "the server could not be asked and is asked again"
        );
        tokio::time::sleep(pause).await;
    }
}

impl Source for HttpSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> Option<u64> {
        self.identity.len
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        let ranged = self.random.get_or_init(|| self.try_random()).clone()?;
        Some(ranged)
    }

    fn reopenable(&self) -> bool {
        true
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.front()))
    }

    fn buffers(&mut self) -> longshore_transfer::Result<Option<Box<dyn Exchange>>> {
        Ok(Some(Box::new(self.front())))
    }

    fn allowance(&self) -> Option<Allowance> {
        Some(self.allowance.clone())
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(Fingerprint {
            place: self.place.clone(),
            state: self.identity.state()?,
            len: self.identity.len,
        })
    }

    fn stream_at(&mut self, at: u64) -> longshore_transfer::Result<Option<Box<dyn Read + Send>>> {
        if self.ranges == Ranges::None || self.identity.validator().is_none() {
            return Ok(None);
        }
        // Its beginning is of no use.
        self.first = None;
        let pass = self.pass().from(at);
        let reader = pipe(Arc::clone(&self.net), |feed| pass.run(None, feed));
        Ok(Some(Box::new(reader)))
    }

    fn lasts(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        HttpError::find(error).is_some_and(HttpError::lasts)
    }
}
