//! What a supervisor tells while the guest runs, so that nothing happens in silence.

use std::fmt;
use std::time::Duration;

/// Something a person or a status should know; `Display` is the line to show.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// QEMU runs and answers; the guest is about to be started.
    Started {
        pid: u32,
        version: String,
    },
    /// The vCPUs run (the first time, or again).
    Running,
    /// The vCPUs stand still.
    Paused {
        cause: PauseCause,
    },
    /// A disk failed under the guest.
    IoError {
        device: String,
        operation: String,
        reason: String,
        no_space: bool,
        stops: bool,
    },
    /// The guest reset itself: a reboot or a triple fault, which cannot be told apart.
    GuestReset,
    GuestPanicked,
    Watchdog {
        action: String,
    },
    /// The power button was pressed; the guest has this long.
    Stopping {
        grace: Duration,
    },
    /// QEMU is being ended.
    Ending {
        cause: EndCause,
    },
    /// A command of ours failed.
    CommandFailed {
        command: &'static str,
        error: String,
    },
    /// QEMU stopped talking to us though it has not ended.
    MonitorLost {
        error: String,
    },
    /// QEMU talks to us again; what it said in between is not known.
    MonitorBack,
    /// QEMU ought to have ended by now; most likely it waits for storage.
    Lingering,
    /// A line of QEMU's standard error.
    QemuSaid {
        line: String,
    },
}

/// Why vCPUs stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseCause {
    Requested,
    /// A disk failed; the guest is resumed, and the write tried again, after this long.
    IoError {
        retry: Duration,
    },
    /// Somebody else's doing.
    Other,
}

/// Why a supervisor ends QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// Asked to stop before the guest was started.
    NeverStarted,
    /// A kill was requested, or a second signal came.
    Killed,
    GraceOver,
    TimedOut,
    /// QEMU did not answer in time at the start, or could not start the guest.
    StartFailed,
    Panicked,
    ResetLoop {
        resets: usize,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { pid, version } => write!(f, "qemu {version} started as process {pid}"),
            Self::Running => f.write_str("the guest is running"),
            Self::Paused { cause } => write!(f, "the guest is paused: {cause}"),
            Self::IoError {
                device,
                operation,
                reason,
                no_space,
                stops,
            } => {
                let (space, then) = (
                    if *no_space {
                        "; free space on the volume"
                    } else {
                        ""
                    },
                    if *stops {
                        "the guest is paused"
                    } else {
                        "the guest is told"
                    },
                );
                write!(
                    f,
                    "{operation} error on disk {device}: {reason} ({then}{space})"
                )
            }
            Self::GuestReset => f.write_str("the guest reset itself"),
            Self::GuestPanicked => f.write_str("the guest's kernel panicked"),
            Self::Watchdog { action } => write!(f, "the guest's watchdog fired: {action}"),
            Self::Stopping { grace } => {
                write!(
                    f,
                    "power button pressed; the guest has {grace:?} to power off"
                )
            }
            Self::Ending { cause } => write!(f, "ending qemu: {cause}"),
            Self::CommandFailed { command, error } => write!(f, "{command} failed: {error}"),
            Self::MonitorLost { error } => write!(f, "qemu's monitor is lost: {error}"),
            Self::MonitorBack => f.write_str("qemu's monitor is back"),
            Self::Lingering => f.write_str("qemu is still there; most likely it waits for storage"),
            Self::QemuSaid { line } => write!(f, "qemu: {line}"),
        }
    }
}

impl fmt::Display for PauseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("as requested"),
            Self::IoError { retry } => write!(f, "a disk failed; trying again in {retry:?}"),
            Self::Other => f.write_str("not by this supervisor"),
        }
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverStarted => f.write_str("the guest was not started yet"),
            Self::Killed => f.write_str("told to kill"),
            Self::GraceOver => f.write_str("the grace period is over"),
            Self::TimedOut => f.write_str("the time limit of this run is over"),
            Self::StartFailed => f.write_str("it did not start the guest in time"),
            Self::Panicked => f.write_str("the guest's kernel panicked"),
            Self::ResetLoop { resets } => write!(f, "the guest reset itself {resets} times"),
        }
    }
}
