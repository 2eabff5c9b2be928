//! Several ranged requests at the same time, and their bytes in order.
//!
//! For lines on which one connection gets only a part of what there is: long ones, where a window is
//! soon full, and lossy ones, where every loss slows one connection down. How many there are is decided
//! by what they bring (see [`super::pace`]), and limited by the memory for what comes before its turn.
//!
//! Each part is fetched, checked against the content's identity and tried again on its own; a part that
//! can't be had ends the fleet, with what came before it passed on.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use longshore_transfer::Allowance;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::error::HttpError;
use super::net::lost;
use super::pace::{Lap, Pace, per_second};
use super::pipe::{Feed, Unwanted};
use super::random::Fetch;

pub(crate) use self::gauge::Gauge;
use self::queue::{Asker, LEAST_PART, Next, Part, Queue};

mod gauge;
mod queue;

/// Parts are not larger: one connection may be much slower than the others.
const MOST_PART: u64 = 3 << 20;
/// What a broken request leaves goes to so many others at the most: each share costs a round trip.
const SHARES: usize = 4;
/// One stream is enough for less than this.
const WORTH_IT: u64 = 8 << 20;
/// What is passed on at once.
const PIECE: usize = 128 << 10;
/// A lap is no shorter, or it would tell of chance.
const LAP: Duration = Duration::from_millis(200);
/// How often somebody without work looks for what others are slow with.
const LOOK_AROUND: Duration = Duration::from_millis(500);
/// From this delay on a connection takes its time to show what it can do.
pub(crate) const LONG_LINE: Duration = Duration::from_millis(40);

/// What a fleet may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    /// Connections.
    most: usize,
    most_part: u64,
    /// For all parts that were not passed on.
    memory: u64,
}

impl Share {
    /// For up to `most` connections with `memory`. A third of it is for what comes before its turn, so that
    /// one slow connection does not hold up the others at once.
    fn of(most: usize, memory: u64) -> Option<Self> {
        let fit = usize::try_from(memory / LEAST_PART).unwrap_or(usize::MAX);
        let most = most.min(fit);
        let under_way = most as u64;
        let most_part = memory.checked_div(under_way + under_way / 2)?;
        let most_part = most_part.clamp(LEAST_PART, MOST_PART);
        let memory = memory.min(2 * under_way * most_part);
        (most >= 2).then_some(Self {
            most,
            most_part,
            memory,
        })
    }
}

/// How large a part is where each connection brings `rate` bytes a second: a second's worth. Of larger
/// ones the slowest would hold up the reader, and smaller ones are mostly round trips.
fn fitting(rate: u64, most_part: u64) -> u64 {
    rate.max(LEAST_PART).min(most_part)
}

/// Requests under way.
#[derive(Debug)]
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    boats: JoinSet<()>,
    /// Where the first part starts.
    first: u64,
    pace: Pace,
    lap: Watch,
    /// As many as people want at the most.
    limit: usize,
    allowance: Allowance,
}

/// What the reader and those who fetch have in common.
#[derive(Debug)]
struct Shared {
    fetch: Fetch,
    queue: Mutex<Queue>,
    /// All that may be under way have room if none is larger.
    most_part: AtomicU64,
    /// How many may fetch.
    width: AtomicUsize,
    /// Bytes that came.
    came: AtomicU64,
    /// There is something for the reader.
    news: Notify,
    /// There is room for a part, or one to ask for again.
    work: Notify,
}

/// The present lap.
#[derive(Debug)]
struct Watch {
    /// Before this new connections are only getting started.
    since: Instant,
    came: u64,
    waited: Duration,
    troubles: u32,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connection `number` works for ever.
    async fn sail(self: Arc<Self>, number: usize) {
        // A connection is slow at first, and all behind its first part would wait for that.
        let mut most = LEAST_PART;
        let mut warm = false;
        let mut fetch = self.fetch.clone();
        loop {
            let mut part = self.part(number, most, &mut warm).await;
            let mut parcel = Parcel::of(&self, &part);
            let outcome = fetch
                .more(part.start, part.len, |bytes| parcel.add(bytes))
                .await;
            parcel.send();
            let brought = parcel.brought;
            self.set_warm(&mut warm, outcome.is_ok());
            most = if warm {
                let most_part = self.most_part.load(Ordering::Relaxed);
                fitting(parcel.rate(), most_part)
            } else {
                LEAST_PART
            };
            let (again, others) = match outcome {
                Ok(()) if brought == part.len => continue,
                Ok(()) => (Ok(Duration::ZERO), false),
                Err(e) => {
                    let (start, len) = (part.start, part.len);
                    // This connection broke. What the others do tells about the server.
                    let others = e.is_of_the_line() && part.attempts.failed() == 0;
                    let again = fetch.again(e, &mut part.attempts, start, len, brought);
                    fetch.go_alone();
                    (again, others)
                }
            };
            match again {
                Ok(pause) if others => {
                    self.hand_back(&part);
                    tokio::time::sleep(pause).await;
                }
                Ok(pause) => {
                    tokio::time::sleep(pause).await;
                    self.hand_back(&part);
                }
                Err(e) => {
                    self.queue().fail(part.name, e);
                    self.news.notify_one();
                }
            }
        }
    }

