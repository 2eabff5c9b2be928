//! How many requests to have under way at the same time: more for as long as more bring more.
//!
//! A decision and nothing else; it neither asks nor measures.

use std::time::Duration;

/// Fewer are a stream with a pause after each part.
const LEAST: usize = 2;
/// What a step up must bring, in percent of what there was, or it is taken back.
const GAIN: u64 = 115;
/// Laps after which what brought nothing is tried again: lines change.
const REST: u32 = 50;

/// A while, as the fleet saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lap {
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// The part of it in which there was nothing to pass on.
    pub(crate) waited: Duration,
    /// Attempts that failed meanwhile.
    pub(crate) troubles: u32,
}

/// How many requests there are now, and how it came to that.
#[derive(Debug)]
pub(crate) struct Pace {
    width: usize,
    most: usize,
    /// What `most` was before anybody refused us.
    limit: usize,
    /// How many there were before the last step, and what they brought, in bytes a second.
    before: Option<(usize, u64)>,
    rest: u32,
}

impl Pace {
    /// One request brought `rate` bytes a second, and the reader could have taken more. On a `long`
    /// line nearly all of the time goes by until some of them have shown what they bring: it gets all.
    pub(crate) fn new(rate: u64, most: usize, long: bool) -> Self {
        let width = if long { most } else { 2 * LEAST };
        Self {
            width: width.min(most).max(LEAST),
            most: most.max(LEAST),
            limit: most.max(LEAST),
            before: Some((1, rate)),
            rest: 0,
        }
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Draws conclusions from a lap at the present width.
    pub(crate) fn lap(&mut self, lap: &Lap) {
        if lap.troubles > 0 {
            // Whatever refuses us has enough of us.
            self.most = (self.width / 2).max(LEAST);
            self.settle(self.most);
            return;
        }
        if lap.waited * 2 < lap.took {
            // The reader sets the pace, and says nothing of the line.
            return;
        }
        let rate = per_second(lap.bytes, lap.took);
        match self.before {
            Some((_, before)) if rate.saturating_mul(100) >= before.saturating_mul(GAIN) => {
                self.step(rate);
            }
            Some((width, _)) => self.settle(width),
            None if self.rest > 0 => self.rest -= 1,
            None => {
                // Servers recover too.
                self.most = (self.most * 2).min(self.limit);
                self.step(rate);
            }
        }
    }

    fn step(&mut self, rate: u64) {
        if self.width >= self.most {
            self.settle(self.width);
            return;
        }
        self.before = Some((self.width, rate));
        self.width = (self.width * 2).min(self.most);
    }

    fn settle(&mut self, width: usize) {
        self.width = width.clamp(LEAST, self.most);
        self.before = None;
        self.rest = REST;
    }
}

/// A rate in bytes a second.
pub(crate) fn per_second(bytes: u64, took: Duration) -> u64 {
    let micros = took.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second on a line that gives `each` to every request, and `all` to all of them.
    fn lap(pace: &Pace, each: u64, all: u64) -> Lap {
        Lap {
            bytes: (each * pace.width() as u64).min(all),
            took: Duration::from_secs(1),
            waited: Duration::from_millis(900),
            troubles: 0,
        }
    }

    fn widths(each: u64, all: u64, most: usize) -> Vec<usize> {
        let mut pace = Pace::new(each.min(all), most, false);
        let mut widths = vec![pace.width()];
        for _ in 0..6 {
            pace.lap(&lap(&pace, each, all));
            widths.push(pace.width());
        }
        widths
    }

    #[test]
    fn there_are_more_requests_while_more_bring_more() {
        for (each, all, most, expected) in [
            // A window too small for the line's delay: each brings the same.
            (10, 1000, 16, [4, 8, 16, 16, 16, 16, 16]),
            (10, 1000, 6, [4, 6, 6, 6, 6, 6, 6]),
            (10, 1000, 3, [3, 3, 3, 3, 3, 3, 3]),
            // Six fill the line: eight are better than four, sixteen are not better than eight.
            (10, 60, 16, [4, 8, 16, 8, 8, 8, 8]),
            // One fills the line.
            (60, 60, 16, [4, 2, 2, 2, 2, 2, 2]),
        ] {
            assert_eq!(widths(each, all, most), expected, "{each} {all} {most}");
        }
    }

    #[test]
    fn there_are_all_from_the_start_on_a_long_line() {
        for (most, expected) in [(16, 16), (6, 6), (1, 2)] {
            assert_eq!(Pace::new(10, most, true).width(), expected);
        }
    }

    #[test]
    fn a_slow_reader_changes_nothing() {
        let mut pace = Pace::new(10, 16, false);
        for _ in 0..100 {
            let busy = Lap {
                waited: Duration::from_millis(100),
                ..lap(&pace, 10, 1000)
            };
            pace.lap(&busy);
        }
        assert_eq!(pace.width(), 4);
    }

    #[test]
    fn who_refuses_is_asked_less() {
        let mut pace = Pace::new(10, 16, false);
        pace.lap(&lap(&pace, 10, 1000));
        assert_eq!(pace.width(), 8);
        let refused = Lap {
            troubles: 1,
            ..lap(&pace, 10, 1000)
        };
        pace.lap(&refused);
        assert_eq!(pace.width(), 4);
        for _ in 0..REST {
            pace.lap(&lap(&pace, 10, 1000));
        }
        assert_eq!(pace.width(), 4);
        // Later it is tried again.
        pace.lap(&lap(&pace, 10, 1000));
        assert_eq!(pace.width(), 8);
    }

    #[test]
    fn what_brought_nothing_is_tried_again_later() {
        let mut pace = Pace::new(60, 16, false);
        pace.lap(&lap(&pace, 60, 60));
        assert_eq!(pace.width(), 2);
        for _ in 0..=REST {
            pace.lap(&lap(&pace, 60, 1000));
        }
        assert_eq!(pace.width(), 4);
    }
}
