//! Which ranges of the target have been written: for targets that do not start as zeros, and for the
//! journal of an import.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, joined ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    ranges: BTreeMap<u64, u64>,
}

impl Written {
    /// Adds a range.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.ranges.range(start..=end).next() {
            end = end.max(next_end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(start, end);
    }

    /// Forgets what is at or after `end`.
    pub(crate) fn cut(&mut self, end: u64) {
        self.ranges.split_off(&end);
        if let Some((_, last)) = self.ranges.iter_mut().next_back() {
            *last = end.min(*last);
        }
    }

    /// Nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many separate ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// All of `range` is in it.
    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        let before = self.ranges.range(..=range.start).next_back();
        range.is_empty() || before.is_some_and(|(_, &end)| end >= range.end)
    }

    /// `range` would be joined with what is there.
    pub(crate) fn touches(&self, range: &Range<u64>) -> bool {
        let last = self.ranges.range(..=range.end).next_back();
        last.is_some_and(|(_, &end)| end >= range.start)
    }

    /// Takes a range out again.
    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&start, end)) = self.ranges.range_mut(..range.start).next_back() {
            let rest = range.end..*end;
            *end = (*end).min(range.start);
            debug_assert!(start < range.start);
            if !rest.is_empty() {
                self.ranges.insert(rest.start, rest.end);
            }
        }
        while let Some((&start, &end)) = self.ranges.range(range.clone()).next() {
            self.ranges.remove(&start);
            if end > range.end {
                self.ranges.insert(range.end, end);
            }
        }
    }

    /// The ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// Bytes in all ranges.
    pub(crate) fn total(&self) -> u64 {
        self.ranges
            .iter()
            .fold(0, |sum: u64, (start, end)| sum.saturating_add(end - start))
    }

    /// Where the last range ends.
    pub(crate) fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, &end)| end)
    }

    /// The gaps inside `window`.
    pub(crate) fn gaps(&self, window: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut next = window.start;
        if let Some((_, &end)) = self.ranges.range(..=window.start).next_back() {
            next = next.max(end);
        }
        for (&start, &end) in self.ranges.range(window.start..window.end) {
            if start > next {
                gaps.push(next..start);
            }
            next = next.max(end);
        }
        if next < window.end {
            gaps.push(next..window.end);
        }
        gaps
    }

    /// Where the middle of the recorded ranges lies: half of them end at or before it.
    pub(crate) fn median(&self) -> u64 {
        self.ranges
            .values()
            .nth(self.ranges.len() / 2)
            .copied()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gaps_are_what_was_never_added(
            ranges in proptest::collection::vec((0u64..200, 0u64..30), 0..40),
            window in (0u64..120, 0u64..120),
        ) {
            let mut written = Written::default();
            let mut model = [false; 256];
            for (start, len) in ranges {
                written.add(start..start + len);
                model[start as usize..(start + len) as usize].fill(true);
            }
            let window = window.0..window.0 + window.1;
            let mut gaps = [false; 256];
            for gap in written.gaps(window.clone()) {
                gaps[gap.start as usize..gap.end as usize].fill(true);
            }
            for i in 0..256u64 {
                let expected = window.contains(&i) && !model[i as usize];
                prop_assert_eq!(gaps[i as usize], expected, "at {}", i);
            }
        }

        #[test]
        fn what_was_taken_out_is_not_covered_any_more(
            steps in proptest::collection::vec((any::<bool>(), 0u64..200, 0u64..30), 0..40),
            asked in (0u64..200, 0u64..30),
        ) {
            let mut written = Written::default();
            let mut model = [false; 256];
            for (add, start, len) in steps {
                let range = start..start + len;
                model[start as usize..(start + len) as usize].fill(add);
                if add {
                    written.add(range);
                } else {
                    written.remove(&range);
                }
            }
            let asked = asked.0..asked.0 + asked.1;
            let expected = model[asked.start as usize..asked.end as usize].iter().all(|b| *b);
            prop_assert_eq!(written.covers(&asked), expected);
            prop_assert_eq!(written.total(), model.iter().filter(|b| **b).count() as u64);
            let end = model.iter().rposition(|b| *b).map_or(0, |last| last as u64 + 1);
            prop_assert_eq!(written.end(), end);
        }
    }
}
