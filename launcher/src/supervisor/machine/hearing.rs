//! What QEMU's events mean to the machine.

use std::time::Duration;

use super::{
    Effect, LEAVE_LIMIT, Machine, Phase, RESET_ECHO, RESET_LIMIT, RESET_WINDOW, RETRY_FIRST,
    RETRY_FORGET, RETRY_MAX, Timer,
};
use crate::qmp;
use crate::supervisor::notice::{EndCause, Notice, PauseCause};

impl Machine {
    pub(super) fn heard(&mut self, event: &qmp::Event, now: Duration) -> Vec<Effect> {
        match event.name.as_str() {
            "RESUME" => self.resumed(),
            "STOP" => self.stopped(),
            "BLOCK_IO_ERROR" => self.io_error(event, now),
            "RESET" => self.reset(event, now),
            "SHUTDOWN" => self.shut_down(event),
            "GUEST_PANICKED" => self.guest_panicked(event),
            "WATCHDOG" => {
                vec![Effect::Report(Notice::Watchdog {
                    action: event.text("action").to_owned(),
                })]
            }
            _ => Vec::new(),
        }
    }

    fn resumed(&mut self) -> Vec<Effect> {
        self.ran = true;
        self.paused = None;
        self.failing = false;
        vec![
            Effect::Disarm(Timer::Retry),
            Effect::Report(Notice::Running),
        ]
    }

    fn stopped(&mut self) -> Vec<Effect> {
        if self.shutdown.is_some() || matches!(self.phase, Phase::Ending(_)) {
            // QEMU stops the vCPUs on its way out.
            return Vec::new();
        }
        let cause = if self.failing {
            self.failing = false;
            PauseCause::IoError { retry: self.retry }
        } else if self.paused == Some(PauseCause::Requested) {
            PauseCause::Requested
        } else {
            PauseCause::Other
        };
        self.paused = Some(cause);
        let mut effects = vec![Effect::Report(Notice::Paused { cause })];
        if let PauseCause::IoError { retry } = cause {
            effects.push(Effect::Arm(Timer::Retry, retry));
        }
        effects
    }

    fn io_error(&mut self, event: &qmp::Event, now: Duration) -> Vec<Effect> {
        let stops = event.text("action") == "stop";
        if stops && !self.failing && self.paused.is_none() {
            self.failing = true;
            let forgotten = self
                .last_failure
                .is_none_or(|last| now.saturating_sub(last) > RETRY_FORGET);
            let longer = (self.retry * 2).min(RETRY_MAX);
            self.retry = if forgotten { RETRY_FIRST } else { longer };
            self.last_failure = Some(now);
        }
        vec![Effect::Report(Notice::IoError {
            device: failed_device(event).to_owned(),
            operation: event.text("operation").to_owned(),
            reason: event.text("reason").to_owned(),
            no_space: event.flag("nospace"),
            stops,
        })]
    }

    fn reset(&mut self, event: &qmp::Event, now: Duration) -> Vec<Effect> {
        if !event.flag("guest") {
            self.reset_from_outside = Some(now);
            return Vec::new();
        }
        if self
            .reset_from_outside
            .take()
            .is_some_and(|at| now.saturating_sub(at) < RESET_ECHO)
        {
            return Vec::new();
        }
        // A crash kernel that has done its work reboots; what was wrong is over.
        self.panicked = false;
        while self
            .resets
            .front()
            .is_some_and(|first| now.saturating_sub(*first) > RESET_WINDOW)
        {
            self.resets.pop_front();
        }
        self.resets.push_back(now);
        let mut effects = vec![Effect::Report(Notice::GuestReset)];
        if self.resets.len() >= RESET_LIMIT && matches!(self.phase, Phase::Up | Phase::Stopping) {
            effects.extend(self.quit(EndCause::ResetLoop {
                resets: self.resets.len(),
            }));
        }
        effects
    }

    fn shut_down(&mut self, event: &qmp::Event) -> Vec<Effect> {
        if self.shutdown.is_some() {
            return Vec::new();
        }
        self.shutdown = Some(event.text("reason").to_owned());
        if matches!(self.phase, Phase::Ending(_)) {
            return Vec::new();
        }
        vec![
            Effect::Disarm(Timer::Grace),
            Effect::Disarm(Timer::Press),
            Effect::Disarm(Timer::Retry),
            Effect::Arm(Timer::Leave, LEAVE_LIMIT),
        ]
    }

    fn guest_panicked(&mut self, event: &qmp::Event) -> Vec<Effect> {
        self.panicked = true;
        let mut effects = vec![Effect::Report(Notice::GuestPanicked)];
        if event.text("action") == "pause" && matches!(self.phase, Phase::Up | Phase::Stopping) {
            effects.extend(self.quit(EndCause::Panicked));
        }
        effects
    }
}

/// The device's id. With `-blockdev` the field of that name is empty, and the id is in the path
/// `/machine/peripheral/ID/...`.
fn failed_device(event: &qmp::Event) -> &str {
    let from_path = event.text("qom-path").strip_prefix("/machine/peripheral/");
    let id = from_path
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default();
    let names = [event.text("device"), id, event.text("node-name")];
    names
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("?")
}
