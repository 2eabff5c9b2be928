//! How a command fails: the cause, the exit code, and what to do next.

use std::error::Error as StdError;
use std::io;

use crate::output;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The engine could not do it.
    #[error(transparent)]
    Transfer(#[from] longshore_transfer::Error),
    /// Something asked for that is not there yet.
    #[error("{what}")]
    Unsupported {
        /// What it is.
        what: String,
        /// What to do instead.
        next: String,
    },
    /// An image whose tables can't be looked up.
    #[error("{name} can't be mapped: {why}")]
    NotRandom {
        /// The source.
        name: String,
        /// What is in the way.
        why: String,
    },
    /// Whoever read our standard output has left: not a failure.
    #[error("standard output is closed")]
    ReaderGone,
    /// Standard output could not be written for another reason.
    #[error("could not write to standard output")]
    Output {
        /// The cause.
        source: io::Error,
    },
    /// Something of the host did not work.
    #[error("{action}")]
    Host {
        /// What was attempted.
        action: String,
        /// The cause.
        source: io::Error,
    },
    /// A thread of ours died; its message is on standard error already.
    #[error("the copy ended unexpectedly: this is a mistake in longshore")]
    Crashed,
}

impl Failure {
    /// See the crate's table.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Transfer(error) => error.exit_code(),
            Self::Unsupported { .. } => 3,
            Self::ReaderGone => 0,
            Self::NotRandom { .. }
            | Self::Output { .. }
            | Self::Host { .. }
            | Self::Crashed => 1,
        }
    }

    /// The cause in one word, for machines to match on.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Transfer(error) => error.reason(),
            Self::Unsupported { .. } => "Unsupported",
            Self::NotRandom { .. } => "NotRandomAccess",
            Self::ReaderGone => "ReaderGone",
            Self::Output { .. } => "OutputFailed",
            Self::Host { .. } => "HostFailed",
            Self::Crashed => "Crashed",
        }
    }

    /// The image is at fault, and not the world around it.
    pub(crate) fn refuses_image(&self) -> bool {
        self.exit_code() == 3
    }

    /// The whole chain of causes on one line.
    pub(crate) fn message(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }

    /// What to do about it, where that is known and the message does not say it.
    pub(crate) fn next_step(&self) -> Option<String> {
        use longshore_image::ErrorKind;
        use longshore_transfer::Error;
        match self {
            Self::Unsupported { next, .. } => Some(next.clone()),
            Self::Transfer(Error::Image { source, .. }) => match source.kind() {
                ErrorKind::Denied => Some(
                    "if you trust the image, --backing same-dir lets in files that lie beside it"
                        .to_owned(),
                ),
                ErrorKind::LimitExceeded => {
                    Some("if you trust the image, --memory gives it more".to_owned())
                }
                _ => None,
            },
            Self::NotRandom { .. } => Some(
                "`longshore convert` it to a raw file, or unpack it, and map that".to_owned(),
            ),
            Self::Transfer(Error::Checksum { .. }) => {
                Some("check the digest, or fetch the image again: it may have changed".to_owned())
            }
            _ => None,
        }
    }

    /// Says it on standard error.
    pub(crate) fn tell(&self) {
        if matches!(self, Self::ReaderGone) {
            return;
        }
        output::say(&format!("error: {}", self.message()));
        if let Some(next) = self.next_step() {
            output::say(&format!("next: {next}"));
        }
    }
}
