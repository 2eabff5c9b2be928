//! The header, as bytes.

use std::ops::Range;

use crate::cluster::ClusterCodec;
use crate::num::to_u64;
use crate::qcow2::layout::{MAGIC, incompatible};
use crate::qcow2::map::Shape;

/// Largest L1 table QEMU opens, in bytes.
pub(super) const MAX_L1_BYTES: u64 = 32 << 20;

/// With the compression type and the padding behind it.
const HEADER_LEN: u32 = 112;

/// Reference counts have 2^4 bits.
pub(super) const REFCOUNT_ORDER: u32 = 4;

/// Where the tables have ended up.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) l1_entries: usize,
    /// The refcount table, in whole clusters.
    pub(super) refcounts: Range<u64>,
}

/// "Header", with its additional fields, and the end of the list of extensions.
pub(super) fn encode_header(shape: &Shape, places: &Places, codec: ClusterCodec) -> Vec<u8> {
    let zstd = codec == ClusterCodec::Zstd;
    let table = places
        .refcounts
        .end
        .saturating_sub(places.refcounts.start)
        .checked_shr(shape.cluster_bits)
        .unwrap_or(0);
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    let mut header = Vec::new();
    header.extend(MAGIC);
    header.extend(shape.version.to_be_bytes());
    // No backing file, and its name has no length.
    header.extend([0; 12]);
    header.extend(shape.cluster_bits.to_be_bytes());
    header.extend(shape.virtual_size.to_be_bytes());
    // Not encrypted.
    header.extend([0; 4]);
    header.extend(small(to_u64(places.l1_entries)));
    header.extend(shape.l1_at.to_be_bytes());
    header.extend(places.refcounts.start.to_be_bytes());
    header.extend(small(table));
    // No snapshots, and nowhere.
    header.extend([0; 12]);
    let features = if zstd { incompatible::COMPRESSION } else { 0 };
    header.extend(features.to_be_bytes());
    // Nothing compatible, nothing to be cleared.
    header.extend([0; 16]);
    header.extend(REFCOUNT_ORDER.to_be_bytes());
    header.extend(HEADER_LEN.to_be_bytes());
    header.extend([u8::from(zstd), 0, 0, 0, 0, 0, 0, 0]);
    // "Header extensions": the end of them.
    header.extend([0; 8]);
    header
}
