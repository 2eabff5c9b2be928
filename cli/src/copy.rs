//! `convert` and `import`: one copy, watched.
//!
//! The copy runs on a thread of its own. This one shows progress and looks for signals, so that
//! neither waits for a source that does not answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use longshore_importer::SourceOptions;
use longshore_transfer::{Cancel, Error, Options, Progress, Report, Source, TargetSpec, transfer};

use crate::failure::Failure;
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
    /// The content is files, not a disk.
    pub(crate) archive: bool,
}

/// Does it.
pub(crate) fn run(copy: Copy) -> Result<(), Failure> {
    let Copy {
        place,
        target,
        options,
        source_options,
        progress,
        archive,
    } = copy;
    let display = Display::new(progress, target.path.display().to_string());
    if archive {
        let failure = Failure::Unsupported {
            what: "archives of files are not imported yet".to_owned(),
            next: "unpack it with tar; disk images are imported with --content-type kubevirt"
                .to_owned(),
        };
        display.failed(&failure);
        return Err(failure);
    }
    let signals = Signals::take()?;
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
    job.watch(open, display, &signals).map(drop)
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
        let outcome = self.watched(open, &mut display, signals);
        match outcome {
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

    fn watched(
        self,
        open: impl FnOnce(&Cancel) -> Result<Box<dyn Source>, Failure> + Send + 'static,
        display: &mut Display,
        signals: &Signals,
    ) -> Result<(Report, Progress), Failure> {
        let Self {
            target,
            options,
            deadline,
        } = self;
        let (progress, cancel) = (Progress::default(), Cancel::default());
        let (sender, outcome) = sync_channel(1);
        let partial = partial_of(&target.path);
        let (shared_progress, shared_cancel) = (progress.clone(), cancel.clone());
        let begun = Arc::new(AtomicBool::new(false));
        let shared_begun = Arc::clone(&begun);
        let copy = move || {
            let mut source = open(&shared_cancel)?;
            shared_begun.store(true, Ordering::Release);
            transfer(
                source.as_mut(),
                &target,
                &options,
                &shared_progress,
                &shared_cancel,
            )
            .map_err(Failure::from)
        };
        std::thread::Builder::new()
            .name("copy".to_owned())
            // The other end is gone only when nobody waits any more.
            .spawn(move || drop(sender.send(copy())))
            .map_err(|source| Failure::Host {
                action: "could not start a thread".to_owned(),
                source,
            })?;
        let (signals_before, mut stopping) = (signals.received(), None);
        display.show(&progress);
        loop {
            match outcome.recv_timeout(display.interval()) {
                Ok(Ok(report)) => return Ok((report, progress)),
                // Asked to stop, each source has its own way of saying so.
                Ok(Err(_)) if stopping.is_some() => return Err(Error::Interrupted.into()),
                Ok(Err(failure)) => return Err(failure),
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Crashed),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let (now, received) = (Instant::now(), signals.received() - signals_before);
            if received > 0 || deadline.is_some_and(|at| now >= at) {
                cancel.cancel();
                let since = *stopping.get_or_insert(now);
                if received > 1 || now.duration_since(since) > PATIENCE {
                    if begun.load(Ordering::Acquire) {
                        remove(partial.as_deref());
                    }
                    return Err(Error::Interrupted.into());
                }
            } else {
                display.show(&progress);
            }
        }
    }
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
