//! The headers of sparse extents, checked: hosted ones (the footer of a stream is one too) and COWD.

use std::ops::Range;

use zerocopy::FromBytes;

use super::layout::{
    COMPRESSION_DEFLATE, COMPRESSION_NONE, COWD_GTES, COWD_ROOT, CowdHeader, FLAG_COMPRESSED,
    FLAG_MARKERS, FLAG_NEWLINE_TEST, FLAG_REDUNDANT, FLAG_ZEROED_GRAIN, FLAGS_INCOMPATIBLE,
    GD_AT_END, MAGIC, NEWLINE_TEST, SECTOR, SparseHeader,
};
use crate::num::{mul, to_usize};
use crate::{Error, Limits, Result};

/// What the formats allow: 512 entries. QEMU refuses more, too.
const MAX_GTES: u32 = 512;

/// Largest grain, in sectors: 1 GiB, as QEMU has it.
const MAX_GRAIN: u64 = 0x20_0000;

/// Largest compressed grain, in sectors: it is inflated whole, in memory. Writers use 128.
const MAX_COMPRESSED_GRAIN: u64 = 4096;

/// Largest embedded descriptor, in bytes.
const MAX_DESCRIPTOR: u64 = 1 << 20;

/// Most entries of a grain directory; QEMU's limit.
const MAX_TABLES: u64 = 32 << 20;

/// Where the grain directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Directory {
    /// At this sector; 0 is nowhere.
    At(u64),
    /// The footer knows.
    InFooter,
}

/// A valid header. Offsets and sizes are in sectors unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    flags: u32,
    capacity: u64,
    grain: u64,
    gtes: u32,
    tables: u64,
    directory: Directory,
    redundant: Option<u64>,
    overhead: u64,
    descriptor: Option<Range<u64>>,
    unclean: bool,
    cowd: bool,
    delta: bool,
}

impl Header {
    /// Length of a header in bytes.
    pub(super) const LEN: usize = size_of::<SparseHeader>();

    /// Checks the header at the start of `head`. Nothing is compared with the length of the file here: a
    /// stream may not know it.
    pub(super) fn parse(head: &[u8], limits: &Limits) -> Result<Self> {
        if !head.starts_with(&MAGIC) {
            return Err(super::kind::not_this_format());
        }
        let (raw, _) = SparseHeader::read_from_prefix(head)
            .map_err(|_| Error::malformed("the file ends inside its header: it is truncated"))?;
        if !(1..=3).contains(&raw.version.get()) {
            return Err(Error::unsupported(format!(
                "VMDK version {} is not known",
                raw.version
            )));
        }
        let (capacity, grain, gtes) = (
            raw.capacity.get(),
            raw.grain_size.get(),
            raw.gtes_per_gt.get(),
        );
        let covered = grain.saturating_mul(u64::from(gtes));
        let tables = capacity.div_ceil(covered.max(1));
        check_tables(tables)?;
        let flags = raw.flags.get();
        let unknown = flags & FLAGS_INCOMPATIBLE & !(FLAG_COMPRESSED | FLAG_MARKERS);
        if unknown != 0 {
            return Err(Error::unsupported(format!(
                "the VMDK has features that are not known: flags {unknown:#x}"
            )));
        }
        if flags & FLAG_NEWLINE_TEST != 0 && raw.newline_test != NEWLINE_TEST {
            return Err(Error::malformed(
                "the line ends of this VMDK were converted: it was transferred as text and is damaged",
            ));
        }
        check_compression(flags, raw.compress_algorithm.get())?;
        let compressed = flags & FLAG_COMPRESSED != 0;

        check_grain(grain)?;
        if compressed && grain > MAX_COMPRESSED_GRAIN {
            return Err(Error::unsupported(format!(
                "compressed grains of {grain} sectors are not read, up to {MAX_COMPRESSED_GRAIN} are"
            )));
        }
        if gtes == 0 || gtes > MAX_GTES {
            return Err(Error::malformed(format!(
                "{gtes} entries in a grain table are not possible"
            )));
        }
        limits.check_virtual_size(mul(capacity, SECTOR, "the size of the disk")?)?;
        let directory = match raw.gd_offset.get() {
            GD_AT_END => Directory::InFooter,
            at => Directory::At(at),
        };
        if directory == Directory::InFooter && !compressed {
            return Err(Error::malformed(
                "the grain directory of an image that is no stream can't be at its end",
            ));
        }
        Ok(Self {
            flags,
            capacity,
            grain,
            gtes,
            tables,
            directory,
            redundant: (flags & FLAG_REDUNDANT != 0)
                .then(|| raw.rgd_offset.get())
                .filter(|&at| at != 0 && at != GD_AT_END),
            overhead: raw.overhead.get(),
            descriptor: descriptor(raw.descriptor_offset.get(), raw.descriptor_size.get())?,
            unclean: raw.unclean_shutdown != 0,
            cowd: false,
            delta: false,
        })
    }

