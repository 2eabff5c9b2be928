//! What goes wrong between us and nbdkit with VMware's library in it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::nbd::NbdError;
use crate::{HttpError, Retry, VsphereError};

/// Why a disk of a VMware machine could not be read. `said` is what nbdkit said last, without secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VddkError {
    /// The address makes no sense.
    #[error("this is no address of a VMware disk: {why}")]
    Address {
        /// What is wrong with it.
        why: String,
    },
    /// No program.
    #[error("{} is not installed: disks of VMware machines are read by nbdkit with its vddk plugin", program.display())]
    NoNbdkit {
        /// The program.
        program: PathBuf,
    },
    /// No plugin.
    #[error(
        "nbdkit has no vddk plugin: install nbdkit-plugin-vddk (Debian: contrib){}",
        told(said)
    )]
    NoPlugin {
        /// What nbdkit said.
        said: String,
    },
    /// No library.
    #[error(
        "there is no VDDK library in {}: VMware's Virtual Disk Development Kit is not part of Longshore; unpack it there, or name its directory (libdir=)",
        libdir.display()
    )]
    NoLibrary {
        /// Where it was looked for.
        libdir: PathBuf,
    },
    /// A value that nbdkit can't be given.
    #[error("the {what} of the disk can't be passed on: {why}")]
    Value {
        /// Which.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// nbdkit could not be started, or its directory made.
    #[error("could not {action}")]
    Start {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// nbdkit was not ready in time.
    #[error("nbdkit was not ready after {} s{}", after.as_secs(), told(said))]
    Slow {
        /// How long it had.
        after: Duration,
        /// What nbdkit said.
        said: String,
    },
    /// nbdkit ended.
    #[error("nbdkit ended ({status}){}", told(said))]
    Ended {
        /// How.
        status: String,
        /// What nbdkit said.
        said: String,
    },
    /// nbdkit did not give the bytes.
    #[error("nbdkit did not give the disk{}", told(said))]
    Server {
        /// What nbdkit said.
        said: String,
        /// What came of that.
        source: NbdError,
    },
    /// vSphere did not tell what it takes.
    #[error(transparent)]
    Vsphere(VsphereError),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Cancelled,
}

impl From<VsphereError> for VddkError {
    fn from(error: VsphereError) -> Self {
        match error {
            VsphereError::Http {
                source: HttpError::Cancelled,
                ..
            } => Self::Cancelled,
            error => Self::Vsphere(error),
        }
    }
}

fn told(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!("; it said: {said}")
    }
}

impl VddkError {
    /// The word that conditions, events and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Address { .. } => "InvalidURL",
            // Upstream's word for a pod that waits for the library's image.
            Self::NoNbdkit { .. } | Self::NoPlugin { .. } | Self::NoLibrary { .. } => {
                "AwaitingVDDK"
            }
            Self::Value { .. } => "InvalidParameter",
            Self::Start { .. } | Self::Slow { .. } => "NbdkitNotStarted",
            Self::Ended { .. } => "NbdkitFailed",
            Self::Server { source, .. } => source.reason(),
            Self::Vsphere(source) => source.reason(),
            Self::Cancelled => "Interrupted",
        }
    }

    /// Whether the same may work later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Slow { .. } | Self::Ended { .. } => Retry::Transient,
            Self::Server { source, .. } => source.retry(),
            Self::Vsphere(source) => source.retry(),
            _ => Retry::Permanent,
        }
    }
}
