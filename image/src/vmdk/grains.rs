//! A sparse extent with random access: the header, the footer of a stream, the grain directory. Which
//! part of a disk it is, and what stands in for grains that it does not have, others know.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::FromBytes;

use super::extents::Walk;
use super::header::{Directory, Header};
use super::layout::{MARKER_EOS, MARKER_FOOTER, Marker, MarkerRest, SECTOR};
use super::map;
use crate::chain::Charged;
use crate::num::{le32_entry, to_usize};
use crate::read_at::ReadAtExt;
use crate::{Error, ExtentKind, Limits, ReadAt, Result};

/// Marker, footer, marker.
const TAIL: u64 = 3 * SECTOR;

/// One sparse extent: of the hosted kind or COWD, which differ in their headers only.
#[derive(Debug)]
pub(super) struct Grains {
    file: Arc<dyn ReadAt>,
    header: Header,
    directory: Charged<Vec<u8>>,
}

impl Grains {
    /// Takes `file`, which starts with `header`.
    pub(super) fn open(file: Arc<dyn ReadAt>, header: Header, limits: &Limits) -> Result<Self> {
        let header = match header.directory() {
            Directory::At(_) => header,
            Directory::InFooter => read_footer(&file, &header, limits)?,
        };
        let directory = read_directory(&file, &header, limits)?;
        Ok(Self {
            file,
            header,
            directory,
        })
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn file(&self) -> &Arc<dyn ReadAt> {
        &self.file
    }

    /// Offset of grain table number `table`, if it exists. Checked when the directory was read.
    pub(super) fn table(&self, table: u64) -> Option<u64> {
        le32_entry(&self.directory.value, to_usize(table))
            .filter(|&at| at != 0)
            .map(|at| u64::from(at).saturating_mul(SECTOR))
    }

    /// What is where in `range` of this extent, not joined; `missing` is what a grain is that is in no
    /// table.
    pub(super) fn walk(&self, range: Range<u64>, missing: ExtentKind) -> Walk<'_> {
        Walk::new(self, range, missing)
    }
}

/// The footer takes the header's place. It is found from the end, as every reader does.
fn read_footer(file: &Arc<dyn ReadAt>, header: &Header, limits: &Limits) -> Result<Header> {
    let missing =
        |at| Error::malformed("there is no footer at the end of the file: it is truncated").at(at);
    let at = file.len().saturating_sub(TAIL);
    if at < header.data_start().saturating_mul(SECTOR) || at.next_multiple_of(SECTOR) != at {
        return Err(missing(at));
    }
    let tail = file.read_vec_at(at, to_usize(TAIL), "the footer")?;
    let mut sectors = tail.chunks_exact(to_usize(SECTOR));
    let (Some(first), Some(footer), Some(last)) = (sectors.next(), sectors.next(), sectors.next())
    else {
        return Err(missing(at));
    };
    if !is_marker(first, MARKER_FOOTER, 1) || !is_marker(last, MARKER_EOS, 0) {
        return Err(missing(at));
    }
    header.with_footer(&Header::parse(footer, limits)?)
}

fn is_marker(sector: &[u8], kind: u32, sectors: u64) -> bool {
    let Ok((marker, rest)) = Marker::ref_from_prefix(sector) else {
        return false;
    };
    MarkerRest::ref_from_bytes(rest).is_ok_and(|rest| rest.kind.get() == kind)
        && marker.size.get() == 0
        && marker.value.get() == sectors
}

/// The grain directory; its copy if what it points to can't be.
fn read_directory(
    file: &Arc<dyn ReadAt>,
    header: &Header,
    limits: &Limits,
) -> Result<Charged<Vec<u8>>> {
    let Directory::At(primary) = header.directory() else {
        return Err(Error::malformed("the grain directory is nowhere"));
    };
    let read = |sector: u64| {
        map::check_directory(header, sector, file.len())?;
        let len = header.directory_bytes();
        Charged::make(limits, len, "the grain directory", || {
            let bytes = file.read_vec_at(
                sector.saturating_mul(SECTOR),
                to_usize(len),
                "the grain directory",
            )?;
            map::check_tables(header, &bytes, file.len())?;
            Ok(bytes)
        })
    };
    if header.tables() == 0 {
        return Charged::make(limits, 0, "the grain directory", || Ok(Vec::new()));
    }
    match (read(primary), header.redundant()) {
        (Err(first), Some(copy)) if first.kind() == crate::ErrorKind::Malformed => {
            read(copy).map_err(|_| first)
        }
        (result, _) => result,
    }
}
