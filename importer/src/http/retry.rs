//! How often, and after which pause, to try again.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::error::{HttpError, Retry};
use crate::SourceOptions;

/// Before the first byte kubelet's restarts take over: clients watch their count.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Headway that earns a fresh set of attempts. With less, a server that cuts every connection after
/// a few bytes would keep us for ever.
const HEADWAY: u64 = 1 << 20;
/// The pause does not grow beyond this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    pub(crate) retries: u32,
    pub(crate) first_pause: Duration,
}

impl Policy {
    pub(crate) fn of(options: &SourceOptions) -> Self {
        Self {
            retries: options.retries,
            first_pause: options.backoff,
        }
    }
}

/// Attempts at one piece of work. A copy is for a share of it.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    policy: Policy,
    failed: u32,
    headway: u64,
    /// No attempt starts after this.
    until: Option<Instant>,
}

impl Attempts {
    pub(crate) fn new(policy: Policy, until: Option<Instant>) -> Self {
        Self {
            policy,
            failed: 0,
            headway: 0,
            until,
        }
    }

    /// Bytes came.
    pub(crate) fn headway(&mut self, bytes: u64) {
        self.headway = self.headway.saturating_add(bytes);
        if self.headway >= HEADWAY {
            self.headway = 0;
            self.failed = 0;
        }
    }

    /// Attempts that failed since there was headway.
    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }

    /// An attempt failed: the pause before the next, or `None` to give up. `dice` is 0 to 1.
    pub(crate) fn pause(&mut self, error: &HttpError, now: Instant, dice: f64) -> Option<Duration> {
        self.failed = self.failed.saturating_add(1);
        if error.retry() != Retry::Transient || self.failed > self.policy.retries {
            return None;
        }
        let doublings = (self.failed - 1).min(16);
        let pause = self.policy.first_pause.saturating_mul(1 << doublings);
        let mut pause = pause
            .min(LONGEST_PAUSE)
            .mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0);
        if let HttpError::Status {
            wait: Some(wait), ..
        }
        | HttpError::Said {
            wait: Some(wait), ..
        } = error
        {
            pause = pause.max((*wait).min(LONGEST_PAUSE));
        }
        match self.until {
            Some(until) if now.checked_add(pause).is_none_or(|then| then > until) => None,
            _ => Some(pause),
        }
    }
}

/// The pause after an attempt that brought `bytes` before the connection broke: none if it was worth the
/// connection. Whoever cuts them now and then is not overloaded, and all parts behind this one wait.
pub(crate) fn after_headway(pause: Duration, error: &HttpError, bytes: u64) -> Duration {
    const WORTH_IT: u64 = 256 << 10;
    if bytes >= WORTH_IT && error.is_of_the_line() {
        return Duration::ZERO;
    }
    pause
}

/// A number from 0 to 1 that differs between processes: pods that failed together must not come back
/// together.
pub(crate) fn dice() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 32;
    u32::try_from(bits).map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        retries: 3,
        first_pause: Duration::from_secs(1),
    };

    fn status(status: u16, wait: Option<Duration>) -> HttpError {
        HttpError::Status {
            host: "h".into(),
            status,
            hint: "",
            wait,
        }
    }

    #[test]
    fn pauses_double_and_end() {
        let mut attempts = Attempts::new(POLICY, None);
        let now = Instant::now();
        let error = status(503, None);
        let pauses: Vec<_> = (0..4).map(|_| attempts.pause(&error, now, 1.0)).collect();
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(pauses, [seconds(1), seconds(2), seconds(4), None]);
        assert_eq!(attempts.failed(), 4);
    }

    #[test]
    fn jitter_takes_up_to_half_off() {
        let pause = Attempts::new(POLICY, None).pause(&status(500, None), Instant::now(), 0.0);
        assert_eq!(pause, Some(Duration::from_millis(500)));
        assert!((0..100).map(|_| dice()).all(|d| (0.0..=1.0).contains(&d)));
    }

    #[test]
    fn only_real_headway_earns_fresh_attempts() {
        let mut attempts = Attempts::new(POLICY, None);
        let error = status(503, None);
        for _ in 0..3 {
            assert!(attempts.pause(&error, Instant::now(), 1.0).is_some());
            attempts.headway(1000);
        }
        assert!(attempts.pause(&error, Instant::now(), 1.0).is_none());
        attempts.headway(HEADWAY);
        assert_eq!(attempts.failed(), 0);
        assert!(attempts.pause(&error, Instant::now(), 1.0).is_some());
    }

    #[test]
    fn what_will_not_get_better_is_not_tried_again() {
        for code in [400, 401, 403, 404, 407, 410, 416, 501, 505] {
            let pause = Attempts::new(POLICY, None).pause(&status(code, None), Instant::now(), 1.0);
            assert_eq!(pause, None, "{code}");
        }
        for code in [408, 429, 500, 502, 503, 504] {
            let pause = Attempts::new(POLICY, None).pause(&status(code, None), Instant::now(), 1.0);
            assert!(pause.is_some(), "{code}");
        }
    }

    #[test]
    fn no_attempt_starts_after_the_deadline_and_servers_set_the_pace() {
        let now = Instant::now();
        let mut attempts = Attempts::new(POLICY, Some(now + Duration::from_millis(1500)));
        assert!(attempts.pause(&status(500, None), now, 1.0).is_some());
        assert!(attempts.pause(&status(500, None), now, 1.0).is_none());
        let asked = status(429, Some(Duration::from_secs(7)));
        let pause = Attempts::new(POLICY, None).pause(&asked, now, 1.0);
        assert_eq!(pause, Some(Duration::from_secs(7)));
        let forever = status(429, Some(Duration::from_hours(1)));
        let pause = Attempts::new(POLICY, None).pause(&forever, now, 1.0);
        assert_eq!(pause, Some(LONGEST_PAUSE));
    }
}
