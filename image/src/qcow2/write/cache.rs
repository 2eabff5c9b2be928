//! Slices of L2 tables in memory.
//!
//! When it is full all of it is written, in order, and forgotten: clusters come mostly in the order of
//! the disk, and then a table is written once and read back hardly ever.

use std::collections::BTreeMap;

use super::{Store, WriteError};
use crate::num::{be64_entry, to_u64, to_usize};

/// Tables are kept in slices of at most this many bytes: 32 MiB of disk with clusters of 64 KiB.
const SLICE: u64 = 4096;
/// What a slice costs beside its bytes, about.
const OVERHEAD: u64 = 128;
/// Slices that touch are written together, up to this many bytes.
const WRITE: usize = 64 << 10;

#[derive(Debug)]
struct Slice {
    bytes: Vec<u8>,
    changed: bool,
}

#[derive(Debug)]
pub(super) struct Cache {
    /// By offset in the file.
    slices: BTreeMap<u64, Slice>,
    size: u64,
    table: u64,
    most: usize,
}

impl Cache {
    /// A cache of `bytes` for tables of `table` bytes each.
    pub(super) fn new(table: u64, bytes: u64) -> Self {
        let size = SLICE.min(table);
        let most = bytes
            .checked_div(size.saturating_add(OVERHEAD))
            .unwrap_or(0);
        Self {
            slices: BTreeMap::new(),
            size,
            table,
            most: to_usize(most).max(4),
        }
    }

    /// A new table at `at`, all zeros.
    pub(super) fn fresh<S: Store>(
        &mut self,
        store: &mut S,
        at: u64,
    ) -> Result<(), WriteError<S::Error>> {
        // Slices of larger tables are read when they are needed, as the zeros that they are.
        if self.table <= self.size {
            let bytes = vec![0; to_usize(self.size)];
            self.insert(store, at, bytes)?;
        }
        Ok(())
    }

    /// The entry at offset `at` of the file.
    pub(super) fn get<S: Store>(
        &mut self,
        store: &mut S,
        at: u64,
    ) -> Result<u64, WriteError<S::Error>> {
        let (slice, index) = self.slice(store, at)?;
        Ok(be64_entry(&slice.bytes, index).unwrap_or(0))
    }

    pub(super) fn set<S: Store>(
        &mut self,
        store: &mut S,
        at: u64,
        raw: u64,
    ) -> Result<(), WriteError<S::Error>> {
        let (slice, index) = self.slice(store, at)?;
        let place = index.saturating_mul(8);
        if let Some(bytes) = slice.bytes.get_mut(place..place.saturating_add(8)) {
            bytes.copy_from_slice(&raw.to_be_bytes());
        }
        slice.changed = true;
        Ok(())
    }

    fn slice<S: Store>(
        &mut self,
        store: &mut S,
        at: u64,
    ) -> Result<(&mut Slice, usize), WriteError<S::Error>> {
        let start = at & !self.size.saturating_sub(1);
        if !self.slices.contains_key(&start) {
            let mut bytes = vec![0; to_usize(self.size)];
            store
                .read_at(start, &mut bytes)
                .map_err(WriteError::Store)?;
            self.insert(store, start, bytes)?;
        }
        let slice = self.slices.entry(start).or_insert_with(|| Slice {
            bytes: Vec::new(),
            changed: false,
        });
        let index = to_usize(at.saturating_sub(start) / 8);
        Ok((slice, index))
    }

    fn insert<S: Store>(
        &mut self,
        store: &mut S,
        start: u64,
        bytes: Vec<u8>,
    ) -> Result<(), WriteError<S::Error>> {
        if self.slices.len() >= self.most {
            self.flush(store)?;
        }
        let slice = Slice {
            bytes,
            changed: false,
        };
        self.slices.insert(start, slice);
        Ok(())
    }

    /// Writes what has changed, and forgets everything.
    pub(super) fn flush<S: Store>(&mut self, store: &mut S) -> Result<(), WriteError<S::Error>> {
        let mut gathered: (u64, Vec<u8>) = (0, Vec::new());
        for (at, slice) in std::mem::take(&mut self.slices) {
            if !slice.changed {
                continue;
            }
            let (start, bytes) = &mut gathered;
            let continues = start.checked_add(to_u64(bytes.len())) == Some(at);
            if !continues || bytes.len() >= WRITE {
                write(store, *start, bytes)?;
                (*start, *bytes) = (at, Vec::new());
            }
            bytes.extend_from_slice(&slice.bytes);
        }
        write(store, gathered.0, &gathered.1)
    }
}

fn write<S: Store>(store: &mut S, at: u64, bytes: &[u8]) -> Result<(), WriteError<S::Error>> {
    if bytes.is_empty() {
        return Ok(());
    }
    store.write_at(at, bytes).map_err(WriteError::Store)
}
