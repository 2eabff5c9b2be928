//! What entries of the L1 and L2 tables mean: the one place for both ways of reading.
//!
//! Nothing is read here. Whether an offset is inside the file is for those who know its length.

use std::ops::Range;

use super::layout::entry;
use crate::num::{be64_entry, to_u64, to_usize};
use crate::{Error, Result};

/// Tables are read in slices of at most this many bytes.
pub(super) const SLICE: u64 = 64 << 10;

/// Subclusters per cluster, where entries are extended.
const SUBCLUSTERS: u32 = 32;

/// The numbers that say how to read the tables. Validated by [`super::header`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    /// Entries of an L2 table, as a power of two.
    pub(super) l2_bits: u32,
    pub(super) virtual_size: u64,
    /// Offset of the active L1 table.
    pub(super) l1_at: u64,
    pub(super) extended_l2: bool,
    pub(super) external_data: bool,
}

impl Shape {
    /// Bytes per cluster.
    pub(super) fn cluster_size(&self) -> u64 {
        1_u64.checked_shl(self.cluster_bits).unwrap_or(u64::MAX)
    }

    /// Bytes per L2 entry.
    pub(super) fn entry_size(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Entries per L2 table.
    pub(super) fn l2_entries(&self) -> u64 {
        1_u64.checked_shl(self.l2_bits).unwrap_or(u64::MAX)
    }

    /// Bytes per L2 table.
    pub(super) fn l2_bytes(&self) -> u64 {
        self.l2_entries().saturating_mul(self.entry_size())
    }

    /// Guest bytes per L1 entry.
    pub(super) fn l1_covers(&self) -> u64 {
        let bits = self.cluster_bits.saturating_add(self.l2_bits);
        1_u64.checked_shl(bits).unwrap_or(u64::MAX)
    }

    /// L1 entries that the disk needs; more are for the state of a running machine.
    pub(super) fn l1_entries(&self) -> u64 {
        self.virtual_size.div_ceil(self.l1_covers())
    }

    /// Index in L1 of guest offset `guest`.
    pub(super) fn l1_index(&self, guest: u64) -> u64 {
        let bits = self.cluster_bits.saturating_add(self.l2_bits);
        guest.checked_shr(bits).unwrap_or(0)
    }

    /// Index in its L2 table of guest offset `guest`.
    pub(super) fn l2_index(&self, guest: u64) -> u64 {
        let cluster = guest.checked_shr(self.cluster_bits).unwrap_or(0);
        cluster & self.l2_entries().saturating_sub(1)
    }

    /// Start of the cluster that `offset`, of guest or image, is in.
    pub(super) fn cluster_start(&self, offset: u64) -> u64 {
        offset & !self.cluster_size().saturating_sub(1)
    }

    /// Start of the guest range of the L1 entry that `guest` is in.
    pub(super) fn l1_start(&self, guest: u64) -> u64 {
        guest & !self.l1_covers().saturating_sub(1)
    }

    fn unaligned(&self, offset: u64) -> bool {
        self.cluster_start(offset) != offset
    }

    /// The L2 table that the L1 entry `raw` at `at` names.
    pub(super) fn l2_table(&self, raw: u64, at: u64) -> Result<Option<u64>> {
        if self.version == 1 {
            return Ok((raw != 0).then_some(raw));
        }
        if raw & entry::L1_RESERVED != 0 {
            return Err(
                Error::malformed(format!("L1 entry {raw:#x} has reserved bits set")).at(at),
            );
        }
        let table = raw & entry::OFFSET;
        if self.unaligned(table) {
            return Err(Error::malformed(format!(
                "L1 entry names an L2 table at {table:#x}, which is no start of a cluster"
            ))
            .at(at));
        }
        Ok((table != 0).then_some(table))
    }

    /// The cluster at guest offset `guest` that the L2 entry at `at` describes.
    pub(super) fn cluster(&self, raw: RawEntry, guest: u64, at: u64) -> Result<Cluster> {
        if self.version == 1 {
            return self.cluster_v1(raw.entry, at);
        }
        if raw.entry & entry::COMPRESSED != 0 {
            return self.compressed(raw, at);
        }
        let bad = |text: String| Err(Error::malformed(text).at(at));
        let reserved = if self.extended_l2 {
            entry::L2_RESERVED | entry::ZERO
        } else {
            entry::L2_RESERVED
        };
        if raw.entry & reserved != 0 {
            return bad(format!("L2 entry {:#x} has reserved bits set", raw.entry));
        }
        let host = raw.entry & entry::OFFSET;
        if self.unaligned(host) {
            return bad(format!(
                "L2 entry names a cluster at {host:#x}, which is no start of a cluster"
            ));
        }
        // Offset 0 holds the header, so it stands for "nowhere"; in a data file it is a place.
        let used = host != 0 || self.external_data && raw.entry & entry::COPIED != 0;
        if self.external_data && used && host != guest {
            return bad(format!(
                "L2 entry maps {guest:#x} to {host:#x} of the external data file instead of the same offset"
            ));
        }
        if self.extended_l2 {
            return Self::subclusters(raw.bitmap, used.then_some(host))
                .map_err(|text| Error::malformed(text).at(at));
        }
        if raw.entry & entry::ZERO != 0 {
            if self.version < 3 {
                return bad("zero cluster in a version 2 image, which has none".to_owned());
            }
            return Ok(Cluster::Whole(Place::Zero));
        }
        Ok(Cluster::Whole(if used {
            Place::Data { at: host }
        } else {
            Place::Unallocated
        }))
    }

    /// Version 1: an offset, or with the top bit the size of a compressed cluster, to the byte, above its
    /// offset.
    fn cluster_v1(&self, raw: u64, at: u64) -> Result<Cluster> {
        if raw == 0 {
            return Ok(Cluster::Whole(Place::Unallocated));
        }
        if raw & entry::V1_COMPRESSED == 0 {
            if !raw.is_multiple_of(512) {
                return Err(Error::malformed(format!(
                    "L2 entry names a cluster at {raw:#x}, which is no start of a sector"
                ))
                .at(at));
            }
            return Ok(Cluster::Whole(Place::Data { at: raw }));
        }
        let x = 63_u32.saturating_sub(self.cluster_bits);
        let host = raw & 1_u64.checked_shl(x).unwrap_or_default().wrapping_sub(1);
        let len = raw.checked_shr(x).unwrap_or(0) & self.cluster_size().saturating_sub(1);
        match u32::try_from(len) {
            Ok(len) if len > 0 => Ok(Cluster::Whole(Place::Compressed { at: host, len })),
            _ => Err(Error::malformed("a compressed cluster of no bytes").at(at)),
        }
    }

    fn compressed(&self, raw: RawEntry, at: u64) -> Result<Cluster> {
        let bad = |text: String| Err(Error::malformed(text).at(at));
        if self.external_data {
            return bad("compressed cluster in an image with an external data file".to_owned());
        }
        if raw.bitmap != 0 {
            return bad("compressed cluster with subclusters".to_owned());
        }
        // "Compressed Clusters Descriptor": x = 62 - (cluster_bits - 8).
        let x = 70_u32.saturating_sub(self.cluster_bits);
        let below = |bit: u32| 1_u64.checked_shl(bit).unwrap_or_default().wrapping_sub(1);
        let host = raw.entry & below(x);
        let more = (raw.entry & below(62)).checked_shr(x).unwrap_or(0);
        let sectors = more.saturating_add(1);
        if host < self.cluster_size() {
            return bad(format!(
                "compressed cluster at {host:#x} is over the header"
            ));
        }
        // It ends with a sector, wherever it starts.
        let len = sectors.saturating_mul(512).saturating_sub(host & 511);
        let Ok(len) = u32::try_from(len) else {
            return bad("compressed cluster is out of range".to_owned());
        };
        Ok(Cluster::Whole(Place::Compressed { at: host, len }))
    }

    fn subclusters(bitmap: u64, host: Option<u64>) -> Result<Cluster, &'static str> {
        let [z0, z1, z2, z3, a0, a1, a2, a3] = bitmap.to_be_bytes();
        let zero = u32::from_be_bytes([z0, z1, z2, z3]);
        let allocated = u32::from_be_bytes([a0, a1, a2, a3]);
        if zero & allocated != 0 {
            return Err("a subcluster is both allocated and zero");
        }
        if allocated != 0 && host.is_none() {
            return Err("subclusters are allocated in a cluster that is not");
        }
        Ok(match (host, allocated, zero) {
            (Some(at), u32::MAX, _) => Cluster::Whole(Place::Data { at }),
            (_, _, u32::MAX) => Cluster::Whole(Place::Zero),
            (_, 0, 0) => Cluster::Whole(Place::Unallocated),
            _ => Cluster::Split {
                host: host.unwrap_or(0),
                allocated,
                zero,
            },
        })
    }
}

