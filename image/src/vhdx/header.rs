//! The header section: which header is current, and where the regions are.

use std::ops::Range;

use zerocopy::FromBytes;

use super::layout::{
    FRONT_LEN, Guid, HEADER_LEN, HEADER_SECTION, HEADERS_AT, MAX_ENTRIES, REGION_TABLE_LEN,
    REGION_TABLES_AT, RawHeader, RawRegion, RawRegionTable, SIGNATURE, checksum, region,
};
use crate::num::{add, to_u64};
use crate::{Error, ErrorKind, Result};

/// The log begins and ends at multiples of this.
const LOG_UNIT: u64 = 1 << 20;

/// The current header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Changes whenever the guest's data does; children remember it.
    pub(super) data_write_guid: Guid,
    pub(super) log_guid: Guid,
    /// Where the log is; there may be none.
    pub(super) log: Range<u64>,
}

impl Header {
    /// Checks the header section's first bytes, and picks the current one of two headers.
    pub(super) fn parse(front: &[u8]) -> Result<Self> {
        if !front.starts_with(&SIGNATURE) {
            return Err(Error::new(
                ErrorKind::NotThisFormat,
                "this is no VHDX file: it does not start with its signature",
            ));
        }
        if front.len() < FRONT_LEN {
            return Err(Error::malformed(
                "the file ends inside its header section: it is truncated",
            ));
        }
        let [first, second] = HEADERS_AT.map(|at| read_header(front, at));
        let raw = match (first, second) {
            // Microsoft's Disk2vhd writes the same header twice, sequence number and all.
            (Some(a), Some(b)) if a.sequence_number == b.sequence_number && a != b => {
                return Err(Error::malformed(
                    "both headers are equally new, but they differ: the file is damaged",
                ));
            }
            (Some(a), Some(b)) if b.sequence_number.get() > a.sequence_number.get() => b,
            (Some(a), _) => a,
            (None, Some(b)) => b,
            (None, None) => {
                return Err(Error::malformed(
                    "neither of the two headers is valid: the file is damaged",
                ));
            }
        };
        let at = raw.log_offset.get();
        let len = u64::from(raw.log_length.get());
        let has_log = len > 0;
        if has_log && (at < HEADER_SECTION || at % LOG_UNIT != 0 || len % LOG_UNIT != 0) {
            return Err(Error::malformed(format!(
                "a log of {len} bytes at {at:#x} is not possible"
            )));
        }
        if raw.log_version.get() != 0 && has_log && raw.log_guid != Guid::ZERO {
            return Err(Error::unsupported(format!(
                "the log has to be replayed, and its version {} is not known",
                raw.log_version
            )));
        }
        Ok(Self {
            data_write_guid: raw.data_write_guid,
            log_guid: raw.log_guid,
            log: if has_log {
                at..add(at, len, "the end of the log")?
            } else {
                0..0
            },
        })
    }

    /// There is something in the log.
    pub(super) fn is_dirty(&self) -> bool {
        self.log_guid != Guid::ZERO && !self.log.is_empty()
    }
}

fn read_header(front: &[u8], at: usize) -> Option<RawHeader> {
    let bytes = front.get(at..at.checked_add(HEADER_LEN)?)?;
    let (raw, _) = RawHeader::read_from_prefix(bytes).ok()?;
    let good =
        raw.signature == *b"head" && raw.version == 1 && raw.checksum.get() == checksum(bytes);
    good.then_some(raw)
}

/// Where things are in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Regions {
    pub(super) bat: Range<u64>,
    pub(super) metadata: Range<u64>,
    /// Every region and the log, sorted: no block may lie over one.
    taken: Vec<Range<u64>>,
}

impl Regions {
    /// Reads the first valid one of the two region tables in the header section `front`.
    pub(super) fn parse(front: &[u8], log: &Range<u64>) -> Result<Self> {
        let Some(table) = REGION_TABLES_AT
            .iter()
            .find_map(|&at| valid_table(front, at))
        else {
            return Err(Error::malformed(
                "neither of the two region tables is valid: the file is damaged",
            ));
        };
        let (mut bat, mut metadata) = (None, None);
        let mut taken = vec![0..HEADER_SECTION, log.clone()];
        for raw in table {
            let start = raw.file_offset.get();
            let end = add(start, u64::from(raw.length.get()), "the end of a region")?;
            taken.push(start..end);
            let known = match raw.guid {
                region::BAT => &mut bat,
                region::METADATA => &mut metadata,
                other if raw.required.get() & region::REQUIRED != 0 => {
                    return Err(Error::unsupported(format!(
                        "the file has a region {{{other}}} that a reader must know, and this one does not"
                    ))
                    .at(start));
                }
                _ => continue,
            };
            if known.replace(start..end).is_some() {
                return Err(Error::malformed(format!(
                    "the region {{{}}} is there twice",
                    raw.guid
                )));
            }
        }
        taken.retain(|range| !range.is_empty());
        taken.sort_unstable_by_key(|range| (range.start, range.end));
        let clash = taken.windows(2).find_map(|pair| match pair {
            [a, b] if a.end > b.start => Some(b.start),
            _ => None,
        });
        if let Some(at) = clash {
            return Err(Error::malformed("two regions of the file lie over each other").at(at));
        }
        let missing = |what: &str| Error::malformed(format!("the file has no {what}"));
        Ok(Self {
            bat: bat.ok_or_else(|| missing("block allocation table"))?,
            metadata: metadata.ok_or_else(|| missing("metadata region"))?,
            taken,
        })
    }

    /// A block may be at `range`.
    pub(super) fn leave_room(&self, range: &Range<u64>) -> bool {
        let next = self.taken.partition_point(|taken| taken.end <= range.start);
        self.taken
            .get(next)
            .is_none_or(|taken| taken.start >= range.end)
    }
}

/// The regions of the table at `at`, if it is valid.
fn valid_table(front: &[u8], at: usize) -> Option<Vec<RawRegion>> {
    let bytes = front.get(at..at.checked_add(REGION_TABLE_LEN)?)?;
    let (raw, rest) = RawRegionTable::ref_from_prefix(bytes).ok()?;
    if raw.signature != *b"regi"
        || raw.entry_count.get() > MAX_ENTRIES
        || raw.checksum.get() != checksum(bytes)
    {
        return None;
    }
    let count = usize::try_from(raw.entry_count.get()).ok()?;
    rest.chunks_exact(size_of::<RawRegion>())
        .take(count)
        .map(|entry| RawRegion::read_from_bytes(entry).ok())
        .collect()
}

/// What of the header section the log may still change.
pub(super) fn region_tables() -> Range<u64> {
    let [first, _] = REGION_TABLES_AT;
    to_u64(first)..to_u64(FRONT_LEN)
}
