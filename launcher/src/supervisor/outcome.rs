//! How a run ended, and the exit code that says so.
//!
//! | end | exit code |
//! | --- | --- |
//! | the guest powered itself off | 0 |
//! | it was asked to stop and powered off, or had not been started yet | 0 |
//! | it did not obey within the grace period and was killed | 1 |
//! | it was killed without being asked (second signal, kill request) | 1 |
//! | the time limit of the run was over | 1 |
//! | it panicked, reset itself where resets are not allowed, or kept resetting | 1 |
//! | QEMU did not start, crashed, or was ended by someone else | 1 |
//!
//! Codes stay within the contract of the command line (0 and 1); [`End::reason`] tells causes apart.

use std::fmt;
use std::time::Duration;

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub end: End,
    /// What QEMU last wrote to its standard error; the cause of most failures to start.
    pub stderr: String,
}

/// How QEMU's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why there is no VM any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The guest powered off by itself.
    PoweredOff,
    /// The guest powered off after it was asked to.
    Stopped,
    /// It was to stop before the guest had been started.
    NeverStarted,
    /// The guest outlived its grace period and was killed.
    GraceOver { grace: Duration },
    /// Killed without being asked first.
    Killed,
    /// The run's time limit was over; the guest was killed.
    TimedOut { limit: Duration },
    /// The guest's kernel panicked.
    Panicked,
    /// The guest reset itself (a reboot or a triple fault) and QEMU was told to end then.
    Reset,
    /// The guest reset itself so often that it will never come up.
    ResetLoop { resets: usize, within: Duration },
    /// QEMU ended or hung before the guest could be started.
    StartFailed { exit: Exit },
    /// Someone other than this supervisor ended QEMU.
    EndedFromOutside { reason: String },
    /// QEMU ended by itself.
    Crashed { exit: Exit },
}

impl End {
    /// The process exit code; see the module's table.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_success())
    }

    pub fn is_success(&self) -> bool {
        matches!(self, Self::PoweredOff | Self::Stopped | Self::NeverStarted)
    }

    /// The word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PoweredOff => "GuestPoweredOff",
            Self::Stopped => "GuestStopped",
            Self::NeverStarted => "StoppedBeforeStart",
            Self::GraceOver { .. } => "GracePeriodOver",
            Self::Killed => "Killed",
            Self::TimedOut { .. } => "TimedOut",
            Self::Panicked => "GuestPanicked",
            Self::Reset => "GuestReset",
            Self::ResetLoop { .. } => "GuestResetLoop",
            Self::StartFailed { .. } => "StartFailed",
            Self::EndedFromOutside { .. } => "EndedFromOutside",
            Self::Crashed { .. } => "QemuCrashed",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the guest powered off"),
            Self::Stopped => f.write_str("the guest powered off as asked"),
            Self::NeverStarted => f.write_str("stopped before the guest was started"),
            Self::GraceOver { grace } => write!(
                f,
                "the guest did not power off within its grace period of {grace:?} and was killed"
            ),
            Self::Killed => f.write_str("the guest was killed without being asked to power off"),
            Self::TimedOut { limit } => {
                write!(
                    f,
                    "the guest was still running after {limit:?}, the limit of this run"
                )
            }
            Self::Panicked => f.write_str("the guest's kernel panicked"),
            Self::Reset => f.write_str(
                "the guest reset itself (a reboot or a triple fault), which ends this run",
            ),
            Self::ResetLoop { resets, within } => write!(
                f,
                "the guest reset itself {resets} times within {within:?} (a boot loop or triple faults)"
            ),
            Self::StartFailed { exit } => write!(f, "qemu did not start the guest ({exit})"),
            Self::EndedFromOutside { reason } => {
                write!(f, "qemu was ended from outside ({reason})")
            }
            Self::Crashed { exit } => write!(f, "qemu ended unexpectedly ({exit})"),
        }
    }
}

impl Outcome {
    /// The process exit code; see the module's table.
    pub fn exit_code(&self) -> u8 {
        self.end.exit_code()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.end.fmt(f)?;
        let shown = matches!(self.end, End::StartFailed { .. } | End::Crashed { .. });
        if shown && !self.stderr.is_empty() {
            write!(f, "; qemu said: {}", self.stderr.trim_end())?;
        }
        Ok(())
    }
}
