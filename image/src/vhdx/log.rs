//! The log: a ring of entries that a crash may have kept from reaching their places in the file.
//!
//! An entry is a header, descriptors, and a sector of data for each data descriptor. Entries that were
//! written one after the other are a sequence; the newest whole one is replayed, into memory ([MS-VHDX] 2.3.3).
//! No entry starts inside another, for neither further descriptors nor data look like a header.

use zerocopy::FromBytes;

use super::layout::{CHECKSUM, Guid, RawDataSector, RawDescriptor, RawLogEntry};
use super::overlay::{Patches, SECTOR};
use crate::num::{to_u64, to_usize};
use crate::{Error, Limits, Result};

/// How often the bytes of the log may be looked at as parts of entries before it counts as an attack.
const MAX_LOOKS: u64 = 16;

/// What any log may have looked at, in bytes.
const LOOKS_SLACK: u64 = 64 << 20;

/// What a descriptor costs in memory, its data aside.
const DESCRIPTOR_COST: u64 = 256;

/// Finds what the log says, for the file whose header has `guid`.
pub(super) fn replay(log: &[u8], guid: Guid, limits: &Limits) -> Result<Patches> {
    let mut ring = Ring {
        log,
        sectors: log.len() / SECTOR_LEN,
        guid,
        looks: to_u64(log.len())
            .saturating_mul(MAX_LOOKS)
            .saturating_add(LOOKS_SLACK),
    };
    let Some(active) = ring.active()? else {
        return Err(Error::malformed(
            "the file was not closed and its log has to be replayed, but there is no valid sequence of \
             entries in the log: the file is damaged",
        ));
    };
    let mut patches = Patches::default();
    for entry in &active {
        ring.apply(entry, &mut patches, limits)?;
        // The newest entry knows best.
        patches.flushed = entry.raw.flushed_file_offset.get();
    }
    if let Some(head) = active.last() {
        patches.grown = patches.grown.max(head.raw.last_file_offset.get());
    }
    Ok(patches)
}

/// A sector's length in memory.
const SECTOR_LEN: usize = 4096;

/// A valid entry.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// First sector, and how many there are.
    at: usize,
    sectors: usize,
    raw: RawLogEntry,
}

/// The log, by sectors; behind the last comes the first.
#[derive(Debug)]
struct Ring<'a> {
    log: &'a [u8],
    sectors: usize,
    guid: Guid,
    looks: u64,
}

