//! monolithicSparse as it passes by: where its tables are and what they say.

use std::ops::Range;

use super::header::{Directory, Header};
use super::layout::SECTOR;
use super::map::{self, Grain};
use crate::forward::{Geometry, Layout, Options, Plan, Segment, SegmentKind, Table};
use crate::num::{to_u64, to_usize};
use crate::{Error, Limits, Reservation, Result};

/// Table: the header, which is known already.
const HEAD: u64 = u64::MAX;
/// Table: a grain directory. Grain tables have their number as id.
const DIRECTORY: u64 = u64::MAX - 1;

/// The tables of a sparse extent.
#[derive(Debug)]
pub(super) struct SparseLayout {
    header: Header,
    geometry: Geometry,
    /// Length of the file, as far as known.
    file: u64,
    /// Directories to try, in sectors, the next one last.
    directories: Vec<u64>,
    /// Redundant tables in front of the others, in bytes.
    redundant: Range<u64>,
    limits: Limits,
    _charge: Reservation,
}

impl SparseLayout {
    pub(super) fn new(header: Header, geometry: Geometry, options: &Options) -> Result<Self> {
        let file = options.stream_len.unwrap_or(u64::MAX);
        let primary = match header.directory() {
            Directory::At(at) => at,
            Directory::InFooter => 0,
        };
        let mut directories: Vec<u64> = [header.redundant(), Some(primary)]
            .into_iter()
            .flatten()
            .filter(|&at| map::check_directory(&header, at, file).is_ok())
            .collect();
        if directories.is_empty() {
            map::check_directory(&header, primary, file)?;
        }
        if header.tables() == 0 {
            directories.clear();
        }
        let mut redundant = 0..0;
        if let &[second, first] = directories.as_slice()
            && second < first
            && first <= header.overhead()
        {
            redundant = second.saturating_mul(SECTOR)..first.saturating_mul(SECTOR);
        }
        let charge = options
            .limits
            .reserve(header.directory_bytes(), "the grain directory")?;
        Ok(Self {
            header,
            geometry,
            file,
            directories,
            redundant,
            limits: options.limits.clone(),
            _charge: charge,
        })
    }

    fn next_directory(&mut self) -> Option<Table> {
        Some(Table {
            at: self.directories.pop()?.saturating_mul(SECTOR),
            len: to_usize(self.header.directory_bytes()),
            id: DIRECTORY,
            peek: false,
        })
    }

    fn directory(&mut self, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        if let Err(e) = map::check_tables(&self.header, bytes, self.file) {
            // What this one calls tables is not: ask its copy.
            let Some(copy) = self.next_directory() else {
                return Err(e);
            };
            plan.table(copy);
            return Ok(());
        }
        // The driver charges each table it waits for, but holds the plan as a list first.
        let most = map::tables(&self.header, bytes)
            .count()
            .saturating_mul(size_of::<Table>());
        let _plan = self.limits.reserve(to_u64(most), "the grain directory")?;
        for (table, at) in map::tables(&self.header, bytes) {
            plan.table(Table {
                at: at.saturating_mul(SECTOR),
                len: self.header.table_bytes(),
                id: table,
                peek: false,
            });
        }
        Ok(())
    }

    fn grains(&self, table: u64, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        for entry in map::grains(&self.header, table, bytes, self.file) {
            let (guest, grain) = entry?;
            if let Grain::At(at) = grain {
                let len = guest.end.saturating_sub(guest.start);
                plan.segment(Segment {
                    at,
                    len,
                    guest: guest.start,
                    guest_len: len,
                    kind: SegmentKind::Plain,
                });
            }
        }
        Ok(())
    }
}

/// The rest of a table's last sector need not be held.
fn skip_padding(table: &Table, plan: &mut Plan) {
    let end = table.at.saturating_add(to_u64(table.len));
    plan.skip(end, end.next_multiple_of(SECTOR).saturating_sub(end));
}

impl Layout for SparseLayout {
    fn start(&self) -> Plan {
        let mut plan = Plan::default();
        plan.table(Table {
            at: 0,
            len: Header::LEN,
            id: HEAD,
            peek: true,
        });
        if let Some(&at) = self.directories.last() {
            plan.table(Table {
                at: at.saturating_mul(SECTOR),
                len: to_usize(self.header.directory_bytes()),
                id: DIRECTORY,
                peek: false,
            });
        }
        plan
    }

    fn table(&mut self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        match table.id {
            HEAD => {
                // Of no use while the others are good, and too much to hold until that is known.
                let len = self.redundant.end.saturating_sub(self.redundant.start);
                plan.skip(self.redundant.start, len);
                Ok(())
            }
            DIRECTORY => {
                let at = table.at / SECTOR;
                self.directories.retain(|&other| other != at);
                skip_padding(table, plan);
                self.directory(bytes, plan)
            }
            number if bytes.len() == self.header.table_bytes() => {
                skip_padding(table, plan);
                self.grains(number, bytes, plan)
            }
            _ => Err(Error::malformed("a grain table is cut")),
        }
    }

    fn geometry(&self) -> Option<&Geometry> {
        Some(&self.geometry)
    }

    fn tail_is_zeros(&self, missing: &Segment, end: u64) -> bool {
        // The last grain of it starts before the end: the rest of it was never written.
        let last = missing
            .guest
            .saturating_add(missing.guest_len)
            .saturating_sub(1);
        let grain = last & !self.header.grain_bytes().saturating_sub(1);
        missing.at.saturating_add(grain) < end.saturating_add(missing.guest)
    }
}
