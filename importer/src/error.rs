//! Why a source could not be opened or read.

use std::path::PathBuf;

use crate::{ArchiveError, HttpError, ImageioError, NbdError, RegistryError, Retry, VddkError};

/// Result of opening a source.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "read as longshore_importer::Error everywhere"
)]
pub enum Error {
    /// A kind of source that cannot be read yet.
    #[error(
        "{scheme} sources can't be read yet: use http(s)://, s3://, gs://, nbd://, a file, or - for standard input"
    )]
    NotYet {
        /// Its scheme.
        scheme: String,
    },
    /// The URL makes no sense. What of it can be shown is in `shown`.
    #[error("{shown} is no URL of a web server: {why}")]
    Url {
        /// The URL without secrets.
        shown: String,
        /// What is wrong with it.
        why: String,
    },
    /// What is to be an object's address is none.
    #[error("{shown} names no object: {why}")]
    Object {
        /// The address without secrets.
        shown: String,
        /// What is wrong with it.
        why: String,
    },
    /// What is to be shown to a store makes no sense.
    #[error("can't use the credentials: {why}")]
    Credentials {
        /// What is wrong with them, without them.
        why: String,
    },
    /// An extra header cannot be sent.
    #[error("can't send the extra header `{name}`: {why}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file or directory of authorities is of no use.
    #[error("can't use the certificates in {}", path.display())]
    Ca {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The HTTP client could not be made.
    #[error("can't set up an HTTP client")]
    Client {
        /// The cause.
        source: reqwest::Error,
    },
    /// The server did not give the content.
    #[error("could not open {name}")]
    Open {
        /// The URL without secrets.
        name: String,
        /// The cause.
        source: HttpError,
    },
    /// The NBD server did not give the disk.
    #[error("could not open {name}")]
    Nbd {
        /// The export for people.
        name: String,
        /// The cause.
        source: NbdError,
    },
    /// A disk of a VMware machine could not be opened.
    #[error("could not open {name}")]
    Vddk {
        /// The disk without secrets.
        name: String,
        /// The cause.
        source: VddkError,
    },
    /// A disk of oVirt could not be opened.
    #[error("could not open {name}")]
    Imageio {
        /// The disk without secrets.
        name: String,
        /// The cause.
        source: ImageioError,
    },
    /// An archive does not give the disk that was asked for.
    #[error("could not open {name}")]
    Archive {
        /// The archive without secrets.
        name: String,
        /// The cause.
        source: ArchiveError,
    },
    /// The name of a container image makes no sense. What of it can be shown is in `shown`.
    #[error("{shown} is no name of a container image: {why}")]
    Reference {
        /// The name without secrets.
        shown: String,
        /// What is wrong with it.
        why: String,
    },
    /// A container image does not give its disk.
    #[error("could not open {name}")]
    Image {
        /// The image without secrets.
        name: String,
        /// The cause.
        source: Box<RegistryError>,
    },
    /// A file or standard input could not be opened.
    #[error(transparent)]
    Local(#[from] longshore_transfer::Error),
}

impl Error {
    /// The word that conditions, events and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotYet { .. } => "SourceNotSupported",
            Self::Url { .. } | Self::Reference { .. } | Self::Object { .. } => "InvalidURL",
            Self::Credentials { .. } => "InvalidCredentials",
            Self::Header { .. } => "InvalidHeader",
            Self::Ca { .. } => "InvalidCertificates",
            Self::Client { .. } => "ClientSetupFailed",
            Self::Open { source, .. } => source.reason(),
            Self::Nbd { source, .. } => source.reason(),
            Self::Imageio { source, .. } => source.reason(),
            Self::Vddk { source, .. } => source.reason(),
            Self::Archive { source, .. } => source.reason(),
            Self::Image { source, .. } => source.reason(),
            Self::Local(e) => e.reason(),
        }
    }

    /// Whether the same may work later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Open { source, .. } => source.retry(),
            Self::Nbd { source, .. } => source.retry(),
            Self::Imageio { source, .. } => source.retry(),
            Self::Vddk { source, .. } => source.retry(),
            Self::Image { source, .. } => source.retry(),
            Self::Credentials { .. } => Retry::Unauthorized,
            _ => Retry::Permanent,
        }
    }

    /// Exit code of a command that ends with this: 1 failed, 2 wrong usage.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Url { .. }
            | Self::Object { .. }
            | Self::Header { .. }
            | Self::Reference { .. } => 2,
            Self::Image { source, .. } => source.exit_code(),
            Self::NotYet { .. }
            | Self::Credentials { .. }
            | Self::Ca { .. }
            | Self::Client { .. }
            | Self::Open { .. } => 1,
            Self::Nbd { source, .. } => match source {
                NbdError::Address { .. } => 2,
                _ => 1,
            },
            Self::Imageio { source, .. } => match source {
                ImageioError::Address { .. } => 2,
                _ => 1,
            },
            Self::Vddk { source, .. } => match source {
                VddkError::Address { .. } | VddkError::Value { .. } => 2,
                _ => 1,
            },
            Self::Archive { source, .. } => match source {
                ArchiveError::Read { .. } => 1,
                ArchiveError::Choose { .. } | ArchiveError::NoSuchDisk { .. } => 2,
                _ => 3,
            },
            Self::Local(e) => e.exit_code(),
        }
    }
}
