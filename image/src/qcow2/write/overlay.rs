//! What was put changes: a cluster comes again, or another part of it; or the disk ends before it.

use super::{Form, Store, Stored, WriteError, Writer};
use crate::cluster::ClusterDecoder;
use crate::num::{to_u64, to_usize};
use crate::qcow2::layout::entry;

impl Writer {
    /// Puts what is new over what is there. Compressed bytes are taken apart, and lost to the file.
    pub(super) fn overlay<S: Store>(
        &mut self,
        store: &mut S,
        cluster: &Stored,
        bytes: &[u8],
    ) -> Result<(), WriteError<S::Error>> {
        let size = to_usize(self.cluster_size());
        let mut decoder = ClusterDecoder::new(self.codec);
        let new = match cluster.form {
            Form::Plain => bytes.to_vec(),
            Form::Packed => {
                let mut new = vec![0; size];
                decoder.decode(bytes, &mut new)?;
                new
            }
        };
        let whole = 0..size;
        let covered = cluster
            .covered
            .as_deref()
            .unwrap_or_else(|| std::slice::from_ref(&whole));
        let raw = self.entry(store, cluster.guest)?;
        if raw & entry::COMPRESSED == 0 {
            let at = raw & entry::OFFSET;
            for part in covered {
                let bytes = new.get(part.clone()).unwrap_or_default();
                store
                    .write_at(at.saturating_add(to_u64(part.start)), bytes)
                    .map_err(WriteError::Store)?;
            }
            return Ok(());
        }
        let old = self.packed_range(raw);
        let mut packed = vec![0; to_usize(old.end.saturating_sub(old.start))];
        store
            .read_at(old.start, &mut packed)
            .map_err(WriteError::Store)?;
        let mut merged = vec![0; size];
        decoder.decode(&packed, &mut merged)?;
        for part in covered {
            let from = new.get(part.clone()).unwrap_or_default();
            if let Some(to) = merged.get_mut(part.clone()) {
                to.copy_from_slice(from);
            }
        }
        self.release(store, raw)?;
        let at = self.place_plain(store)?;
        self.set_entry(store, cluster.guest, at | entry::COPIED)?;
        store.write_at(at, &merged).map_err(WriteError::Store)
    }

    /// Nothing refers to the cluster of this entry any more.
    fn release<S: Store>(&mut self, store: &mut S, raw: u64) -> Result<(), WriteError<S::Error>> {
        let host = if raw & entry::COMPRESSED == 0 {
            let at = raw & entry::OFFSET;
            at..at.saturating_add(self.cluster_size())
        } else {
            self.packed_range(raw)
        };
        let last = self.cluster_of(host.end.saturating_sub(1));
        for cluster in self.cluster_of(host.start)..=last {
            self.clusters.release(store, cluster)?;
        }
        Ok(())
    }

    /// Takes back what was put behind `disk`.
    pub(super) fn cut<S: Store>(
        &mut self,
        store: &mut S,
        disk: u64,
    ) -> Result<(), WriteError<S::Error>> {
        let size = self.cluster_size();
        let mut guest = self.shape.cluster_start(disk);
        if guest < disk && disk < self.end {
            if self.table_of(guest) != 0 && self.entry(store, guest)? != 0 {
                let rest = to_usize(disk.saturating_sub(guest))..to_usize(size);
                let zeros = vec![0; to_usize(size)];
                let tail = Stored {
                    guest,
                    bytes: 0..zeros.len(),
                    form: Form::Plain,
                    covered: Some(vec![rest]),
                };
                self.overlay(store, &tail, &zeros)?;
            }
            guest = guest.saturating_add(size);
        }
        while guest < self.end {
            if self.table_of(guest) == 0 {
                let next = self.shape.l1_start(guest);
                guest = next.saturating_add(self.shape.l1_covers());
                continue;
            }
            let raw = self.entry(store, guest)?;
            if raw != 0 {
                self.release(store, raw)?;
                self.set_entry(store, guest, 0)?;
            }
            guest = guest.saturating_add(size);
        }
        self.end = self.end.min(disk);
        // Tables that have nothing left to map: L1 does not reach them any more.
        let kept = to_usize(disk.div_ceil(self.shape.l1_covers()));
        for index in kept..self.l1.len() {
            let table = self.l1.get(index).copied().unwrap_or(0);
            if table != 0 {
                self.release(store, table)?;
            }
            if let Some(slot) = self.l1.get_mut(index) {
                *slot = 0;
            }
        }
        Ok(())
    }
}