    /// Checks the header of a COWD extent at the start of `head`. Its version is not looked at, nor what
    /// comes behind the directory, as QEMU does not either.
    pub(super) fn parse_cowd(head: &[u8], limits: &Limits) -> Result<Self> {
        let (raw, _) = CowdHeader::read_from_prefix(head)
            .map_err(|_| Error::malformed("the file ends inside its header: it is truncated"))?;
        check_tables(u64::from(raw.gd_entries.get()))?;
        let grain = u64::from(raw.grain_size.get());
        check_grain(grain)?;
        let capacity = u64::from(raw.capacity.get());
        limits.check_virtual_size(capacity.saturating_mul(SECTOR))?;
        let tables = capacity.div_ceil(grain.saturating_mul(u64::from(COWD_GTES)));
        if u64::from(raw.gd_entries.get()) < tables {
            return Err(Error::malformed(format!(
                "a grain directory of {} entries is too short for a disk of {capacity} sectors",
                raw.gd_entries
            )));
        }
        Ok(Self {
            flags: 0,
            capacity,
            grain,
            gtes: COWD_GTES,
            tables,
            directory: Directory::At(u64::from(raw.gd_offset.get())),
            redundant: None,
            overhead: 0,
            descriptor: None,
            unclean: false,
            cowd: true,
            delta: raw.flags.get() & COWD_ROOT == 0 && raw.parent.first() != Some(&0),
        })
    }

    /// A COWD extent, and not a hosted one.
    pub(super) fn is_cowd(&self) -> bool {
        self.cowd
    }

    /// A COWD extent that names a parent in its header, as ESX 2 knew it.
    pub(super) fn is_cowd_delta(&self) -> bool {
        self.delta
    }

    /// This header with the directory that its footer knows; the rest must be as it was.
    pub(super) fn with_footer(&self, footer: &Self) -> Result<Self> {
        let shape = |h: &Self| {
            (
                h.capacity,
                h.grain,
                h.gtes,
                h.is_stream(),
                h.has_zeroed_grains(),
            )
        };
        if shape(self) != shape(footer) {
            return Err(Error::malformed("the footer contradicts the header"));
        }
        if footer.directory == Directory::InFooter {
            return Err(Error::malformed(
                "the footer does not say where the grain directory is",
            ));
        }
        Ok(Self {
            directory: footer.directory,
            redundant: footer.redundant,
            ..self.clone()
        })
    }

    /// Size of the disk in bytes. [`Header::parse`] saw that it fits.
    pub(super) fn virtual_size(&self) -> u64 {
        self.capacity.saturating_mul(SECTOR)
    }

    /// Bytes per grain.
    pub(super) fn grain_bytes(&self) -> u64 {
        self.grain.saturating_mul(SECTOR)
    }

    /// Most bytes of zlib that one grain takes: what no compressor exceeds on incompressible data (nine
    /// bits per byte with fixed codes), and a little more for small grains.
    pub(super) fn max_packed(&self) -> u64 {
        let grain = self.grain_bytes();
        grain.saturating_add(grain >> 3).saturating_add(1024)
    }

    /// Entries of the grain directory.
    pub(super) fn tables(&self) -> u64 {
        self.tables
    }

    /// Bytes of the grain directory.
    pub(super) fn directory_bytes(&self) -> u64 {
        self.tables.saturating_mul(4)
    }

    /// Entries of a grain table.
    pub(super) fn gtes(&self) -> u64 {
        u64::from(self.gtes)
    }

    /// Sectors of a grain table.
    pub(super) fn table_sectors(&self) -> u64 {
        self.gtes().saturating_mul(4).div_ceil(SECTOR)
    }

    /// Bytes of the entries of a grain table.
    pub(super) fn table_bytes(&self) -> usize {
        to_usize(self.gtes().saturating_mul(4))
    }

