//! What is settled, what of it is durable, and when to make more of it so.
//!
//! The writer says what it has settled, and a thread of its own makes that durable and writes it down,
//! while writing goes on. That thread has an open file of its own of the target: an error of write-out is
//! told once for each, so that one which the writer has heard of is heard of here too, and nothing since
//! the last good fdatasync is ever written down.
//!
//! A stream's bytes settle out of order. What is written down of one is in the order of the stream, so
//! that it is known which of its bytes are not needed any more.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::file::Writing;
use super::record::{HashMark, Image, Parsed, Point, Step};
use super::{Facts, Place, discard};
use crate::cancel::Failure;
use crate::written::Written;
use crate::{Error, Progress, Result};

/// Settled bytes of the disk that are worth a step.
const STEP_BYTES: u64 = 16 << 20;
/// Less are after this long.
const STEP_TIME: Duration = Duration::from_secs(1);
/// A step is followed by a pause of so many times what it took: 2 % of the time at the most.
const PAUSES: u32 = 50;
/// But never by a longer one.
const MOST_PAUSE: Duration = Duration::from_secs(20);
/// States of a digest are kept so far apart.
const MARK_EVERY: u64 = 1 << 20;
/// Ranges of a stream that wait for others in front of them, at the most. An honest stream has what is
/// in flight and what settled since the last step.
const MOST_WAITING: usize = 256 << 10;

/// What a target that was opened brings along.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) place: Place,
    pub(crate) facts: Facts,
    /// A journal that fits.
    pub(crate) found: Option<Parsed>,
    /// The target once more, opened anew.
    pub(crate) sync: File,
    /// The target's own open file: its locks are held as long as this is.
    pub(crate) lock: File,
    /// What is removed with the journal.
    pub(crate) partial: Option<PathBuf>,
    /// See [`super::Journal`].
    pub(crate) step: Option<u64>,
}

/// How the pieces of an image come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// In any.
    Any,
    /// In that of a stream. `hashed`: its bytes have a digest. `anywhere`: it can be gone on with at any of
    /// its bytes, without those before.
    Stream { hashed: bool, anywhere: bool },
}

/// Keeps the journal of one transfer. Clones share it.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Inner>);

struct Inner {
    place: Place,
    partial: Option<PathBuf>,
    target: PathBuf,
    _lock: File,
    failure: Failure,
    progress: Progress,
    step: Option<u64>,
    book: Mutex<Book>,
}

struct Book {
    /// Until it begins.
    kept: Option<(Facts, Option<Parsed>, File)>,
    /// Something to go on from is on storage.
    exists: bool,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// A job is under way.
    busy: bool,
    not_before: Instant,
    last: Instant,
    /// Settled since the last step.
    bytes: u64,
    settled: Written,
    stream: Option<Passing>,
    bytes_written: u64,
}

/// What is known of a stream.
#[derive(Default)]
struct Passing {
    hashed: bool,
    anywhere: bool,
    /// What passed and has not settled.
    entries: VecDeque<Entry>,
    waiting: usize,
    /// Everything before this offset has settled.
    point: Option<u64>,
    /// Settled, and not written down yet.
    carried: Written,
    latest: Option<HashMark>,
    marks: VecDeque<HashMark>,
}

/// Some of a stream: what it said of the disk, and where to go on after it.
struct Entry {
    ranges: Vec<Range<u64>>,
    point: Option<u64>,
}

struct Job {
    step: Step,
    head: Option<Vec<u8>>,
}

impl Recorder {
    pub(crate) fn new(kept: Kept, target: &Path, failure: &Failure, progress: &Progress) -> Self {
        let now = Instant::now();
        let Kept {
            place,
            facts,
            found,
            sync,
            lock,
            partial,
            step,
        } = kept;
        Self(Arc::new(Inner {
            place,
            partial,
            target: target.to_owned(),
            _lock: lock,
            failure: failure.clone(),
            progress: progress.clone(),
            step,
            book: Mutex::new(Book {
                exists: found.is_some(),
                kept: Some((facts, found, sync)),
                jobs: None,
                thread: None,
                busy: false,
                not_before: now,
                last: now,
                bytes: 0,
                settled: Written::default(),
                stream: None,
                bytes_written: 0,
            }),
        }))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image is known, and the target is ready for it. `alone`: no other file belongs to it, of which
    /// nobody knows whether it is the same later.
    pub(crate) fn begin(&self, image: Image, order: Order, alone: bool) -> Result<()> {
        let mut book = self.book();
        let Some((facts, found, sync)) = book.kept.take() else {
            return Ok(());
        };
        if !alone {
            tracing::info!("the image refers to other files: no journal is kept");
            return Ok(());
        }
        if let Some(found) = &found
            && found.contents.image.as_ref() != Some(&image)
        {
            return Err(Error::SourceChanged {
                name: self.0.target.display().to_string(),
                what: "the image is not the one that the journal tells of".to_owned(),
            });
        }
        let place = self.0.place.clone();
        let writing = match found {
            Some(found) => Writing::resume(place, found),
            None => Writing::begin(place, facts, image),
        };
        let writing = match writing {
            Ok(writing) => writing,
            Err(e) => {
                self.no_journal(&e);
                return Ok(());
            }
        };
        if let Order::Stream { hashed, anywhere } = order {
            book.stream = Some(Passing {
                hashed,
                anywhere,
                ..Passing::default()
            });
        }
        let (jobs, todo) = bounded(1);
        let this = self.clone();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || this.run(&todo, &sync, writing))
            .map_err(|source| Error::Thread { source })?;
        (book.jobs, book.thread) = (Some(jobs), Some(thread));
        Ok(())
    }

