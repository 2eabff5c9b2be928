//! Writing qcow2, version 3: where clusters go, and the tables that say so.
//!
//! ```text
//! header | refcount table | L1 | refcount block | L2 table | clusters ... | L2 table | clusters ...
//!          reserved         reserved             made when the first cluster that it maps comes
//! ```
//!
//! The file only grows, in the order in which clusters come, and each table has its place before what
//! it maps: the result can be read forward from a pipe. Only where the disk's size is not known at the
//! start and turns out larger than what was reserved do L1 and refcount table move to the end.
//!
//! Compressed clusters are packed to the byte. Clusters come whole, from any number of places and in
//! any order. One that comes in parts may be put several times, each time saying which part of it is
//! meant ([`Stored::covered`]): what was compressed before is taken apart then, and stays as it is,
//! uncompressed. The bytes it had are lost to the file.
//!
//! Sans-IO but for a [`Store`], which must read as zeros where nothing was written. Memory: L1, the
//! refcount table (both charged to [`Limits`]), 64 KiB or four refcount blocks, and a cache of slices
//! of L2 tables.
//!
//! It knows nothing of threads, and nothing of what is worth compressing.

mod cache;
mod head;
mod overlay;
mod pending;
mod place;
mod refcounts;

use std::ops::Range;

use self::cache::Cache;
use self::head::{MAX_L1_BYTES, Places, encode_header};
pub use self::pending::join_parts;
use self::pending::{Pending, write_sparse};
use self::refcounts::Clusters;
use super::layout::entry;
use super::map::Shape;
use crate::cluster::ClusterCodec;
use crate::num::{to_u64, to_usize};
use crate::{Error, ErrorKind, Limits, Reservation};

/// Sizes of clusters, in bytes.
pub const CLUSTER_SIZES: Range<u64> = 512..(2 << 20) + 1;

/// The cluster size that QEMU uses unless told otherwise, in bytes.
pub const USUAL_CLUSTER_SIZE: u64 = 64 << 10;

/// A disk of unknown size gets room for an L1 table of this many entries (4 TiB with clusters of 64 KiB),
/// and for disks of this size at the least. Room that is not needed is a hole in the file.
const L1_ROOM: u64 = 8 << 10;
const DISK_ROOM: u64 = 16 << 30;

/// Disks are made of sectors for QEMU.
const SECTOR: u64 = 512;

/// What to write.
#[derive(Debug, Clone)]
pub struct Params {
    /// Bytes per cluster: a power of two in [`CLUSTER_SIZES`].
    pub cluster_size: u64,
    /// Size of the disk in bytes, or `None` if that shows at the end.
    pub virtual_size: Option<u64>,
    /// How clusters are compressed, if any are: raw deflate or zstd.
    pub codec: ClusterCodec,
    /// Memory for slices of L2 tables, in bytes.
    pub cache: u64,
    /// What tables may take.
    pub limits: Limits,
}

/// Where the image goes.
pub trait Store {
    /// What can go wrong.
    type Error;

    /// Writes all of `bytes`.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Fills `buf` with what was written; zeros where nothing was.
    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Self::Error>;
}

/// Why a cluster was not written.
#[derive(Debug)]
pub enum WriteError<E> {
    /// The store failed.
    Store(E),
    /// It can't be said in a qcow2 image, or would take too much memory.
    Image(Error),
}

impl<E> From<Error> for WriteError<E> {
    fn from(e: Error) -> Self {
        Self::Image(e)
    }
}

/// What the bytes of a cluster are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As the guest sees them: a whole cluster.
    Plain,
    /// Compressed by the codec of the image, to less than a cluster.
    Packed,
}

/// A cluster to be written.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Where it starts on the disk: a multiple of the cluster size.
    pub guest: u64,
    /// Where its bytes are in the buffer.
    pub bytes: Range<usize>,
    /// What they are.
    pub form: Form,
    /// The parts of it that have come, if not all have: the others are zeros for now.
    pub covered: Option<Vec<Range<usize>>>,
}

/// An image being written.
#[derive(Debug)]
pub struct Writer {
    shape: Shape,
    codec: ClusterCodec,
    grows: bool,
    l1: Vec<u64>,
    l1_room: u64,
    clusters: Clusters,
    cache: Cache,
    /// Where the next compressed cluster goes, and where the clusters set aside for that end.
    pack: Range<u64>,
    /// End of the last cluster of the disk that was put.
    end: u64,
    limits: Limits,
    charges: Vec<Reservation>,
}

