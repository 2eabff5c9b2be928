//! Which clusters of the file are used, and how often: the refcount table and its blocks.
//!
//! Clusters are only ever taken at the end. A block gets its place just before the clusters that it
//! counts are needed, so that only the last few blocks are in memory.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Store, WriteError, write_sparse};
use crate::num::{to_u64, to_usize};
use crate::qcow2::map::Shape;
use crate::{Error, Limits, Reservation};

/// Largest refcount table QEMU opens, in bytes.
const MAX_TABLE: u64 = 8 << 20;
/// Blocks in memory, in bytes, but never fewer than [`FEWEST`].
const LIVE: u64 = 64 << 10;
const FEWEST: u64 = 4;
/// The table is charged in steps of this many entries.
const STEP: usize = 8 << 10;

#[derive(Debug)]
struct Block {
    counts: Vec<u8>,
    /// It has been written before.
    written: bool,
}

#[derive(Debug)]
pub(super) struct Clusters {
    bits: u32,
    /// The next cluster that nobody uses.
    next: u64,
    /// Offsets of blocks.
    table: Vec<u64>,
    live: BTreeMap<u64, Block>,
    most_live: usize,
    /// Bytes set aside for the table behind the header.
    room: u64,
    limits: Limits,
    charges: Vec<Reservation>,
}

impl Clusters {
    pub(super) fn new(bits: u32, room: u64, limits: &Limits) -> Self {
        let mut this = Self {
            bits,
            next: 0,
            table: Vec::new(),
            live: BTreeMap::new(),
            most_live: 0,
            room,
            limits: limits.clone(),
            charges: Vec::new(),
        };
        let most = LIVE.checked_div(this.size()).unwrap_or(0).max(FEWEST);
        this.most_live = to_usize(most);
        this
    }

    /// Bytes for the table of an image that is full of uncompressed clusters: it need not move then.
    pub(super) fn table_room(shape: &Shape, l1_room: u64) -> u64 {
        let size = shape.cluster_size();
        let data = shape.virtual_size.div_ceil(size);
        let tables = data.div_ceil(shape.l2_entries());
        let front = l1_room.div_ceil(size).saturating_add(2);
        let used = data.saturating_add(tables).saturating_add(front);
        // The blocks count themselves, and the table the clusters it takes: an eighth more is plenty
        // with the smallest clusters, where a block counts 256.
        let blocks = used.div_ceil(size / 2);
        let blocks = blocks.saturating_add(blocks / 8).saturating_add(2);
        blocks
            .saturating_mul(8)
            .next_multiple_of(size)
            .min(MAX_TABLE.max(size))
    }

    fn size(&self) -> u64 {
        1_u64.checked_shl(self.bits).unwrap_or(u64::MAX)
    }

    /// Clusters that one block counts.
    fn per_block(&self) -> u64 {
        self.size() / 2
    }

    /// The next cluster that nobody uses: there the file ends.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Sees to it that `count` more clusters can be counted. What it makes for that is put at the end.
    pub(super) fn cover<S: Store>(
        &mut self,
        store: &mut S,
        count: u64,
    ) -> Result<(), WriteError<S::Error>> {
        let mut made = Vec::new();
        loop {
            let counted = to_u64(self.table.len()).saturating_mul(self.per_block());
            if counted >= self.next.saturating_add(count) {
                break;
            }
            if self.table.len().is_multiple_of(STEP) {
                let bytes = to_u64(STEP).saturating_mul(8);
                let charge = self.limits.reserve(bytes, "the refcount table")?;
                self.charges.push(charge);
            }
            if to_u64(self.table.len()) >= MAX_TABLE / 8 {
                return Err(Error::unsupported(format!(
                    "the file grows beyond what qcow2 can count with clusters of {} bytes: use larger clusters",
                    self.size()
                ))
                .into());
            }
            let index = to_u64(self.table.len());
            self.table.push(self.next.saturating_mul(self.size()));
            made.push(self.next);
            self.next = self.next.saturating_add(1);
            let counts = vec![0; to_usize(self.size())];
            let block = Block {
                counts,
                written: false,
            };
            self.insert(store, index, block)?;
        }
        for cluster in made {
            self.take(store, cluster)?;
        }
        Ok(())
    }

    /// Sets `count` clusters aside, one after the other. They count as unused until taken.
    pub(super) fn reserve<S: Store>(
        &mut self,
        store: &mut S,
        count: u64,
    ) -> Result<u64, WriteError<S::Error>> {
        if self.table.is_empty() {
            // The front of the file: what counts it comes behind it.
            self.next = count;
            self.cover(store, 0)?;
            return Ok(0);
        }
        self.cover(store, count)?;
        let first = self.next;
        self.next = first.saturating_add(count);
        Ok(first)
    }

    /// Counts `cluster` once more.
    pub(super) fn take<S: Store>(
        &mut self,
        store: &mut S,
        cluster: u64,
    ) -> Result<(), WriteError<S::Error>> {
        self.change(store, cluster, |count| count.saturating_add(1))
    }

    /// Counts it once less.
    pub(super) fn release<S: Store>(
        &mut self,
        store: &mut S,
        cluster: u64,
    ) -> Result<(), WriteError<S::Error>> {
        self.change(store, cluster, |count| count.saturating_sub(1))
    }

    /// It can't be counted once more.
    pub(super) fn is_full<S: Store>(
        &mut self,
        store: &mut S,
        cluster: u64,
    ) -> Result<bool, WriteError<S::Error>> {
        let mut found = 0;
        self.change(store, cluster, |count| {
            found = count;
            count
        })?;
        Ok(found == u16::MAX)
    }

