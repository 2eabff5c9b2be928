//! Where the next cluster goes: one of its own, or behind the last compressed one.

use std::ops::Range;

use super::{SECTOR, Store, WriteError, Writer};
use crate::qcow2::layout::entry;
use crate::{Error, Result};

impl Writer {
    /// A cluster of its own.
    pub(super) fn place_plain<S: Store>(
        &mut self,
        store: &mut S,
    ) -> Result<u64, WriteError<S::Error>> {
        let cluster = self.clusters.reserve(store, 1)?;
        self.clusters.take(store, cluster)?;
        Ok(self.offset(cluster))
    }

    pub(super) fn offset(&self, cluster: u64) -> u64 {
        cluster.saturating_mul(self.cluster_size())
    }

    pub(super) fn cluster_of(&self, at: u64) -> u64 {
        at.checked_shr(self.shape.cluster_bits).unwrap_or(0)
    }

    /// Room for `len` packed bytes, counted in each cluster that it touches.
    pub(super) fn place_packed<S: Store>(
        &mut self,
        store: &mut S,
        len: u64,
    ) -> Result<u64, WriteError<S::Error>> {
        let size = self.cluster_size();
        let here = self.cluster_of(self.pack.start);
        if !self.pack.is_empty() && self.clusters.is_full(store, here)? {
            self.pack = 0..0;
        }
        let room = self.pack.end.saturating_sub(self.pack.start);
        if room < len {
            let more = len.saturating_sub(room).div_ceil(size);
            // A refcount block that is due comes first, and may come between.
            self.clusters.cover(store, more)?;
            if room > 0 && self.offset(self.clusters.next()) == self.pack.end {
                self.clusters.reserve(store, more)?;
                self.pack.end = self.pack.end.saturating_add(more.saturating_mul(size));
            } else {
                let count = len.div_ceil(size);
                let first = self.clusters.reserve(store, count)?;
                let at = self.offset(first);
                self.pack = at..at.saturating_add(count.saturating_mul(size));
            }
        }
        let at = self.pack.start;
        self.pack.start = at.saturating_add(len);
        let last = self.cluster_of(self.pack.start.saturating_sub(1));
        for cluster in self.cluster_of(at)..=last {
            self.clusters.take(store, cluster)?;
        }
        Ok(at)
    }

    /// "Compressed Clusters Descriptor": x = 62 - (`cluster_bits` - 8).
    fn packed_shift(&self) -> u32 {
        70_u32.saturating_sub(self.shape.cluster_bits)
    }

    pub(super) fn packed_entry(&self, at: u64, len: u64) -> Result<u64, Error> {
        let x = self.packed_shift();
        let last = at.saturating_add(len).saturating_sub(1);
        if last.checked_shr(x).unwrap_or(0) != 0 {
            return Err(Error::unsupported(
                "the file is too large for compressed clusters of this size",
            ));
        }
        let sectors = (last / SECTOR).saturating_sub(at / SECTOR);
        Ok(entry::COMPRESSED | at | sectors.checked_shl(x).unwrap_or(0))
    }

    /// Where the compressed cluster `raw` is, to the end of its last sector.
    pub(super) fn packed_range(&self, raw: u64) -> Range<u64> {
        let x = self.packed_shift();
        let below = |bit: u32| 1_u64.checked_shl(bit).unwrap_or(0).wrapping_sub(1);
        let at = raw & below(x);
        let more = (raw & below(62)).checked_shr(x).unwrap_or(0);
        let end = (at / SECTOR)
            .saturating_add(more)
            .saturating_add(1)
            .saturating_mul(SECTOR);
        at..end
    }
}
