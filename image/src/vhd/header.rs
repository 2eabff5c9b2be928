//! The header of a disk with tables, checked, and what entries of the block allocation table mean.

use std::ops::Range;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::SECTOR;
use super::footer::{Footer, checksum};
use crate::num::{add, mul, to_u64};
use crate::{Error, Result};

const COOKIE: [u8; 8] = *b"cxsparse";
/// BAT entry of a block that is not there.
const UNUSED: u32 = u32::MAX;
/// The copy of the footer.
const FRONT: Range<u64> = 0..512;
/// Offset of `checksum`.
const CHECKSUM_AT: usize = 36;
/// Smallest block: its bitmap is a byte. Of smaller ones QEMU thinks that they have no bitmap, and the
/// specification that it takes a sector; nobody writes them.
const MIN_BLOCK: u64 = 4096;

/// Where a platform's name of the parent is.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawLocator {
    pub(super) platform: [u8; 4],
    /// Sectors, or bytes, set aside.
    pub(super) space: U32,
    /// Bytes used.
    pub(super) len: U32,
    reserved: U32,
    pub(super) at: U64,
}

/// "Dynamic Disk Header Format".
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    cookie: [u8; 8],
    data_offset: U64,
    table_offset: U64,
    version: U32,
    max_entries: U32,
    block_size: U32,
    checksum: U32,
    parent_id: [u8; 16],
    parent_timestamp: U32,
    reserved: U32,
    parent_name: [u8; 512],
    locators: [RawLocator; 8],
    reserved2: [u8; 256],
}

const _: () = assert!(size_of::<RawHeader>() == Header::LEN);

/// What a differencing disk says of its parent.
#[derive(Debug, Clone)]
pub(super) struct ParentFields {
    pub(super) id: [u8; 16],
    /// UTF-16, big-endian, padded with NUL.
    pub(super) name: [u8; 512],
    pub(super) locators: [RawLocator; 8],
}

/// A valid header. All in bytes unless it says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Header {
    at: u64,
    table: u64,
    size: u64,
    block: u64,
    bitmap: u64,
    blocks: u64,
    parent: Box<ParentFields>,
}

impl Header {
    /// Bytes of the header in the file.
    pub(super) const LEN: usize = 1024;

    /// Checks the header `bytes` that `footer` points to.
    pub(super) fn parse(bytes: &[u8], footer: &Footer) -> Result<Self> {
        let at = footer.data_offset();
        let bad = |text: String| Error::malformed(text).at(at);
        let raw = RawHeader::read_from_bytes(bytes)
            .map_err(|_| bad("the file ends inside the VHD's header".to_owned()))?;
        if raw.cookie != COOKIE {
            return Err(bad(
                "the VHD's header is not where the footer says".to_owned()
            ));
        }
        if checksum(bytes, CHECKSUM_AT) != raw.checksum.get() {
            return Err(bad(
                "the checksum of the VHD's header is wrong: it is damaged".to_owned(),
            ));
        }
        if raw.version.get() >> 16 != 1 {
            return Err(Error::unsupported(format!(
                "VHD header version {}.{} is not known",
                raw.version.get() >> 16,
                raw.version.get() & 0xffff
            )));
        }
        let block = u64::from(raw.block_size.get());
        if !block.is_power_of_two() || block < SECTOR {
            return Err(bad(format!(
                "a block size of {block} bytes is not possible"
            )));
        }
        if block < MIN_BLOCK {
            return Err(Error::unsupported(format!(
                "VHD blocks of {block} bytes are not read, from {MIN_BLOCK} on they are"
            )));
        }
        let size = footer.size();
        let entries = u64::from(raw.max_entries.get());
        if mul(entries, block, "the number of blocks")? < size {
            return Err(bad(format!(
                "a disk of {size} bytes does not fit into {entries} blocks"
            )));
        }
        let header = Self {
            at,
            table: raw.table_offset.get(),
            size,
            block,
            // A bit per sector, in whole sectors.
            bitmap: (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR),
            blocks: size.div_ceil(block),
            parent: Box::new(ParentFields {
                id: raw.parent_id,
                name: raw.parent_name,
                locators: raw.locators,
            }),
        };
        let head = header.at..add(at, to_u64(Self::LEN), "the place of the header")?;
        let table = header.table
            ..add(
                header.table,
                header.table_len(),
                "the block allocation table",
            )?;
        if overlap(&head, &FRONT) || overlap(&table, &FRONT) || overlap(&head, &table) {
            return Err(bad(
                "the VHD's header and tables would be over each other".to_owned()
            ));
        }
        Ok(header)
    }

    pub(super) fn virtual_size(&self) -> u64 {
        self.size
    }

    pub(super) fn block_size(&self) -> u64 {
        self.block
    }

    /// Bytes of the bitmap in front of each block.
    pub(super) fn bitmap_len(&self) -> u64 {
        self.bitmap
    }

    /// Blocks of the disk.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Where the block allocation table is.
    pub(super) fn table(&self) -> u64 {
        self.table
    }

    /// Bytes of it that the disk needs.
    pub(super) fn table_len(&self) -> u64 {
        self.blocks.saturating_mul(4)
    }

    pub(super) fn parent(&self) -> &ParentFields {
        &self.parent
    }

    /// The part of the disk that block `index` is.
    pub(super) fn guest(&self, index: u64) -> Range<u64> {
        let start = index.saturating_mul(self.block);
        start..start.saturating_add(self.block).min(self.size)
    }

    /// Where bitmap and block of `entry` are, in a file of `file` bytes; `None` if they are not there.
    pub(super) fn place(&self, entry: [u8; 4], file: u64) -> Result<Option<Range<u64>>> {
        let sector = u32::from_be_bytes(entry);
        if sector == UNUSED {
            return Ok(None);
        }
        let at = u64::from(sector).saturating_mul(SECTOR);
        let place = at..at.saturating_add(self.bitmap).saturating_add(self.block);
        if place.end > file {
            return Err(Error::malformed(
                "a block reaches past the end of the image: it is truncated or damaged",
            )
            .at(at));
        }
        let head = self.at..self.at.saturating_add(to_u64(Self::LEN));
        let table = self.table..self.table.saturating_add(self.table_len());
        if [FRONT, head, table]
            .iter()
            .any(|other| overlap(&place, other))
        {
            return Err(
                Error::malformed("a block would be over the VHD's header or tables").at(at),
            );
        }
        Ok(Some(place))
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}
