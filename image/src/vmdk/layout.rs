//! What is in the file, byte for byte. "Virtual Disk Format 5.0" (VMware) names the fields.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Offsets and sizes are in sectors.
pub(super) const SECTOR: u64 = 512;

/// `magicNumber` of [`SparseHeader`].
pub(super) const MAGIC: [u8; 4] = *b"KDMV";

/// `gdOffset` of a stream: the grain directory is found by the footer.
pub(super) const GD_AT_END: u64 = u64::MAX;

/// `flags`: the newline test characters are there.
pub(super) const FLAG_NEWLINE_TEST: u32 = 1;
/// `flags`: there is a redundant grain directory.
pub(super) const FLAG_REDUNDANT: u32 = 1 << 1;
/// `flags`: a grain table entry of 1 means a grain of zeros.
pub(super) const FLAG_ZEROED_GRAIN: u32 = 1 << 2;
/// `flags`: grains are compressed.
pub(super) const FLAG_COMPRESSED: u32 = 1 << 16;
/// `flags`: markers describe what follows, and carry the address of each grain.
pub(super) const FLAG_MARKERS: u32 = 1 << 17;
/// Flags that a reader must know.
pub(super) const FLAGS_INCOMPATIBLE: u32 = 0xffff_0000;

/// `compressAlgorithm`: none.
pub(super) const COMPRESSION_NONE: u16 = 0;
/// `compressAlgorithm`: deflate, in a zlib frame.
pub(super) const COMPRESSION_DEFLATE: u16 = 1;

/// The newline test: a transfer as text would have changed these.
pub(super) const NEWLINE_TEST: [u8; 4] = *b"\n \r\n";

/// `SparseExtentHeader`: at the start of the file, and again as its footer.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct SparseHeader {
    pub(super) magic: [u8; 4],
    pub(super) version: U32,
    pub(super) flags: U32,
    /// Size of the disk.
    pub(super) capacity: U64,
    pub(super) grain_size: U64,
    pub(super) descriptor_offset: U64,
    pub(super) descriptor_size: U64,
    pub(super) gtes_per_gt: U32,
    pub(super) rgd_offset: U64,
    pub(super) gd_offset: U64,
    /// What the metadata takes at the start of the file: grains come after it.
    pub(super) overhead: U64,
    pub(super) unclean_shutdown: u8,
    pub(super) newline_test: [u8; 4],
    pub(super) compress_algorithm: U16,
    pub(super) pad: [u8; 433],
}

const _: () = assert!(size_of::<SparseHeader>() == 512);

/// The start of a marker. With a `size` it is a grain: that many bytes of zlib follow at once, and
/// `value` is the grain's address on the disk. Without, a [`MarkerRest`] fills the sector, and `value` is the number
/// of sectors that follow it.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Marker {
    pub(super) value: U64,
    pub(super) size: U32,
}

/// Length of a [`Marker`], and so of what precedes the zlib data of a grain.
pub(super) const MARKER_LEN: u64 = 12;
const _: () = assert!(size_of::<Marker>() == 12);

/// The rest of a marker's sector.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct MarkerRest {
    pub(super) kind: U32,
    pub(super) pad: [u8; 496],
}

const _: () = assert!(size_of::<Marker>() + size_of::<MarkerRest>() == 512);

/// Marker of the end of the stream.
pub(super) const MARKER_EOS: u32 = 0;
/// Marker in front of a grain table.
pub(super) const MARKER_GRAIN_TABLE: u32 = 1;
/// Marker in front of a grain directory.
pub(super) const MARKER_GRAIN_DIRECTORY: u32 = 2;
/// Marker in front of the footer.
pub(super) const MARKER_FOOTER: u32 = 3;
/// Not in the specification: vSphere writes it now and then ("progress"). Nothing follows it.
pub(super) const MARKER_PROGRESS: u32 = 4;

/// Grain table entry of a grain of zeros, where [`FLAG_ZEROED_GRAIN`] says so.
pub(super) const GTE_ZEROED: u32 = 1;

/// `COWDisk_Header`: at the start of a sparse extent of an ESX host; its first sector of four. The names
/// are those of the "Virtual Disk Format 5.0"; offsets and sizes are in sectors.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct CowdHeader {
    pub(super) magic: [u8; 4],
    pub(super) version: U32,
    pub(super) flags: U32,
    /// Size of the disk.
    pub(super) capacity: U32,
    pub(super) grain_size: U32,
    pub(super) gd_offset: U32,
    pub(super) gd_entries: U32,
    pub(super) free_sector: U32,
    /// Name of the parent; of a disk without ([`COWD_ROOT`]) its geometry.
    pub(super) parent: [u8; 480],
}

const _: () = assert!(size_of::<CowdHeader>() == 512);

/// `magicNumber` of [`CowdHeader`].
pub(super) const COWD_MAGIC: [u8; 4] = *b"COWD";
/// Entries of every grain table of a COWD extent.
pub(super) const COWD_GTES: u32 = 4096;
/// `flags` of [`CowdHeader`]: the disk has no parent.
pub(super) const COWD_ROOT: u32 = 1;
