//! The state machine of one VM: events in, effects out, no clock, no I/O.
//!
//! ```text
//!              Ready                Stop, signal              grace over
//!  Starting ───────────▶ Up ──────────────────▶ Stopping ───────────────────▶ Ending
//!   │  │                 │ kill, limit, resets     │ kill, signal, limit        │  │
//!   │  │                 └─────────────────────────┴──────────────────────────▶ │  │
//!   │  └── Stop, kill, signal, no answer in time ─────────────────────────────▶ │  │
//!   │                    │ QEMU exits              │ QEMU exits                 │  │ SIGKILL until
//!   └─ QEMU exits ─────▶ ▼ ◀───────────────────────┴────────────────────────────┘  ▼ it is gone
//!                       Gone
//! ```
//!
//! `paused` is beside the phases: a disk error can stop the vCPUs in any of them. In every phase some
//! timer runs or the guest does; nothing waits for ever without saying so. The driver owns timers and
//! QMP; it feeds their results back as events.

use std::collections::VecDeque;
use std::time::Duration;

use super::notice::{EndCause, Notice, PauseCause};
use super::outcome::{End, Exit};
use super::request::{Disposition, Request, RequestQueue, Stage};
use crate::qmp;

/// QEMU is to answer on its monitor this soon; it takes a tenth of a second, more under load.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A guest that was not listening at the first press gets another.
const PRESS_EVERY: Duration = Duration::from_secs(5);
/// QEMU may take this long to write out its caches and go; then it is killed.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// A failed disk is tried again after this long, then twice as long, up to the maximum.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// After this long without an error the next one counts as the first again.
const RETRY_FORGET: Duration = Duration::from_mins(5);
/// This many resets by the guest within the window are a boot loop. SeaBIOS answers every reset with
/// one of its own, so these are five boots; an installation reboots once or twice, minutes apart.
const RESET_LIMIT: usize = 10;
const RESET_WINDOW: Duration = Duration::from_mins(1);
/// For this long after a reset from outside, the firmware's own belongs to it.
const RESET_ECHO: Duration = Duration::from_secs(5);

/// What the plan and the user set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) grace: Duration,
    pub(super) limit: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// QEMU answers on its monitor (the first time, or again) and the console is attached.
    Ready,
    Qmp(qmp::Event),
    /// A request was submitted.
    Requested,
    /// SIGTERM, SIGINT or the like.
    Signal,
    Expired(Timer),
    Failed {
        command: Command,
        error: String,
    },
    MonitorLost {
        error: String,
    },
    Exited(Exit),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Run(Command),
    /// SIGKILL.
    Kill,
    Arm(Timer, Duration),
    Disarm(Timer),
    Report(Notice),
    /// The last effect there is.
    Finish(End),
}

/// A monitor command without arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Cont,
    Stop,
    Reset,
    Powerdown,
    Quit,
}

impl Command {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cont => "cont",
            Self::Stop => "stop",
            Self::Reset => "system_reset",
            Self::Powerdown => "system_powerdown",
            Self::Quit => "quit",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// QEMU has not answered yet.
    Start,
    /// The guest was asked to power off.
    Grace,
    /// Press the power button again.
    Press,
    /// The limit of the whole run.
    Limit,
    /// QEMU ought to be gone.
    Leave,
    /// Try a failed disk again.
    Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Up,
    Stopping,
    Ending(EndCause),
    Gone,
}

#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    phase: Phase,
    queue: RequestQueue,
    paused: Option<PauseCause>,
    /// A disk error announced that vCPUs are about to stop.
    failing: bool,
    /// The vCPUs have run.
    ran: bool,
    panicked: bool,
    /// Reason of the first SHUTDOWN event; later ones only follow from it.
    shutdown: Option<String>,
    resets: VecDeque<Duration>,
    reset_from_outside: Option<Duration>,
    retry: Duration,
    last_failure: Option<Duration>,
}

