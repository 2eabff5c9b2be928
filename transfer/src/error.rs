//! What can go wrong in a transfer.

use std::io;
use std::path::PathBuf;

use longshore_image::ErrorKind;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a transfer did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "read as longshore_transfer::Error everywhere"
)]
pub enum Error {
    /// The image itself is to blame, or what it would take to read it.
    #[error("{context}")]
    Image {
        /// What was being done, and with what.
        context: String,
        /// What was wrong.
        source: longshore_image::Error,
    },
    /// The source could not be opened or read.
    #[error("could not read {name}")]
    Source {
        /// The source, without secrets.
        name: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The target could not be opened, written or completed.
    #[error("could not {action} {}", path.display())]
    Target {
        /// What was attempted, such as `write`.
        action: &'static str,
        /// The target.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The target is full: ENOSPC or EDQUOT, also when they only show at fsync.
    #[error("no space left on {} after {written} bytes written: free some space or use a larger volume", path.display())]
    NoSpace {
        /// The target.
        path: PathBuf,
        /// Bytes written to it before.
        written: u64,
        /// The cause.
        source: io::Error,
    },
    /// The disk does not fit into the target.
    #[error(
        "the disk has {needed} bytes but {what} has only {available}: use a target of at least that size"
    )]
    TooSmall {
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        available: u64,
        /// The target, or what bounds it.
        what: String,
    },
    /// Source and target are the same file or device.
    #[error("{} is both source and target: write to another file", path.display())]
    SameFile {
        /// The path given as target.
        path: PathBuf,
    },
    /// Someone uses the image in a way that excludes this.
    #[error("{} is in use by another process ({what}); --force-share overrides if you know that it is safe", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Which right of another stands in the way.
        what: &'static str,
    },
    /// The bytes are not those that were asked for.
    #[error("checksum mismatch of {name}: expected {algorithm}:{expected}, computed {computed}")]
    Checksum {
        /// The source.
        name: String,
        /// Algorithm name.
        algorithm: &'static str,
        /// As asked for, in lower-case hex.
        expected: String,
        /// As computed.
        computed: String,
    },
    /// The source is not what an earlier import of it has read.
    #[error(
        "{name} is not what an earlier import began to read ({what}): import it again from the start"
    )]
    SourceChanged {
        /// The source.
        name: String,
        /// What tells.
        what: String,
    },
    /// The memory budget is too small for what was asked.
    #[error("{what} takes {} MiB of memory and {} MiB are allowed: give --memory {}Mi or more", needed.div_ceil(1 << 20), allowed >> 20, needed.div_ceil(1 << 20))]
    Memory {
        /// For what.
        what: String,
        /// Bytes that would do.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// Somebody asked to stop.
    #[error("interrupted: nothing that looks complete was left behind")]
    Interrupted,
    /// A thread could not be started.
    #[error("could not start a thread")]
    Thread {
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// The word that conditions, events and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Image { source, .. } => source.kind().reason(),
            Self::Source { .. } => "SourceUnreadable",
            Self::Target { .. } => "TargetUnwritable",
            Self::NoSpace { .. } => "NoSpace",
            Self::TooSmall { .. } => "TargetTooSmall",
            Self::SameFile { .. } => "SameFile",
            Self::Locked { .. } => "ImageInUse",
            Self::Checksum { .. } => "ChecksumMismatch",
            Self::SourceChanged { .. } => "SourceChanged",
            Self::Memory { .. } => "MemoryBudgetTooSmall",
            Self::Interrupted => "Interrupted",
            Self::Thread { .. } => "ThreadFailed",
        }
    }

    /// Exit code of a command that ends with this: 1 failed, 3 image refused, 4 target too small or full.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Image { source, .. } => match source.kind() {
                ErrorKind::Io => 1,
                _ => 3,
            },
            Self::NoSpace { .. } | Self::TooSmall { .. } => 4,
            Self::Memory { .. } => 3,
            Self::Source { .. }
            | Self::Target { .. }
            | Self::SameFile { .. }
            | Self::Locked { .. }
            | Self::Checksum { .. }
            | Self::SourceChanged { .. }
            | Self::Interrupted
            | Self::Thread { .. } => 1,
        }
    }

    /// Whether an import that ended with this may be gone on with: whatever was wrong can pass, and what
    /// was written is right. `lasts`: what the source says of an error of its own.
    pub(crate) fn may_pass(
        &self,
        lasts: impl Fn(&(dyn std::error::Error + 'static)) -> bool,
    ) -> bool {
        match self {
            Self::Image { source, .. } => source.kind() == ErrorKind::Io && !lasts(self),
            Self::Source { .. } => !lasts(self),
            Self::Target { .. }
            | Self::NoSpace { .. }
            | Self::Locked { .. }
            | Self::Interrupted
            | Self::Thread { .. } => true,
            Self::TooSmall { .. }
            | Self::SameFile { .. }
            | Self::Checksum { .. }
            | Self::SourceChanged { .. }
            | Self::Memory { .. } => false,
        }
    }

    pub(crate) fn image(context: impl Into<String>, source: longshore_image::Error) -> Self {
        Self::Image {
            context: context.into(),
            source,
        }
    }

    pub(crate) fn target(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> Self {
        Self::Target {
            action,
            path: path.into(),
            source,
        }
    }
}
