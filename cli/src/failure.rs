//! How a command fails: the cause, the exit code, and what to do next.

use std::io;
use std::path::PathBuf;

use longshore_importer::Retry;
use longshore_launcher::accel::AccelError;
use longshore_launcher::plan::PlanError;
use longshore_launcher::supervisor::{End, RunError};
use longshore_telemetry::error_chain;

use crate::output;
use crate::run::StateError;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The engine could not do it.
    #[error(transparent)]
    Transfer(#[from] longshore_transfer::Error),
    /// The source could not be opened.
    #[error(transparent)]
    Source(#[from] longshore_importer::Error),
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
    /// A manifest could not be read.
    #[error("could not read the manifest {}", path.display())]
    ManifestFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A manifest makes no sense.
    #[error("{}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<longshore_crds::manifest::ManifestError>,
    },
    /// A field of a manifest makes no sense to us.
    #[error("{field}: {why}")]
    Field {
        /// Where it is.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The machine cannot run as the manifest has it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The state directory is not ours to use.
    #[error(transparent)]
    State(#[from] StateError),
    /// A disk could not be made or kept.
    #[error("data volume {name}")]
    Disk {
        /// The data volume.
        name: String,
        /// The cause.
        source: Box<Self>,
    },
    /// Something that may pass ended an import, and what was done is kept.
    #[error(transparent)]
    Resumable {
        /// The cause.
        source: Box<Self>,
    },
    /// The accelerator that was demanded is not there.
    #[error(transparent)]
    Accelerator(#[from] AccelError),
    /// The machine could not be started.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The machine ended in another way than by powering off.
    #[error("{text}")]
    Ended {
        /// How.
        end: End,
        /// The same for people, with what QEMU said.
        text: String,
        /// What the guest printed, if it has a console.
        log: Option<PathBuf>,
    },
    /// The time limit was over before the machine was started.
    #[error("the time limit of {seconds} s was over before the disks were there")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// A cluster was left as it is, or half way.
    #[error("{why}")]
    Purge {
        /// What is in the way, and what to do.
        why: String,
    },
    /// A cluster did not do what was asked of it.
    #[error("{why}")]
    Cluster {
        /// What was tried, and what came of it.
        why: String,
        /// What to do, if that is known.
        next: Option<String>,
    },
    /// There was no object to tell of; that was said.
    #[error("there is no answer")]
    NoAnswer,
    /// A thread of ours died; its message is on standard error already.
    #[error("the copy ended unexpectedly: this is a mistake in longshore")]
    Crashed,
}

impl Failure {
    /// See the crate's table.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Transfer(error) => error.exit_code(),
            Self::Source(error) => error.exit_code(),
            Self::Disk { source, .. } | Self::Resumable { source } => source.exit_code(),
            Self::ReaderGone => 0,
            Self::NotRandom { .. }
            | Self::Output { .. }
            | Self::Host { .. }
            | Self::ManifestFile { .. }
            | Self::Manifest { .. }
            | Self::Field { .. }
            | Self::Plan(_)
            | Self::State(_)
            | Self::Accelerator(_)
            | Self::Run(_)
            | Self::Ended { .. }
            | Self::TimedOut { .. }
            | Self::Purge { .. }
            | Self::Cluster { .. }
            | Self::NoAnswer
            | Self::Crashed => 1,
        }
    }

    /// The cause in one word, for machines to match on.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Transfer(error) => error.reason(),
            Self::Source(error) => error.reason(),
            Self::NotRandom { .. } => "NotRandomAccess",
            Self::ReaderGone => "ReaderGone",
            Self::Output { .. } => "OutputFailed",
            Self::Host { .. } => "HostFailed",
            Self::ManifestFile { .. } => "ManifestUnreadable",
            Self::Manifest { source, .. } => source.reason(),
            Self::Field { .. } => "FieldInvalid",
            Self::Plan(error) => error.reason(),
            Self::State(error) => error.reason(),
            Self::Disk { source, .. } | Self::Resumable { source } => source.reason(),
            Self::Accelerator(error) => error.reason(),
            Self::Run(error) => error.reason(),
            Self::Ended { end, .. } => end.reason(),
            Self::TimedOut { .. } => "TimedOut",
            Self::Purge { .. } => "NotPurged",
            Self::Cluster { .. } => "ClusterFailed",
            Self::NoAnswer => "NoAnswer",
            Self::Crashed => "Crashed",
        }
    }

    /// The same command goes on from what is done.
    pub(crate) fn is_resumable(&self) -> bool {
        match self {
            Self::Resumable { .. } => true,
            Self::Disk { source, .. } => source.is_resumable(),
            _ => false,
        }
    }

    /// The image is at fault, and not the world around it.
    pub(crate) fn refuses_image(&self) -> bool {
        self.exit_code() == 3
    }

    /// The whole chain of causes on one line.
    pub(crate) fn message(&self) -> String {
        error_chain(self)
    }

    /// What to do about it, where that is known and the message does not say it.
    pub(crate) fn next_step(&self) -> Option<String> {
        match self {
            Self::Transfer(error) | Self::Source(longshore_importer::Error::Local(error)) => {
                transfer_next_step(error).map(str::to_owned)
            }
            Self::Source(error) => source_next_step(error).map(str::to_owned),
            Self::NotRandom { .. } => {
                Some("make a raw file of it with `longshore import`, and map that".to_owned())
            }
            Self::State(error) => error.next_step(),
            Self::Cluster { next, .. } => next.clone(),
            Self::Disk { name, source } => match &**source {
                Self::Transfer(longshore_transfer::Error::TooSmall { .. }) => Some(format!(
                    "ask for more storage in the manifest's data volume {name}"
                )),
                other => other.next_step(),
            },
            Self::Resumable { source } => Some(match source.next_step() {
                Some(next) => format!("{next}; the same command goes on from what is done"),
                None => {
                    "run the same command again: it goes on from what is done (--no-resume starts over)"
                        .to_owned()
                }
            }),
            Self::Run(RunError::NoQemu { .. }) => {
                Some("install it: apt-get install qemu-system-x86".to_owned())
            }
            Self::Ended { log: Some(log), .. } => {
                Some(format!("what the guest printed is in {}", log.display()))
            }
            _ => None,
        }
    }

    /// Says it on standard error.
    pub(crate) fn tell(&self) {
        if matches!(self, Self::ReaderGone | Self::NoAnswer) {
            return;
        }
        if let Self::Plan(PlanError::Refused { problems }) = self {
            // A list reads better as one.
            output::say("error: the machine cannot run as written");
            for problem in problems {
                output::say(&format!("  {problem}"));
            }
        } else {
            output::say(&format!("error: {}", self.message()));
        }
        if let Some(next) = self.next_step() {
            output::say(&format!("next: {next}"));
        }
    }
}