impl Writer {
    /// Lays out an image. Nothing is written yet.
    pub fn new<S: Store>(params: &Params, store: &mut S) -> Result<Self, WriteError<S::Error>> {
        let size = params.cluster_size;
        if !size.is_power_of_two() || !CLUSTER_SIZES.contains(&size) {
            return Err(Error::new(
                ErrorKind::Misuse,
                format!("clusters of {size} bytes: it must be a power of two from 512 to 2097152"),
            )
            .into());
        }
        let mut shape = Shape {
            version: 3,
            cluster_bits: size.trailing_zeros(),
            l2_bits: size.trailing_zeros().saturating_sub(3),
            virtual_size: params
                .virtual_size
                .unwrap_or(0)
                .checked_next_multiple_of(SECTOR)
                .unwrap_or(u64::MAX),
            l1_at: 0,
            extended_l2: false,
            external_data: false,
        };
        check_size(&shape)?;
        let unknown = DISK_ROOM.max(shape.l1_covers().saturating_mul(L1_ROOM));
        let expected = Shape {
            virtual_size: params.virtual_size.map_or(unknown, |_| shape.virtual_size),
            ..shape
        };
        let l1_room = expected.l1_entries().max(1).saturating_mul(8);
        let table_room = Clusters::table_room(&expected, l1_room);
        shape.l1_at = size.saturating_add(table_room);
        let front = shape
            .l1_at
            .saturating_add(l1_room.next_multiple_of(size))
            .checked_shr(shape.cluster_bits)
            .unwrap_or(0);
        let mut this = Self {
            shape,
            codec: params.codec,
            grows: params.virtual_size.is_none(),
            l1: Vec::new(),
            l1_room,
            clusters: Clusters::new(shape.cluster_bits, table_room, &params.limits),
            cache: Cache::new(size, params.cache),
            pack: 0..0,
            end: 0,
            limits: params.limits.clone(),
            charges: Vec::new(),
        };
        let entries = match params.virtual_size {
            Some(_) => l1_room / 8,
            None => L1_ROOM.min(l1_room / 8),
        };
        this.grow_l1(to_usize(entries))?;
        let first = this.clusters.reserve(store, front)?;
        for cluster in first..first.saturating_add(front) {
            this.clusters.take(store, cluster)?;
        }
        Ok(this)
    }

    fn grow_l1(&mut self, entries: usize) -> Result<(), Error> {
        let more = entries.saturating_sub(self.l1.len());
        let bytes = to_u64(more).saturating_mul(8);
        self.charges
            .push(self.limits.reserve(bytes, "the L1 table")?);
        self.l1.reserve_exact(more);
        self.l1.resize(entries, 0);
        Ok(())
    }

    /// Bytes per cluster.
    pub fn cluster_size(&self) -> u64 {
        self.shape.cluster_size()
    }

    /// Writes clusters whose bytes are in `buf`. `runs` are the parts of it, in order, that are not
    /// zero: of clusters that are stored plain nothing else is written.
    pub fn put<S: Store>(
        &mut self,
        store: &mut S,
        buf: &[u8],
        stored: &[Stored],
        runs: &[Range<usize>],
    ) -> Result<(), WriteError<S::Error>> {
        // Tables first: they have to precede what they map, and would tear packed clusters apart.
        for cluster in stored {
            self.table_for(store, cluster.guest)?;
            let end = cluster.guest.saturating_add(self.cluster_size());
            self.end = self.end.max(end);
        }
        let mut late = Vec::new();
        let mut out = Pending::default();
        for cluster in stored.iter().filter(|c| c.form == Form::Packed) {
            if self.entry(store, cluster.guest)? != 0 {
                late.push(cluster);
                continue;
            }
            let len = to_u64(cluster.bytes.len());
            let at = self.place_packed(store, len)?;
            let entry = self.packed_entry(at, len)?;
            self.set_entry(store, cluster.guest, entry)?;
            if !out.extend(at, &cluster.bytes) {
                out.write(store, buf)?;
                out.extend(at, &cluster.bytes);
            }
        }
        out.write(store, buf)?;
        for cluster in stored.iter().filter(|c| c.form == Form::Plain) {
            if self.entry(store, cluster.guest)? != 0 {
                late.push(cluster);
                continue;
            }
            let at = self.place_plain(store)?;
            self.set_entry(store, cluster.guest, at | entry::COPIED)?;
            if !out.extend(at, &cluster.bytes) {
                out.write_runs(store, buf, runs)?;
                out.extend(at, &cluster.bytes);
            }
        }
        out.write_runs(store, buf, runs)?;
        for cluster in late {
            let bytes = buf.get(cluster.bytes.clone()).unwrap_or_default();
            self.overlay(store, cluster, bytes)?;
        }
        Ok(())
    }