    /// Bytes of the disk that one grain table maps.
    pub(super) fn table_span(&self) -> u64 {
        self.grain_bytes().saturating_mul(self.gtes())
    }

    /// Where the grain directory is.
    pub(super) fn directory(&self) -> Directory {
        self.directory
    }

    /// Sector of the redundant grain directory, if there is one.
    pub(super) fn redundant(&self) -> Option<u64> {
        self.redundant
    }

    /// Byte range of the embedded descriptor.
    pub(super) fn descriptor(&self) -> Option<&Range<u64>> {
        self.descriptor.as_ref()
    }

    /// The first sector that can hold a grain of a stream, and the first marker.
    pub(super) fn data_start(&self) -> u64 {
        let text = self
            .descriptor
            .as_ref()
            .map_or(0, |d| d.end.div_ceil(SECTOR));
        self.overhead.max(text).max(1)
    }

    /// Grains are compressed, and markers are in front of them.
    pub(super) fn is_stream(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    /// Sectors that metadata takes at the start of the file, as the header has it.
    pub(super) fn overhead(&self) -> u64 {
        self.overhead
    }

    /// A grain table entry of 1 is a grain of zeros.
    pub(super) fn has_zeroed_grains(&self) -> bool {
        self.flags & FLAG_ZEROED_GRAIN != 0
    }

    /// What to tell people about it.
    pub(super) fn features(&self) -> Vec<String> {
        [
            (self.redundant.is_some(), "redundant grain directory"),
            (self.has_zeroed_grains(), "zeroed grains"),
            (
                self.directory == Directory::InFooter,
                "grain directory at end",
            ),
            (self.unclean, "unclean shutdown"),
        ]
        .into_iter()
        .filter(|&(there, _)| there)
        .map(|(_, name)| name.to_owned())
        .collect()
    }

    /// True if a structure at these sectors would lie over the header or the descriptor.
    pub(super) fn overlaps_head(&self, sector: u64, sectors: u64) -> bool {
        let start = sector.saturating_mul(SECTOR);
        let end = sector.saturating_add(sectors).saturating_mul(SECTOR);
        sector == 0
            || self
                .descriptor
                .as_ref()
                .is_some_and(|text| start < text.end && end > text.start)
    }
}

/// A grain directory may have so many entries. QEMU's words come first: upstream's tests look for them, and its
/// order is QEMU's too, before what else may be wrong.
fn check_tables(entries: u64) -> Result<()> {
    if entries > MAX_TABLES {
        return Err(Error::malformed(format!(
            "L1 size too big: a grain directory of {entries} entries, more than {MAX_TABLES}"
        )));
    }
    Ok(())
}

fn check_grain(grain: u64) -> Result<()> {
    if !grain.is_power_of_two() || grain > MAX_GRAIN {
        return Err(Error::malformed(format!(
            "a grain size of {grain} sectors is not possible"
        )));
    }
    Ok(())
}

fn check_compression(flags: u32, algorithm: u16) -> Result<()> {
    let compressed = flags & FLAG_COMPRESSED != 0;
    match (compressed, algorithm) {
        (false, COMPRESSION_NONE) | (true, COMPRESSION_DEFLATE) => {}
        (true, COMPRESSION_NONE) | (false, COMPRESSION_DEFLATE) => {
            return Err(Error::malformed(
                "the header contradicts itself about compression",
            ));
        }
        (_, other) => {
            return Err(Error::unsupported(format!(
                "compression algorithm {other} of a VMDK is not known"
            )));
        }
    }
    match (compressed, flags & FLAG_MARKERS != 0) {
        (true, false) => Err(Error::unsupported(
            "a compressed VMDK without markers is not read",
        )),
        (false, true) => Err(Error::malformed(
            "the header asks for markers in front of grains that are not compressed",
        )),
        _ => Ok(()),
    }
}

fn descriptor(offset: u64, size: u64) -> Result<Option<Range<u64>>> {
    if offset == 0 || size == 0 {
        return Ok(None);
    }
    let start = mul(offset, SECTOR, "the place of the descriptor")?;
    let len = mul(size, SECTOR, "the size of the descriptor")?;
    if len > MAX_DESCRIPTOR {
        return Err(Error::malformed(format!(
            "a descriptor of {len} bytes is not possible"
        )));
    }
    let end = crate::num::add(start, len, "the place of the descriptor")?;
    Ok(Some(start..end))
}
