//! What the log says of the file, laid over it in memory: the file itself is never written.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::num::{to_u64, to_usize};
use crate::{FileRange, ReadAt, Reservation};

/// The log writes sectors of this size, at its multiples.
pub(super) const SECTOR: u64 = 4096;

/// One sector of the log's data.
pub(super) type Sector = Box<[u8; 4096]>;

/// Ranges of the file that are other than they are there.
#[derive(Debug, Default)]
pub(super) struct Patches {
    /// By start, none over another; all at multiples of a sector.
    by_start: BTreeMap<u64, Patch>,
    pub(super) charges: Vec<Reservation>,
    /// The file has at least this many bytes, or it was truncated.
    pub(super) flushed: u64,
    /// The file has this many bytes once the log is in it, if it has no more anyway.
    pub(super) grown: u64,
}

#[derive(Debug)]
struct Patch {
    end: u64,
    /// A sector of data; zeros without.
    data: Option<Sector>,
}

impl Patches {
    /// Puts `data`, or zeros, at `range`, over whatever was there. The caller has charged for it.
    pub(super) fn put(&mut self, range: &Range<u64>, data: Option<Sector>) {
        if range.is_empty() {
            return;
        }
        self.grown = self.grown.max(range.end);
        let first = self.first_over(range.start);
        let over: Vec<u64> = self
            .by_start
            .range(first..range.end)
            .map(|(&start, _)| start)
            .collect();
        for start in over {
            let Some(old) = self.by_start.remove(&start) else {
                continue;
            };
            // Only zeros are longer than a sector, so only they are ever cut.
            for rest in [
                start..range.start.min(old.end),
                range.end.max(start)..old.end,
            ] {
                if !rest.is_empty() {
                    let patch = Patch {
                        end: rest.end,
                        data: None,
                    };
                    self.by_start.insert(rest.start, patch);
                }
            }
        }
        let patch = Patch {
            end: range.end,
            data,
        };
        self.by_start.insert(range.start, patch);
    }

    /// Start of the patch that `offset` is in, else `offset`.
    fn first_over(&self, offset: u64) -> u64 {
        self.by_start
            .range(..offset)
            .next_back()
            .filter(|(_, patch)| patch.end > offset)
            .map_or(offset, |(&start, _)| start)
    }

    /// Some of `range` is not as it is in the file.
    pub(super) fn touch(&self, range: &Range<u64>) -> bool {
        self.by_start
            .range(self.first_over(range.start)..range.end)
            .next()
            .is_some()
    }

    /// The first offset from `offset` on that is not as it is in the file.
    fn untouched_until(&self, offset: u64) -> u64 {
        let first = self.first_over(offset);
        self.by_start
            .range(first..)
            .next()
            .map_or(u64::MAX, |(&start, _)| start.max(offset))
    }

    /// Changes `buf`, which was read at `offset`.
    pub(super) fn apply(&self, buf: &mut [u8], offset: u64) {
        let end = offset.saturating_add(to_u64(buf.len()));
        let first = self.first_over(offset);
        for (&start, patch) in self.by_start.range(first..end) {
            let from = start.max(offset);
            let to = patch.end.min(end);
            let place = to_usize(from.saturating_sub(offset))..to_usize(to.saturating_sub(offset));
            let Some(place) = buf.get_mut(place) else {
                continue;
            };
            match &patch.data {
                None => place.fill(0),
                Some(data) => {
                    let skip = to_usize(from.saturating_sub(start));
                    for (to, from) in place.iter_mut().zip(data.iter().skip(skip)) {
                        *to = *from;
                    }
                }
            }
        }
    }
}

/// A file with patches over it.
#[derive(Debug)]
pub(super) struct Patched {
    file: Arc<dyn ReadAt>,
    patches: Patches,
    len: u64,
}

impl Patched {
    pub(super) fn new(file: Arc<dyn ReadAt>, patches: Patches) -> Self {
        let len = file.len().max(patches.grown);
        Self { file, patches, len }
    }
}

impl ReadAt for Patched {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset
            .checked_add(to_u64(buf.len()))
            .is_none_or(|end| end > self.len)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let there = to_usize(self.file.len().saturating_sub(offset)).min(buf.len());
        let (head, tail) = buf.split_at_mut(there);
        if !head.is_empty() {
            self.file.read_exact_at(head, offset)?;
        }
        tail.fill(0);
        self.patches.apply(buf, offset);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    /// As far as no patch lies over the file.
    fn in_file(&self, at: u64) -> Option<FileRange<'_>> {
        let until = self.patches.untouched_until(at).min(self.file.len());
        let len = until.checked_sub(at).filter(|&len| len > 0)?;
        Some(self.file.in_file(at)?.up_to(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8) -> Sector {
        Box::new([byte; 4096])
    }

    #[test]
    fn later_patches_lie_over_earlier_ones() {
        let mut patches = Patches::default();
        patches.put(&(4096..40_960), None);
        patches.put(&(8192..12_288), Some(filled(7)));
        patches.put(&(0..4096), Some(filled(8)));
        patches.put(&(0..4096), Some(filled(9)));
        patches.put(&(12_288..16_384), Some(filled(5)));
        patches.put(&(12_288..20_480), None);
        let file: Arc<dyn ReadAt> = Arc::new(vec![1; 45_000]);
        assert!(patches.touch(&(40_959..50_000)) && !patches.touch(&(40_960..50_000)));
        assert!(patches.touch(&(9000..9001)) && !patches.touch(&(45_056..60_000)));
        for (from, to) in [(0, 0), (9000, 9000), (40_960, u64::MAX)] {
            assert_eq!(patches.untouched_until(from), to, "from {from}");
        }
        patches.put(&(49_152..53_248), Some(filled(3)));
        let image = Patched::new(file, patches);
        assert_eq!(image.len(), 53_248);
        let mut expected = vec![1; 45_000];
        expected.resize(53_248, 0);
        expected[..4096].fill(9);
        expected[4096..40_960].fill(0);
        expected[8192..12_288].fill(7);
        expected[49_152..].fill(3);
        for (from, to) in [
            (0, 53_248),
            (4095, 8193),
            (9000, 9001),
            (44_000, 50_000),
            (12_000, 13_000),
        ] {
            let mut found = vec![0xEE; to - from];
            image.read_exact_at(&mut found, from as u64).unwrap();
            assert!(found == expected[from..to], "{from}..{to}");
        }
        assert!(image.read_exact_at(&mut [0; 2], 53_247).is_err());
    }
}