    /// What `part` still lacks is for whoever is free.
    fn hand_back(&self, part: &Part) {
        let shares = self.width.load(Ordering::Relaxed).min(SHARES);
        self.queue().broke(part.name, &part.attempts, shares);
        self.work.notify_waiters();
        self.news.notify_one();
    }

    /// Waits for a part to ask for, of `most` bytes if it is a new one.
    async fn part(&self, number: usize, most: u64, warm: &mut bool) -> Part {
        loop {
            let mut work = std::pin::pin!(self.work.notified());
            // Whatever happens from here on is heard of.
            work.as_mut().enable();
            if number < self.width.load(Ordering::Relaxed) {
                let asker = Asker {
                    most,
                    warm: *warm,
                    now: Instant::now(),
                };
                if let Some(part) = self.queue().take(asker) {
                    return part;
                }
            } else {
                // Others must not leave work to it.
                self.set_warm(warm, false);
            }
            // Somebody may have become slow meanwhile.
            let _ = tokio::time::timeout(LOOK_AROUND, work).await;
        }
    }

    fn set_warm(&self, was: &mut bool, is: bool) {
        if *was != is {
            self.queue().set_warm(is);
            self.work.notify_waiters();
            *was = is;
        }
    }
}

/// What comes of one request, on its way to the queue.
struct Parcel<'a> {
    shared: &'a Shared,
    name: u64,
    start: u64,
    len: u64,
    bytes: BytesMut,
    brought: u64,
    asked: Instant,
    /// When half of it had come, and how much that was.
    half: Option<(Instant, u64)>,
}

impl<'a> Parcel<'a> {
    fn of(shared: &'a Shared, part: &Part) -> Self {
        Self {
            shared,
            name: part.name,
            start: part.start,
            len: part.len,
            bytes: BytesMut::new(),
            brought: 0,
            asked: Instant::now(),
            half: None,
        }
    }

    /// Bytes a second, now that all was sent. In the second half, if it can be told: before that a new
    /// connection was slower than it is now, and every one waited for the first byte.
    fn rate(&self) -> u64 {
        let (since, before) = match self.half {
            Some((since, before)) if (self.brought - before) * 4 >= self.brought => (since, before),
            _ => (self.asked, 0),
        };
        per_second(self.brought - before, since.elapsed())
    }

    fn add(&mut self, mut bytes: &[u8]) {
        let there = self.brought + (self.bytes.len() + bytes.len()) as u64;
        if self.half.is_none() && there * 2 >= self.len {
            self.half = Some((Instant::now(), there));
        }
        while !bytes.is_empty() {
            if self.bytes.capacity() == 0 {
                self.bytes.reserve(PIECE);
            }
            let room = PIECE - self.bytes.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.bytes.extend_from_slice(now);
            bytes = later;
            if self.bytes.len() == PIECE {
                self.send();
            }
        }
    }

    fn send(&mut self) {
        let bytes: Bytes = std::mem::take(&mut self.bytes).freeze();
        if bytes.is_empty() {
            return;
        }
        let n = bytes.len() as u64;
        let start = self.start + self.brought;
        self.brought += n;
        self.shared.came.fetch_add(n, Ordering::Relaxed);
        if self.shared.queue().put(self.name, start, bytes) {
            self.shared.news.notify_one();
        }
    }
}

impl Fleet {
    /// A fleet for what comes after the next part, which is left to the one connection there is, so
    /// that nobody waits while the others start. `None` if it is not worth it, or there is no memory.
    pub(crate) fn start(
        fetch: Fetch,
        at: u64,
        end: u64,
        rate: u64,
        most: usize,
        allowance: &Allowance,
    ) -> Option<Self> {
        if end.saturating_sub(at) < WORTH_IT {
            return None;
        }
        let limit = most;
        let share = Share::of(limit, allowance.bytes())?;
        let part = fitting(rate, share.most_part);
        let long = fetch.agent.delay() >= LONG_LINE;
        let pace = Pace::new(rate, share.most, long);
        let first = at.saturating_add(part);
        let queue = Queue::new(first, end, share.memory, fetch.attempts());
        let troubles = fetch.troubles.load(Ordering::Relaxed);
        let shared = Arc::new(Shared {
            fetch,
            queue: Mutex::new(queue),
            most_part: AtomicU64::new(share.most_part),
            width: AtomicUsize::new(0),
            came: AtomicU64::new(0),
            news: Notify::new(),
            work: Notify::new(),
        });
        tracing::debug!(rate, ?share, part, "one connection is slow: trying several");
        let mut fleet = Self {
            shared,
            boats: JoinSet::new(),
            first,
            pace,
            lap: Watch {
                since: Instant::now(),
                came: 0,
                waited: Duration::ZERO,
                troubles,
            },
            limit,
            allowance: allowance.clone(),
        };
        fleet.launch();
        Some(fleet)
    }

