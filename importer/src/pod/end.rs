//! How an import fails, in the words that people and tests of CDI search for.

use std::io;
use std::path::PathBuf;

use longshore_crds::contract::EnvError;
use longshore_telemetry::error_chain;

/// Exit code of a process that SIGTERM ended, as shells count.
const TERMINATED: u8 = 143;

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum PodError {
    /// The environment is no import.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// The source does not open.
    #[error("Unable to connect to {kind} data source")]
    Connect {
        /// Its kind.
        kind: &'static str,
        /// The cause.
        source: Box<crate::Error>,
    },
    /// The image is too large.
    #[error(
        "virtual image size {virtual_size} is larger than the reported available storage {available}. \
         A larger PVC is required"
    )]
    TooLarge {
        /// Bytes of its disk, or as many as were seen.
        virtual_size: u64,
        /// Bytes there are.
        available: u64,
    },
    /// The copy failed.
    #[error(transparent)]
    Transfer(longshore_transfer::Error),
    /// An archive could not be unpacked.
    #[error(transparent)]
    Unpack(crate::Error),
    /// A blank disk could not be made.
    #[error("Unable to create blank image")]
    Blank(#[source] longshore_transfer::Error),
    /// The volume does not do what volumes do.
    #[error("could not {action} {}", path.display())]
    Volume {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A Secret that was to be mounted is not readable.
    #[error("could not read the mounted secret {}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The server beside us did not come.
    #[error("Timeout waiting for file {}", path.display())]
    NotReady {
        /// What it makes when it is ready.
        path: PathBuf,
    },
    /// Something of the host did not work.
    #[error("could not {action}")]
    Host {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error("interrupted: nothing that looks complete was left behind")]
    Interrupted,
    /// A thread of ours died.
    #[error("the import ended unexpectedly: this is a mistake in longshore")]
    Crashed,
}

impl From<longshore_transfer::Error> for PodError {
    fn from(error: longshore_transfer::Error) -> Self {
        use longshore_transfer::Error;
        match error {
            Error::TooSmall {
                needed, available, ..
            } => Self::TooLarge {
                virtual_size: needed,
                available,
            },
            Error::Interrupted => Self::Interrupted,
            other => Self::Transfer(other),
        }
    }
}

impl PodError {
    /// What the termination message and the log say.
    pub(super) fn message(&self) -> String {
        let chain = error_chain(self);
        match self {
            Self::Environment(EnvError::UnknownSource { source_kind }) => {
                format!("Unknown data source: {source_kind}")
            }
            Self::Environment(EnvError::Excluded {
                source_kind: "none",
                ..
            }) => "Cannot create empty disk with content type archive".to_owned(),
            Self::TooLarge { .. }
            | Self::Transfer(_)
            | Self::Unpack(_)
            | Self::Volume { .. }
            | Self::Crashed => format!("Unable to process data: {chain}"),
            Self::Environment(_)
            | Self::Connect { .. }
            | Self::Blank(_)
            | Self::Secret { .. }
            | Self::NotReady { .. }
            | Self::Host { .. }
            | Self::Interrupted => chain,
        }
    }

    /// The cause in one word.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Environment(_) => "InvalidEnvironment",
            Self::Connect { source, .. } => source.reason(),
            Self::TooLarge { .. } => "TargetTooSmall",
            Self::Transfer(error) | Self::Blank(error) => error.reason(),
            Self::Unpack(error) => error.reason(),
            Self::Volume { .. } => "VolumeUnusable",
            Self::Secret { .. } => "SecretUnreadable",
            Self::NotReady { .. } => "ServerNotReady",
            Self::Host { .. } => "HostFailed",
            Self::Interrupted => "Interrupted",
            Self::Crashed => "Crashed",
        }
    }

    /// 0 where trying again changes nothing and the controller must know it at once: a wrong checksum.
    /// Anything else may be mended from outside, and the kubelet tries again.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => TERMINATED,
            _ if self.reason() == "ChecksumMismatch" => 0,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_searched_for_are_there() {
        let too_small = longshore_transfer::Error::TooSmall {
            needed: 20,
            available: 10,
            what: "x".into(),
        };
        let error = PodError::from(too_small);
        assert_eq!(
            error.message(),
            "Unable to process data: virtual image size 20 is larger than the reported available \
             storage 10. A larger PVC is required"
        );
        assert_eq!((error.reason(), error.exit_code()), ("TargetTooSmall", 1));
        let unknown = EnvError::UnknownSource {
            source_kind: "ftp".into(),
        };
        assert_eq!(
            PodError::from(unknown).message(),
            "Unknown data source: ftp"
        );
        let error = PodError::from(longshore_transfer::Error::Checksum {
            name: "n".into(),
            algorithm: "md5",
            expected: "a".into(),
            computed: "b".into(),
        });
        assert!(error.message().contains("checksum mismatch"));
        assert_eq!(error.exit_code(), 0);
        assert_eq!(PodError::Interrupted.exit_code(), 143);
    }
}
