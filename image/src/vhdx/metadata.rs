//! The metadata region: a table of items, then the items.

use std::ops::Range;

use zerocopy::FromBytes;

use super::layout::{MAX_ENTRIES, RawFileParameters, RawMetadataEntry, RawMetadataTable, item};
use super::locator::Locator;
use super::map::Shape;
use crate::num::{add, to_u64, to_usize};
use crate::{Error, Limits, Result};

/// How long the table is; items come after it.
pub(super) const TABLE_LEN: u64 = 64 << 10;

/// Longest item.
const MAX_ITEM: u64 = 1 << 20;

/// What a disk can have at most.
const MAX_DISK: u64 = 64 << 40;

/// Block sizes, in bytes.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 1 << 20..=256 << 20;

/// Where the known items are, in offsets from the start of the region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Items {
    file_parameters: Range<u64>,
    virtual_disk_size: Range<u64>,
    logical_sector_size: Range<u64>,
    physical_sector_size: Range<u64>,
    parent_locator: Option<Range<u64>>,
}

impl Items {
    /// Reads the table of a region of `region` bytes.
    pub(super) fn parse(table: &[u8], region: u64) -> Result<Self> {
        let header = RawMetadataTable::ref_from_prefix(table).ok();
        let Some((header, rest)) = header.filter(|(raw, _)| raw.signature == *b"metadata") else {
            return Err(Error::malformed(
                "the metadata table does not start with its signature",
            ));
        };
        let count = u32::from(header.entry_count.get());
        if count > MAX_ENTRIES {
            return Err(Error::malformed(format!(
                "{count} metadata items are not possible"
            )));
        }
        let mut found: [Option<Range<u64>>; 6] = [const { None }; 6];
        let [parameters, size, id, logical, physical, locator] = &mut found;
        for entry in rest
            .chunks_exact(size_of::<RawMetadataEntry>())
            .take(to_usize(u64::from(count)))
        {
            let Ok(entry) = RawMetadataEntry::ref_from_bytes(entry) else {
                break;
            };
            let place = match entry.item {
                item::FILE_PARAMETERS => &mut *parameters,
                item::VIRTUAL_DISK_SIZE => &mut *size,
                item::VIRTUAL_DISK_ID => &mut *id,
                item::LOGICAL_SECTOR_SIZE => &mut *logical,
                item::PHYSICAL_SECTOR_SIZE => &mut *physical,
                item::PARENT_LOCATOR => &mut *locator,
                other if entry.flags.get() & item::REQUIRED != 0 => {
                    return Err(Error::unsupported(format!(
                        "the file has a metadata item {{{other}}} that a reader must know, and this one does not"
                    )));
                }
                _ => continue,
            };
            let start = u64::from(entry.offset.get());
            let range = start..start.saturating_add(u64::from(entry.length.get()));
            if range.start < TABLE_LEN
                || range.end > region
                || u64::from(entry.length.get()) > MAX_ITEM
            {
                return Err(Error::malformed(format!(
                    "the metadata item {{{}}} is not in its region",
                    entry.item
                )));
            }
            if place.replace(range).is_some() {
                return Err(Error::malformed(format!(
                    "the metadata item {{{}}} is there twice",
                    entry.item
                )));
            }
        }
        let there = |place: Option<Range<u64>>, len: u64, what: &str| {
            place
                .filter(|range| range.end.saturating_sub(range.start) >= len)
                .ok_or_else(|| Error::malformed(format!("the metadata has no {what}")))
        };
        let [parameters, size, id, logical, physical, locator] = found;
        there(id, 16, "disk identifier")?;
        Ok(Self {
            file_parameters: there(parameters, 8, "file parameters")?,
            virtual_disk_size: there(size, 8, "virtual disk size")?,
            logical_sector_size: there(logical, 4, "logical sector size")?,
            physical_sector_size: there(physical, 4, "physical sector size")?,
            parent_locator: locator,
        })
    }

