//! The structures of a VHDX file as they are on disk. All numbers are little-endian.
//!
//! Section numbers are those of [MS-VHDX].

use std::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// 2.2.1: first eight bytes.
pub(super) const SIGNATURE: [u8; 8] = *b"vhdxfile";

/// 2.2: the header section; no other structure is in it.
pub(super) const HEADER_SECTION: u64 = 1 << 20;
/// 2.2.2: where the two copies of the header are.
pub(super) const HEADERS_AT: [usize; 2] = [64 << 10, 128 << 10];
/// 2.2.2: how long one is, for its checksum.
pub(super) const HEADER_LEN: usize = 4 << 10;
/// 2.2.3: where the two copies of the region table are.
pub(super) const REGION_TABLES_AT: [usize; 2] = [192 << 10, 256 << 10];
/// 2.2.3: how long one is.
pub(super) const REGION_TABLE_LEN: usize = 64 << 10;
/// What is needed of the header section.
pub(super) const FRONT_LEN: usize = 320 << 10;
/// 2.2.3.1, 2.6.1.1: most entries of a region table and of a metadata table.
pub(super) const MAX_ENTRIES: u32 = 2047;
/// Where the checksum is in every structure that has one.
pub(super) const CHECKSUM: std::ops::Range<usize> = 4..8;

/// An identifier, in the mixed byte order of Windows.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Guid {
    a: U32,
    b: U16,
    c: U16,
    d: [u8; 8],
}

impl Guid {
    pub(super) const ZERO: Self = Self::new(0, 0, 0, [0; 8]);

    const fn new(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        Self {
            a: U32::new(a),
            b: U16::new(b),
            c: U16::new(c),
            d,
        }
    }

    /// The identifier that `text` spells, in braces or without.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .trim_matches(['{', '}'])
            .bytes()
            .filter(|b| *b != b'-')
            .map(|b| {
                char::from(b)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            })
            .collect::<Option<_>>()?;
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        let bytes: [u8; 16] = bytes.try_into().ok().filter(|_| rest.is_empty())?;
        let [a0, a1, a2, a3, b0, b1, c0, c1, d @ ..] = bytes;
        Some(Self::new(
            u32::from_be_bytes([a0, a1, a2, a3]),
            u16::from_be_bytes([b0, b1]),
            u16::from_be_bytes([c0, c1]),
            d,
        ))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [d0, d1, rest @ ..] = self.d;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{d0:02x}{d1:02x}-",
            self.a, self.b, self.c
        )?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// 2.2.2: the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) signature: [u8; 4],
    pub(super) checksum: U32,
    pub(super) sequence_number: U64,
    pub(super) file_write_guid: Guid,
    pub(super) data_write_guid: Guid,
    pub(super) log_guid: Guid,
    pub(super) log_version: U16,
    pub(super) version: U16,
    pub(super) log_length: U32,
    pub(super) log_offset: U64,
}

/// 2.2.3.1: the region table's header.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawRegionTable {
    pub(super) signature: [u8; 4],
    pub(super) checksum: U32,
    pub(super) entry_count: U32,
    _reserved: U32,
}

/// 2.2.3.2: one region.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawRegion {
    pub(super) guid: Guid,
    pub(super) file_offset: U64,
    pub(super) length: U32,
    /// Bit 0: a reader must know it.
    pub(super) required: U32,
}

/// 2.3.1.1: what is in front of a log entry.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawLogEntry {
    pub(super) signature: [u8; 4],
    pub(super) checksum: U32,
    pub(super) entry_length: U32,
    pub(super) tail: U32,
    pub(super) sequence_number: U64,
    pub(super) descriptor_count: U32,
    _reserved: U32,
    pub(super) log_guid: Guid,
    pub(super) flushed_file_offset: U64,
    pub(super) last_file_offset: U64,
}

/// 2.3.1.2, 2.3.1.3: a descriptor of either kind.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawDescriptor {
    pub(super) signature: [u8; 4],
    /// Data: the last four bytes of the sector.
    pub(super) trailing: [u8; 4],
    /// Data: the first eight bytes of the sector. Zero: how many bytes become zero.
    pub(super) leading: [u8; 8],
    pub(super) file_offset: U64,
    pub(super) sequence_number: U64,
}

/// 2.3.1.4: a data sector: all but its first eight and last four bytes.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawDataSector {
    pub(super) signature: [u8; 4],
    pub(super) sequence_high: U32,
    pub(super) data: [u8; 4084],
    pub(super) sequence_low: U32,
}

/// 2.6.1.1: the metadata table's header.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawMetadataTable {
    pub(super) signature: [u8; 8],
    _reserved: U16,
    pub(super) entry_count: U16,
    _reserved2: [u8; 20],
}

/// 2.6.1.2: one metadata item.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawMetadataEntry {
    pub(super) item: Guid,
    /// From the start of the region.
    pub(super) offset: U32,
    pub(super) length: U32,
    pub(super) flags: U32,
    _reserved: U32,
}

/// 2.6.2.1: file parameters.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawFileParameters {
    pub(super) block_size: U32,
    pub(super) flags: U32,
}

/// 2.6.2.6.1: the parent locator's header.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawLocator {
    pub(super) locator_type: Guid,
    _reserved: U16,
    pub(super) key_value_count: U16,
}

