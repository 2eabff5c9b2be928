//! A raw disk that a server hands out: it knows what is data and what is zero, and its bytes come in
//! the order of the disk.
//!
//! How the bytes are fetched (how many requests are under way, what is tried again) is the business of
//! whoever implements [`Served`]. What is fetched ahead is bounded by the [`crate::Allowance`].

use std::ops::Range;

use crate::Result;

/// A disk being handed out. Pieces come in the order of the disk and do not overlap; what lies between
/// them is zero, or unchanged where only changes come ([`crate::Source::changes_only`]).
pub trait Served: Send {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// Only these parts of the disk are wanted, in this order: an earlier run has the rest. Asked before
    /// anything was handed out. What is handed out of the rest nevertheless is only slower.
    fn only(&mut self, _wanted: Vec<Range<u64>>) {}

    /// What comes next. Does not wait for long: [`Piece::Waiting`] lets the caller look whether it still
    /// wants to.
    fn next(&mut self) -> Result<Piece<'_>>;
}

/// A piece of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes, at this offset.
    Data(u64, &'a [u8]),
    /// Nothing but zeros.
    Zeros(Range<u64>),
    /// Nothing has come yet.
    Waiting,
    /// That was all.
    End,
}
