//! What is shown while bytes move: a bar, JSON lines, or nothing.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use longshore_transfer::{Meter, Progress, Report, Snapshot};
use serde::Serialize;

use crate::bytes::{bytes, float, whole};
use crate::failure::Failure;
use crate::output;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A bar on a terminal, one line at the end elsewhere.
    Auto,
    /// One JSON object a line on standard output.
    Json,
    /// Nothing.
    Off,
}

/// The bar has this many steps; the share is shown in whole percents.
const STEPS: u64 = 10_000;

/// A line of `--progress json`; documented in the help of `convert`.
#[derive(Debug, Serialize)]
#[serde(
    tag = "event",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum Event<'a> {
    Progress {
        fraction: Option<f64>,
        phase: &'static str,
        read: u64,
        written: u64,
        rate: u64,
        eta_seconds: Option<u64>,
    },
    Done {
        target: &'a str,
        target_format: &'static str,
        format: &'static str,
        variant: &'a str,
        wrappers: Vec<&'static str>,
        virtual_size: u64,
        read: u64,
        written: u64,
        shared: u64,
        spilled: u64,
        passes: u32,
        threads: usize,
        seconds: f64,
        finishing_seconds: f64,
        phases: PhaseSeconds,
    },
    Error {
        reason: &'static str,
        message: String,
        exit_code: u8,
    },
}

/// Where the time went, in seconds, summed over threads.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhaseSeconds {
    read: f64,
    decode: f64,
    write: f64,
    /// The part of `write` that was waiting for storage.
    write_back: f64,
    flush: f64,
}

/// Shows one copy.
pub(crate) struct Display {
    kind: Kind,
    meter: Meter,
    target: String,
}

enum Kind {
    Bar(ProgressBar),
    Lines { reader_gone: bool },
    LastWord,
    Nothing,
}

impl Display {
    /// A display of a copy to `target`.
    pub(crate) fn new(mode: Mode, target: String) -> Self {
        let kind = match mode {
            Mode::Off => Kind::Nothing,
            Mode::Json => Kind::Lines { reader_gone: false },
            Mode::Auto if io::stderr().is_terminal() => Kind::Bar(bar(&target)),
            Mode::Auto => Kind::LastWord,
        };
        Self {
            kind,
            meter: Meter::new(Instant::now()),
            target,
        }
    }

    /// How often [`Display::show`] has something new to say.
    pub(crate) fn interval(&self) -> Duration {
        match self.kind {
            Kind::Bar(_) => Duration::from_millis(100),
            _ => Duration::from_millis(500),
        }
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let snapshot = progress.snapshot();
        let reading = self.meter.read(&snapshot, Instant::now());
        let finishing = is_finishing(&snapshot);
        match &mut self.kind {
            Kind::Bar(bar) => {
                let share = reading.fraction.unwrap_or(0.0);
                bar.set_position(whole(share * float(STEPS)));
                let percent = reading.fraction.map_or_else(String::new, |share| {
                    format!("{:>3}%  ", whole(share * 100.0))
                });
                let pace = match (finishing, reading.eta) {
                    (true, _) => "finishing".to_owned(),
                    (false, None) => format!("{}/s", bytes(whole(reading.rate))),
                    (false, Some(eta)) => {
                        format!("{}/s  {} left", bytes(whole(reading.rate)), clock(eta))
                    }
                };
                let text = format!("{percent}{} read  {pace}", bytes(snapshot.read));
                bar.set_message(text);
            }
            Kind::Lines { .. } => {
                let event = Event::Progress {
                    fraction: reading.fraction,
                    phase: if snapshot.done {
                        "done"
                    } else if finishing {
                        "finishing"
                    } else {
                        "copying"
                    },
                    read: snapshot.read,
                    written: snapshot.written,
                    rate: whole(reading.rate),
                    eta_seconds: reading.eta.map(|eta| eta.as_secs()),
                };
                self.print(&event);
            }
            Kind::LastWord | Kind::Nothing => {}
        }
    }

