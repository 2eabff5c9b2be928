//! What goes wrong between us and a web server, and what it is worth trying again.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;

/// Whether an error is worth another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// It may well be gone in a moment.
    Transient,
    /// The same request ends the same way.
    Permanent,
    /// It takes other credentials.
    Unauthorized,
}

impl Retry {
    /// What the same request is worth after an answer with this status.
    pub(crate) fn after(status: u16) -> Self {
        match status {
            401 | 403 | 407 => Self::Unauthorized,
            408 | 425 | 429 | 500 | 502..=504 | 506..=599 => Self::Transient,
            _ => Self::Permanent,
        }
    }
}

/// Why bytes did not come from a web server. Host and path are named by whoever shows it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection.
    #[error("could not connect to {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// The cause.
        source: Cause,
    },
    /// The server's certificate, or its TLS, is not acceptable.
    #[error(
        "could not connect to {host} safely ({}); --ca names a file with its authority",
        source
    )]
    Tls {
        /// Host and port.
        host: String,
        /// The cause. Part of the text: what to do depends on it.
        #[source]
        source: Cause,
    },
    /// An answer that is neither the content nor a redirect.
    #[error("{host} answered {}{hint}", status_text(*.status))]
    Status {
        /// Host and port.
        host: String,
        /// The code.
        status: u16,
        /// What to do about it.
        hint: &'static str,
        /// How long the server asks to be left alone.
        wait: Option<Duration>,
    },
    /// The same, from a server that says more than the status.
    #[error("{host} answered {}: {said}", status_text(*.status))]
    Said {
        /// Host and port.
        host: String,
        /// The status.
        status: u16,
        /// The server's own code and words, cut short and without secrets, and what to do about it.
        said: Box<str>,
        /// What trying again is worth.
        retry: Retry,
        /// How long the server asks to be left alone.
        wait: Option<Duration>,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects {why}")]
    Redirect {
        /// Host and port.
        host: String,
        /// Where to, and what is wrong with that.
        why: String,
    },
    /// The request or its answer got lost, or the answer was no HTTP.
    #[error("the connection to {host} broke")]
    Broken {
        /// Host and port.
        host: String,
        /// The cause.
        source: Cause,
    },
    /// Nothing came for too long.
    #[error("{host} sent nothing for {} s", after.as_secs_f32())]
    Stalled {
        /// Host and port.
        host: String,
        /// How long.
        after: Duration,
    },
    /// The body ended before its end.
    #[error("the answer ended at byte {found} of {expected}")]
    Truncated {
        /// Where it was to end.
        expected: u64,
        /// Where it ended.
        found: u64,
    },
    /// The body goes on after its end.
    #[error("the answer goes on after byte {expected}, where it was to end")]
    Overlong {
        /// Where it was to end.
        expected: u64,
    },
    /// The server compresses what is not stored compressed.
    #[error("the server answers with content encoding {encoding} although none was accepted")]
    Encoding {
        /// The encoding.
        encoding: String,
    },
    /// An answer to a range request that does not fit it.
    #[error("asked for bytes {asked}, the server answered with {found}")]
    Range {
        /// The range asked for.
        asked: String,
        /// What came.
        found: String,
    },
    /// Other content than before.
    #[error("the content changed while it was read: {what} was {was} and is {now}")]
    Changed {
        /// What tells.
        what: &'static str,
        /// As first seen.
        was: String,
        /// As seen last.
        now: String,
    },
    /// No attempt got any further.
    #[error("gave up {}after {}", place(*.received, *.len), count(*.attempts))]
    GaveUp {
        /// Bytes that came.
        received: u64,
        /// Bytes there are.
        len: Option<u64>,
        /// Attempts since the last one that made headway.
        attempts: u32,
        /// The last cause.
        source: Box<Self>,
    },
    /// There are no papers to ask with: no token was given, or a key cannot be used.
    #[error("could not get {what}")]
    Papers {
        /// What was wanted, and of whom.
        what: String,
        /// Whether that may be better later.
        retry: Retry,
        /// The cause, without secrets.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Somebody asked to stop.
    #[error("interrupted")]
    Cancelled,
    /// Our own thread is gone, or never came to be.
    #[error("the network thread failed")]
    Thread {
        /// The cause.
        source: std::io::Error,
    },
}

impl HttpError {
    /// What was under way got lost: the line, and not what the server thinks of us.
    pub(crate) fn is_of_the_line(&self) -> bool {
        matches!(
            self,
            Self::Broken { .. } | Self::Truncated { .. } | Self::Stalled { .. }
        )
    }

    /// The error of ours in a chain of causes.
    pub(crate) fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An io::Error passes over what it was made of, and names the cause of that as its own.
        let inner = error.downcast_ref::<std::io::Error>();
        if let Some(inner) = inner.and_then(std::io::Error::get_ref) {
            return Self::find(inner);
        }
        error.source().and_then(Self::find)
    }

    /// The same would happen at any later attempt, of another process too.
    pub(crate) fn lasts(&self) -> bool {
        match self {
            Self::Cancelled | Self::Thread { .. } => false,
            Self::GaveUp { source, .. } => source.lasts(),
            other => other.retry() == Retry::Permanent,
        }
    }

    /// What to do about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Status { status, .. } => Retry::after(*status),
            Self::Said { retry, .. } | Self::Papers { retry, .. } => *retry,
            Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::Range { .. } => Retry::Transient,
            Self::GaveUp { source, .. } => source.retry(),
            Self::Tls { .. }
            | Self::Redirect { .. }
            | Self::Overlong { .. }
            | Self::Encoding { .. }
            | Self::Changed { .. }
            | Self::Cancelled
            | Self::Thread { .. } => Retry::Permanent,
        }
    }

    /// The word that conditions, events and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "ConnectFailed",
            Self::Tls { .. } => "CertificateRefused",
            Self::Said { retry, .. } if *retry == Retry::Unauthorized => "Unauthorized",
            Self::Status { status, .. } | Self::Said { status, .. } => match status {
                401 | 403 | 407 => "Unauthorized",
                404 | 410 => "NotFound",
                _ => "BadStatus",
            },
            Self::Redirect { .. } => "BadRedirect",
            Self::Broken { .. } | Self::Truncated { .. } => "ConnectionBroken",
            Self::Stalled { .. } => "Stalled",
            Self::Overlong { .. } | Self::Encoding { .. } | Self::Range { .. } => "BadAnswer",
            Self::Changed { .. } => "SourceChanged",
            Self::GaveUp { source, .. } => source.reason(),
            Self::Papers { .. } => "Unauthorized",
            Self::Cancelled => "Interrupted",
            Self::Thread { .. } => "ThreadFailed",
        }
    }

    /// The HTTP status behind it, if a server answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } | Self::Said { status, .. } => Some(*status),
            Self::GaveUp { source, .. } => source.status(),
            _ => None,
        }
    }

    /// This, as the last of so many attempts that brought nothing.
    pub(crate) fn after(self, attempts: u32) -> Self {
        if attempts <= 1 {
            return self;
        }
        Self::GaveUp {
            received: 0,
            len: None,
            attempts,
            source: Box::new(self),
        }
    }

    /// Makes sense of what the client reports while asking.
    pub(crate) fn from_request(error: &reqwest::Error, host: String) -> Self {
        let source = Cause::of(error);
        if error.is_connect() {
            if mentions_tls(error) {
                Self::Tls { host, source }
            } else {
                Self::Connect { host, source }
            }
        } else {
            Self::Broken { host, source }
        }
    }
}

