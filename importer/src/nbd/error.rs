//! What goes wrong between us and an NBD server.

use std::io;
use std::time::Duration;

use super::wire::WireError;
use crate::Retry;

/// Why bytes did not come from an NBD server, which whoever shows this names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NbdError {
    /// The address makes no sense.
    #[error("this is no address of an NBD export: {why}")]
    Address {
        /// What is wrong with it.
        why: String,
    },
    /// No connection.
    #[error("could not connect to {peer}")]
    Connect {
        /// Host and port, or the path of a socket.
        peer: String,
        /// The cause.
        source: io::Error,
    },
    /// The server does not give this export.
    #[error("the server refuses the export {export:?}: {why}")]
    Refused {
        /// Its name.
        export: String,
        /// What the server says.
        why: String,
    },
    /// The server wants TLS.
    #[error("the server wants TLS, which is not spoken here: use a unix socket, or a tunnel")]
    Tls,
    /// The server lacks something.
    #[error("the server can't be used: {what}")]
    Unsupported {
        /// What it lacks, and what to do.
        what: String,
    },
    /// The server does not keep to the protocol.
    #[error("the server breaks the protocol: {what}")]
    Protocol {
        /// What it did.
        what: String,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Broken {
        /// The cause.
        source: io::Error,
    },
    /// Nothing was finished for too long.
    #[error("the server finished nothing for {} s", after.as_secs_f32())]
    Stalled {
        /// How long.
        after: Duration,
    },
    /// The server could not do what it was asked for.
    #[error("the server could not {action} {len} bytes at {at}")]
    Failed {
        /// `read`, or `tell the extents of`.
        action: &'static str,
        /// Where.
        at: u64,
        /// How many bytes.
        len: u32,
        /// The server's error number.
        source: io::Error,
    },
    /// The server has another disk now.
    #[error("the disk changed while it was read: it had {was} bytes and has {now}")]
    Changed {
        /// As first seen.
        was: u64,
        /// As seen last.
        now: u64,
    },
    /// No attempt got any further.
    #[error("gave up after {attempts} attempts")]
    GaveUp {
        /// Attempts since the last one that made headway.
        attempts: u32,
        /// The last cause.
        source: Box<Self>,
    },
    /// Somebody asked to stop.
    #[error("interrupted")]
    Cancelled,
}

impl NbdError {
    pub(crate) fn wrong(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    /// What to do about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Stalled { .. } => Retry::Transient,
            Self::Failed { source, .. } => match source.raw_os_error() {
                // EPERM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP: the same question gets the same answer.
                Some(1 | 22 | 28 | 75 | 95) => Retry::Permanent,
                _ => Retry::Transient,
            },
            Self::GaveUp { source, .. } => source.retry(),
            Self::Address { .. }
            | Self::Refused { .. }
            | Self::Tls
            | Self::Unsupported { .. }
            | Self::Protocol { .. }
            | Self::Changed { .. }
            | Self::Cancelled => Retry::Permanent,
        }
    }

    /// The word that conditions, events and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Address { .. } => "InvalidURL",
            Self::Connect { .. } => "ConnectFailed",
            Self::Refused { .. } => "NotFound",
            Self::Tls | Self::Unsupported { .. } => "ServerNotSupported",
            Self::Protocol { .. } => "BadAnswer",
            Self::Broken { .. } => "ConnectionBroken",
            Self::Stalled { .. } => "Stalled",
            Self::Failed { .. } => "SourceUnreadable",
            Self::Changed { .. } => "SourceChanged",
            Self::GaveUp { source, .. } => source.reason(),
            Self::Cancelled => "Interrupted",
        }
    }
}

/// One of ours that came through an `io::Error` is itself again.
impl From<io::Error> for NbdError {
    fn from(e: io::Error) -> Self {
        match e.downcast::<Self>() {
            Ok(own) => own,
            Err(source) => Self::Broken { source },
        }
    }
}

impl From<WireError> for NbdError {
    fn from(e: WireError) -> Self {
        match e {
            WireError::Io(e) => e.into(),
            WireError::Protocol(what) => Self::Protocol { what },
        }
    }
}