fn transfer_next_step(error: &longshore_transfer::Error) -> Option<&'static str> {
    use longshore_image::ErrorKind;
    use longshore_transfer::Error;
    match error {
        Error::Image { source, .. } => match source.kind() {
            ErrorKind::Denied => Some(
                "if you trust the image, --backing same-dir lets in files that lie beside it; if it is a raw disk that a guest has used, --from raw takes it as it is",
            ),
            ErrorKind::LimitExceeded => Some("if you trust the image, --memory gives it more"),
            _ => None,
        },
        Error::Checksum { .. } => {
            Some("check the digest, or fetch the image again: it may have changed")
        }
        _ => None,
    }
}

fn source_next_step(error: &longshore_importer::Error) -> Option<&'static str> {
    use longshore_importer::{Error, HttpError};
    if let Error::Image { source, .. } = error {
        return match (source.reason(), source.retry()) {
            ("CertificateRefused", _) => Some(
                "if the registry has no certificate that can be checked, or speaks plain HTTP, and you trust the network: --insecure-registry HOST[:PORT]",
            ),
            (_, Retry::Unauthorized) => {
                Some("give credentials: --user NAME:PASSWORD or --authfile FILE")
            }
            (_, Retry::Transient) => Some("try again: the registry may be back in a moment"),
            _ => None,
        };
    }
    match error.retry() {
        // These say it themselves.
        Retry::Unauthorized
            if matches!(
                error,
                Error::Credentials { .. }
                    | Error::Open {
                        source: HttpError::Said { .. } | HttpError::Papers { .. },
                        ..
                    }
            ) =>
        {
            None
        }
        Retry::Unauthorized => Some("give credentials: --user NAME:PASSWORD or --header"),
        Retry::Transient => Some("try again: the server may be back in a moment"),
        _ => None,
    }
}