/// The innermost cause of a client error. What lies around it says in five steps that a request failed.
#[derive(Debug)]
pub struct Cause(String);

impl Cause {
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Self {
        tracing::debug!(error = ?error, "client error");
        let mut inner = error;
        while let Some(next) = inside(inner) {
            inner = next;
        }
        Self(inner.to_string())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Cause {}

/// The next error inwards. One in an [`std::io::Error`] is not its source but its content.
fn inside<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
    {
        Some(content) => Some(content),
        None => error.source(),
    }
}

/// True if TLS refused: trying again would only refuse again.
fn mentions_tls(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        next = inside(error);
    }
    false
}

/// The code, and what it is called.
pub(crate) fn status_text(status: u16) -> String {
    let phrase = StatusCode::from_u16(status).ok();
    match phrase.and_then(|s| s.canonical_reason()) {
        Some(phrase) => format!("{status} {phrase}"),
        None => status.to_string(),
    }
}

fn place(received: u64, len: Option<u64>) -> String {
    match len {
        _ if received == 0 => String::new(),
        Some(len) => format!("at byte {received} of {len} "),
        None => format!("at byte {received} "),
    }
}

fn count(attempts: u32) -> String {
    match attempts {
        1 => "1 attempt".to_owned(),
        n => format!("{n} attempts"),
    }
}