impl Machine {
    /// A machine whose QEMU was just spawned, and the timers to start with.
    pub(super) fn new(settings: Settings) -> (Self, Vec<Effect>) {
        let machine = Self {
            settings,
            phase: Phase::Starting,
            queue: RequestQueue::default(),
            paused: None,
            failing: false,
            ran: false,
            panicked: false,
            shutdown: None,
            resets: VecDeque::with_capacity(RESET_LIMIT),
            reset_from_outside: None,
            retry: RETRY_FIRST,
            last_failure: None,
        };
        let mut effects = vec![Effect::Arm(Timer::Start, START_LIMIT)];
        effects.extend(settings.limit.map(|limit| Effect::Arm(Timer::Limit, limit)));
        (machine, effects)
    }

    /// Decides on a request; one that is queued is carried out by the next [`Event::Requested`].
    pub(super) fn submit(&mut self, request: Request) -> Disposition {
        self.queue.submit(self.stage(), request)
    }

    /// `now` is the time since the start of the run.
    pub(super) fn apply(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        if self.phase == Phase::Gone {
            return Vec::new();
        }
        match event {
            Event::Ready => self.ready(),
            Event::Qmp(event) => self.heard(&event, now),
            Event::Requested => self.requested(),
            Event::Signal => self.signalled(),
            Event::Expired(timer) => self.expired(timer),
            Event::Failed { command, error } => self.failed(command, error),
            Event::MonitorLost { error } => self.monitor_lost(error),
            Event::Exited(exit) => {
                let end = self.end(exit);
                self.phase = Phase::Gone;
                vec![Effect::Finish(end)]
            }
        }
    }

    fn stage(&self) -> Stage {
        let paused = self.paused.is_some();
        match self.phase {
            Phase::Starting => Stage::Starting,
            Phase::Up => Stage::Up { paused },
            Phase::Stopping => Stage::Stopping { paused },
            Phase::Ending(_) => Stage::Ending,
            Phase::Gone => Stage::Gone,
        }
    }

    fn ready(&mut self) -> Vec<Effect> {
        if self.phase != Phase::Starting {
            return vec![Effect::Report(Notice::MonitorBack)];
        }
        self.phase = Phase::Up;
        let start = if self.queue.forget(Request::Pause) {
            self.paused = Some(PauseCause::Requested);
            Effect::Report(Notice::Paused {
                cause: PauseCause::Requested,
            })
        } else {
            Effect::Run(Command::Cont)
        };
        vec![Effect::Disarm(Timer::Start), start]
    }

    fn requested(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(request) = self.queue.next(self.stage()) {
            match request {
                Request::Stop => effects.extend(self.stop()),
                Request::Kill => effects.extend(self.kill_now(EndCause::Killed)),
                Request::Reset => effects.push(Effect::Run(Command::Reset)),
                Request::Pause => {
                    self.paused = Some(PauseCause::Requested);
                    effects.push(Effect::Run(Command::Stop));
                }
                Request::Resume => {
                    self.retry = RETRY_FIRST;
                    effects.extend([Effect::Disarm(Timer::Retry), Effect::Run(Command::Cont)]);
                }
            }
        }
        effects
    }

    /// The first signal asks the guest, the second one does not.
    fn signalled(&mut self) -> Vec<Effect> {
        match self.phase {
            Phase::Starting | Phase::Up => self.stop(),
            Phase::Stopping => self.kill_now(EndCause::Killed),
            Phase::Ending(cause) => self.kill_now(cause),
            Phase::Gone => Vec::new(),
        }
    }

    fn stop(&mut self) -> Vec<Effect> {
        match self.phase {
            Phase::Starting => self.kill_now(EndCause::NeverStarted),
            Phase::Up if !self.ran && self.paused.is_some() => self.quit(EndCause::NeverStarted),
            Phase::Up if self.settings.grace.is_zero() => self.quit(EndCause::GraceOver),
            Phase::Up => {
                self.phase = Phase::Stopping;
                let grace = self.settings.grace;
                let mut effects = Vec::new();
                if self.paused.is_some() {
                    // A guest that stands still cannot see its button.
                    effects.extend([Effect::Disarm(Timer::Retry), Effect::Run(Command::Cont)]);
                }
                effects.extend([
                    Effect::Run(Command::Powerdown),
                    Effect::Arm(Timer::Grace, grace),
                    Effect::Arm(Timer::Press, PRESS_EVERY),
                    Effect::Report(Notice::Stopping { grace }),
                ]);
                effects
            }
            Phase::Stopping | Phase::Ending(_) | Phase::Gone => Vec::new(),
        }
    }

