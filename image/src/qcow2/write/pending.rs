//! Few large writes of many small clusters, and none of what is zero.

use std::ops::Range;

use super::{Store, WriteError};
use crate::num::to_u64;

/// Clusters whose bytes are next to each other both in the buffer and in the file.
#[derive(Debug, Default)]
pub(super) struct Pending {
    at: u64,
    bytes: Range<usize>,
}

impl Pending {
    /// Takes `bytes`, which go to `at`; false if they continue neither.
    pub(super) fn extend(&mut self, at: u64, bytes: &Range<usize>) -> bool {
        if self.bytes.is_empty() {
            *self = Self {
                at,
                bytes: bytes.clone(),
            };
            return true;
        }
        let continues = bytes.start == self.bytes.end
            && self.at.checked_add(to_u64(self.bytes.len())) == Some(at);
        if continues {
            self.bytes.end = bytes.end;
        }
        continues
    }

    pub(super) fn write<S: Store>(
        &mut self,
        store: &mut S,
        buf: &[u8],
    ) -> Result<(), WriteError<S::Error>> {
        let whole = self.bytes.clone();
        self.write_runs(store, buf, &[whole])
    }

    pub(super) fn write_runs<S: Store>(
        &mut self,
        store: &mut S,
        buf: &[u8],
        runs: &[Range<usize>],
    ) -> Result<(), WriteError<S::Error>> {
        let Self { at, bytes } = std::mem::take(self);
        let first = runs.partition_point(|run| run.end <= bytes.start);
        for run in runs.get(first..).unwrap_or_default() {
            let part = run.start.max(bytes.start)..run.end.min(bytes.end);
            if run.start >= bytes.end {
                break;
            }
            let to = at.saturating_add(to_u64(part.start.saturating_sub(bytes.start)));
            let part = buf.get(part).unwrap_or_default();
            if !part.is_empty() {
                store.write_at(to, part).map_err(WriteError::Store)?;
            }
        }
        Ok(())
    }
}

/// Writes what is not zero in steps of 4 KiB, where nothing has been written yet.
pub(super) fn write_sparse<S: Store>(
    store: &mut S,
    at: u64,
    bytes: &[u8],
) -> Result<(), WriteError<S::Error>> {
    const STEP: usize = 4096;
    let mut to = at;
    for step in bytes.chunks(STEP) {
        if step.iter().any(|&b| b != 0) {
            store.write_at(to, step).map_err(WriteError::Store)?;
        }
        to = to.saturating_add(to_u64(step.len()));
    }
    Ok(())
}

/// The parts of a cluster that have come, joined where they touch.
pub fn join_parts(parts: &mut Vec<Range<usize>>, new: Range<usize>) {
    let mut joined = new.clone();
    parts.retain(|part| {
        let touches = part.start <= new.end && new.start <= part.end;
        if touches {
            joined = joined.start.min(part.start)..joined.end.max(part.end);
        }
        !touches
    });
    let place = parts.partition_point(|part| part.start < joined.start);
    parts.insert(place, joined);
}
