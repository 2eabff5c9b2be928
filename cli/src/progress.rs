//! What is shown while bytes move: a bar, JSON lines, or nothing.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use longshore_transfer::{Lines, Meter, Progress, Report, Snapshot};

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

/// Shows one copy.
pub(crate) struct Display {
    kind: Kind,
    meter: Meter,
    target: String,
    /// What an earlier run did was mentioned.
    mentioned: bool,
}

enum Kind {
    Bar(ProgressBar),
    Lines(Lines<io::Stdout>),
    LastWord,
    Nothing,
}

impl Display {
    /// A display of a copy to `target`.
    pub(crate) fn new(mode: Mode, target: String) -> Self {
        let kind = match mode {
            Mode::Off => Kind::Nothing,
            Mode::Json => Kind::Lines(Lines::on_stdout()),
            Mode::Auto if io::stderr().is_terminal() => Kind::Bar(bar(&target)),
            Mode::Auto => Kind::LastWord,
        };
        Self {
            kind,
            meter: Meter::new(Instant::now()),
            target,
            mentioned: false,
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
        let finishing = snapshot.is_finishing();
        // By the first byte it is known how the source goes on.
        let mention = !self.mentioned && snapshot.resumed > 0 && snapshot.read > 0;
        self.mentioned |= mention;
        match &mut self.kind {
            Kind::Bar(bar) => {
                if mention {
                    bar.suspend(|| output::say(&going_on(&snapshot, &self.target)));
                }
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
            Kind::Lines(lines) => lines.progress(&snapshot, &reading),
            Kind::LastWord if mention => output::say(&going_on(&snapshot, &self.target)),
            Kind::LastWord | Kind::Nothing => {}
        }
    }

    /// It is done.
    pub(crate) fn done(mut self, progress: &Progress, report: &Report) {
        // What there was no time to show.
        if !self.mentioned || matches!(self.kind, Kind::Lines(_)) {
            self.show(progress);
        }
        match &mut self.kind {
            Kind::Bar(bar) => {
                bar.finish_and_clear();
                output::say(&summary(report, &self.target));
            }
            Kind::LastWord => output::say(&summary(report, &self.target)),
            Kind::Lines(lines) => lines.done(&self.target, report),
            Kind::Nothing => {}
        }
    }

    /// Something was made that is no disk out of an image.
    pub(crate) fn made(mut self, progress: &Progress, format: &str, text: &str) {
        let snapshot = progress.snapshot();
        let reading = self.meter.read(&snapshot, Instant::now());
        let seconds = reading.elapsed.as_secs_f64();
        let written = bytes(snapshot.written);
        let line = format!("{}: {text}; {written} written, {seconds:.1} s", self.target);
        match &mut self.kind {
            Kind::Bar(bar) => {
                bar.finish_and_clear();
                output::say(&line);
            }
            Kind::LastWord => output::say(&line),
            Kind::Lines(lines) => {
                lines.progress(&snapshot, &reading);
                lines.made(&self.target, format, &snapshot, seconds);
            }
            Kind::Nothing => {}
        }
    }

    /// It failed. The message itself is told by whoever ends the program.
    pub(crate) fn failed(mut self, failure: &Failure) {
        match &mut self.kind {
            Kind::Bar(bar) => bar.finish_and_clear(),
            Kind::Lines(lines) => {
                let (reason, code) = (failure.reason(), failure.exit_code());
                lines.failed(reason, &failure.message(), code, failure.is_resumable());
            }
            Kind::LastWord | Kind::Nothing => {}
        }
    }
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

/// What an earlier run is worth to this one.
fn going_on(snapshot: &Snapshot, target: &str) -> String {
    let there = bytes(snapshot.resumed);
    let how = if snapshot.rereads {
        "the source is read again from its start, for it can't be gone on with in the middle; \
         what is there is not written again"
    } else {
        "what is there is not read again"
    };
    format!("{target}: {there} of the disk are there from an earlier run; {how}")
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
    let resumed = match report.bytes_resumed {
        0 => String::new(),
        n => format!("{} there from an earlier run, ", bytes(n)),
    };
    format!(
        "{target}: a {} disk of {} from {}; {} read, {} written, {shared}{resumed}{seconds:.1} s, {}/s",
        report.written_as.format().name(),
        bytes(report.virtual_size),
        image(report),
        bytes(report.bytes_read),
        bytes(report.bytes_written),
        bytes(whole(rate)),
    )
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