    /// Ends QEMU by its monitor, so that it writes out its caches; by SIGKILL if that takes long.
    fn quit(&mut self, cause: EndCause) -> Vec<Effect> {
        self.phase = Phase::Ending(cause);
        vec![
            Effect::Report(Notice::Ending { cause }),
            Effect::Disarm(Timer::Grace),
            Effect::Disarm(Timer::Press),
            Effect::Disarm(Timer::Retry),
            Effect::Disarm(Timer::Limit),
            Effect::Run(Command::Quit),
            Effect::Arm(Timer::Leave, LEAVE_LIMIT),
        ]
    }

    fn kill_now(&mut self, cause: EndCause) -> Vec<Effect> {
        let mut effects = self.quit(cause);
        effects.retain(|effect| *effect != Effect::Run(Command::Quit));
        effects.extend([Effect::Disarm(Timer::Start), Effect::Kill]);
        effects
    }

    fn expired(&mut self, timer: Timer) -> Vec<Effect> {
        match (timer, self.phase) {
            (Timer::Start, Phase::Starting) => self.kill_now(EndCause::StartFailed),
            (Timer::Limit, Phase::Starting) => self.kill_now(EndCause::TimedOut),
            (Timer::Limit, Phase::Up | Phase::Stopping) => self.quit(EndCause::TimedOut),
            (Timer::Grace, Phase::Stopping) => self.quit(EndCause::GraceOver),
            (Timer::Press, Phase::Stopping) => {
                vec![
                    Effect::Run(Command::Powerdown),
                    Effect::Arm(Timer::Press, PRESS_EVERY),
                ]
            }
            (Timer::Retry, Phase::Up | Phase::Stopping) if self.paused.is_some() => {
                vec![Effect::Run(Command::Cont)]
            }
            (Timer::Leave, Phase::Ending(_)) => vec![
                Effect::Kill,
                Effect::Report(Notice::Lingering),
                Effect::Arm(Timer::Leave, LEAVE_LIMIT),
            ],
            // The guest is off and QEMU still writes: that is the guest's data, so it is left to it.
            (Timer::Leave, Phase::Up | Phase::Stopping) if self.shutdown.is_some() => {
                vec![
                    Effect::Report(Notice::Lingering),
                    Effect::Arm(Timer::Leave, LEAVE_LIMIT),
                ]
            }
            // A timer that was disarmed while its event was under way.
            (
                Timer::Start
                | Timer::Limit
                | Timer::Grace
                | Timer::Press
                | Timer::Retry
                | Timer::Leave,
                _,
            ) => Vec::new(),
        }
    }

    fn failed(&mut self, command: Command, error: String) -> Vec<Effect> {
        if self.shutdown.is_some() {
            // QEMU is on its way out and answers no more.
            return Vec::new();
        }
        let mut effects = vec![Effect::Report(Notice::CommandFailed {
            command: command.name(),
            error,
        })];
        match (command, self.phase) {
            (Command::Quit, Phase::Ending(_)) => effects.push(Effect::Kill),
            (Command::Cont, Phase::Up) if !self.ran => {
                effects.extend(self.quit(EndCause::StartFailed));
            }
            (Command::Cont, Phase::Up | Phase::Stopping)
                if matches!(self.paused, Some(PauseCause::IoError { .. })) =>
            {
                effects.push(Effect::Arm(Timer::Retry, self.retry));
            }
            (Command::Stop, _) if self.paused == Some(PauseCause::Requested) => self.paused = None,
            _ => {}
        }
        effects
    }

    /// Ordinary just before QEMU's exit; the driver connects again for as long as QEMU lives.
    fn monitor_lost(&mut self, error: String) -> Vec<Effect> {
        match self.phase {
            Phase::Up | Phase::Stopping if self.shutdown.is_none() => {
                vec![Effect::Report(Notice::MonitorLost { error })]
            }
            _ => Vec::new(),
        }
    }
}

mod ending;
mod hearing;

#[cfg(test)]
mod tests;