/// An L2 entry as it is in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawEntry {
    pub(super) entry: u64,
    /// Subclusters: allocated in the lower half, zero in the upper; 0 where entries are not extended.
    pub(super) bitmap: u64,
}

impl RawEntry {
    /// An entry that says nothing.
    pub(super) fn is_empty(self) -> bool {
        self.entry == 0 && self.bitmap == 0
    }

    /// Entry `index` of a slice of an L2 table.
    pub(super) fn of(slice: &[u8], index: usize, extended: bool) -> Option<Self> {
        if !extended {
            let entry = be64_entry(slice, index)?;
            return Some(Self { entry, bitmap: 0 });
        }
        let first = index.checked_mul(2)?;
        Some(Self {
            entry: be64_entry(slice, first)?,
            bitmap: be64_entry(slice, first.checked_add(1)?)?,
        })
    }
}

/// Where a cluster, or a run of subclusters, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere in this image.
    Unallocated,
    /// It reads as zeros.
    Zero,
    /// As it is, from this offset of the data file.
    Data { at: u64 },
    /// Compressed, from this offset, in at most `len` bytes.
    Compressed { at: u64, len: u32 },
}

/// One cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    /// All of it is in one place.
    Whole(Place),
    /// Its subclusters differ. Bit n is subcluster n.
    Split {
        host: u64,
        allocated: u32,
        zero: u32,
    },
}

