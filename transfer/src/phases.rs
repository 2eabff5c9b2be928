//! Where the time of a transfer goes: what its threads spent on what, added up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time per kind of work, summed over threads: on several threads it is more than the transfer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Reading the source, tables aside.
    pub read: Duration,
    /// Decompressing, compressing, hashing and looking for zeros.
    pub decode: Duration,
    /// Writing the target.
    pub write: Duration,
    /// The part of writing that was waiting for storage, so that no more than a little is unwritten.
    pub write_back: Duration,
    /// The final fsync and rename.
    pub flush: Duration,
}

/// Stopwatches that all stages share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clocks(Arc<[AtomicU64; 3]>);

/// Kinds of work that are timed by whoever does them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    Read,
    Decode,
    Write,
}

impl Clocks {
    /// Does `work`, which is of this kind.
    pub(crate) fn time<T>(&self, kind: Work, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.add(kind, started.elapsed());
        done
    }

    /// Adds what was timed elsewhere.
    pub(crate) fn add(&self, kind: Work, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0[kind as usize].fetch_add(nanos, Ordering::Relaxed);
    }

    fn of(&self, kind: Work) -> Duration {
        Duration::from_nanos(self.0[kind as usize].load(Ordering::Relaxed))
    }

    /// All of it.
    pub(crate) fn read_out(&self, write_back: Duration, flush: Duration) -> Phases {
        Phases {
            read: self.of(Work::Read),
            decode: self.of(Work::Decode),
            write: self.of(Work::Write),
            write_back,
            flush,
        }
    }
}
