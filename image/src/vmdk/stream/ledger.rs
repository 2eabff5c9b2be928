//! Do the grains that passed agree with the tables?
//!
//! The grains carry their addresses; the tables say the same again, before, between or after them, and
//! which table is whose is known last. Keeping either for a large disk would take more memory than a
//! worker has. So both sides are summed up instead: per grain table a bitmap of the grains seen and a
//! sum of keyed hashes of `(entry, sector)`; per sector of metadata that passed the sum of the same
//! hashes of its entries. The key is random, so an image can't be made to fool it. In the end the grain
//! directory says which sectors are whose table, and the sums must be equal.
//!
//! A disk of 2 TiB with every grain written takes 20 MiB here at most, an empty one next to nothing.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use super::super::header::Header;
use super::super::layout::{GTE_ZEROED, SECTOR};
use crate::num::{le32_entry, to_u64, to_usize};
use crate::{Error, Limits, Reservation, Result};

/// Entries of a grain table in one sector.
const PER_SECTOR: u64 = SECTOR / 4;

/// Most grains of one grain table, in words of a bitmap.
const WORDS: usize = 512 / 64;

/// Tables are charged this many at a time.
const SEEN_STEP: usize = 64;

/// What one of [`Ledger::seen`] takes with its share of the tree, whose nodes are half full, in bytes.
const SEEN_BYTES: u64 = 176;

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    header: Header,
    limits: Limits,
    key: RandomState,
    /// Make the place of a sector in its table count. Odd, so that nothing is lost.
    weights: [u64; 4],
    seen: BTreeMap<u64, Seen>,
    /// `(sector, sum)` of sectors of metadata with entries, ascending.
    sums: Pages<(u64, u64)>,
    /// `(start, end)` of what passed as metadata, in sectors, ascending.
    runs: Pages<(u64, u64)>,
    charged: Vec<Reservation>,
}

/// The grains of one grain table that passed.
#[derive(Debug, Default)]
struct Seen {
    bitmap: [u64; WORDS],
    sum: u64,
}

impl Ledger {
    pub(super) fn new(header: Header, limits: Limits) -> Self {
        let key = RandomState::new();
        let weights = [0_u64, 1, 2, 3].map(|i| key.hash_one(i) | 1);
        Self {
            header,
            limits,
            key,
            weights,
            seen: BTreeMap::new(),
            sums: Pages::default(),
            runs: Pages::default(),
            charged: Vec::new(),
        }
    }

    /// The grain for disk sector `lba` has its marker at `sector` of the file; returns its place on
    /// the disk in bytes.
    pub(super) fn grain(&mut self, lba: u64, sector: u64) -> Result<Range<u64>> {
        let grain = self.header.grain_bytes();
        let start = lba
            .checked_mul(SECTOR)
            .filter(|&s| s < self.header.virtual_size());
        let Some(start) = start else {
            return Err(Error::malformed(format!(
                "a grain for sector {lba} of the disk is beyond its end"
            )));
        };
        let number = start.checked_div(grain).unwrap_or(0);
        if number.saturating_mul(grain) != start {
            return Err(Error::malformed(format!(
                "a grain for sector {lba} of the disk does not start where a grain does"
            )));
        }
        let (Some(table), Some(entry)) = (
            number.checked_div(self.header.gtes()),
            number.checked_rem(self.header.gtes()),
        ) else {
            return Err(Error::malformed("there are no grain tables"));
        };
        if u32::try_from(sector).is_err() {
            return Err(Error::malformed(
                "a grain is beyond what tables can address",
            ));
        }
        let term = self.term(entry, sector);
        let seen = self.seen_of(table)?;
        let bit = 1_u64.rotate_left(u32::try_from(entry & 63).unwrap_or(0));
        let Some(word) = seen.bitmap.get_mut(to_usize(entry >> 6)) else {
            return Err(Error::malformed("a grain is not in any table"));
        };
        if *word & bit != 0 {
            return Err(Error::malformed(format!(
                "there is a second grain for sector {lba} of the disk"
            )));
        }
        *word |= bit;
        seen.sum = seen.sum.wrapping_add(term);
        Ok(start..start.saturating_add(grain).min(self.header.virtual_size()))
    }