    /// Where the first part starts.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The one connection there was is gone: all from `at` is for the fleet.
    pub(crate) fn take_over(&mut self, at: u64) {
        self.shared.queue().add_front(at, self.first);
        self.first = at;
        self.shared.work.notify_waiters();
    }

    /// As many as the pace says, from now on.
    fn launch(&mut self) {
        let width = self.pace.width();
        self.shared.width.store(width, Ordering::Relaxed);
        while self.boats.len() < width {
            let number = self.boats.len();
            self.boats.spawn(Arc::clone(&self.shared).sail(number));
        }
        self.shared.work.notify_waiters();
        self.look(self.shared.fetch.agent.delay() * 3);
    }

    /// Starts a lap after `pause`.
    fn look(&mut self, pause: Duration) {
        self.lap = Watch {
            since: Instant::now() + pause,
            came: self.shared.came.load(Ordering::Relaxed),
            waited: Duration::ZERO,
            ..self.lap
        };
    }

    /// Passes on all there is from the first part to the end; `passed` hears of every piece.
    pub(crate) async fn run(
        &mut self,
        feed: &mut Feed,
        mut passed: impl FnMut(u64),
    ) -> Result<Result<(), Unwanted>, HttpError> {
        loop {
            let next = self.shared.queue().next();
            match next {
                Next::Bytes(bytes) => {
                    if let Err(gone) = feed.send(&bytes).await {
                        return Ok(Err(gone));
                    }
                    passed(bytes.len() as u64);
                    self.shared.work.notify_waiters();
                }
                Next::Nothing => {
                    if let Err(gone) = feed.flush() {
                        return Ok(Err(gone));
                    }
                    let asked = Instant::now();
                    tokio::select! {
                        () = self.shared.news.notified() => {}
                        // They only end by a fault of ours.
                        _ = self.boats.join_next() => return Err(lost()),
                    }
                    // What was before the lap is not of it.
                    self.lap.waited += asked.max(self.lap.since).elapsed();
                }
                Next::Failed(error) => return Err(error),
                Next::End => return Ok(Ok(())),
            }
            self.judge();
        }
    }

    /// The memory there is now.
    fn measure(&mut self) {
        let share = Share::of(self.limit, self.allowance.bytes());
        // It goes on with little where it has begun.
        let (most_part, memory) = share.map_or((LEAST_PART, 0), |s| (s.most_part, s.memory));
        if self.shared.queue().set_memory(memory) {
            self.shared.most_part.store(most_part, Ordering::Relaxed);
            self.shared.work.notify_waiters();
        }
    }

    /// Looks back on the lap, if it is over.
    fn judge(&mut self) {
        self.measure();
        let now = Instant::now();
        let came = self.shared.came.load(Ordering::Relaxed);
        let Some(took) = now.checked_duration_since(self.lap.since) else {
            // Not begun.
            self.lap.came = came;
            return;
        };
        if took < LAP.max(self.shared.fetch.agent.delay() * 2) {
            return;
        }
        let troubles = self.shared.fetch.troubles.load(Ordering::Relaxed);
        let lap = Lap {
            bytes: came.saturating_sub(self.lap.came),
            took,
            waited: self.lap.waited,
            troubles: troubles.wrapping_sub(self.lap.troubles),
        };
        self.lap.troubles = troubles;
        let before = self.pace.width();
        self.pace.lap(&lap);
        if self.pace.width() == before {
            self.look(Duration::ZERO);
        } else {
            tracing::debug!(before, now = self.pace.width(), ?lap, "connections");
            self.launch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_fit_into_the_memory_there_is() {
        const KIB: u64 = 1 << 10;
        for (most, memory, expected) in [
            (16, 0, None),
            (16, 511 * KIB, None),
            (16, 512 * KIB, Some((2, 256 * KIB, 512 * KIB))),
            (16, 1024 * KIB, Some((4, 256 * KIB, 1024 * KIB))),
            (16, 24 << 20, Some((16, 1024 * KIB, 24 << 20))),
            (16, 1 << 40, Some((16, 3 << 20, 96 << 20))),
            (4, 3 << 20, Some((4, 512 * KIB, 3 << 20))),
            (1, 1 << 40, None),
            (0, 1 << 40, None),
        ] {
            let share = Share::of(most, memory);
            let found = share.map(|s| (s.most, s.most_part, s.memory));
            assert_eq!(found, expected, "{most} {memory}");
            if let Some((most, part, taken)) = found {
                assert!(most as u64 * part <= taken && taken <= memory);
            }
        }
    }

    #[test]
    fn parts_take_about_a_second() {
        assert_eq!(fitting(0, MOST_PART), LEAST_PART);
        assert_eq!(fitting(2_000_000, MOST_PART), 2_000_000);
        assert_eq!(fitting(2_000_000, 600_000), 600_000);
        assert_eq!(fitting(u64::MAX, MOST_PART), MOST_PART);
    }
}
