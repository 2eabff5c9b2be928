//! What grain directories and grain tables say, checked, for whoever has their bytes.

use std::ops::Range;

use super::header::Header;
use super::layout::{GTE_ZEROED, SECTOR};
use crate::num::{le32_entry, to_usize};
use crate::read_at::check_inside;
use crate::{Error, Result};

/// What a grain table says about a grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// It is not here: zeros, or the parent's.
    Unallocated,
    /// It is all zeros.
    Zero,
    /// It, or its marker, is at this offset of the file, in bytes.
    At(u64),
}

/// A grain directory can be at `sector` of a file of `file` bytes.
pub(super) fn check_directory(header: &Header, sector: u64, file: u64) -> Result<()> {
    let len = header.directory_bytes();
    if len == 0 {
        return Ok(());
    }
    check_place(header, sector, len, file, "the grain directory")
}

/// Every entry of `directory` can be a grain table.
pub(super) fn check_tables(header: &Header, directory: &[u8], file: u64) -> Result<()> {
    let len = crate::num::to_u64(header.table_bytes());
    tables(header, directory)
        .try_for_each(|(_, at)| check_place(header, at, len, file, "a grain table"))
}

fn check_place(
    header: &Header,
    sector: u64,
    len: u64,
    file: u64,
    what: &'static str,
) -> Result<()> {
    if header.overlaps_head(sector, len.div_ceil(SECTOR)) {
        return Err(
            Error::malformed(format!("{what} would be over the header or the descriptor"))
                .at(sector.saturating_mul(SECTOR)),
        );
    }
    let at = crate::num::mul(sector, SECTOR, "the place of a table")?;
    check_inside(file, at, len, what)
}

/// Number and sector of each grain table that exists.
pub(super) fn tables(header: &Header, directory: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    (0..header.tables())
        .map_while(|table| Some((table, u64::from(le32_entry(directory, to_usize(table))?))))
        .filter(|&(_, at)| at != 0)
}

/// What grain table number `table` says: for each of its grains on the disk, in order, the range of the
/// disk and the place.
pub(super) fn grains(
    header: &Header,
    table: u64,
    bytes: &[u8],
    file: u64,
) -> impl Iterator<Item = Result<(Range<u64>, Grain)>> {
    let base = table.saturating_mul(header.table_span());
    let size = header.virtual_size();
    (0..header.gtes()).map_while(move |index| {
        let start = base.saturating_add(index.saturating_mul(header.grain_bytes()));
        if start >= size {
            return None;
        }
        let end = start.saturating_add(header.grain_bytes()).min(size);
        let gte = le32_entry(bytes, to_usize(index))?;
        Some(grain(header, gte, file).map(|grain| (start..end, grain)))
    })
}

/// What grain table entry `gte` says, in a file of `file` bytes.
fn grain(header: &Header, gte: u32, file: u64) -> Result<Grain> {
    match gte {
        0 => return Ok(Grain::Unallocated),
        GTE_ZEROED if header.has_zeroed_grains() => return Ok(Grain::Zero),
        _ => {}
    }
    let sector = u64::from(gte);
    let at = sector.saturating_mul(SECTOR);
    // Grains of a stream start where the markers do. Elsewhere nobody relies on `overHead`.
    let over_head = if header.is_stream() {
        sector < header.data_start()
    } else {
        header.overlaps_head(sector, header.grain_bytes() / SECTOR)
    };
    if over_head {
        return Err(Error::malformed("a grain would be over the image's header or tables").at(at));
    }
    if at >= file {
        return Err(Error::malformed(
            "a grain is past the end of the image: it is truncated or damaged",
        )
        .at(at));
    }
    Ok(Grain::At(at))
}