    /// From the first item to the end of the last: they lie close together.
    pub(super) fn span(&self) -> Range<u64> {
        let all = [
            Some(&self.file_parameters),
            Some(&self.virtual_disk_size),
            Some(&self.logical_sector_size),
            Some(&self.physical_sector_size),
            self.parent_locator.as_ref(),
        ];
        let all = || all.iter().flatten();
        let start = all().map(|range| range.start).min();
        let end = all().map(|range| range.end).max();
        start.unwrap_or(0)..end.unwrap_or(0)
    }
}

/// What the metadata says, checked.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    pub(super) shape: Shape,
    pub(super) logical_sector: u32,
    pub(super) physical_sector: u32,
    /// Blocks stay allocated.
    pub(super) fixed: bool,
    pub(super) parent: Option<Locator>,
}

impl Metadata {
    /// Reads the items out of `bytes`, which is what [`Items::span`] covers.
    pub(super) fn parse(items: &Items, bytes: &[u8], limits: &Limits) -> Result<Self> {
        let base = items.span().start;
        let get = |range: &Range<u64>| {
            let start = to_usize(range.start.saturating_sub(base));
            let end = to_usize(range.end.saturating_sub(base));
            bytes
                .get(start..end)
                .ok_or_else(|| Error::malformed("a metadata item is cut"))
        };
        let number = |range: &Range<u64>| -> Result<u32> {
            let first = get(range)?.first_chunk::<4>().copied();
            Ok(first.map_or(0, u32::from_le_bytes))
        };
        let (parameters, _) = RawFileParameters::ref_from_prefix(get(&items.file_parameters)?)
            .map_err(|_| Error::malformed("the file parameters are cut"))?;
        let block = parameters.block_size.get();
        if !BLOCK_SIZES.contains(&block) || !block.is_power_of_two() {
            return Err(Error::malformed(format!(
                "a block size of {block} bytes is not possible"
            )));
        }
        let logical_sector = number(&items.logical_sector_size)?;
        if ![512, 4096].contains(&logical_sector) {
            return Err(Error::malformed(format!(
                "logical sectors of {logical_sector} bytes are not possible"
            )));
        }
        let size = get(&items.virtual_disk_size)?
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        limits.check_virtual_size(size)?;
        if size > MAX_DISK || !size.is_multiple_of(u64::from(logical_sector)) {
            return Err(Error::malformed(format!(
                "a disk of {size} bytes in sectors of {logical_sector} is not possible"
            )));
        }
        let flags = parameters.flags.get();
        let parent = match (&items.parent_locator, flags & item::HAS_PARENT != 0) {
            (_, false) => None,
            (Some(range), true) => Some(Locator::parse(get(range)?)?),
            (None, true) => {
                return Err(Error::malformed(
                    "the image holds only what differs from a parent, but does not name it",
                ));
            }
        };
        Ok(Self {
            shape: Shape::new(size, block, logical_sector, parent.is_some()),
            logical_sector,
            physical_sector: number(&items.physical_sector_size)?,
            fixed: flags & item::LEAVE_ALLOCATED != 0,
            parent,
        })
    }
}

/// What of the metadata region is read first.
pub(super) fn table_range(region: &Range<u64>) -> Result<Range<u64>> {
    let end = add(region.start, TABLE_LEN, "the end of the metadata table")?;
    if end > region.end {
        return Err(Error::malformed(format!(
            "a metadata region of {} bytes has no room for its table",
            region.end.saturating_sub(region.start)
        ))
        .at(region.start));
    }
    Ok(region.start..end)
}

/// Length of a range, as a length in memory.
pub(super) fn len(range: &Range<u64>) -> usize {
    to_usize(range.end.saturating_sub(range.start))
}

const _: () = assert!(TABLE_LEN <= MAX_ITEM);

/// What reading a span costs.
pub(super) fn span_bytes(items: &Items) -> u64 {
    to_u64(len(&items.span()))
}