impl<'a> Ring<'a> {
    fn sector(&self, index: usize) -> &'a [u8] {
        let (sectors, _) = self.log.as_chunks::<SECTOR_LEN>();
        let index = index.checked_rem(self.sectors).unwrap_or(0);
        sectors.get(index).map_or(&[], |sector| sector.as_slice())
    }

    /// The newest sequence, from the entry that its last one calls the oldest.
    fn active(&mut self) -> Result<Option<Vec<Entry>>> {
        let mut best: Option<Vec<Entry>> = None;
        let mut tail = 0;
        while tail < self.sectors {
            let sequence = self.sequence(tail)?;
            let Some(head) = sequence.last() else {
                tail = tail.saturating_add(1);
                continue;
            };
            // Valid or not: what starts at its later entries ends at the same head, and holds less.
            tail = tail.saturating_add(
                sequence
                    .iter()
                    .fold(0, |sum, entry| entry.sectors.saturating_add(sum)),
            );
            let wanted = to_usize(u64::from(head.raw.tail.get()) / SECTOR);
            let Some(oldest) = sequence.iter().position(|entry| entry.at == wanted) else {
                continue;
            };
            let newer = best
                .as_ref()
                .and_then(|best| best.last())
                .is_none_or(|best| head.raw.sequence_number.get() > best.raw.sequence_number.get());
            if newer {
                best = Some(sequence.get(oldest..).unwrap_or_default().to_vec());
            }
        }
        Ok(best)
    }

    /// Entries from sector `from` on that were written one after the other.
    fn sequence(&mut self, from: usize) -> Result<Vec<Entry>> {
        let mut sequence: Vec<Entry> = Vec::new();
        let mut next = from;
        // As many sectors as there are, the last entry may end where the first starts.
        let end = from.saturating_add(self.sectors);
        while let Some(entry) = self.entry(next)? {
            let follows = sequence.last().is_none_or(|last| {
                last.raw.sequence_number.get().checked_add(1)
                    == Some(entry.raw.sequence_number.get())
            });
            next = next.saturating_add(entry.sectors);
            if !follows || next > end {
                break;
            }
            sequence.push(entry);
            if next == end {
                break;
            }
        }
        Ok(sequence)
    }

    /// The entry that starts at sector `at`, if one does and it is whole.
    fn entry(&mut self, at: usize) -> Result<Option<Entry>> {
        let Ok((raw, _)) = RawLogEntry::read_from_prefix(self.sector(at)) else {
            return Ok(None);
        };
        let len = u64::from(raw.entry_length.get());
        let sectors = to_usize(len / SECTOR);
        let plausible = raw.signature == *b"loge"
            && raw.log_guid == self.guid
            && raw.sequence_number != 0
            && len % SECTOR == 0
            && sectors > 0
            && sectors <= self.sectors
            && u64::from(raw.tail.get()) % SECTOR == 0
            && descriptor_sectors(raw.descriptor_count.get()) <= sectors;
        if !plausible {
            return Ok(None);
        }
        self.looks = self.looks.checked_sub(len).ok_or_else(|| {
            Error::malformed("the log's entries lie over each other: it is damaged or hostile")
        })?;
        let entry = Entry {
            at: at.checked_rem(self.sectors).unwrap_or(0),
            sectors,
            raw,
        };
        Ok((self.checksum(&entry) == raw.checksum.get() && self.is_whole(&entry)).then_some(entry))
    }

    fn checksum(&self, entry: &Entry) -> u32 {
        let mut crc = 0;
        for index in 0..entry.sectors {
            let sector = self.sector(entry.at.saturating_add(index));
            if index == 0 {
                crc = crc32c::crc32c(sector.get(..CHECKSUM.start).unwrap_or_default());
                crc = crc32c::crc32c_append(crc, &[0; 4]);
                crc = crc32c::crc32c_append(crc, sector.get(CHECKSUM.end..).unwrap_or_default());
            } else {
                crc = crc32c::crc32c_append(crc, sector);
            }
        }
        crc
    }

    /// Its descriptors and data are what its header says, and were written with it.
    fn is_whole(&self, entry: &Entry) -> bool {
        let sequence = entry.raw.sequence_number.get();
        let mut data = descriptor_sectors(entry.raw.descriptor_count.get());
        for index in 0..entry.raw.descriptor_count.get() {
            let Some(descriptor) = self.descriptor(entry, index) else {
                return false;
            };
            if descriptor.sequence_number != sequence || range_of(&descriptor).is_none() {
                return false;
            }
            if descriptor.signature == *b"desc" {
                let Some(sector) = self.data(entry, data) else {
                    return false;
                };
                let high = u64::from(sector.sequence_high.get()) << 32;
                if sector.signature != *b"data"
                    || high | u64::from(sector.sequence_low.get()) != sequence
                {
                    return false;
                }
                data = data.saturating_add(1);
            }
        }
        true
    }

    fn descriptor(&self, entry: &Entry, index: u32) -> Option<RawDescriptor> {
        let size = size_of::<RawDescriptor>();
        // The header takes the room of two.
        let index = usize::try_from(index).ok()?.checked_add(2)?;
        let per_sector = SECTOR_LEN.checked_div(size)?;
        let sector = self.sector(entry.at.checked_add(index.checked_div(per_sector)?)?);
        let start = index.checked_rem(per_sector)?.checked_mul(size)?;
        let (raw, _) = RawDescriptor::read_from_prefix(sector.get(start..)?).ok()?;
        Some(raw)
    }

    /// Sector `index` of the entry, as data.
    fn data(&self, entry: &Entry, index: usize) -> Option<&'a RawDataSector> {
        if index >= entry.sectors {
            return None;
        }
        RawDataSector::ref_from_bytes(self.sector(entry.at.checked_add(index)?)).ok()
    }

    /// Does what the descriptors say.
    fn apply(&self, entry: &Entry, patches: &mut Patches, limits: &Limits) -> Result<()> {
        let count = u64::from(entry.raw.descriptor_count.get());
        let cost = to_u64(entry.sectors)
            .saturating_mul(SECTOR)
            .saturating_add(count.saturating_mul(DESCRIPTOR_COST));
        patches
            .charges
            .push(limits.reserve(cost, "what the log has to replay")?);
        let mut data = descriptor_sectors(entry.raw.descriptor_count.get());
        for index in 0..entry.raw.descriptor_count.get() {
            let Some(descriptor) = self.descriptor(entry, index) else {
                continue;
            };
            let Some(range) = range_of(&descriptor) else {
                continue;
            };
            if descriptor.signature == *b"zero" {
                patches.put(&range, None);
                continue;
            }
            if let Some(raw) = self.data(entry, data) {
                let mut sector = Box::new([0; SECTOR_LEN]);
                let bytes = descriptor
                    .leading
                    .iter()
                    .chain(&raw.data)
                    .chain(&descriptor.trailing);
                for (to, from) in sector.iter_mut().zip(bytes) {
                    *to = *from;
                }
                patches.put(&range, Some(sector));
            }
            data = data.saturating_add(1);
        }
        Ok(())
    }
}

/// Sectors that the header and `count` descriptors take.
fn descriptor_sectors(count: u32) -> usize {
    to_usize(u64::from(count).saturating_add(2).div_ceil(128))
}

/// What a descriptor is about; `None` if it is not valid.
fn range_of(descriptor: &RawDescriptor) -> Option<std::ops::Range<u64>> {
    let len = match &descriptor.signature {
        b"desc" => SECTOR,
        b"zero" => u64::from_le_bytes(descriptor.leading),
        _ => return None,
    };
    let start = descriptor.file_offset.get();
    let end = start.checked_add(len)?;
    (start.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR)).then_some(start..end)
}
