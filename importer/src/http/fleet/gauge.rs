//! How one connection does.

use std::time::{Duration, Instant};

use crate::http::pace::per_second;

/// Bytes, and how long the reader waited for them, across connections that break.
#[derive(Debug)]
pub(crate) struct Gauge {
    since: Instant,
    bytes: u64,
    waited: Duration,
}

impl Gauge {
    /// Judged by less than this a connection that has only just begun looks slow.
    const LEAST_TIME: Duration = Duration::from_millis(300);
    const LEAST_BYTES: u64 = 256 << 10;
    /// After so long it is measured anew: lines change.
    const LONG: Duration = Duration::from_secs(3);

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

    /// Bytes a second, if the reader was waiting for the line most of the time. On a `long` line every
    /// connection is slow at first.
    pub(crate) fn slow_line(&mut self, long: bool) -> Option<u64> {
        let took = self.since.elapsed();
        let seen = took >= Self::LEAST_TIME && self.bytes >= Self::LEAST_BYTES;
        if !seen && !long {
            return None;
        }
        let slow = self.waited > took.mul_f64(0.7);
        let rate = per_second(self.bytes, took);
        if took > Self::LONG {
            *self = Self::start();
        }
        slow.then_some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(seconds: u64) -> Instant {
        Instant::now()
            .checked_sub(Duration::from_secs(seconds))
            .unwrap()
    }

    #[test]
    fn a_connection_is_judged_only_after_a_while() {
        let mut gauge = Gauge::start();
        gauge.came(10 << 20, Duration::from_secs(10));
        assert_eq!(gauge.slow_line(false), None);
        assert!(gauge.slow_line(true).is_some());
        gauge.since = ago(11);
        assert!(gauge.slow_line(false).is_some_and(|rate| rate > 900_000));
    }

    #[test]
    fn a_reader_that_was_busy_says_nothing_of_the_line() {
        let mut gauge = Gauge::start();
        gauge.came(10 << 20, Duration::from_secs(1));
        gauge.since = ago(2);
        assert_eq!(gauge.slow_line(false), None);
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut gauge = Gauge::start();
        gauge.came(10 << 20, Duration::from_secs(1));
        gauge.since = ago(100);
        assert_eq!(gauge.slow_line(false), None);
        gauge.came(1 << 20, Duration::from_secs(1));
        gauge.since = ago(1);
        assert!(gauge.slow_line(false).is_some());
    }
}
