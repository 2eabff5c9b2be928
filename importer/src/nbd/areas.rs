//! Which parts of a disk are looked at: all of it, or what changed since a checkpoint.

use std::collections::VecDeque;
use std::ops::Range;

/// Tells what of a disk changed between two checkpoints.
pub trait ChangedBlocks: Send {
    /// The changes from byte `from` of the disk on, as far as one answer goes.
    fn changes(
        &mut self,
        from: u64,
    ) -> Result<Changes, Box<dyn std::error::Error + Send + Sync + 'static>>;
}

/// An answer of [`ChangedBlocks`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Up to here everything is told. Beyond the question's `from`, or the end of the disk.
    pub until: u64,
    /// What changed, in order.
    pub changed: Vec<Range<u64>>,
}

/// What is wrong with changes.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// Nobody could tell them.
    #[error("could not find out what changed from byte {from} on")]
    Query {
        /// The first byte asked for.
        from: u64,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync + 'static>,
    },
    /// They make no sense.
    #[error("what changed from byte {from} on makes no sense: {why}")]
    Nonsense {
        /// The first byte asked for.
        from: u64,
        /// What is wrong.
        why: &'static str,
    },
}

/// Parts of a disk, in order.
pub(crate) struct Areas {
    query: Option<Box<dyn ChangedBlocks>>,
    found: VecDeque<Range<u64>>,
    /// Everything before was told.
    told: u64,
    /// Everything before was given out.
    given: u64,
    size: u64,
    /// Offsets and lengths are multiples of this.
    block: u64,
}

impl Areas {
    pub(crate) fn new(query: Option<Box<dyn ChangedBlocks>>, size: u64, block: u32) -> Self {
        // Without a query all of it is known from the start.
        let (found, told) = match query {
            Some(_) => (VecDeque::new(), 0),
            None => (VecDeque::from_iter(Some(0..size)), size),
        };
        Self {
            query,
            found,
            told,
            given: 0,
            size,
            block: u64::from(block).max(1),
        }
    }

    /// Of the whole disk only these parts, in order. Of what changed all is wanted.
    pub(crate) fn only(&mut self, wanted: Vec<Range<u64>>) {
        if self.query.is_none() {
            self.found = wanted.into();
        }
    }

    /// The next part, larger than nothing.
    pub(crate) fn next(&mut self) -> Result<Option<Range<u64>>, ChangesError> {
        loop {
            if let Some(range) = self.found.pop_front() {
                let start = (range.start / self.block * self.block).max(self.given);
                let end = range.end.next_multiple_of(self.block).min(self.size);
                if start >= end {
                    continue;
                }
                self.given = end;
                return Ok(Some(start..end));
            }
            if self.told >= self.size {
                return Ok(None);
            }
            let Some(query) = &mut self.query else {
                return Ok(None);
            };
            let from = self.told;
            let Changes { until, changed } = query
                .changes(from)
                .map_err(|source| ChangesError::Query { from, source })?;
            let nonsense = |why| Err(ChangesError::Nonsense { from, why });
            if until <= from {
                return nonsense("the answer does not go on");
            }
            let mut at = from;
            for range in &changed {
                if range.start < at || range.end < range.start || range.start > self.size {
                    return nonsense("it is out of order, or not on the disk");
                }
                at = range.end;
            }
            self.told = until;
            self.found.extend(changed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Answers(Vec<Changes>);

    impl ChangedBlocks for Answers {
        fn changes(
            &mut self,
            _: u64,
        ) -> Result<Changes, Box<dyn std::error::Error + Send + Sync + 'static>> {
            Ok(self.0.remove(0))
        }
    }

    fn areas(answers: &[(u64, &[Range<u64>])]) -> Areas {
        let answers = answers.iter().map(|(until, changed)| Changes {
            until: *until,
            changed: changed.to_vec(),
        });
        Areas::new(Some(Box::new(Answers(answers.collect()))), 10_000, 512)
    }

    #[test]
    fn changes_come_aligned_in_order_and_once() {
        let mut areas = areas(&[
            (5000, &[10..20, 500..600, 4000..4096]),
            (20_000, &[9980..9985, 9990..9999]),
        ]);
        let mut all = Vec::new();
        while let Some(range) = areas.next().unwrap() {
            all.push(range);
        }
        assert_eq!(all, [0..512, 512..1024, 3584..4096, 9728..10_000]);
    }

    #[test]
    fn answers_that_lead_nowhere_end() {
        for answer in [(0, &[][..]), (100, &[50..60, 10..20][..])] {
            let refused = areas(&[answer]).next();
            assert!(matches!(refused, Err(ChangesError::Nonsense { .. })));
        }
    }

    #[test]
    fn without_a_query_it_is_all_of_the_disk() {
        let mut areas = Areas::new(None, 1000, 512);
        assert_eq!(areas.next().unwrap(), Some(0..1000));
        assert_eq!(areas.next().unwrap(), None);
        assert_eq!(Areas::new(None, 0, 1).next().unwrap(), None);
    }
}
