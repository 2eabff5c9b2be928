//! Checked conversions and arithmetic on numbers that come from outside.

use crate::{Error, Result};

/// `a + b`, or the error that `what` is out of range.
pub(crate) fn add(a: u64, b: u64, what: &'static str) -> Result<u64> {
    a.checked_add(b)
        .ok_or_else(|| Error::malformed(format!("{what} is out of range")))
}

/// `a * b`, or the error that `what` is out of range.
pub(crate) fn mul(a: u64, b: u64, what: &'static str) -> Result<u64> {
    a.checked_mul(b)
        .ok_or_else(|| Error::malformed(format!("{what} is out of range")))
}

/// A length as an index. Saturates where `usize` is narrower, which then fails a bounds check.
pub(crate) fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// An index as an offset.
pub(crate) fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The big-endian `u64` at entry `index` of a table, if the table is that long.
pub(crate) fn be64_entry(table: &[u8], index: usize) -> Option<u64> {
    let start = index.checked_mul(8)?;
    let bytes = table.get(start..start.checked_add(8)?)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// The little-endian `u64` at entry `index` of a table, if the table is that long.
pub(crate) fn le64_entry(table: &[u8], index: usize) -> Option<u64> {
    let start = index.checked_mul(8)?;
    let bytes = table.get(start..start.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// The little-endian `u32` at entry `index` of a table, if the table is that long.
pub(crate) fn le32_entry(table: &[u8], index: usize) -> Option<u32> {
    let start = index.checked_mul(4)?;
    let bytes = table.get(start..start.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}
