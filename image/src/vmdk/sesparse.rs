//! seSparse: sparse extents of ESX hosts on VMFS 6, "space efficient".
//!
//! The format is not documented; what is here is what QEMU reads (`block/vmdk.c`) and no more: one version, grains of
//! 4 KiB, grain tables of 4096 entries. All numbers are little-endian, offsets and sizes in sectors.
//!
//! ```text
//! constant header -> grain directory: a u64 per grain table, 0 for none, else 1 << 60 | number
//!                 -> grain tables, by number: a u64 per grain; the top four bits are its kind,
//!                      0 nothing, 1 unmapped and 2 zero (zeros), 3 data: low 12 bits of the number in
//!                      bits 48 to 59, the rest of it in bits 0 to 47
//!                 -> grains, by number
//! ```
//! A journal that would have to be replayed is a refusal.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::layout::SECTOR;
use crate::chain::Charged;
use crate::num::{add, mul, to_usize};
use crate::read_at::{ReadAtExt, check_inside};
use crate::{Error, Extent, ExtentKind, Limits, ReadAt, Result};

/// `magic` of [`ConstHeader`].
pub(super) const MAGIC: [u8; 8] = [0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0];

/// `magic` of [`VolatileHeader`].
const VOLATILE_MAGIC: u64 = 0xcafe_cafe;

const VERSION: u64 = 0x2_0000_0001;

/// Bytes per grain.
pub(super) const GRAIN: u64 = 8 * SECTOR;

/// Sectors and entries of a grain table.
const TABLE_SECTORS: u64 = 64;
const ENTRIES: u64 = TABLE_SECTORS * SECTOR / 8;

/// Bytes of the disk that one grain table maps.
const SPAN: u64 = ENTRIES * GRAIN;

/// At the start of the file; never changed.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ConstHeader {
    magic: U64,
    version: U64,
    capacity: U64,
    grain_size: U64,
    grain_table_size: U64,
    flags: U64,
    reserved: [U64; 4],
    volatile_offset: U64,
    _volatile_size: U64,
    _journal: [U64; 4],
    directory_offset: U64,
    directory_size: U64,
    tables_offset: U64,
    _tables_size: U64,
    _free_bitmap: [U64; 2],
    _backmap: [U64; 2],
    grains_offset: U64,
    _grains_size: U64,
    pad: [u8; 304],
}

const _: () = assert!(size_of::<ConstHeader>() == 512);

/// Where the constant header says; changed with every write.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct VolatileHeader {
    magic: U64,
    _free_table: U64,
    _next_transaction: U64,
    replay_journal: U64,
    pad: [u8; 480],
}

const _: () = assert!(size_of::<VolatileHeader>() == 512);

/// A seSparse extent.
#[derive(Debug)]
pub(super) struct SeSparse {
    file: Arc<dyn ReadAt>,
    size: u64,
    tables_at: u64,
    grains_at: u64,
    directory: Charged<Vec<u8>>,
}

impl SeSparse {
    /// Takes `file`, which starts with [`MAGIC`].
    pub(super) fn open(file: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let head = file.read_vec_at(0, size_of::<ConstHeader>(), "the header")?;
        let raw = ConstHeader::read_from_bytes(&head)
            .map_err(|_| Error::malformed("the file ends inside its header: it is truncated"))?;
        check(&raw)?;
        let at = mul(
            raw.volatile_offset.get(),
            SECTOR,
            "the place of the volatile header",
        )?;
        let len = size_of::<VolatileHeader>();
        let volatile = file.read_vec_at(at, len, "the volatile header")?;
        check_volatile(&volatile).map_err(|e| e.at(at))?;

        let size = mul(raw.capacity.get(), SECTOR, "the size of the disk")?;
        limits.check_virtual_size(size)?;
        let tables = size.div_ceil(SPAN);
        let len = mul(tables, 8, "the size of the grain directory")?;
        if raw.directory_size.get() < len.div_ceil(SECTOR) {
            return Err(Error::malformed(format!(
                "a grain directory of {} sectors is too short for a disk of {} sectors",
                raw.directory_size, raw.capacity
            )));
        }
        let at = mul(
            raw.directory_offset.get(),
            SECTOR,
            "the place of the grain directory",
        )?;
        check_inside(file.len(), at, len, "the grain directory")?;
        let directory = Charged::make(limits, len, "the grain directory", || {
            file.read_vec_at(at, to_usize(len), "the grain directory")
        })?;
        Ok(Self {
            size,
            tables_at: mul(
                raw.tables_offset.get(),
                SECTOR,
                "the place of the grain tables",
            )?,
            grains_at: mul(raw.grains_offset.get(), SECTOR, "the place of the grains")?,
            directory,
            file,
        })
    }

    /// Size of this part of the disk in bytes.
    pub(super) fn virtual_size(&self) -> u64 {
        self.size
    }

    pub(super) fn file(&self) -> &Arc<dyn ReadAt> {
        &self.file
    }

