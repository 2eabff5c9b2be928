//! The header, checked, and what entries of the block map mean.

use std::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::cluster::ClusterCodec;
use crate::forward::Geometry;
use crate::num::{add, mul};
use crate::{Compression, Error, ErrorKind, Format, Info, Limits, Result};

const SIGNATURE: u32 = 0xbeda_107f;
const VERSION: u32 = 0x0001_0001;
const SECTOR: u64 = 512;

/// What one entry of the map must be able to number, and QEMU's limit.
const MAX_BLOCKS: u32 = 0x3fff_ffff;

/// Entries from here on name no block: discarded, never written.
const DISCARDED: u32 = 0xffff_fffe;

/// `VDIPREHEADER` and `VDIHEADER1PLUS`, as far as all of version 1.1 have it.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    text: [u8; 64],
    signature: U32,
    version: U32,
    header_size: U32,
    kind: U32,
    flags: U32,
    description: [u8; 256],
    map_offset: U32,
    data_offset: U32,
    cylinders: U32,
    heads: U32,
    sectors: U32,
    sector_size: U32,
    unused: U32,
    disk_size: U64,
    block_size: U32,
    block_extra: U32,
    blocks: U32,
    blocks_allocated: U32,
    uuid: [u8; 16],
    uuid_modified: [u8; 16],
    uuid_linked: [u8; 16],
    uuid_parent: [u8; 16],
}

const _: () = assert!(size_of::<RawHeader>() == 456);

/// A valid header. All in bytes unless it says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Header {
    is_static: bool,
    map: u64,
    data: u64,
    size: u64,
    block: u64,
    /// Blocks that the disk has.
    blocks: u64,
}

impl Header {
    /// Bytes of the header in the file.
    pub(super) const LEN: usize = size_of::<RawHeader>();

    /// Checks the header at the start of `head`.
    pub(super) fn parse(head: &[u8], limits: &Limits) -> Result<Self> {
        let Ok((raw, _)) = RawHeader::read_from_prefix(head) else {
            return Err(not_this());
        };
        if raw.signature.get() != SIGNATURE {
            return Err(not_this());
        }
        if raw.version.get() != VERSION {
            return Err(Error::unsupported(format!(
                "VDI version {}.{} is not read, 1.1 is",
                raw.version.get() >> 16,
                raw.version.get() & 0xffff
            )));
        }
        let is_static = match raw.kind.get() {
            1 => false,
            2 => true,
            3 => return Err(Error::unsupported("this VDI is an undo image")),
            4 => {
                return Err(Error::unsupported(
                    "this VDI is a differencing image (a snapshot): merge it with its parent in \
                     VirtualBox (`VBoxManage clonemedium`)",
                ));
            }
            other => {
                return Err(Error::unsupported(format!("VDI type {other} is not known")));
            }
        };
        if raw.uuid_linked != [0; 16] || raw.uuid_parent != [0; 16] {
            return Err(Error::unsupported(
                "this VDI holds only what differs from a parent image",
            ));
        }
        if raw.block_extra.get() != 0 {
            return Err(Error::unsupported(format!(
                "this VDI has {} bytes of extra data with each block, which is not known here",
                raw.block_extra
            )));
        }
        if u64::from(raw.sector_size.get()) != SECTOR {
            return Err(Error::unsupported(format!(
                "VDIs with sectors of {} bytes are not read",
                raw.sector_size
            )));
        }
        let block = u64::from(raw.block_size.get());
        if !block.is_power_of_two() || block < SECTOR {
            return Err(Error::malformed(format!(
                "a block size of {block} bytes is not possible"
            )));
        }
        if raw.blocks.get() > MAX_BLOCKS {
            return Err(Error::malformed(format!(
                "{} blocks are more than an image can have",
                raw.blocks
            )));
        }
        // VBoxManage makes disks of odd sizes out of raw files; QEMU rounds up, too.
        let size = raw
            .disk_size
            .get()
            .checked_next_multiple_of(SECTOR)
            .ok_or_else(|| Error::malformed("the size of the disk is out of range"))?;
        limits.check_virtual_size(size)?;
        let there = mul(block, u64::from(raw.blocks.get()), "the number of blocks")?;
        if size > there {
            return Err(Error::malformed(format!(
                "a disk of {size} bytes does not fit into {} blocks",
                raw.blocks
            )));
        }
        let header = Self {
            is_static,
            map: u64::from(raw.map_offset.get()),
            data: u64::from(raw.data_offset.get()),
            size,
            block,
            blocks: size.div_ceil(block),
        };
        let map_end = add(header.map, header.map_len(), "the block map")?;
        if header.map < crate::num::to_u64(Self::LEN) {
            return Err(Error::malformed("the block map would be over the header").at(header.map));
        }
        if header.data < map_end {
            return Err(Error::malformed("the blocks would be over the block map").at(header.data));
        }
        Ok(header)
    }

    pub(super) fn virtual_size(&self) -> u64 {
        self.size
    }

    pub(super) fn block_size(&self) -> u64 {
        self.block
    }

    /// Blocks of the disk.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Where the block map is.
    pub(super) fn map(&self) -> u64 {
        self.map
    }

    /// Bytes of the block map that the disk needs.
    pub(super) fn map_len(&self) -> u64 {
        self.blocks.saturating_mul(4)
    }

    /// The part of the disk that block `index` is.
    pub(super) fn guest(&self, index: u64) -> Range<u64> {
        let start = index.saturating_mul(self.block);
        start..start.saturating_add(self.block).min(self.size)
    }

    /// Where the block that `entry` names is, in a file of `file` bytes; `None` for zeros.
    pub(super) fn place(&self, entry: [u8; 4], file: u64) -> Result<Option<u64>> {
        let number = u32::from_le_bytes(entry);
        if number >= DISCARDED {
            return Ok(None);
        }
        let at = self
            .data
            .saturating_add(u64::from(number).saturating_mul(self.block));
        if at >= file {
            return Err(Error::malformed(
                "a block is past the end of the image: it is truncated or damaged",
            )
            .at(at));
        }
        Ok(Some(at))
    }

    pub(super) fn info(&self) -> Info {
        Info {
            format: Format::Vdi,
            variant: if self.is_static { "static" } else { "dynamic" }.to_owned(),
            virtual_size: self.size,
            cluster_size: Some(self.block),
            compression: Compression::None,
            features: Vec::new(),
            references: Vec::new(),
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry {
            virtual_size: Some(self.size),
            cluster_size: 0,
            codec: ClusterCodec::None,
            info: self.info(),
        }
    }
}

fn not_this() -> Error {
    Error::new(
        ErrorKind::NotThisFormat,
        "this is not a VDI: its signature is not at the start",
    )
}
