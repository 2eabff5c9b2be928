//! Owns QEMU's process from spawn to exit.
//!
//! The machine (`machine.rs`, where the state diagram is) decides; this module and its driver carry
//! out what it decides: they spawn QEMU, connect to its monitor and serial console before the guest
//! runs its first instruction, turn signals, timers and QEMU's events into the machine's events, and
//! its effects into commands and kills.
//!
//! What holds whatever happens:
//! - QEMU never outlives its supervisor: it dies with the supervising thread, SIGKILL included.
//! - One run per directory; a run that was killed leaves nothing that the next one trips over.
//! - Every end is an [`Outcome`] with a reason; every pause and disk error is a [`Notice`].
//!
//! The first SIGTERM, SIGINT, SIGHUP or SIGQUIT presses the guest's power button, again every few
//! seconds; when the grace period is over QEMU is told to quit, and killed if it does not. The second
//! signal kills at once. The time limit of a run ends it without asking the guest.
//!
//! Guest resets are allowed, as on hardware. A guest that resets itself again and again within a
//! minute (triple faults look just like reboots) is ended. Under `-no-reboot` the first reset ends it.
//!
//! What the arguments mean is the plan's business, images are QEMU's.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

mod claim;
mod driver;
mod error;
mod machine;
mod notice;
mod outcome;
mod planned;
mod process;
mod request;
mod signals;
mod viewer;

use crate::plan::StateFile;

pub use error::RunError;
pub use notice::{EndCause, Notice, PauseCause};
pub use outcome::{End, Exit, Outcome};
pub use planned::run;
pub use request::{Denied, Disposition, Request};

/// Our console socket's name in the VM's directory.
pub const CONSOLE_SOCKET: &str = "console.sock";

/// What to run.
#[derive(Debug, Clone)]
pub struct Command {
    pub program: PathBuf,
    /// QEMU must come up stopped (`-S`); the supervisor resumes it.
    pub args: Vec<OsString>,
    /// Working directory, and the place of the lock and of our console socket.
    pub dir: PathBuf,
    /// Made before QEMU starts.
    pub files: Vec<StateFile>,
    /// Where QEMU serves its monitor.
    pub qmp_socket: PathBuf,
    /// Where QEMU serves the serial console, if there is one.
    pub serial_socket: Option<PathBuf>,
    /// Where QEMU serves the screen, if it does; only cleaned up here.
    pub vnc_socket: Option<PathBuf>,
    /// A file that keeps what the guest prints.
    pub serial_log: Option<PathBuf>,
    /// From the power button to the end.
    pub grace: Duration,
    /// Leave the vCPUs stopped until a [`Request::Resume`].
    pub start_paused: bool,
}

/// Where the console goes besides its log and its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsoleMode {
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// To standard output, and standard input to the guest. On a terminal Ctrl+] gives it back.
    Interactive,
}

/// How to run it.
pub struct Options {
    pub console: ConsoleMode,
    /// Limit of the whole run.
    pub timeout: Option<Duration>,
    /// Obey SIGTERM, SIGINT, SIGHUP and SIGQUIT.
    pub signals: bool,
    /// Is told what happens, in order, from the supervising thread; must not block.
    pub on_event: Box<dyn FnMut(&Notice) + Send>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            console: ConsoleMode::default(),
            timeout: None,
            signals: true,
            on_event: Box::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            console,
            timeout,
            signals,
            on_event: _,
        } = self;
        f.debug_struct("Options")
            .field("console", console)
            .field("timeout", timeout)
            .field("signals", signals)
            .finish_non_exhaustive()
    }
}

/// A VM that is about to run.
#[derive(Debug)]
pub struct Supervisor {
    command: Command,
    options: Options,
    requests: mpsc::Receiver<Asked>,
}

/// Asks things of a running VM, from any thread. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Control {
    requests: mpsc::Sender<Asked>,
}

#[derive(Debug)]
struct Asked {
    request: Request,
    answer: oneshot::Sender<Disposition>,
}

impl Supervisor {
    pub fn new(command: Command, options: Options) -> (Self, Control) {
        let (sender, requests) = mpsc::channel(16);
        (
            Self {
                command,
                options,
                requests,
            },
            Control { requests: sender },
        )
    }

    /// Runs QEMU to its end, on this thread and a runtime of its own; do not call it from async code.
    pub fn run(self) -> Result<Outcome, RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| RunError::Host {
                step: "starting a runtime",
                source,
            })?;
        let outcome = runtime.block_on(driver::drive(self));
        // A standard output that nobody reads must not keep the process.
        runtime.shutdown_background();
        outcome
    }
}

impl Control {
    /// Asks, and is told at once what becomes of it. Cancel-safe.
    pub async fn submit(&self, request: Request) -> Disposition {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Asked { request, answer }).await.is_err() {
            return Disposition::Denied(Denied::Gone);
        }
        answered.await.unwrap_or(Disposition::Denied(Denied::Gone))
    }
}
