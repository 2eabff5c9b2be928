//! Progress as JSON, one object a line: what `--progress json` prints and what a worker pod logs on its
//! standard output. Documented in the help of `longshore convert`.

use std::io::{self, Write};

use serde::Serialize;

use crate::{Reading, Report, Snapshot};

/// One line.
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
        resumed: u64,
        rereads: bool,
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
        resumed: u64,
        journal: u64,
        passes: u32,
        threads: usize,
        seconds: f64,
        finishing_seconds: f64,
        phases: PhaseSeconds,
    },
    #[serde(rename = "done")]
    Made {
        target: &'a str,
        format: &'a str,
        read: u64,
        written: u64,
        seconds: f64,
    },
    Error {
        reason: &'a str,
        message: &'a str,
        exit_code: u8,
        resumable: bool,
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

/// Prints events. Whether anybody reads them must not decide over a copy: after a write that failed there
/// are no more.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    reader_gone: bool,
}

impl Lines<io::Stdout> {
    /// Lines on standard output.
    pub fn on_stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write> Lines<W> {
    /// Lines on `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            reader_gone: false,
        }
    }

    /// How far it is.
    pub fn progress(&mut self, snapshot: &Snapshot, reading: &Reading) {
        self.print(&Event::Progress {
            fraction: reading.fraction,
            phase: snapshot.phase(),
            read: snapshot.read,
            written: snapshot.written,
            rate: whole(reading.rate),
            eta_seconds: reading.eta.map(|eta| eta.as_secs()),
            resumed: snapshot.resumed,
            rereads: snapshot.rereads,
        });
    }

    /// A transfer to `target` is done.
    pub fn done(&mut self, target: &str, report: &Report) {
        self.print(&Event::Done {
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
            resumed: report.bytes_resumed,
            journal: report.bytes_journal,
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
        });
    }

    /// Something was made at `target` that is no disk out of an image.
    pub fn made(&mut self, target: &str, format: &str, snapshot: &Snapshot, seconds: f64) {
        self.print(&Event::Made {
            target,
            format,
            read: snapshot.read,
            written: snapshot.written,
            seconds,
        });
    }

    /// It failed. `resumable`: what was done is kept, and the same transfer goes on from it.
    pub fn failed(&mut self, reason: &str, message: &str, exit_code: u8, resumable: bool) {
        self.print(&Event::Error {
            reason,
            message,
            exit_code,
            resumable,
        });
    }

    /// A line of the caller's own.
    pub fn print(&mut self, event: &impl Serialize) {
        if self.reader_gone {
            return;
        }
        let written = serde_json::to_vec(event)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                self.out.write_all(&line)
            })
            .and_then(|()| self.out.flush());
        self.reader_gone = written.is_err();
    }
}

#[expect(
    clippy::cast_sign_loss,
    reason = "casts from floats saturate, which is what a display wants"
)]
fn whole(amount: f64) -> u64 {
    amount as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Meter, Progress};
    use std::time::Instant;

    #[test]
    fn a_line_is_one_object_and_a_reader_that_left_is_let_go() {
        let mut out = Vec::new();
        let now = Instant::now();
        let snapshot = Progress::default().snapshot();
        let reading = Meter::new(now).read(&snapshot, now);
        Lines::new(&mut out).progress(&snapshot, &reading);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"event\":\"progress\",\"fraction\":null,\"phase\":\"copying\",\"read\":0,\"written\":0,\"rate\":0,\"etaSeconds\":null,\"resumed\":0,\"rereads\":false}\n"
        );
        let mut full = [0; 4];
        let mut lines = Lines::new(&mut full[..]);
        lines.failed("R", "m", 1, false);
        assert!(lines.reader_gone);
        lines.failed("R", "m", 1, false);
    }
}
