//! How far a transfer is: counters that stages raise, and what is shown of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No length is known.
const UNKNOWN: u64 = u64::MAX;

#[derive(Debug)]
struct Counters {
    read: AtomicU64,
    stream_pos: AtomicU64,
    stream_len: AtomicU64,
    resolved: AtomicU64,
    size: AtomicU64,
    written: AtomicU64,
    spilled: Arc<AtomicU64>,
    pass: AtomicU32,
    done: AtomicBool,
    resumed: AtomicU64,
    rereads: AtomicBool,
    kept: AtomicBool,
}

/// Counters of one transfer. Clones share them.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Counters>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Counters {
            read: AtomicU64::new(0),
            stream_pos: AtomicU64::new(0),
            stream_len: AtomicU64::new(UNKNOWN),
            resolved: AtomicU64::new(0),
            size: AtomicU64::new(UNKNOWN),
            written: AtomicU64::new(0),
            spilled: Arc::default(),
            pass: AtomicU32::new(0),
            done: AtomicBool::new(false),
            resumed: AtomicU64::new(0),
            rereads: AtomicBool::new(false),
            kept: AtomicBool::new(false),
        }))
    }
}

impl Progress {
    /// What the counters say now.
    pub fn snapshot(&self) -> Snapshot {
        let c = &self.0;
        let known = |n: u64| (n != UNKNOWN).then_some(n);
        let stream_len = known(c.stream_len.load(Ordering::Relaxed));
        let size = known(c.size.load(Ordering::Relaxed));
        let (done, pass) = (
            c.done.load(Ordering::Relaxed),
            c.pass.load(Ordering::Relaxed),
        );
        let resolved = c.resolved.load(Ordering::Relaxed);
        let position = c.stream_pos.load(Ordering::Relaxed);
        // Random access knows how much of the disk is settled; a stream how much of it has passed.
        let (at, of) = if pass > 0 {
            (position, stream_len)
        } else {
            (resolved, size)
        };
        let fraction = match of {
            _ if done => Some(1.0),
            Some(0) => Some(0.0),
            Some(of) => Some((at as f64 / of as f64).min(0.999)),
            None => None,
        };
        Snapshot {
            fraction,
            read: c.read.load(Ordering::Relaxed),
            written: c.written.load(Ordering::Relaxed),
            spilled: c.spilled.load(Ordering::Relaxed),
            resolved,
            size,
            stream_len,
            pass,
            done,
            resumed: c.resumed.load(Ordering::Relaxed),
            rereads: c.rereads.load(Ordering::Relaxed),
            kept: c.kept.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn add_read(&self, n: u64) {
        self.0.read.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn add_streamed(&self, n: u64) {
        self.add_read(n);
        self.0.stream_pos.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn add_resolved(&self, n: u64) {
        self.0.resolved.fetch_add(n, Ordering::Relaxed);
    }

    /// Bytes were written to the target.
    pub fn add_written(&self, n: u64) {
        self.0.written.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.0.size.store(size, Ordering::Relaxed);
    }

    pub(crate) fn begin_pass(&self, pass: u32, len: Option<u64>) {
        self.0.stream_pos.store(0, Ordering::Relaxed);
        self.0
            .stream_len
            .store(len.unwrap_or(UNKNOWN), Ordering::Relaxed);
        self.0.pass.store(pass, Ordering::Relaxed);
    }

    /// The stream goes on at `at`; what is before was read by an earlier run.
    pub(crate) fn begin_at(&self, at: u64) {
        self.0.stream_pos.store(at, Ordering::Relaxed);
    }

    /// So many bytes of the disk are there from an earlier run.
    pub(crate) fn set_resumed(&self, bytes: u64) {
        self.0.resumed.store(bytes, Ordering::Relaxed);
    }

    /// The source is read from its start although some of the disk is there.
    pub(crate) fn set_rereads(&self) {
        self.0.rereads.store(true, Ordering::Relaxed);
    }

    /// What is done so far would not have to be done again.
    pub(crate) fn set_kept(&self, kept: bool) {
        self.0.kept.store(kept, Ordering::Relaxed);
    }

    /// All is durable.
    pub fn set_done(&self) {
        self.0.done.store(true, Ordering::Relaxed);
    }

    pub(crate) fn spilled(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.spilled)
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Share that is done, 0 to 1; exactly 1 only after the final fsync and rename. `None` while
    /// nothing tells the whole.
    pub fraction: Option<f64>,
    /// Bytes read from the source, side reads and repeated passes included.
    pub read: u64,
    /// Bytes written to the target.
    pub written: u64,
    /// Bytes that waited in the spill file.
    pub spilled: u64,
    /// Guest bytes settled, zeros included.
    pub resolved: u64,
    /// Size of the disk.
    pub size: Option<u64>,
    /// Length of the stream.
    pub stream_len: Option<u64>,
    /// Which pass over a stream this is; 0 with random access.
    pub pass: u32,
    /// All is durable.
    pub done: bool,
    /// Bytes of the disk that an earlier run had done.
    pub resumed: u64,
    /// What came of that is read again, and not written again: the source, or what is around its image,
    /// can't be gone on with in the middle.
    pub rereads: bool,
    /// Something is written down that the next run goes on from, should this one end early.
    pub kept: bool,
}

impl Snapshot {
    /// All bytes are there, and are being made durable.
    pub fn is_finishing(&self) -> bool {
        !self.done && self.fraction.is_some_and(|share| share >= 0.999)
    }

    /// `copying`, `finishing` or `done`.
    pub fn phase(&self) -> &'static str {
        if self.done {
            "done"
        } else if self.is_finishing() {
            "finishing"
        } else {
            "copying"
        }
    }
}

/// Counts what happens now and then, such as requests that are made again. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<AtomicU64>);

impl Tally {
    /// Once more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What to show of a [`Snapshot`]: smoothed rate, time left, and a share that never falls.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    last: Instant,
    last_read: u64,
    rate: f64,
    highest: f64,
}

/// One reading of a [`Meter`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Share that is done, 0 to 1; never falls.
    pub fraction: Option<f64>,
    /// Bytes per second read from the source, smoothed.
    pub rate: f64,
    /// Time left at the pace so far.
    pub eta: Option<Duration>,
    /// Time since the start.
    pub elapsed: Duration,
}

impl Meter {
    /// A meter started at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            last: now,
            last_read: 0,
            rate: 0.0,
            highest: 0.0,
        }
    }

