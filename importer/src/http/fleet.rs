//! Several ranged requests at the same time, and their bytes in order.
//!
//! For lines on which one connection gets only a part of what there is: long ones, where a window is
//! soon full, and lossy ones, where every loss slows one connection down. How many there are is decided
//! by what they bring (see [`super::pace`]), and limited by the memory for parts that wait for others.
//!
//! Each part is fetched, checked against the content's identity and tried again on its own; a part that
//! can't be had ends the fleet, with what came before it passed on.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::error::HttpError;
use super::net::lost;
use super::pace::{Lap, Pace, per_second};
use super::pipe::{Feed, Unwanted};
use super::random::Fetch;

/// Parts are not smaller: each costs a round trip.
const LEAST_PART: u64 = 256 << 10;
/// Nor larger: what waits for its turn is memory.
const MOST_PART: u64 = 3 << 20;
/// One stream is enough for less than this.
const WORTH_IT: u64 = 8 << 20;
/// What is passed on at once.
const PIECE: usize = 256 << 10;
/// A lap is no shorter, or it would tell of chance.
const LAP: Duration = Duration::from_millis(200);

/// How one connection does, until there is enough to judge it by.
#[derive(Debug)]
pub(crate) struct Gauge {
    since: Instant,
    bytes: u64,
    waited: Duration,
}

impl Gauge {
    /// Judged by less than this a connection that has only just begun looks slow.
    const LEAST_TIME: Duration = Duration::from_millis(500);
    const LEAST_BYTES: u64 = 1 << 20;

    pub(crate) fn start() -> Self {
        Self {
            since: Instant::now(),
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// `bytes` came after `waited`.
    pub(crate) fn came(&mut self, bytes: u64, waited: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited += waited;
    }

    /// Bytes a second, if the reader was waiting for the line most of the time.
    pub(crate) fn slow_line(&self) -> Option<u64> {
        let took = self.since.elapsed();
        let judged = took >= Self::LEAST_TIME && self.bytes >= Self::LEAST_BYTES;
        (judged && self.waited > took.mul_f64(0.7)).then(|| per_second(self.bytes, took))
    }
}

/// How many parts at the most, and how large, so that all of them fit into `memory`.
fn parts(most: usize, memory: u64) -> Option<(usize, u64)> {
    let fit = usize::try_from(memory / LEAST_PART).unwrap_or(usize::MAX);
    let most = most.min(fit);
    let part = memory.checked_div(most as u64)?.min(MOST_PART);
    (most >= 2).then_some((most, part))
}

/// How large a part is where each connection brings `rate` bytes a second: half a second's worth. Larger
/// ones tell late what more connections would bring, and smaller ones are mostly round trips.
fn fitting(rate: u64, most_part: u64) -> u64 {
    (rate / 2).max(LEAST_PART).min(most_part)
}

/// Requests under way.
#[derive(Debug)]
pub(crate) struct Fleet {
    fetch: Fetch,
    /// In the order of their parts.
    flights: VecDeque<Flight>,
    /// Where the first part starts.
    first: u64,
    /// Where the next one to ask for does.
    next: u64,
    end: u64,
    part: u64,
    /// All that may be under way have room if none is larger.
    most_part: u64,
    /// When the first were asked for.
    since: Instant,
    pace: Pace,
    /// Of `fetch.troubles`, those that were taken into account.
    troubles: u32,
}

#[derive(Debug)]
struct Flight(JoinHandle<Result<Bytes, HttpError>>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.abort();
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
        memory: u64,
    ) -> Option<Self> {
        if end.saturating_sub(at) < WORTH_IT {
            return None;
        }
        let (most, part) = parts(most, memory)?;
        let most_part = part;
        let part = fitting(rate, most_part);
        let troubles = fetch.troubles.load(Ordering::Relaxed);
        let mut fleet = Self {
            fetch,
            flights: VecDeque::new(),
            first: at.saturating_add(part),
            next: at.saturating_add(part),
            end,
            part,
            most_part,
            since: Instant::now(),
            pace: Pace::new(rate, most),
            troubles,
        };
        tracing::debug!(rate, most, part, "one connection is slow: trying several");
        fleet.fill();
        Some(fleet)
    }

    /// Where the first part starts.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    fn fill(&mut self) {
        while self.flights.len() < self.pace.width() && self.next < self.end {
            let (start, len) = (self.next, self.part.min(self.end - self.next));
            let fetch = self.fetch.clone();
            let flight = tokio::spawn(async move { fetch.range(start, len).await });
            self.flights.push_back(Flight(flight));
            self.next += len;
        }
    }

