//! What goes wrong between us, an oVirt engine and its imageio servers.

use std::time::Duration;

use crate::{HttpError, Retry};

/// Why a disk of oVirt could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageioError {
    /// The address makes no sense.
    #[error("this is no address of an oVirt disk: {why}")]
    Address {
        /// What is wrong with it.
        why: String,
    },
    /// A request got no answer.
    #[error("could not {action}")]
    Http {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: HttpError,
    },
    /// The engine said no.
    #[error("could not {action}: the engine answered {status}{}", told(said))]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// The HTTP status.
        status: u16,
        /// What the engine said.
        said: String,
    },
    /// An answer makes no sense.
    #[error("could not {action}: the answer makes no sense ({why})")]
    Answer {
        /// What was attempted.
        action: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The image transfer ended by itself.
    #[error(
        "the image transfer is {phase} and not transferring: look at the engine's events for the disk"
    )]
    Phase {
        /// Its phase.
        phase: String,
    },
    /// The engine was not ready in time.
    #[error("{what} for {} s", after.as_secs())]
    Slow {
        /// What did not change.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// A checkpoint is not there.
    #[error("the disk has no snapshot {checkpoint}")]
    NoCheckpoint {
        /// Which.
        checkpoint: String,
    },
    /// A snapshot is not on top of the one that the target has.
    #[error(
        "snapshot {current} is on top of {found}, and the target has {expected}: apply the ones between first"
    )]
    OtherBase {
        /// The snapshot.
        current: String,
        /// Its parent.
        found: String,
        /// What was said to be its parent.
        expected: String,
    },
    /// The server does not tell what changed.
    #[error("the server tells no extents, and without them there is no telling what changed")]
    NoExtents,
    /// Somebody asked to stop.
    #[error("interrupted")]
    Cancelled,
}

fn told(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

impl ImageioError {
    /// The word that conditions, events and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Address { .. } => "InvalidURL",
            Self::Http { source, .. } => source.reason(),
            Self::Refused { status, .. } => match status {
                401 | 403 => "Unauthorized",
                404 => "NotFound",
                _ => "TransferRefused",
            },
            Self::Answer { .. } => "BadAnswer",
            Self::Phase { .. } => "TransferEnded",
            Self::Slow { .. } => "Stalled",
            Self::NoCheckpoint { .. } => "NoSuchCheckpoint",
            Self::OtherBase { .. } => "OtherCheckpoint",
            Self::NoExtents => "ServerNotSupported",
            Self::Cancelled => "Interrupted",
        }
    }

    /// Whether the same may work later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Http { source, .. } => source.retry(),
            Self::Refused { status, .. } => match status {
                401 | 403 => Retry::Unauthorized,
                409 | 500.. => Retry::Transient,
                _ => Retry::Permanent,
            },
            Self::Phase { .. } | Self::Slow { .. } => Retry::Transient,
            _ => Retry::Permanent,
        }
    }
}