impl Cluster {
    /// Where its bytes start, if any of them are read.
    pub(super) fn host(&self) -> Option<u64> {
        match *self {
            Self::Whole(Place::Data { at } | Place::Compressed { at, .. }) => Some(at),
            Self::Split {
                host, allocated, ..
            } => (allocated != 0).then_some(host),
            Self::Whole(Place::Unallocated | Place::Zero) => None,
        }
    }

    /// Its parts in order, for a cluster of `size` bytes at guest offset `guest`.
    pub(super) fn parts(self, guest: u64, size: u64) -> Parts {
        Parts {
            cluster: self,
            guest,
            size,
            next: 0,
        }
    }
}

/// See [`Cluster::parts`].
#[derive(Debug, Clone)]
pub(super) struct Parts {
    cluster: Cluster,
    guest: u64,
    size: u64,
    /// Next subcluster.
    next: u32,
}

impl Iterator for Parts {
    /// A guest range and where it is.
    type Item = (Range<u64>, Place);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= SUBCLUSTERS {
            return None;
        }
        let (host, allocated, zero) = match self.cluster {
            Cluster::Whole(place) => {
                self.next = SUBCLUSTERS;
                return Some((self.guest..self.guest.saturating_add(self.size), place));
            }
            Cluster::Split {
                host,
                allocated,
                zero,
            } => (host, allocated, zero),
        };
        let state = |index: u32| {
            let bit = 1_u32.checked_shl(index).unwrap_or(0);
            (allocated & bit != 0, zero & bit != 0)
        };
        let first = self.next;
        let kind = state(first);
        while self.next < SUBCLUSTERS && state(self.next) == kind {
            self.next = self.next.saturating_add(1);
        }
        let offset = |index: u32| u64::from(index).saturating_mul(self.size) / 32;
        let place = match kind {
            (true, _) => Place::Data {
                at: host.saturating_add(offset(first)),
            },
            (false, true) => Place::Zero,
            (false, false) => Place::Unallocated,
        };
        let start = self.guest.saturating_add(offset(first));
        Some((start..self.guest.saturating_add(offset(self.next)), place))
    }
}

/// How many entries of `width` bytes from `index` on are all zeros.
pub(super) fn empty_run(slice: &[u8], index: u64, width: u64) -> u64 {
    let from = to_usize(index.saturating_mul(width));
    let rest = slice.get(from..).unwrap_or_default();
    let (words, _) = rest.as_chunks::<8>();
    let zeros = words.iter().take_while(|word| **word == [0; 8]).count();
    to_u64(zeros)
        .saturating_mul(8)
        .checked_div(width)
        .unwrap_or(0)
}
