//! Finding what need not be written.

use std::ops::Range;

/// What is zero is skipped in steps of this many bytes, aligned on the disk.
pub(crate) const STEP: u64 = 4096;

/// True if all is zero. Folds 4 KiB at a time: the compiler makes vector code of it, which reads as
/// fast as memory gives.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(4096)
        .all(|chunk| chunk.iter().fold(0u8, |acc, &b| acc | b) == 0)
}

/// Calls `found` with each run of `bytes` (which belong at `guest`) that is not zero.
pub(crate) fn data_runs(guest: u64, bytes: &[u8], mut found: impl FnMut(u64, Range<usize>)) {
    let step = usize::try_from(STEP).unwrap_or(4096);
    // The first step may be short, so that the others are aligned on the disk.
    let misaligned = usize::try_from(guest % STEP).unwrap_or(0);
    let mut start = None;
    let mut at = 0;
    while at < bytes.len() {
        let n = if at == 0 { step - misaligned } else { step };
        let end = bytes.len().min(at + n);
        if is_zero(&bytes[at..end]) {
            if let Some(from) = start.take() {
                found(guest + from as u64, from..at);
            }
        } else if start.is_none() {
            start = Some(at);
        }
        at = end;
    }
    if let Some(from) = start {
        found(guest + from as u64, from..bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_rebuild_the_bytes_and_hold_no_aligned_zero_block(
            guest in 0u64..20_000,
            blocks in proptest::collection::vec((0u8..3, 1usize..9000), 0..12),
        ) {
            let mut bytes = Vec::new();
            for (value, len) in blocks {
                bytes.extend(std::iter::repeat_n(value, len));
            }
            let mut rebuilt = vec![0; bytes.len()];
            let mut last_end = None;
            data_runs(guest, &bytes, |at, run| {
                assert_eq!(at - guest, run.start as u64);
                assert!(last_end.is_none_or(|end| end < run.start), "runs are joined");
                last_end = Some(run.end);
                rebuilt[run.clone()].copy_from_slice(&bytes[run.clone()]);
                let first = at.next_multiple_of(STEP);
                let mut block = first;
                while block + STEP <= guest + run.end as u64 {
                    let inside = (block - guest) as usize..(block - guest + STEP) as usize;
                    assert!(!is_zero(&bytes[inside]), "an aligned zero block was written");
                    block += STEP;
                }
            });
            prop_assert_eq!(rebuilt, bytes);
        }
    }
}