    /// Takes in what the counters say at `now`.
    pub fn read(&mut self, snapshot: &Snapshot, now: Instant) -> Reading {
        let elapsed = now.saturating_duration_since(self.started);
        let since = now.saturating_duration_since(self.last).as_secs_f64();
        if since > 0.0 {
            let current = snapshot.read.saturating_sub(self.last_read) as f64 / since;
            // The older the last reading, the less it counts: half of it is gone after 3 s.
            let keep = if self.rate == 0.0 {
                0.0
            } else {
                0.5f64.powf(since / 3.0)
            };
            self.rate = self.rate * keep + current * (1.0 - keep);
            self.last = now;
            self.last_read = snapshot.read;
        }
        let fraction = snapshot.fraction.map(|f| {
            self.highest = self.highest.max(f);
            self.highest
        });
        let eta = fraction
            .filter(|f| *f > 0.001 && elapsed.as_secs_f64() > 0.5)
            .and_then(|f| Duration::try_from_secs_f64(elapsed.as_secs_f64() * (1.0 - f) / f).ok());
        Reading {
            fraction,
            rate: self.rate,
            eta,
            elapsed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_never_falls_and_is_whole_only_when_durable() {
        let progress = Progress::default();
        let start = Instant::now();
        let mut meter = Meter::new(start);
        assert_eq!(meter.read(&progress.snapshot(), start).fraction, None);
        progress.begin_pass(1, Some(1000));
        progress.add_streamed(1000);
        let at = |s| start + Duration::from_secs(s);
        let full = meter.read(&progress.snapshot(), at(1)).fraction.unwrap();
        assert!(full < 1.0, "all read is not all done");
        progress.begin_pass(2, Some(1000));
        progress.add_streamed(10);
        let second = meter.read(&progress.snapshot(), at(2)).fraction.unwrap();
        assert!(second >= full, "a second pass does not go back");
        progress.set_done();
        assert_eq!(meter.read(&progress.snapshot(), at(3)).fraction, Some(1.0));
    }

    #[test]
    fn rate_and_time_left_follow_the_bytes() {
        let progress = Progress::default();
        let start = Instant::now();
        let mut meter = Meter::new(start);
        progress.begin_pass(1, Some(1000 << 20));
        for s in 1..=10 {
            progress.add_streamed(10 << 20);
            let reading = meter.read(&progress.snapshot(), start + Duration::from_secs(s));
            let rate = reading.rate / f64::from(10 << 20);
            assert!((0.99..1.01).contains(&rate), "{rate}");
            let eta = reading.eta.unwrap().as_secs();
            assert!(eta.abs_diff(100 - s) <= 1, "{eta} at {s}");
        }
    }
}