    /// A sector of metadata passed.
    pub(super) fn metadata(&mut self, sector: u64, bytes: &[u8]) -> Result<()> {
        let end = sector.saturating_add(1);
        match self.runs.last_mut() {
            Some((_, last)) if *last == sector => *last = end,
            _ => self.runs.push((sector, end), &self.limits)?,
        }
        let sum = (0..PER_SECTOR)
            .filter_map(|i| Some((i, le32_entry(bytes, to_usize(i))?)))
            .filter(|&(_, gte)| !self.is_empty_entry(gte))
            .fold(0_u64, |sum, (i, gte)| {
                sum.wrapping_add(self.hash(i, u64::from(gte)))
            });
        if sum == 0 {
            return Ok(());
        }
        self.sums.push((sector, sum), &self.limits)
    }

    /// Every entry of `directory` is a table that passed, or none.
    pub(super) fn usable(&self, directory: &[u8]) -> Result<()> {
        for table in 0..self.header.tables() {
            let at = entry(directory, table);
            if at != 0 && !self.passed(at) {
                return Err(Error::malformed(format!(
                    "the grain directory has grain table {table} where there is none"
                ))
                .at(at.saturating_mul(SECTOR)));
            }
        }
        Ok(())
    }

    /// The tables of `directory`, which is usable, say what the grains said.
    pub(super) fn verify(&self, directory: &[u8]) -> Result<()> {
        for table in 0..self.header.tables() {
            let at = entry(directory, table);
            let seen = self.seen.get(&table).map_or(0, |seen| seen.sum);
            let sum = match at {
                0 => 0,
                at => self.sum_of_table(at),
            };
            if sum != seen {
                return Err(Error::malformed(format!(
                    "grain table {table} does not name the grains that are there: \
                     the image is damaged or incomplete"
                ))
                .at(at.saturating_mul(SECTOR)));
            }
        }
        Ok(())
    }

    fn passed(&self, at: u64) -> bool {
        let sectors = self.header.table_sectors();
        !self.header.overlaps_head(at, sectors)
            && self
                .runs
                .at_or_before(at)
                .is_some_and(|&(_, end)| end >= at.saturating_add(sectors))
    }

    fn sum_of_table(&self, at: u64) -> u64 {
        (0..self.header.table_sectors())
            .zip(self.weights)
            .filter_map(|(i, weight)| {
                let sector = at.saturating_add(i);
                let &(found, sum) = self.sums.at_or_before(sector)?;
                (found == sector).then(|| sum.wrapping_mul(weight))
            })
            .fold(0, u64::wrapping_add)
    }

    fn term(&self, entry: u64, sector: u64) -> u64 {
        let weight = self.weights.get(to_usize(entry >> 7)).copied().unwrap_or(1);
        self.hash(entry & 127, sector).wrapping_mul(weight)
    }

    fn hash(&self, entry: u64, sector: u64) -> u64 {
        // Both fit: the entry takes 7 bits, the sector 32.
        self.key.hash_one(entry.rotate_left(32) | sector)
    }

    fn is_empty_entry(&self, gte: u32) -> bool {
        gte == 0 || gte == GTE_ZEROED && self.header.has_zeroed_grains()
    }

    fn seen_of(&mut self, table: u64) -> Result<&mut Seen> {
        if !self.seen.contains_key(&table) {
            let allowed = self.charged.len().saturating_mul(SEEN_STEP);
            if self.seen.len() >= allowed {
                let bytes = to_u64(SEEN_STEP).saturating_mul(SEEN_BYTES);
                self.charged.push(
                    self.limits
                        .reserve(bytes, "checking the grains of the image")?,
                );
            }
        }
        Ok(self.seen.entry(table).or_default())
    }
}

fn entry(directory: &[u8], table: u64) -> u64 {
    u64::from(le32_entry(directory, to_usize(table)).unwrap_or(0))
}

/// Entries of one page of [`Pages`].
const PAGE: usize = 1024;

/// A list that grows without ever moving, charged by the page. Its pairs ascend.
#[derive(Debug)]
struct Pages<T> {
    pages: Vec<Vec<T>>,
    charged: Vec<Reservation>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            charged: Vec::new(),
        }
    }
}

impl Pages<(u64, u64)> {
    fn push(&mut self, item: (u64, u64), limits: &Limits) -> Result<()> {
        if let Some(page) = self.pages.last_mut()
            && page.len() < PAGE
        {
            page.push(item);
            return Ok(());
        }
        let bytes = to_u64(PAGE.saturating_mul(size_of::<(u64, u64)>()));
        self.charged
            .push(limits.reserve(bytes, "checking the tables of the image")?);
        let mut page = Vec::with_capacity(PAGE);
        page.push(item);
        self.pages.push(page);
        Ok(())
    }

