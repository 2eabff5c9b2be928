//! Volume descriptors (ECMA-119, 8).

use super::{
    SECTOR,
    directory::{Extent, root_record},
    encode::{both16, both32, padded, padded_ucs2},
};

/// Midnight of 1 January 2000 (8.4.26.1); the time of the directory records, in digits.
const DATE: &[u8; 17] = b"2000010100000000\0";
/// No time at all.
const NO_DATE: &[u8; 17] = b"0000000000000000\0";
/// What tells Joliet, level 3, from other supplementary descriptors.
const JOLIET_ESCAPE: &[u8; 3] = b"%/E";
/// Bytes of a path table with nothing but a root.
const PATH_TABLE_SIZE: u32 = 10;

/// What both descriptors say alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Volume<'a> {
    pub(super) label: &'a str,
    pub(super) sectors: u32,
}

/// Where one of the trees is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    pub(super) root: Extent,
    /// Sector of the little-endian table; the big-endian one follows.
    pub(super) path_table: u32,
}

/// How a descriptor writes text.
type Text = fn(&str, usize) -> Vec<u8>;

pub(super) fn primary(volume: &Volume<'_>, tree: Tree) -> Vec<u8> {
    descriptor(1, &[], padded, volume, tree)
}

pub(super) fn joliet(volume: &Volume<'_>, tree: Tree) -> Vec<u8> {
    descriptor(2, JOLIET_ESCAPE, padded_ucs2, volume, tree)
}

pub(super) fn terminator() -> Vec<u8> {
    header(255)
}

fn header(kind: u8) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(b"CD001");
    bytes.extend_from_slice(&[1, 0]);
    bytes
}

/// A primary (8.4) or supplementary (8.5) descriptor; they have the same fields.
fn descriptor(kind: u8, escape: &[u8], text: Text, volume: &Volume<'_>, tree: Tree) -> Vec<u8> {
    let mut bytes = header(kind);
    let mut put = |field: &[u8]| bytes.extend_from_slice(field);
    put(&text("", 32));
    put(&text(volume.label, 32));
    put(&[0; 8]);
    put(&both32(volume.sectors));
    let mut escapes = [0; 32];
    for (to, from) in escapes.iter_mut().zip(escape) {
        *to = *from;
    }
    put(&escapes);
    // One volume in the set, and this is it; a block is a sector.
    put(&both16(1));
    put(&both16(1));
    put(&both16(2048));
    put(&both32(PATH_TABLE_SIZE));
    put(&tree.path_table.to_le_bytes());
    put(&[0; 4]);
    put(&(tree.path_table + 1).to_be_bytes());
    put(&[0; 4]);
    put(&root_record(tree.root));
    for length in [128, 128, 128] {
        put(&text("", length));
    }
    put(&text("LONGSHORE", 128));
    for length in [37, 37, 37] {
        put(&text("", length));
    }
    put(DATE);
    put(DATE);
    put(NO_DATE);
    put(NO_DATE);
    // Version of the structure.
    put(&[1]);
    bytes.resize(SECTOR, 0);
    bytes
}
