//! Extents of ESX hosts made byte by byte: COWD and seSparse.

use crate::builder::{SECTOR, put32, put64};

/// Sectors of a COWD grain table: 4096 entries.
const COWD_TABLE: usize = 32;

/// An extent and where its parts are, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) directory: usize,
    /// Grain tables by number; 0 for none.
    pub(crate) tables: Vec<usize>,
}

fn append(bytes: &mut Vec<u8>, data: &[u8], len: usize) -> usize {
    let at = bytes.len();
    bytes.extend_from_slice(data);
    bytes.resize(at + len, 0);
    at
}

/// A COWD extent of `capacity` sectors with these grains (disk sector, bytes), each table in front of
/// its first grain, as ESX allocates them.
pub(crate) fn cowd(capacity: u32, grain: u32, grains: &[(u64, Vec<u8>)]) -> Extent {
    let span = u64::from(grain) * 4096;
    let count = u64::from(capacity).div_ceil(span) as usize;
    let mut bytes = vec![0; 4 * SECTOR];
    bytes[..4].copy_from_slice(b"COWD");
    for (i, word) in [1, 3, capacity, grain, 4, count as u32, 0, 20, 16, 63]
        .into_iter()
        .enumerate()
    {
        put32(&mut bytes, 4 + 4 * i, word);
    }
    let directory = append(&mut bytes, &[], (count * 4).next_multiple_of(SECTOR));
    let mut tables = vec![0; count];
    for (lba, data) in grains {
        let table = (lba / span) as usize;
        if tables[table] == 0 {
            tables[table] = append(&mut bytes, &[], COWD_TABLE * SECTOR);
            let sector = (tables[table] / SECTOR) as u32;
            put32(&mut bytes, directory + 4 * table, sector);
        }
        let at = append(&mut bytes, data, grain as usize * SECTOR);
        let entry = (lba % span / u64::from(grain)) as usize;
        put32(&mut bytes, tables[table] + 4 * entry, (at / SECTOR) as u32);
    }
    Extent {
        bytes,
        directory,
        tables,
    }
}

/// Bytes per grain of a seSparse extent.
pub(crate) const SE_GRAIN: usize = 4096;
/// Grains that one of its tables maps.
pub(crate) const SE_ENTRIES: u64 = 4096;

/// What a grain of a seSparse extent is.
#[derive(Debug, Clone)]
pub(crate) enum Se {
    Unmapped,
    Zero,
    Data(Vec<u8>),
}

/// A seSparse extent of `capacity` sectors with these grains by number.
pub(crate) fn sesparse(capacity: u64, grains: &[(u64, Se)]) -> Extent {
    let count = capacity.div_ceil(8 * SE_ENTRIES) as usize;
    let directory_sectors = (count * 8).div_ceil(SECTOR).max(1);
    let mut numbers: Vec<usize> = grains.iter().map(|g| (g.0 / SE_ENTRIES) as usize).collect();
    numbers.sort_unstable();
    numbers.dedup();
    // The last table comes first: by number, not by place on the disk.
    numbers.reverse();
    let (volatile, directory) = (1, 2);
    let tables_at = directory + directory_sectors;
    let grains_at = tables_at + numbers.len() * 64;
    let mut bytes = vec![0; grains_at * SECTOR];
    for (at, word) in [
        (0, 0xcafe_babe),
        (8, 0x2_0000_0001),
        (16, capacity),
        (24, 8),
        (32, 64),
        (80, volatile),
        (88, 1),
        (128, directory as u64),
        (136, directory_sectors as u64),
        (144, tables_at as u64),
        (152, numbers.len() as u64 * 64),
        (192, grains_at as u64),
        (SECTOR, 0xcafe_cafe),
    ] {
        put64(&mut bytes, at, word);
    }
    let mut tables = vec![0; count];
    for (place, &table) in numbers.iter().enumerate() {
        tables[table] = (tables_at + 64 * place) * SECTOR;
        let entry = 0x1000_0000_0000_0000 | place as u64;
        put64(&mut bytes, directory * SECTOR + 8 * table, entry);
    }
    let mut next = 0_u64;
    for (number, grain) in grains {
        let entry = match grain {
            Se::Unmapped => 0x1000_0000_0000_0000,
            Se::Zero => 0x2000_0000_0000_0000,
            Se::Data(data) => {
                append(&mut bytes, data, SE_GRAIN);
                next += 1;
                data_entry(next - 1)
            }
        };
        let table = tables[(number / SE_ENTRIES) as usize];
        put64(
            &mut bytes,
            table + 8 * (number % SE_ENTRIES) as usize,
            entry,
        );
    }
    Extent {
        bytes,
        directory: directory * SECTOR,
        tables,
    }
}

/// The entry of the grain that is stored as number `number`.
pub(crate) fn data_entry(number: u64) -> u64 {
    0x3000_0000_0000_0000 | (number & 0xfff) << 48 | number >> 12
}
