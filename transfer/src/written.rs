//! Which ranges of the target have been written, for targets that do not start as zeros.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, joined ranges.
#[derive(Debug, Default)]
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

    /// How many separate ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
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
    }
}
