//! What can go wrong between us and QEMU's monitor.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::MAX_LINE;

/// A command or a connection failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    #[error("connecting to {}", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    /// QEMU refused the command; the connection lives on.
    #[error("qemu refused {command}: {desc} ({class})")]
    Refused {
        command: String,
        class: String,
        desc: String,
    },
    #[error("qemu did not answer {command} within {} s", after.as_secs())]
    Timeout { command: String, after: Duration },
    /// The connection is gone, for every user of it and for good.
    #[error("the connection to qemu is lost")]
    Lost {
        #[source]
        source: Arc<Broken>,
    },
}

impl QmpError {
    /// The word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "QmpUnreachable",
            Self::Refused { .. } => "QmpRefused",
            Self::Timeout { .. } => "QmpTimeout",
            Self::Lost { .. } => "QmpLost",
        }
    }
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    #[error("qemu closed it")]
    Closed,
    #[error("reading")]
    Read {
        #[source]
        source: io::Error,
    },
    #[error("writing")]
    Write {
        #[source]
        source: io::Error,
    },
    #[error("a line is longer than {MAX_LINE} bytes")]
    LineTooLong,
    #[error("a line is not what the protocol allows")]
    Malformed {
        #[source]
        source: serde_json::Error,
    },
    #[error("an answer came that nobody asked for")]
    Unexpected,
}