    fn last_mut(&mut self) -> Option<&mut (u64, u64)> {
        self.pages.last_mut()?.last_mut()
    }

    /// The last item whose first half is not beyond `key`.
    fn at_or_before(&self, key: u64) -> Option<&(u64, u64)> {
        let pages = self
            .pages
            .partition_point(|page| page.first().is_some_and(|item| item.0 <= key));
        let page = self.pages.get(pages.checked_sub(1)?)?;
        let items = page.partition_point(|item| item.0 <= key);
        page.get(items.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    /// The header of a stream of `capacity` sectors in grains of 128.
    fn header(capacity: u64) -> Header {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(b"KDMV");
        head[4] = 3;
        head[10] = 3;
        head[12..20].copy_from_slice(&capacity.to_le_bytes());
        head[20] = 128;
        head[44..48].copy_from_slice(&512_u32.to_le_bytes());
        head[56..64].fill(0xFF);
        head[64] = 128;
        head[77] = 1;
        Header::parse(&head, &Limits::default()).unwrap()
    }

    /// Every grain of a disk of `tables` tables passes, in an order of its own, and so do the tables,
    /// twice as QEMU has them; gives back the ledger and the directory.
    fn dense(tables: u64, limits: &Limits) -> (Ledger, Vec<u8>) {
        let mut ledger = Ledger::new(header(tables << 16), limits.clone());
        // What is where need not be possible for that.
        let sector_of = |number: u64| 1000 + ((number * 7) & 0xFFFF_FF00) + number % 200;
        let mut directory = Vec::new();
        for copy in 0..2 {
            for table in 0..tables {
                let at = 200 + (copy * tables + table) * 4;
                if copy == 1 {
                    directory.extend_from_slice(&(at as u32).to_le_bytes());
                }
                for sector in 0..4 {
                    let mut bytes = Vec::new();
                    for entry in 0..128 {
                        let number = table * 512 + sector * 128 + entry;
                        bytes.extend_from_slice(&(sector_of(number) as u32).to_le_bytes());
                    }
                    ledger.metadata(at + sector, &bytes).unwrap();
                }
            }
        }
        let grains = tables * 512;
        for i in 0..grains {
            let number = (i * 77) % grains;
            ledger.grain(number * 128, sector_of(number)).unwrap();
        }
        (ledger, directory)
    }

    #[test]
    fn two_tebibytes_of_grains_are_checked_in_twenty_mebibytes() {
        // A quarter of them, for the sake of time: it is the same per table.
        let limits = Limits::with_table_bytes(5 << 20);
        let (ledger, directory) = dense(1 << 14, &limits);
        ledger.usable(&directory).unwrap();
        ledger.verify(&directory).unwrap();
        // One more grain would have been noticed.
        let mut ledger = ledger;
        let e = ledger.grain(128 * 4711, 12).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
    }

    #[test]
    fn what_a_ledger_takes_beyond_the_limit_is_refused() {
        let limits = Limits::with_table_bytes(1 << 20);
        let mut ledger = Ledger::new(header(1 << 32), limits);
        let e = (0..1 << 16)
            .find_map(|table| ledger.grain(table << 16, 1000).err())
            .unwrap();
        assert_eq!(e.kind(), ErrorKind::LimitExceeded);
        let e = (1..1 << 20)
            .find_map(|i| ledger.metadata(i, &[1; 512]).err())
            .unwrap();
        assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn an_empty_disk_takes_next_to_nothing_however_large() {
        let limits = Limits::with_table_bytes(64 << 10);
        let mut ledger = Ledger::new(header(1 << 40), limits);
        for sector in 1..200_000 {
            ledger.metadata(sector, &[0; 512]).unwrap();
        }
        ledger.verify(&[]).unwrap();
    }

    #[test]
    fn pages_find_what_is_at_or_before() {
        let limits = Limits::default();
        let mut pages = Pages::default();
        assert_eq!(pages.at_or_before(5), None);
        for i in 1..=5000 {
            pages.push((i * 3, i), &limits).unwrap();
        }
        assert_eq!(pages.at_or_before(2), None);
        assert_eq!(pages.at_or_before(3), Some(&(3, 1)));
        assert_eq!(pages.at_or_before(3 * 1024 + 2), Some(&(3 * 1024, 1024)));
        assert_eq!(pages.at_or_before(3 * 1025), Some(&(3 * 1025, 1025)));
        assert_eq!(pages.at_or_before(u64::MAX), Some(&(15000, 5000)));
    }
}