    /// What is where in `range` of this extent, not joined; `missing` is what a grain is that is in no
    /// table.
    pub(super) fn walk(&self, range: Range<u64>, missing: ExtentKind) -> Walk<'_> {
        Walk {
            extent: self,
            missing,
            range,
            table: Vec::new(),
        }
    }

    /// Where grain table number `table` of the disk is, if it exists.
    fn table(&self, table: u64) -> Result<Option<u64>> {
        let entry = entry(&self.directory.value, table);
        if entry == 0 {
            return Ok(None);
        }
        if entry >> 32 != 0x1000_0000 {
            return Err(Error::malformed(format!(
                "{entry:#x} in the grain directory is no grain table"
            )));
        }
        let number = entry & 0xffff_ffff;
        let skip = number.saturating_mul(TABLE_SECTORS * SECTOR);
        let at = add(self.tables_at, skip, "the place of a grain table")?;
        check_inside(self.file.len(), at, TABLE_SECTORS * SECTOR, "a grain table")?;
        Ok(Some(at))
    }

    /// What a grain table's entry says.
    fn grain(&self, entry: u64, missing: ExtentKind) -> Result<ExtentKind> {
        match entry >> 60 {
            0 if entry == 0 => Ok(missing),
            1 | 2 => Ok(ExtentKind::Zero),
            3 => {
                let number = entry >> 48 & 0xfff | (entry & 0xffff_ffff_ffff) << 12;
                let skip = mul(number, GRAIN, "the place of a grain")?;
                let at = add(self.grains_at, skip, "the place of a grain")?;
                if at >= self.file.len() {
                    return Err(Error::malformed(
                        "a grain is past the end of the image: it is truncated or damaged",
                    )
                    .at(at));
                }
                Ok(ExtentKind::Data { at })
            }
            _ => Err(Error::malformed(format!(
                "{entry:#x} in a grain table is no grain"
            ))),
        }
    }
}

/// Entry `index` of a table that is long enough.
fn entry(table: &[u8], index: u64) -> u64 {
    let start = to_usize(index.saturating_mul(8));
    table
        .get(start..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn check(raw: &ConstHeader) -> Result<()> {
    let unknown = |what: &str, value: u64| {
        Error::unsupported(format!(
            "{what} {value:#x} of a seSparse extent is not known"
        ))
    };
    if raw.magic.get().to_le_bytes() != MAGIC {
        return Err(Error::malformed(
            "the magic number of a seSparse extent is missing",
        ));
    }
    for (what, found, known) in [
        ("version", raw.version, VERSION),
        ("grain size", raw.grain_size, GRAIN / SECTOR),
        ("grain table size", raw.grain_table_size, TABLE_SECTORS),
        ("flags", raw.flags, 0),
    ] {
        if found.get() != known {
            return Err(unknown(what, found.get()));
        }
    }
    if let Some(word) = raw.reserved.iter().find(|word| word.get() != 0) {
        return Err(unknown("a reserved field with", word.get()));
    }
    if let Some(&byte) = raw.pad.iter().find(|&&byte| byte != 0) {
        return Err(unknown("padding with", u64::from(byte)));
    }
    Ok(())
}

fn check_volatile(bytes: &[u8]) -> Result<()> {
    let raw = VolatileHeader::ref_from_bytes(bytes)
        .map_err(|_| Error::malformed("the volatile header is cut"))?;
    if raw.magic.get() != VOLATILE_MAGIC {
        return Err(Error::malformed(
            "the magic number of the volatile header is missing",
        ));
    }
    if raw.replay_journal.get() != 0 {
        return Err(Error::unsupported(
            "this seSparse extent was not closed: its journal would have to be replayed, which only an ESX \
             host can do",
        ));
    }
    if raw.pad.iter().any(|&byte| byte != 0) {
        return Err(Error::unsupported(
            "the volatile header of this seSparse extent has fields that are not known",
        ));
    }
    Ok(())
}

/// Extents of a range, not joined yet.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    extent: &'a SeSparse,
    missing: ExtentKind,
    /// Where the walk is on the disk, and where it ends.
    range: Range<u64>,
    /// The grain table at hand; empty at the start of one.
    table: Vec<u8>,
}

impl Walk<'_> {
    fn step(&mut self) -> Result<Extent> {
        let start = self.range.start;
        let number = start / SPAN;
        let span_end = number.saturating_add(1).saturating_mul(SPAN);
        if self.table.is_empty() {
            let Some(at) = self.extent.table(number)? else {
                let end = span_end.min(self.range.end);
                self.range.start = end;
                return Ok(Extent {
                    guest: start..end,
                    kind: self.missing,
                });
            };
            let len = to_usize(TABLE_SECTORS * SECTOR);
            self.table = self.extent.file.read_vec_at(at, len, "a grain table")?;
        }
        let index = start / GRAIN % ENTRIES;
        let kind = self.extent.grain(entry(&self.table, index), self.missing)?;
        let grain = start.saturating_sub(start % GRAIN);
        let end = grain.saturating_add(GRAIN);
        let whole = Extent {
            guest: grain..end,
            kind,
        };
        let end = end.min(self.range.end);
        self.range.start = end;
        if end == span_end {
            self.table.clear();
        }
        whole
            .clip(&(start..end))
            .ok_or_else(|| Error::malformed("a grain of no bytes"))
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.range.is_empty()).then(|| self.step())
    }
}