    fn no_journal(&self, e: &std::io::Error) {
        tracing::warn!(
            path = %self.0.place.path().display(),
            error = %e,
            "the journal can't be written: if this import ends early it starts over, or from what was written down before"
        );
    }

    /// The thread: one step after the other.
    fn run(&self, todo: &Receiver<Job>, sync: &File, mut writing: Writing) {
        while let Ok(Job { step, head }) = todo.recv() {
            let started = Instant::now();
            if let Err(e) = sync.sync_data() {
                let path = self.0.target.clone();
                let error = match e.raw_os_error() {
                    Some(libc::ENOSPC | libc::EDQUOT) => Error::NoSpace {
                        path,
                        written: self.0.progress.snapshot().written,
                        source: e,
                    },
                    _ => Error::target("fsync", path, e),
                };
                self.0.failure.fail(error);
                break;
            }
            let written = match writing.append(step, head) {
                Ok(written) => written,
                Err(e) => {
                    self.no_journal(&e);
                    break;
                }
            };
            self.0.progress.set_kept(true);
            let took = started.elapsed();
            tracing::trace!(?took, written, "a step of the journal");
            let mut book = self.book();
            book.bytes_written += written;
            book.exists = true;
            book.busy = false;
            if self.0.step.is_none() {
                book.not_before = Instant::now() + took.saturating_mul(PAUSES).min(MOST_PAUSE);
            }
        }
        // Nothing is written down any more.
        self.book().jobs = None;
    }

    /// `ranges` of the disk are as they should be, as far as the target knows. True if it is time for
    /// [`Self::step`].
    pub(crate) fn settled(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> bool {
        let mut book = self.book();
        if book.jobs.is_none() {
            return false;
        }
        for range in ranges {
            book.bytes += range.end - range.start;
            book.settled.add(range);
        }
        let now = Instant::now();
        let enough = book.bytes >= self.0.step.unwrap_or(STEP_BYTES)
            || book.bytes > 0 && now.saturating_duration_since(book.last) >= STEP_TIME;
        enough && !book.busy && now >= book.not_before
    }

    /// What has settled and could be written down, for the target to complete.
    pub(crate) fn collect(&self) -> Option<(Point, Written)> {
        let mut book = self.book();
        book.last = Instant::now();
        book.bytes = 0;
        let Book {
            settled, stream, ..
        } = &mut *book;
        match stream {
            Some(stream) => stream.collect(settled),
            None => Some((Point::default(), std::mem::take(settled))),
        }
    }

    /// Writes `ranges` down, once they are durable. Waits only for a step that is under way.
    pub(crate) fn step(&self, point: Point, ranges: &Written, head: Option<Vec<u8>>) {
        let job = Job {
            step: Step {
                point,
                ranges: ranges.iter().collect(),
            },
            head,
        };
        let mut book = self.book();
        let Some(jobs) = book.jobs.clone() else {
            return;
        };
        book.busy = true;
        drop(book);
        // The thread ends by itself only after it has said why.
        let _ = jobs.send(job);
    }

    /// Some of the stream has passed, and said `ranges`. Without a point it can't be gone on with there.
    pub(crate) fn passed(&self, ranges: Vec<Range<u64>>, point: Option<u64>) {
        let mut book = self.book();
        if book.jobs.is_none() {
            return;
        }
        let Some(stream) = &mut book.stream else {
            return;
        };
        stream.waiting += ranges.len().max(1);
        stream.entries.push_back(Entry { ranges, point });
        if stream.waiting > MOST_WAITING {
            tracing::warn!("the image is in too many pieces: no more of it is written down");
            book.jobs = None;
            book.stream = None;
        }
    }

    /// The digest of the stream's bytes before `at` has this state.
    pub(crate) fn hashed(&self, at: u64, state: impl FnOnce() -> Vec<u8>) {
        let mut book = self.book();
        let Some(stream) = &mut book.stream else {
            return;
        };
        let mark = HashMark { at, state: state() };
        if !stream.anywhere {
            stream.latest = Some(mark);
            return;
        }
        let last = stream.marks.back().map_or(0, |mark| mark.at);
        if at >= last + MARK_EVERY {
            stream.marks.push_back(mark);
        }
    }

    /// The source is read once more, and what it says then has no digest.
    pub(crate) fn another_pass(&self) {
        let mut book = self.book();
        if book.stream.as_ref().is_some_and(|stream| stream.hashed) {
            book.jobs = None;
        }
    }

    /// Waits for the step that is under way; there are no more.
    pub(crate) fn stop(&self) {
        let mut book = self.book();
        book.jobs = None;
        let thread = book.thread.take();
        drop(book);
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// Bytes of the journal that were written.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.book().bytes_written
    }

    /// The transfer failed in a way that may pass. True if what is there is kept for the next one.
    pub(crate) fn keep(&self) -> bool {
        self.stop();
        let exists = self.book().exists;
        if !exists {
            self.abandon();
        }
        exists
    }

    /// The journal is of no use any more: removes it, and what it tells of.
    pub(crate) fn abandon(&self) {
        self.stop();
        let journal = discard(&self.0.place);
        let partial = self.0.partial.as_ref().map_or(Ok(()), std::fs::remove_file);
        for outcome in [journal, partial] {
            if let Err(error) = outcome
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "what is left of a failed import stays behind");
            }
        }
    }

    /// The disk is whole and has its name: removes the journal.
    pub(crate) fn complete(&self) {
        if let Err(error) = discard(&self.0.place) {
            tracing::warn!(%error, path = %self.0.place.path().display(), "the journal stays behind");
        }
    }
}