/// 2.6.2.6.2: one key and its value; offsets are from the start of the locator.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawLocatorEntry {
    pub(super) key_offset: U32,
    pub(super) value_offset: U32,
    pub(super) key_length: U16,
    pub(super) value_length: U16,
}

const _: () = assert!(size_of::<Guid>() == 16);
const _: () = assert!(size_of::<RawHeader>() == 80);
const _: () = assert!(size_of::<RawRegionTable>() == 16);
const _: () = assert!(size_of::<RawRegion>() == 32);
const _: () = assert!(size_of::<RawLogEntry>() == 64);
const _: () = assert!(size_of::<RawDescriptor>() == 32);
const _: () = assert!(size_of::<RawDataSector>() == 4096);
const _: () = assert!(size_of::<RawMetadataTable>() == 32);
const _: () = assert!(size_of::<RawMetadataEntry>() == 32);
const _: () = assert!(size_of::<RawLocator>() == 20);
const _: () = assert!(size_of::<RawLocatorEntry>() == 12);

/// 2.2.3.2: regions.
pub(super) mod region {
    use super::Guid;

    pub(in crate::vhdx) const BAT: Guid = Guid::new(
        0x2dc2_7766,
        0xf623,
        0x4200,
        [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08],
    );
    pub(in crate::vhdx) const METADATA: Guid = Guid::new(
        0x8b7c_a206,
        0x4790,
        0x4b9a,
        [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e],
    );
    pub(in crate::vhdx) const REQUIRED: u32 = 1;
}

/// 2.6.2: metadata items.
pub(super) mod item {
    use super::Guid;

    pub(in crate::vhdx) const FILE_PARAMETERS: Guid = Guid::new(
        0xcaa1_6737,
        0xfa36,
        0x4d43,
        [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b],
    );
    pub(in crate::vhdx) const VIRTUAL_DISK_SIZE: Guid = Guid::new(
        0x2fa5_4224,
        0xcd1b,
        0x4876,
        [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8],
    );
    pub(in crate::vhdx) const VIRTUAL_DISK_ID: Guid = Guid::new(
        0xbeca_12ab,
        0xb2e6,
        0x4523,
        [0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46],
    );
    pub(in crate::vhdx) const LOGICAL_SECTOR_SIZE: Guid = Guid::new(
        0x8141_bf1d,
        0xa96f,
        0x4709,
        [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f],
    );
    pub(in crate::vhdx) const PHYSICAL_SECTOR_SIZE: Guid = Guid::new(
        0xcda3_48c7,
        0x445d,
        0x4471,
        [0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56],
    );
    pub(in crate::vhdx) const PARENT_LOCATOR: Guid = Guid::new(
        0xa8d3_5f2d,
        0xb30b,
        0x454d,
        [0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c],
    );
    /// Flag of an entry: a reader must know the item.
    pub(in crate::vhdx) const REQUIRED: u32 = 1 << 2;
    /// Flag of the file parameters: blocks stay allocated, which makes the file a fixed one.
    pub(in crate::vhdx) const LEAVE_ALLOCATED: u32 = 1;
    /// Flag of the file parameters: what this file does not hold is in a parent.
    pub(in crate::vhdx) const HAS_PARENT: u32 = 1 << 1;
}

/// 2.6.2.6.3: the one type of parent locator: the parent is a VHDX file.
pub(super) const LOCATOR_VHDX: Guid = Guid::new(
    0xb04a_efb7,
    0xd19e,
    0x4a81,
    [0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13],
);

/// 2.5.1: BAT entries.
pub(super) mod bat {
    /// Bits 20 to 63: where the block is.
    pub(in crate::vhdx) const OFFSET: u64 = !0xf_ffff;
    /// Bits 0 to 2.
    pub(in crate::vhdx) const STATE: u64 = 7;
    pub(in crate::vhdx) const NOT_PRESENT: u64 = 0;
    pub(in crate::vhdx) const UNDEFINED: u64 = 1;
    pub(in crate::vhdx) const ZERO: u64 = 2;
    pub(in crate::vhdx) const UNMAPPED: u64 = 3;
    /// The number that version 0.95 of the specification had for it; QEMU knows it, too.
    pub(in crate::vhdx) const UNMAPPED_095: u64 = 5;
    pub(in crate::vhdx) const FULLY_PRESENT: u64 = 6;
    pub(in crate::vhdx) const PARTIALLY_PRESENT: u64 = 7;
}

/// CRC-32C of `bytes` with the checksum field taken as zero.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let before = bytes.get(..CHECKSUM.start).unwrap_or_default();
    let after = bytes.get(CHECKSUM.end..).unwrap_or_default();
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    crc32c::crc32c_append(crc, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_spelled_as_windows_spells_them() {
        let text = "{2DC27766-F623-4200-9D64-115E9BFD4A08}";
        assert_eq!(Guid::parse(text), Some(region::BAT));
        let bytes = [
            0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd,
            0x4a, 0x08,
        ];
        assert_eq!(Guid::read_from_bytes(&bytes).unwrap(), region::BAT);
        assert_eq!(
            region::BAT.to_string(),
            "2dc27766-f623-4200-9d64-115e9bfd4a08"
        );
        for bad in ["", "{}", "2dc27766", &format!("{text}0"), "{é}"] {
            assert_eq!(Guid::parse(bad), None, "{bad:?}");
        }
    }
}
