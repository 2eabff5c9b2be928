//! Directory records, with Rock Ridge in the primary tree, and path tables.

use super::{
    SECTOR,
    encode::{both16, both32, ucs2},
};

/// 1 January 2000, midnight, UTC, as a directory record has it (9.1.5). Any fixed time would do.
pub(super) const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];
/// Flag of a directory (9.1.6).
const IS_DIRECTORY: u8 = 2;
/// Identifiers of a directory itself and of its parent.
const SELF: &[u8] = &[0];
const PARENT: &[u8] = &[1];
/// A directory and a file, readable by everybody and writable by nobody.
const DIRECTORY_MODE: u32 = 0o040_555;
const FILE_MODE: u32 = 0o100_444;

/// Where a file or a directory is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub(super) sector: u32,
    pub(super) size: u32,
}

/// A file in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// Name in Joliet and Rock Ridge.
    pub(super) name: &'a str,
    /// Name of the primary tree, version included.
    pub(super) short: &'a str,
    pub(super) extent: Extent,
}

/// The root directory of the primary tree.
pub(super) fn primary(root: Extent, entries: &[Entry<'_>]) -> Vec<u8> {
    let mut sorted = entries.to_vec();
    // Shorter parts count as filled up with spaces (9.3).
    sorted.sort_by_key(|entry| {
        let (stem, rest) = entry.short.split_once('.').unwrap_or((entry.short, ""));
        (format!("{stem:8}"), rest.to_owned())
    });
    let posix = [posix_attributes(DIRECTORY_MODE, 2), times()].concat();
    let first = [sharing_protocol(), posix.clone(), rock_ridge()].concat();
    let mut records = vec![
        record(root, IS_DIRECTORY, SELF, &first),
        record(root, IS_DIRECTORY, PARENT, &posix),
    ];
    for entry in &sorted {
        let attributes = [posix_attributes(FILE_MODE, 1), times(), name(entry.name)].concat();
        records.push(record(entry.extent, 0, entry.short.as_bytes(), &attributes));
    }
    in_sectors(&records)
}

/// The root directory of the Joliet tree. Its names have no version, as other writers leave it
/// out too.
pub(super) fn joliet(root: Extent, entries: &[Entry<'_>]) -> Vec<u8> {
    let mut named: Vec<(Vec<u8>, Extent)> = entries
        .iter()
        .map(|entry| (ucs2(entry.name), entry.extent))
        .collect();
    named.sort_by(|one, other| one.0.cmp(&other.0));
    let mut records = vec![
        record(root, IS_DIRECTORY, SELF, &[]),
        record(root, IS_DIRECTORY, PARENT, &[]),
    ];
    records.extend(
        named
            .iter()
            .map(|(name, extent)| record(*extent, 0, name, &[])),
    );
    in_sectors(&records)
}

/// The record of a root directory as a volume descriptor has it.
pub(super) fn root_record(root: Extent) -> Vec<u8> {
    record(root, IS_DIRECTORY, SELF, &[])
}

/// The path table of a tree that has nothing but its root (9.4).
pub(super) fn path_table(sector: [u8; 4], parent: [u8; 2]) -> Vec<u8> {
    [&[1, 0][..], &sector, &parent, &[0, 0]].concat()
}

/// A directory record (9.1).
fn record(extent: Extent, flags: u8, identifier: &[u8], system_use: &[u8]) -> Vec<u8> {
    // Names have at most 64 characters of 2 bytes: the record is well below 255 bytes.
    let identifier_length = u8::try_from(identifier.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![0, 0];
    bytes.extend_from_slice(&both32(extent.sector));
    bytes.extend_from_slice(&both32(extent.size));
    bytes.extend_from_slice(&DATE);
    bytes.extend_from_slice(&[flags, 0, 0]);
    bytes.extend_from_slice(&both16(1));
    bytes.push(identifier_length);
    bytes.extend_from_slice(identifier);
    if identifier.len().is_multiple_of(2) {
        bytes.push(0);
    }
    bytes.extend_from_slice(system_use);
    if !bytes.len().is_multiple_of(2) {
        bytes.push(0);
    }
    bytes[0] = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    bytes
}

/// Joins records; none may cross the end of a sector (6.8.1.1), and the last one is filled up.
fn in_sectors(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        if bytes.len() % SECTOR + record.len() > SECTOR {
            bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        }
        bytes.extend_from_slice(record);
    }
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    bytes
}

/// A system use entry (SUSP 4.1), version 1.
fn entry(signature: [u8; 2], data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len() + 4).unwrap_or(u8::MAX);
    [&signature[..], &[length, 1], data].concat()
}

/// "SP": system use entries are there (SUSP 5.3).
fn sharing_protocol() -> Vec<u8> {
    entry(*b"SP", &[0xbe, 0xef, 0])
}

/// "ER": the entries are those of Rock Ridge (SUSP 5.5).
fn rock_ridge() -> Vec<u8> {
    let identifier = b"RRIP_1991A";
    entry(*b"ER", &[&[10, 0, 0, 1][..], identifier].concat())
}

/// "PX": permissions, links, owner and group (RRIP 4.1.1).
fn posix_attributes(mode: u32, links: u32) -> Vec<u8> {
    entry(
        *b"PX",
        &[both32(mode), both32(links), both32(0), both32(0)].concat(),
    )
}

/// "TF": times of modification, access and change (RRIP 4.1.6).
fn times() -> Vec<u8> {
    entry(*b"TF", &[&[0x0e][..], &DATE, &DATE, &DATE].concat())
}

/// "NM": the name (RRIP 4.1.4).
fn name(name: &str) -> Vec<u8> {
    entry(*b"NM", &[&[0][..], name.as_bytes()].concat())
}