    /// It is done.
    pub(crate) fn done(mut self, progress: &Progress, report: &Report) {
        if let Kind::Lines { .. } = self.kind {
            self.show(progress);
        }
        match &mut self.kind {
            Kind::Bar(bar) => {
                bar.finish_and_clear();
                output::say(&summary(report, &self.target));
            }
            Kind::LastWord => output::say(&summary(report, &self.target)),
            Kind::Lines { .. } => {
                let target = self.target.clone();
                self.print(&done_event(report, &target));
            }
            Kind::Nothing => {}
        }
    }

    /// It failed. The message itself is told by whoever ends the program.
    pub(crate) fn failed(mut self, failure: &Failure) {
        match &mut self.kind {
            Kind::Bar(bar) => bar.finish_and_clear(),
            Kind::Lines { .. } => {
                let event = Event::Error {
                    reason: failure.reason(),
                    message: failure.message(),
                    exit_code: failure.exit_code(),
                };
                self.print(&event);
            }
            Kind::LastWord | Kind::Nothing => {}
        }
    }

    /// Whether anybody reads must not decide over a copy: after a failed write there are no more.
    fn print(&mut self, event: &Event<'_>) {
        let Kind::Lines { reader_gone } = &mut self.kind else {
            return;
        };
        if !*reader_gone {
            let mut stdout = io::stdout().lock();
            let written = serde_json::to_writer(&mut stdout, event)
                .map_err(io::Error::from)
                .and_then(|()| stdout.write_all(b"\n"))
                .and_then(|()| stdout.flush());
            *reader_gone = written.is_err();
        }
    }
}

/// All bytes are there, and are being made durable.
fn is_finishing(snapshot: &Snapshot) -> bool {
    !snapshot.done && snapshot.fraction.is_some_and(|share| share >= 0.999)
}

fn bar(target: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
    // The template is ours, so it parses; a plain bar would do if not.
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(target.to_owned());
    bar
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// What the image is: `qcow2 v3 in gz`.
fn image(report: &Report) -> String {
    let mut text = report.info.format.name().to_owned();
    for wrapper in report.wrappers.iter().rev() {
        text += " in ";
        text += wrapper.name();
    }
    text
}

fn summary(report: &Report, target: &str) -> String {
    let seconds = report.elapsed.as_secs_f64();
    let rate = float(report.bytes_read) / seconds.max(0.001);
    let shared = match report.bytes_shared {
        0 => String::new(),
        n => format!("{} shared with the source, ", bytes(n)),
    };
    format!(
        "{target}: a {} disk of {} from {}; {} read, {} written, {shared}{seconds:.1} s, {}/s",
        report.written_as.format().name(),
        bytes(report.virtual_size),
        image(report),
        bytes(report.bytes_read),
        bytes(report.bytes_written),
        bytes(whole(rate)),
    )
}

fn done_event<'a>(report: &'a Report, target: &'a str) -> Event<'a> {
    Event::Done {
        target,
        target_format: report.written_as.format().name(),
        format: report.info.format.name(),
        variant: &report.info.variant,
        wrappers: report.wrappers.iter().map(|w| w.name()).collect(),
        virtual_size: report.virtual_size,
        read: report.bytes_read,
        written: report.bytes_written,
        shared: report.bytes_shared,
        spilled: report.bytes_spilled,
        passes: report.passes,
        threads: report.threads,
        seconds: report.elapsed.as_secs_f64(),
        finishing_seconds: report.phases.flush.as_secs_f64(),
        phases: PhaseSeconds {
            read: report.phases.read.as_secs_f64(),
            decode: report.phases.decode.as_secs_f64(),
            write: report.phases.write.as_secs_f64(),
            write_back: report.phases.write_back.as_secs_f64(),
            flush: report.phases.flush.as_secs_f64(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_clocks_do() {
        assert_eq!(clock(Duration::from_secs(9)), "0:09");
        assert_eq!(clock(Duration::from_secs(3600 + 62)), "1:01:02");
    }
}
