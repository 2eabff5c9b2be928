//! `convert` and `import`: one copy, watched.
//!
//! The copy runs on a thread of its own. This one shows progress and looks for signals, so that
//! neither waits for a source that does not answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use longshore_importer::{Destination, Existing, SourceOptions, unpack};
use longshore_transfer::{
    Cancel, Error, Options, Progress, Report, Source, TargetSpec, blank, transfer,
};

use crate::bytes::bytes;
use crate::failure::Failure;
use crate::output;
use crate::progress::{Display, Mode};
use crate::signals::Signals;
use crate::source::Place;

/// A copy that was told to stop does so at its next piece. One that waits for a source is left
/// behind after this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What to copy, and how.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) place: Place,
    pub(crate) target: TargetSpec,
    pub(crate) options: Options,
    pub(crate) source_options: SourceOptions,
    pub(crate) progress: Mode,
    pub(crate) content: Content,
}

/// What there is to be in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// The disk of an image.
    Disk,
    /// The files of an archive.
    Files,
    /// A disk of zeros; there is no source.
    Blank,
}

/// Does it.
pub(crate) fn run(copy: Copy) -> Result<(), Failure> {
    let display = Display::new(copy.progress, copy.target.path.display().to_string());
    let signals = Signals::take()?;
    match copy.content {
        Content::Disk => image(copy, display, &signals),
        Content::Files => files(copy, display, &signals),
        Content::Blank => nothing(copy, display, &signals),
    }
}

fn image(copy: Copy, display: Display, signals: &Signals) -> Result<(), Failure> {
    let Copy {
        place,
        target,
        options,
        source_options,
        ..
    } = copy;
    let job = Job {
        target,
        options,
        deadline: None,
    };
    let open = move |cancel: &Cancel| {
        place.open(&SourceOptions {
            cancel: cancel.clone(),
            ..source_options
        })
    };
    job.watch(open, display, signals).map(drop)
}

/// A blank disk.
fn nothing(copy: Copy, mut display: Display, signals: &Signals) -> Result<(), Failure> {
    let target = copy.target;
    let partial = partial_of(&target.path);
    let work = move |progress: &Progress, cancel: &Cancel, _: &AtomicBool| {
        blank(&target, progress, cancel).map_err(Failure::from)
    };
    let leftover = || remove(partial.as_deref());
    match watched(work, leftover, None, &mut display, signals) {
        Ok((made, progress)) => {
            if made.untouched {
                output::say(
                    "warning: the device keeps what it holds; --preallocate full zeroes it",
                );
            }
            let text = format!("a blank disk of {}", bytes(made.size));
            display.made(&progress, "blank", &text);
            Ok(())
        }
        Err(failure) => {
            display.failed(&failure);
            Err(failure)
        }
    }
}

/// An archive of files into a directory.
fn files(copy: Copy, mut display: Display, signals: &Signals) -> Result<(), Failure> {
    let Copy {
        place,
        target,
        options,
        source_options,
        ..
    } = copy;
    let destination = Destination {
        directory: target.path,
        existing: Existing::Refuse,
    };
    let staging = destination.staging();
    let work = move |progress: &Progress, cancel: &Cancel, begun: &AtomicBool| {
        let mut source = place.open_files(&SourceOptions {
            cancel: cancel.clone(),
            ..source_options
        })?;
        begun.store(true, Ordering::Release);
        let made = unpack(source.as_mut(), &destination, &options, progress, cancel)?;
        Ok(made)
    };
    let leftover = || {
        // Mostly it is not there.
        drop(std::fs::remove_dir_all(staging));
    };
    match watched(work, leftover, None, &mut display, signals) {
        Ok((made, progress)) => {
            let (entries, size) = (made.entries, bytes(made.file_bytes));
            let text = format!("{entries} files and directories of {size} unpacked");
            display.made(&progress, "archive", &text);
            Ok(())
        }
        Err(failure) => {
            display.failed(&failure);
            Err(failure)
        }
    }
}

