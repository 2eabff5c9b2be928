//! What goes wrong between us and vSphere.

use crate::{HttpError, Retry};

/// Why vSphere did not tell what it takes to read a disk. `said` is its own words, cut and without secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VsphereError {
    /// A request got no answer.
    #[error("could not {action}")]
    Http {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: HttpError,
    },
    /// vSphere said no.
    #[error(
        "could not {action}: vSphere answered {fault}{}{}",
        told(said),
        hint(fault)
    )]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// vSphere's name for it.
        fault: String,
        /// What it said.
        said: String,
    },
    /// An answer makes no sense.
    #[error("could not {action}: the answer makes no sense ({why})")]
    Answer {
        /// What was attempted.
        action: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// No machine has this uuid.
    #[error("no virtual machine has the uuid {uuid}, or the user may not see it")]
    NoMachine {
        /// The uuid.
        uuid: String,
    },
    /// The machine has no such disk.
    #[error("the machine has no disk {file}{}", listed(disks))]
    NoDisk {
        /// The disk's file, as given.
        file: String,
        /// Those it has.
        disks: Vec<String>,
    },
    /// The machine has no such snapshot.
    #[error("the machine has {} snapshot {snapshot}", if *.several { "more than one" } else { "no" })]
    NoSnapshot {
        /// As given.
        snapshot: String,
        /// There are several of this name.
        several: bool,
    },
    /// vSphere keeps no account of what changes.
    #[error(
        "snapshot {snapshot} has no changeId for {file}: changed block tracking was not enabled for the machine when it was taken"
    )]
    NotTracked {
        /// The snapshot.
        snapshot: String,
        /// The disk.
        file: String,
    },
}

fn told(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(" ({said})")
    }
}

fn hint(fault: &str) -> &'static str {
    match fault {
        "InvalidLogin" => ": check user name and password",
        "NoPermission" => ": give the user's role that privilege",
        "FileFault" | "InvalidArgument" => {
            ": changed block tracking may have been reset; copy the whole disk again"
        }
        _ => "",
    }
}

fn listed(disks: &[String]) -> String {
    if disks.is_empty() {
        ", nor any other".to_owned()
    } else {
        format!("; it has {}", disks.join(", "))
    }
}

impl VsphereError {
    /// The word that conditions, events and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Http { source, .. } => source.reason(),
            Self::Refused { fault, .. } => match fault.as_str() {
                "InvalidLogin" | "NoPermission" | "NotAuthenticated" => "Unauthorized",
                "ManagedObjectNotFound" => "NotFound",
                _ => "VsphereRefused",
            },
            Self::Answer { .. } => "BadAnswer",
            Self::NoMachine { .. } | Self::NoDisk { .. } => "NotFound",
            Self::NoSnapshot { .. } => "NoSuchCheckpoint",
            Self::NotTracked { .. } => "ChangesNotTracked",
        }
    }

    /// Whether the same may work later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Http { source, .. } => source.retry(),
            Self::Refused { fault, .. } => match fault.as_str() {
                "InvalidLogin" | "NoPermission" | "NotAuthenticated" => Retry::Unauthorized,
                "SystemError" | "HostCommunication" | "HostNotReachable" | "HostNotConnected"
                | "TaskInProgress" | "Timedout" | "RuntimeFault" => Retry::Transient,
                _ => Retry::Permanent,
            },
            _ => Retry::Permanent,
        }
    }
}
