//! How an import fails, in the words that people and tests of CDI search for.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use longshore_crds::contract::EnvError;
use longshore_telemetry::error_chain;

use crate::RegistryError;
use crate::http::error::{HttpError, status_text};

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
            Self::Connect { kind, source } => of_image(source)
                .or_else(|| of_status(kind, source))
                .unwrap_or(chain),
            Self::Transfer(source) => {
                of_image(source).unwrap_or_else(|| format!("Unable to process data: {chain}"))
            }
            Self::TooLarge { .. } | Self::Unpack(_) | Self::Volume { .. } | Self::Crashed => {
                format!("Unable to process data: {chain}")
            }
            Self::Environment(_)
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

/// A web server's refusal: upstream says first what it expected and what came, and so do we.
fn of_status(kind: &str, source: &crate::Error) -> Option<String> {
    if !matches!(kind, "http" | "glance") {
        return None;
    }
    let status = HttpError::find(source)?.status()?;
    Some(format!(
        "Unable to connect to {kind} data source: expected status code 200, got {status}. Status: {}: {}",
        status_text(status),
        error_chain(source)
    ))
}

/// An image that is not there for this platform, or has no disk. Upstream finds that out when it copies the
/// image to scratch space, and says so.
fn of_image(error: &(dyn StdError + 'static)) -> Option<String> {
    let refusal = refusal(error)?;
    let step = match refusal {
        RegistryError::NoPlatform { .. } => "Error retrieving image: choosing image instance: ",
        RegistryError::NoDisk { .. } => "",
        _ => return None,
    };
    Some(format!(
        "Unable to process data: Unable to transfer source data to scratch space: \
         Failed to read registry image: {step}{} ({error})",
        error_chain(refusal)
    ))
}

/// What is wrong with an image, among the causes of `error`.
fn refusal<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a RegistryError> {
    let boxed = || {
        error
            .downcast_ref::<Box<RegistryError>>()
            .map(|found| &**found)
    };
    error
        .downcast_ref()
        .or_else(boxed)
        .or_else(|| error.source().and_then(refusal))
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

    fn connect(kind: &'static str, source: crate::Error) -> PodError {
        let source = Box::new(source);
        PodError::Connect { kind, source }
    }

    #[test]
    fn a_refusal_of_a_web_server_begins_with_what_was_expected_and_what_came() {
        let refused = |status| HttpError::Status {
            host: "h:80".into(),
            status,
            hint: ": check the URL",
            wait: None,
        };
        let open = |source| crate::Error::Open {
            name: "http://h/d".into(),
            source,
        };
        assert_eq!(
            connect("http", open(refused(404))).message(),
            "Unable to connect to http data source: expected status code 200, got 404. Status: 404 Not Found: \
             could not open http://h/d: h:80 answered 404 Not Found: check the URL"
        );
        let gave_up = refused(503).after(3);
        let message = connect("http", open(gave_up)).message();
        let begins = "Unable to connect to http data source: expected status code 200, got 503. \
                      Status: 503 Service Unavailable: could not open http://h/d: gave up";
        assert!(message.starts_with(begins), "{message}");
        // Other kinds of servers say it in their own words.
        let message = connect("s3", open(refused(404))).message();
        assert!(
            message.starts_with("Unable to connect to s3 data source: could not open"),
            "{message}"
        );
        let other = HttpError::Truncated {
            expected: 2,
            found: 1,
        };
        assert_eq!(
            connect("http", open(other)).message(),
            "Unable to connect to http data source: could not open http://h/d: \
             the answer ended at byte 1 of 2"
        );
    }

    #[test]
    fn an_image_without_what_is_wanted_is_told_as_upstream_tells_it() {
        let image = |source| crate::Error::Image {
            name: "docker://r/i:t".into(),
            source: Box::new(source),
        };
        let absent = RegistryError::NoPlatform {
            list: "image index",
            architecture: "absent".into(),
            variant: String::new(),
            os: "linux".into(),
            has: vec!["linux/amd64".into()],
        };
        let error = connect("registry", image(absent));
        assert_eq!(
            error.message(),
            "Unable to process data: Unable to transfer source data to scratch space: \
             Failed to read registry image: Error retrieving image: choosing image instance: \
             no image found in image index for architecture \"absent\", variant \"\", OS \"linux\"; \
             it has linux/amd64 (could not open docker://r/i:t)"
        );
        assert_eq!(error.reason(), "NoImageForPlatform");
        let none = || RegistryError::NoDisk {
            why: "it has no layers".into(),
        };
        let begins = "Unable to process data: Unable to transfer source data to scratch space: \
                      Failed to read registry image: Failed to find VM disk image file in the \
                      container image: it has no layers (could not ";
        let late = longshore_transfer::Error::Source {
            name: "docker://r/i:t".into(),
            source: Box::new(none()),
        };
        for error in [connect("registry", image(none())), PodError::from(late)] {
            let message = error.message();
            assert!(message.starts_with(begins), "{message}");
        }
        let other = RegistryError::Bootc { label: "l".into() };
        let message = connect("registry", image(other)).message();
        let begins = "Unable to connect to registry data source: could not open docker://r/i:t";
        assert!(message.starts_with(begins), "{message}");
    }
}
