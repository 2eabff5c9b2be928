//! What keeps a supervisor from running QEMU at all; how a run ends is an `Outcome`.

use std::io;
use std::path::PathBuf;

/// No guest was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    #[error("{} is in use: another supervisor or its qemu still runs there", dir.display())]
    InUse { dir: PathBuf },
    #[error("{step} {}", path.display())]
    State {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("starting {}; is qemu installed?", program.display())]
    NoQemu {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{step}")]
    Host {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

impl RunError {
    /// The word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "StateInUse",
            Self::State { .. } => "StateUnusable",
            Self::NoQemu { .. } => "QemuMissing",
            Self::Host { .. } => "HostFailed",
        }
    }
}
