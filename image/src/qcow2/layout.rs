//! The structures of a qcow2 file as they are on disk. All numbers are big-endian.
//!
//! Section names are those of `docs/interop/qcow2.txt` in QEMU's tree.

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// First four bytes of every version.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// "Header", bytes 0 to 71: versions 2 and 3.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) magic: [u8; 4],
    pub(super) version: U32,
    pub(super) backing_file_offset: U64,
    pub(super) backing_file_size: U32,
    pub(super) cluster_bits: U32,
    pub(super) size: U64,
    pub(super) crypt_method: U32,
    pub(super) l1_size: U32,
    pub(super) l1_table_offset: U64,
    pub(super) refcount_table_offset: U64,
    pub(super) refcount_table_clusters: U32,
    pub(super) nb_snapshots: U32,
    /// Snapshots have L1 tables of their own, which are not read.
    _snapshots_offset: U64,
}

/// "Header", bytes 72 to 103: version 3 only.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHeaderV3 {
    pub(super) incompatible_features: U64,
    pub(super) compatible_features: U64,
    pub(super) autoclear_features: U64,
    pub(super) refcount_order: U32,
    pub(super) header_length: U32,
}

/// "Header", byte 104, "Additional fields": there if `header_length` is larger than its offset.
pub(super) const COMPRESSION_TYPE_AT: usize = 104;

/// The whole header of version 1 (`block/qcow.c` in QEMU's tree).
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHeaderV1 {
    pub(super) magic: [u8; 4],
    pub(super) version: U32,
    pub(super) backing_file_offset: U64,
    pub(super) backing_file_size: U32,
    _mtime: U32,
    pub(super) size: U64,
    pub(super) cluster_bits: u8,
    pub(super) l2_bits: u8,
    _padding: [u8; 2],
    pub(super) crypt_method: U32,
    pub(super) l1_table_offset: U64,
}

/// "Header extensions": what is in front of each.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawExtension {
    pub(super) kind: U32,
    pub(super) len: U32,
}

/// "Feature name table": one entry.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawFeatureName {
    /// 0 incompatible, 1 compatible, 2 autoclear.
    pub(super) kind: u8,
    pub(super) bit: u8,
    /// Padded with zeros, and not ended by one if it fills the field.
    pub(super) name: [u8; 46],
}

const _: () = assert!(size_of::<RawHeaderV1>() == 48);
const _: () = assert!(size_of::<RawHeader>() == 72);
const _: () = assert!(size_of::<RawHeader>() + size_of::<RawHeaderV3>() == 104);
const _: () = assert!(size_of::<RawExtension>() == 8);
const _: () = assert!(size_of::<RawFeatureName>() == 48);

/// "Header extensions", types.
pub(super) mod extension {
    pub(in crate::qcow2) const END: u32 = 0;
    pub(in crate::qcow2) const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub(in crate::qcow2) const FEATURE_NAMES: u32 = 0x6803_f857;
    pub(in crate::qcow2) const DATA_FILE: u32 = 0x4441_5441;
}

/// "Header", incompatible feature bits.
pub(super) mod incompatible {
    pub(in crate::qcow2) const DIRTY: u64 = 1;
    pub(in crate::qcow2) const CORRUPT: u64 = 1 << 1;
    pub(in crate::qcow2) const EXTERNAL_DATA: u64 = 1 << 2;
    pub(in crate::qcow2) const COMPRESSION: u64 = 1 << 3;
    pub(in crate::qcow2) const EXTENDED_L2: u64 = 1 << 4;
    pub(in crate::qcow2) const KNOWN: u64 = (1 << 5) - 1;
}

/// "Header", compatible feature bits.
pub(super) mod compatible {
    pub(in crate::qcow2) const LAZY_REFCOUNTS: u64 = 1;
}

/// "Header", autoclear feature bits.
pub(super) mod autoclear {
    pub(in crate::qcow2) const BITMAPS: u64 = 1;
    pub(in crate::qcow2) const RAW_EXTERNAL_DATA: u64 = 1 << 1;
}

/// "Cluster mapping": bits of L1 and L2 entries.
pub(super) mod entry {
    /// Bits 9 to 55: where an L2 table or a cluster is.
    pub(in crate::qcow2) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    /// Refcount is exactly one. It tells a used cluster at offset 0 of a data file from an unused one.
    pub(in crate::qcow2) const COPIED: u64 = 1 << 63;
    pub(in crate::qcow2) const COMPRESSED: u64 = 1 << 62;
    /// Version 1: the cluster is compressed.
    pub(in crate::qcow2) const V1_COMPRESSED: u64 = 1 << 63;
    /// The cluster reads as zeros. Reserved where entries are extended.
    pub(in crate::qcow2) const ZERO: u64 = 1;
    pub(in crate::qcow2) const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
    pub(in crate::qcow2) const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
}