    fn change<S: Store>(
        &mut self,
        store: &mut S,
        cluster: u64,
        new: impl FnOnce(u16) -> u16,
    ) -> Result<(), WriteError<S::Error>> {
        let index = cluster.checked_div(self.per_block()).unwrap_or(0);
        let within = cluster.saturating_sub(index.saturating_mul(self.per_block()));
        if !self.live.contains_key(&index) {
            let at = self.table.get(to_usize(index)).copied().unwrap_or(0);
            let mut counts = vec![0; to_usize(self.size())];
            store.read_at(at, &mut counts).map_err(WriteError::Store)?;
            let block = Block {
                counts,
                written: true,
            };
            self.insert(store, index, block)?;
        }
        let place = to_usize(within.saturating_mul(2));
        let bytes = self
            .live
            .get_mut(&index)
            .and_then(|block| block.counts.get_mut(place..)?.first_chunk_mut::<2>());
        if let Some(bytes) = bytes {
            *bytes = new(u16::from_be_bytes(*bytes)).to_be_bytes();
        }
        Ok(())
    }

    fn insert<S: Store>(
        &mut self,
        store: &mut S,
        index: u64,
        block: Block,
    ) -> Result<(), WriteError<S::Error>> {
        self.live.insert(index, block);
        while self.live.len() > self.most_live {
            // The lowest is what is least likely to be needed again, unless it was just asked for.
            let mut keys = self.live.keys().copied();
            let Some(oldest) = keys.find(|&key| key != index) else {
                break;
            };
            self.retire(store, oldest)?;
        }
        Ok(())
    }

    fn retire<S: Store>(&mut self, store: &mut S, index: u64) -> Result<(), WriteError<S::Error>> {
        let Some(block) = self.live.remove(&index) else {
            return Ok(());
        };
        let at = self.table.get(to_usize(index)).copied().unwrap_or(0);
        if block.written {
            store.write_at(at, &block.counts).map_err(WriteError::Store)
        } else {
            write_sparse(store, at, &block.counts)
        }
    }

    /// Writes everything; says where the table is.
    pub(super) fn finish<S: Store>(
        &mut self,
        store: &mut S,
    ) -> Result<Range<u64>, WriteError<S::Error>> {
        let size = self.size();
        let mut place = size..size.saturating_add(self.room);
        if to_u64(self.table.len()).saturating_mul(8) > self.room {
            let old = 1..self.room.checked_div(size).unwrap_or(0).saturating_add(1);
            for cluster in old {
                self.release(store, cluster)?;
            }
            // Its own clusters are counted too, by a few more blocks perhaps.
            let entries = to_u64(self.table.len());
            let more = entries.saturating_mul(8).div_ceil(size);
            let spare = more.div_ceil(self.per_block()).saturating_add(2);
            let bytes = entries.saturating_add(spare).saturating_mul(8);
            let count = bytes.div_ceil(size);
            let first = self.reserve(store, count)?;
            for cluster in first..first.saturating_add(count) {
                self.take(store, cluster)?;
            }
            let at = first.saturating_mul(size);
            place = at..at.saturating_add(count.saturating_mul(size));
        }
        while let Some((&index, _)) = self.live.first_key_value() {
            self.retire(store, index)?;
        }
        let bytes: Vec<u8> = self.table.iter().flat_map(|at| at.to_be_bytes()).collect();
        write_sparse(store, place.start, &bytes)?;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Memory(Vec<u8>);

    impl Store for Memory {
        type Error = ();

        fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), ()> {
            let (at, end) = (at as usize, at as usize + bytes.len());
            if self.0.len() < end {
                self.0.resize(end, 0);
            }
            self.0[at..end].copy_from_slice(bytes);
            Ok(())
        }

        fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), ()> {
            buf.fill(0);
            let there = self.0.get(at as usize..).unwrap_or_default();
            let n = there.len().min(buf.len());
            buf[..n].copy_from_slice(&there[..n]);
            Ok(())
        }
    }

    #[test]
    fn a_table_that_outgrows_its_room_moves_to_the_end_and_counts_itself() {
        let mut store = Memory::default();
        let mut clusters = Clusters::new(9, 512, &Limits::default());
        clusters.reserve(&mut store, 2).unwrap();
        for cluster in 0..2 {
            clusters.take(&mut store, cluster).unwrap();
        }
        // 64 blocks fit into the table's one cluster.
        for _ in 0..70 * 256 {
            let cluster = clusters.reserve(&mut store, 1).unwrap();
            clusters.take(&mut store, cluster).unwrap();
        }
        let table = clusters.finish(&mut store).unwrap();
        assert!(table.start > 70 * 256 * 512, "{table:?}");
        assert_eq!(table.end, clusters.next() * 512);
        let mut counts = Vec::new();
        for index in 0..clusters.table.len() as u64 {
            let mut entry = [0; 8];
            store.read_at(table.start + index * 8, &mut entry).unwrap();
            let mut block = [0; 512];
            let at = u64::from_be_bytes(entry);
            assert_ne!(at, 0);
            store.read_at(at, &mut block).unwrap();
            counts.extend(block.chunks(2).map(|c| u16::from_be_bytes([c[0], c[1]])));
        }
        let used = clusters.next() as usize;
        assert_eq!(counts[1], 0, "where the table was");
        assert_eq!(counts[0], 1);
        assert!(counts[2..used].iter().all(|&count| count == 1));
        assert!(counts[used..].iter().all(|&count| count == 0));
    }
}