impl Passing {
    /// What has settled, in the order of the stream.
    fn collect(&mut self, settled: &mut Written) -> Option<(Point, Written)> {
        while let Some(entry) = self.entries.front()
            && entry.ranges.iter().all(|range| settled.covers(range))
        {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.waiting = self.waiting.saturating_sub(entry.ranges.len().max(1));
            self.point = entry.point.or(self.point);
            for range in entry.ranges {
                settled.remove(&range);
                self.carried.add(range);
            }
        }
        if self.carried.is_empty() {
            return None;
        }
        let point = match (self.hashed, self.anywhere) {
            (false, _) => Point {
                stream: self.point,
                hash: None,
            },
            // The stream is read from its start: the digest has to be that of all that was read.
            (true, false) => Point {
                stream: None,
                hash: Some(self.latest.clone()?),
            },
            (true, true) => {
                let point = self.point?;
                while self.marks.get(1).is_some_and(|next| next.at <= point) {
                    self.marks.pop_front();
                }
                let mark = self.marks.front().filter(|mark| mark.at <= point)?;
                Point {
                    stream: Some(mark.at),
                    hash: Some(mark.clone()),
                }
            }
        };
        Some((point, std::mem::take(&mut self.carried)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ranges: &[Range<u64>], point: u64) -> Entry {
        Entry {
            ranges: ranges.to_vec(),
            point: Some(point),
        }
    }

    fn settled(ranges: &[Range<u64>]) -> Written {
        let mut settled = Written::default();
        for range in ranges {
            settled.add(range.clone());
        }
        settled
    }

    fn passing(hashed: bool, anywhere: bool) -> Passing {
        Passing {
            hashed,
            anywhere,
            entries: VecDeque::from([
                entry(&[0..10, 50..60], 100),
                entry(&[], 200),
                entry(&[10..15, 15..20], 300),
            ]),
            ..Passing::default()
        }
    }

    #[test]
    fn a_stream_is_written_down_in_its_order() {
        let mut passing = passing(false, false);
        let mut there = settled(&[10..20, 50..60]);
        assert_eq!(passing.collect(&mut there), None);
        there.add(0..10);
        let (point, ranges) = passing.collect(&mut there).unwrap();
        assert_eq!(point.stream, Some(300));
        assert_eq!(ranges, settled(&[0..20, 50..60]));
        assert!(there.is_empty());
    }

    #[test]
    fn a_digest_goes_with_the_bytes_it_is_of() {
        let mark = |at| HashMark {
            at,
            state: vec![at as u8],
        };
        // From anywhere: the last one that is not beyond what has settled.
        let mut from_there = passing(true, true);
        from_there.marks = VecDeque::from([mark(40), mark(90), mark(210), mark(400)]);
        let mut there = settled(&[0..5, 5..10]);
        assert_eq!(from_there.collect(&mut there), None);
        there.add(50..60);
        let (point, ranges) = from_there.collect(&mut there).unwrap();
        assert_eq!((point.stream, point.hash), (Some(90), Some(mark(90))));
        assert_eq!(ranges, settled(&[0..10, 50..60]));
        // From the start: that of all that was read.
        let mut again = passing(true, false);
        assert_eq!(again.collect(&mut settled(&[])), None);
        again.latest = Some(mark(500));
        let (point, _) = again.collect(&mut settled(&[0..30, 30..60])).unwrap();
        assert_eq!((point.stream, point.hash), (None, Some(mark(500))));
    }
}