    /// Passes on all there is from the first part to the end; `passed` hears of every piece.
    pub(crate) async fn run(
        &mut self,
        feed: &mut Feed,
        mut passed: impl FnMut(u64),
    ) -> Result<Result<(), Unwanted>, HttpError> {
        // The first parts have been coming since they were asked for, while the one connection was read.
        let mut lap = Gauge::start();
        lap.since = self.since;
        lap.waited = self.since.elapsed();
        let mut parts = 0;
        while let Some(mut flight) = self.flights.pop_front() {
            let asked = Instant::now();
            if !flight.0.is_finished()
                && let Err(gone) = feed.flush()
            {
                return Ok(Err(gone));
            }
            let mut bytes = (&mut flight.0).await.map_err(|_| lost())??;
            lap.came(bytes.len() as u64, asked.elapsed());
            while !bytes.is_empty() {
                let piece = bytes.split_to(PIECE.min(bytes.len()));
                if let Err(gone) = feed.send(&piece).await {
                    return Ok(Err(gone));
                }
                passed(piece.len() as u64);
            }
            parts += 1;
            // Twice around: what was under way at the start of a lap tells of the one before.
            if parts >= 2 * self.pace.width() && lap.since.elapsed() >= LAP {
                self.judge(&lap);
                lap = Gauge::start();
                parts = 0;
            }
            self.fill();
        }
        Ok(Ok(()))
    }

    fn judge(&mut self, lap: &Gauge) {
        let troubles = self.fetch.troubles.load(Ordering::Relaxed);
        let before = self.pace.width();
        self.pace.lap(&Lap {
            bytes: lap.bytes,
            took: lap.since.elapsed(),
            waited: lap.waited,
            troubles: troubles.wrapping_sub(self.troubles),
        });
        self.troubles = troubles;
        let rate = per_second(lap.bytes, lap.since.elapsed());
        self.part = fitting(rate / before.max(1) as u64, self.most_part);
        if self.pace.width() != before {
            tracing::debug!(before, now = self.pace.width(), ?lap, "connections");
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
            (16, 512 * KIB, Some((2, 256 * KIB))),
            (16, 1024 * KIB, Some((4, 256 * KIB))),
            (16, 16 << 20, Some((16, 1 << 20))),
            (16, 1 << 40, Some((16, 3 << 20))),
            (4, 2 << 20, Some((4, 512 * KIB))),
            (1, 1 << 40, None),
            (0, 1 << 40, None),
        ] {
            assert_eq!(parts(most, memory), expected, "{most} {memory}");
            if let Some((most, part)) = expected {
                assert!(most as u64 * part <= memory);
            }
        }
    }

    #[test]
    fn parts_take_about_half_a_second() {
        assert_eq!(fitting(0, MOST_PART), LEAST_PART);
        assert_eq!(fitting(2_000_000, MOST_PART), 1_000_000);
        assert_eq!(fitting(2_000_000, 600_000), 600_000);
        assert_eq!(fitting(u64::MAX, MOST_PART), MOST_PART);
    }

    #[test]
    fn a_connection_is_judged_only_after_a_while() {
        let mut gauge = Gauge::start();
        gauge.came(10 << 20, Duration::from_secs(10));
        assert_eq!(gauge.slow_line(), None);
        gauge.since = Instant::now().checked_sub(Duration::from_secs(11)).unwrap();
        assert!(gauge.slow_line().is_some_and(|rate| rate > 900_000));
        gauge.waited = Duration::from_secs(5);
        assert_eq!(gauge.slow_line(), None);
    }
}
