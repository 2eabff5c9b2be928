//! What can be wrong with an image.

use std::io;
use std::path::PathBuf;

use crate::{ArchiveError, HttpError, Retry};

/// Why a disk does not come out of a container image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A registry, or who gives tokens for it, did not answer as it should.
    #[error("could not get {what}")]
    Http {
        /// What was wanted.
        what: String,
        /// The cause.
        source: HttpError,
    },
    /// Content is not what its name says.
    #[error("{what} is not what its digest says: expected {expected}, computed {computed}")]
    Digest {
        /// What it is to be.
        what: String,
        /// The name.
        expected: String,
        /// What came, in hex.
        computed: String,
    },
    /// Something makes no sense.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// What.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// It uses something that is not read.
    #[error("{what} is not supported: {next}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        next: &'static str,
    },
    /// No image for the platform. Upstream's words come first.
    #[error(
        "no image found in {list} for architecture {architecture:?}, variant {variant:?}, OS {os:?}; it has {}",
        listed(has)
    )]
    NoPlatform {
        /// What kind of list was searched.
        list: &'static str,
        /// The architecture asked for.
        architecture: String,
        /// Its variant.
        variant: String,
        /// The operating system.
        os: String,
        /// What there is.
        has: Vec<String>,
    },
    /// No file in `disk`. Upstream's words come first.
    #[error("Failed to find VM disk image file in the container image: {why}")]
    NoDisk {
        /// What was looked at.
        why: String,
    },
    /// More than one file in `disk`.
    #[error(
        "the image's directory disk has more than one file ({first:?} and {second:?}): leave only the disk in it"
    )]
    SeveralDisks {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// The image is an operating system, not a container of a disk.
    #[error(
        "this is a bootc image (label {label}): it has no disk in it; make a disk of it with bootc-image-builder and import that"
    )]
    Bootc {
        /// What tells.
        label: String,
    },
    /// A file with credentials is of no use.
    #[error("can't use the credentials in {}", path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// The cause, without secrets.
        source: io::Error,
    },
    /// An image in files could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The tar of a layout or a layer is damaged.
    #[error("{what} is no whole tar")]
    Tar {
        /// What.
        what: String,
        /// The cause.
        source: ArchiveError,
    },
    /// A layer could not be opened or read.
    #[error(transparent)]
    Layer {
        /// The cause.
        source: Box<crate::Error>,
    },
}

impl RegistryError {
    /// The word that conditions, events and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Http { source, .. } => source.reason(),
            Self::Digest { .. } => "ChecksumMismatch",
            Self::Malformed { .. } | Self::Tar { .. } => "ImageMalformed",
            Self::Unsupported { .. } => "ImageNotSupported",
            Self::NoPlatform { .. } => "NoImageForPlatform",
            Self::NoDisk { .. } => "DiskMissing",
            Self::SeveralDisks { .. } => "DiskNotUnique",
            Self::Bootc { .. } => "BootcImage",
            Self::AuthFile { .. } => "InvalidCredentials",
            Self::Read { .. } => "SourceUnreadable",
            Self::Layer { source } => source.reason(),
        }
    }

    /// Whether the same may work later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Http { source, .. } => source.retry(),
            Self::Layer { source } => source.retry(),
            _ => Retry::Permanent,
        }
    }

    /// Exit code of a command that ends with this: 1 failed, 3 image refused.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Http { .. } | Self::Digest { .. } | Self::AuthFile { .. } | Self::Read { .. } => {
                1
            }
            Self::Layer { source } => source.exit_code(),
            Self::Malformed { .. }
            | Self::Unsupported { .. }
            | Self::NoPlatform { .. }
            | Self::NoDisk { .. }
            | Self::SeveralDisks { .. }
            | Self::Bootc { .. }
            | Self::Tar { .. } => 3,
        }
    }

    pub(super) fn malformed(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Malformed {
            what: what.into(),
            why: why.into(),
        }
    }
}

fn listed(has: &[String]) -> String {
    if has.is_empty() {
        return "none".to_owned();
    }
    has.join(", ")
}