/// A copy without its source.
pub(crate) struct Job {
    pub(crate) target: TargetSpec,
    pub(crate) options: Options,
    /// When to give up.
    pub(crate) deadline: Option<Instant>,
}

impl Job {
    /// Copies from what `open` opens until it is done, failed, told to stop, or out of time.
    pub(crate) fn watch(
        self,
        open: impl FnOnce(&Cancel) -> Result<Box<dyn Source>, Failure> + Send + 'static,
        mut display: Display,
        signals: &Signals,
    ) -> Result<Report, Failure> {
        let Self {
            target,
            options,
            deadline,
        } = self;
        let partial = partial_of(&target.path);
        let copy = move |progress: &Progress, cancel: &Cancel, begun: &AtomicBool| {
            let mut source = open(cancel)?;
            begun.store(true, Ordering::Release);
            transfer(source.as_mut(), &target, &options, progress, cancel).map_err(Failure::from)
        };
        let leftover = || remove(partial.as_deref());
        match watched(copy, leftover, deadline, &mut display, signals) {
            Ok((report, progress)) => {
                display.done(&progress, &report);
                Ok(report)
            }
            Err(failure) => {
                display.failed(&failure);
                Err(failure)
            }
        }
    }
}

/// Runs `work` on a thread of its own until it is done, failed, told to stop, or out of time. It says when
/// it has begun to write; work that does not end when told to is left behind, and `leftover` removes what
/// it has made.
fn watched<T: Send + 'static>(
    work: impl FnOnce(&Progress, &Cancel, &AtomicBool) -> Result<T, Failure> + Send + 'static,
    leftover: impl FnOnce(),
    deadline: Option<Instant>,
    display: &mut Display,
    signals: &Signals,
) -> Result<(T, Progress), Failure> {
    let (progress, cancel) = (Progress::default(), Cancel::default());
    let (sender, outcome) = sync_channel(1);
    let (shared_progress, shared_cancel) = (progress.clone(), cancel.clone());
    let begun = Arc::new(AtomicBool::new(false));
    let shared_begun = Arc::clone(&begun);
    std::thread::Builder::new()
        .name("copy".to_owned())
        // The other end is gone only when nobody waits any more.
        .spawn(move || {
            drop(sender.send(work(&shared_progress, &shared_cancel, &shared_begun)));
        })
        .map_err(|source| Failure::Host {
            action: "could not start a thread".to_owned(),
            source,
        })?;
    let (signals_before, mut stopping) = (signals.received(), None);
    display.show(&progress);
    loop {
        match outcome.recv_timeout(display.interval()) {
            Ok(Ok(done)) => return Ok((done, progress)),
            // Asked to stop, each source has its own way of saying so.
            Ok(Err(_)) if stopping.is_some() => {
                return Err(resumable(Error::Interrupted.into(), &progress));
            }
            Ok(Err(failure)) => return Err(resumable(failure, &progress)),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Crashed),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let (now, received) = (Instant::now(), signals.received() - signals_before);
        if received > 0 || deadline.is_some_and(|at| now >= at) {
            cancel.cancel();
            let since = *stopping.get_or_insert(now);
            if received > 1 || now.duration_since(since) > PATIENCE {
                if begun.load(Ordering::Acquire) && !progress.snapshot().kept {
                    leftover();
                }
                return Err(resumable(Error::Interrupted.into(), &progress));
            }
        } else {
            display.show(&progress);
        }
    }
}

/// A failure after which the same command goes on, if so.
fn resumable(failure: Failure, progress: &Progress) -> Failure {
    if progress.snapshot().kept {
        let source = Box::new(failure);
        return Failure::Resumable { source };
    }
    failure
}

/// Where `transfer` writes before a file gets its name. `None` for what it writes in place.
fn partial_of(target: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name()?);
    name.push(".partial");
    Some(target.with_file_name(name))
}

/// The copy has its source, and is stuck reading it; so it holds the lock on its partial file, and
/// nobody else's is removed.
fn remove(partial: Option<&Path>) {
    if let Some(partial) = partial {
        // Mostly it is not there: a device, or a copy that has not begun.
        drop(std::fs::remove_file(partial));
    }
}
