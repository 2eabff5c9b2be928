//! The header, checked, and what entries of the BAT mean.

use std::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::num::{mul, to_u64};
use crate::{Compression, Error, ErrorKind, Format, Info, Limits, Result};

const SECTOR: u64 = 512;

/// Largest cluster QEMU takes, in sectors.
const MAX_CLUSTER: u32 = i32::MAX.unsigned_abs() / 513;

/// `inuse` of an image that was not closed.
const IN_USE: u32 = 0x746f_6e59;

/// "Header". Sizes are in sectors.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 16],
    version: U32,
    _heads: U32,
    _cylinders: U32,
    tracks: U32,
    bat_entries: U32,
    nb_sectors: U64,
    inuse: U32,
    _data_off: U32,
    _flags: U32,
    _ext_off: U64,
}

const _: () = assert!(size_of::<RawHeader>() == 64);

/// A valid header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    size: u64,
    /// Bytes per cluster.
    cluster: u64,
    /// Bytes that one step of a BAT entry stands for.
    unit: u64,
    extended: bool,
    unclean: bool,
}

impl Header {
    /// Length in bytes.
    pub(super) const LEN: usize = size_of::<RawHeader>();

    /// Reads the header at the start of `head`.
    pub(super) fn parse(head: &[u8], limits: &Limits) -> Result<Self> {
        let extended = head.starts_with(b"WithouFreSpacExt");
        if !extended && !head.starts_with(b"WithoutFreeSpace") {
            return Err(Error::new(
                ErrorKind::NotThisFormat,
                "the file does not start as a Parallels disk does",
            ));
        }
        let (raw, _) = RawHeader::read_from_prefix(head)
            .map_err(|_| Error::malformed("the image ends inside its header: it is truncated"))?;
        if raw.version.get() != 2 {
            return Err(Error::unsupported(format!(
                "version {} of Parallels disks is not known",
                raw.version
            )));
        }
        if raw.tracks.get() == 0 || raw.tracks.get() > MAX_CLUSTER {
            return Err(Error::malformed(format!(
                "clusters of {} sectors are not possible",
                raw.tracks
            ))
            .at(28));
        }
        let cluster = u64::from(raw.tracks.get()).saturating_mul(SECTOR);
        let sectors = if extended {
            raw.nb_sectors.get()
        } else {
            raw.nb_sectors.get() & u64::from(u32::MAX)
        };
        let size = mul(sectors, SECTOR, "the size of the disk")?;
        limits.check_virtual_size(size)?;
        if u64::from(raw.bat_entries.get()) < size.div_ceil(cluster) {
            return Err(Error::malformed(format!(
                "a block allocation table of {} entries is too short for {} clusters",
                raw.bat_entries,
                size.div_ceil(cluster)
            ))
            .at(32));
        }
        Ok(Self {
            size,
            cluster,
            unit: if extended { cluster } else { SECTOR },
            extended,
            unclean: raw.inuse.get() == IN_USE,
        })
    }

    /// Size of the disk in bytes.
    pub(super) fn virtual_size(&self) -> u64 {
        self.size
    }

    /// Bytes per cluster; not always a power of two.
    pub(super) fn cluster(&self) -> u64 {
        self.cluster
    }

    /// Where the part of the BAT is that maps the disk.
    pub(super) fn bat(&self) -> Range<u64> {
        let start = to_u64(Self::LEN);
        let entries = self.size.div_ceil(self.cluster);
        start..start.saturating_add(entries.saturating_mul(4))
    }

    /// Where the cluster is that `entry` stands for, in a file of `file` bytes; none if it is zeros.
    pub(super) fn place(&self, entry: u32, file: u64) -> Result<Option<u64>> {
        if entry == 0 {
            return Ok(None);
        }
        let at = mul(u64::from(entry), self.unit, "the place of a cluster")?;
        if at < self.bat().end {
            return Err(Error::malformed("a cluster would be over the image's tables").at(at));
        }
        if at >= file {
            return Err(Error::malformed(
                "a cluster is past the end of the image: it is truncated or damaged",
            )
            .at(at));
        }
        Ok(Some(at))
    }

    /// What to show.
    pub(super) fn info(&self) -> Info {
        let variant = if self.extended {
            "WithouFreSpacExt"
        } else {
            "WithoutFreeSpace"
        };
        Info {
            format: Format::Parallels,
            variant: variant.to_owned(),
            virtual_size: self.size,
            cluster_size: Some(self.cluster),
            compression: Compression::None,
            features: self
                .unclean
                .then(|| "unclean shutdown".to_owned())
                .into_iter()
                .collect(),
            references: Vec::new(),
        }
    }
}