    /// Has an L2 table for `guest`.
    fn table_for<S: Store>(
        &mut self,
        store: &mut S,
        guest: u64,
    ) -> Result<(), WriteError<S::Error>> {
        let index = to_usize(self.shape.l1_index(guest));
        if index >= self.l1.len() {
            if !self.grows {
                let text = format!("data at {guest:#x}, behind the end of the disk");
                return Err(Error::new(ErrorKind::Misuse, text).into());
            }
            self.shape.virtual_size = self.shape.virtual_size.max(guest.saturating_add(1));
            check_size(&self.shape)?;
            let entries = index.saturating_add(1).next_power_of_two();
            self.grow_l1(entries)?;
        }
        if self.l1.get(index).copied().unwrap_or(0) == 0 {
            let at = self.place_plain(store)?;
            if let Some(slot) = self.l1.get_mut(index) {
                *slot = at | entry::COPIED;
            }
            self.cache.fresh(store, at)?;
        }
        Ok(())
    }

    /// Where the L2 table of `guest` is; 0 if there is none.
    fn table_of(&self, guest: u64) -> u64 {
        let index = to_usize(self.shape.l1_index(guest));
        self.l1.get(index).copied().unwrap_or(0) & entry::OFFSET
    }

    /// Where the L2 entry of `guest` is.
    fn entry_at(&self, guest: u64) -> u64 {
        let table = self.table_of(guest);
        table.saturating_add(self.shape.l2_index(guest).saturating_mul(8))
    }

    fn entry<S: Store>(&mut self, store: &mut S, guest: u64) -> Result<u64, WriteError<S::Error>> {
        self.cache.get(store, self.entry_at(guest))
    }

    fn set_entry<S: Store>(
        &mut self,
        store: &mut S,
        guest: u64,
        raw: u64,
    ) -> Result<(), WriteError<S::Error>> {
        self.cache.set(store, self.entry_at(guest), raw)
    }

    /// All clusters are there: writes the tables and, last of all, the header. What was put behind
    /// `end` is taken back, and the disk has `virtual_size` bytes, whatever was expected before. Returns
    /// the length of the file, which may have to be made longer.
    pub fn finish<S: Store>(
        mut self,
        store: &mut S,
        end: u64,
        virtual_size: u64,
    ) -> Result<u64, WriteError<S::Error>> {
        self.cut(store, end)?;
        self.shape.virtual_size = virtual_size
            .max(end)
            .checked_next_multiple_of(SECTOR)
            .unwrap_or(u64::MAX);
        check_size(&self.shape)?;
        self.cache.flush(store)?;
        let entries = self.shape.l1_entries().max(1);
        self.grow_l1(to_usize(entries).max(self.l1.len()))?;
        self.l1.truncate(to_usize(entries));
        self.place_l1(store)?;
        let refcounts = self.clusters.finish(store)?;
        let bytes: Vec<u8> = self
            .l1
            .iter()
            .flat_map(|entry| entry.to_be_bytes())
            .collect();
        write_sparse(store, self.shape.l1_at, &bytes)?;
        let places = Places {
            l1_entries: self.l1.len(),
            refcounts,
        };
        let header = encode_header(&self.shape, &places, self.codec);
        store.write_at(0, &header).map_err(WriteError::Store)?;
        let end = self.offset(self.clusters.next());
        // Packed bytes at the very end need no whole cluster, only their last sector.
        let packed = self.pack.start.next_multiple_of(SECTOR);
        Ok(if self.pack.end == end && self.pack.start > 0 {
            packed
        } else {
            end
        })
    }

    /// Gives back what was set aside for L1 and is not needed, or moves it to where there is room.
    fn place_l1<S: Store>(&mut self, store: &mut S) -> Result<(), WriteError<S::Error>> {
        let room = self.l1_room.div_ceil(self.cluster_size());
        let needed = to_u64(self.l1.len())
            .saturating_mul(8)
            .div_ceil(self.cluster_size());
        let first = self.cluster_of(self.shape.l1_at);
        let mut unused = first.saturating_add(needed)..first.saturating_add(room);
        if needed > room {
            let new = self.clusters.reserve(store, needed)?;
            for cluster in new..new.saturating_add(needed) {
                self.clusters.take(store, cluster)?;
            }
            self.shape.l1_at = self.offset(new);
            unused = first..first.saturating_add(room);
        }
        for cluster in unused {
            self.clusters.release(store, cluster)?;
        }
        Ok(())
    }
}

/// Refuses a disk that clusters of this size can't map, and says which could.
fn check_size(shape: &Shape) -> Result<(), Error> {
    let most = (MAX_L1_BYTES / 8).saturating_mul(shape.l1_covers());
    if shape.virtual_size <= most && shape.virtual_size <= Limits::MAX_VIRTUAL_SIZE {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "a disk of {} bytes does not fit into qcow2 with clusters of {} bytes, which maps {most}: use larger clusters",
        shape.virtual_size,
        shape.cluster_size(),
    )))
}
