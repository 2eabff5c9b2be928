//! Extents: what is where.
//!
//! **Invariant** of every iterator of extents over a range: they are sorted, disjoint, coalesced
//! (neighbours that could be one are one) and cover the range exactly. Property-tested per format.

use std::ops::Range;

use crate::{Error, Result};

/// A range of the guest's disk and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the guest's disk; never empty.
    pub guest: Range<u64>,
    /// Where they are.
    pub kind: ExtentKind,
}

/// Where the bytes of an [`Extent`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// As they are, from offset `at` of the image's data file. Past its end they are zeros.
    Data {
        /// Offset in bytes.
        at: u64,
    },
    /// One compressed cluster. The extent starts where the cluster starts; it may end earlier than the
    /// cluster if the disk does.
    Compressed {
        /// Offset of the compressed bytes.
        at: u64,
        /// How many bytes there are at most; trailing ones may belong to the next cluster. It may
        /// reach past the end of the file: the decoder uses what is there.
        len: u32,
    },
    /// They read as zeros.
    Zero,
    /// They are in the parent (backing) image; zeros where it has none or ends earlier.
    Parent,
}

impl Extent {
    /// Length in guest bytes.
    pub fn len(&self) -> u64 {
        self.guest.end.saturating_sub(self.guest.start)
    }

    /// True for a range of no bytes, which no iterator yields.
    pub fn is_empty(&self) -> bool {
        self.guest.is_empty()
    }

    /// If `next` continues this extent, takes it in and says true.
    pub fn join(&mut self, next: &Self) -> bool {
        if next.guest.start != self.guest.end {
            return false;
        }
        let continues = match (self.kind, next.kind) {
            (ExtentKind::Zero, ExtentKind::Zero) | (ExtentKind::Parent, ExtentKind::Parent) => true,
            (ExtentKind::Data { at: a }, ExtentKind::Data { at: b }) => {
                a.checked_add(self.len()) == Some(b)
            }
            _ => false,
        };
        if continues {
            self.guest.end = next.guest.end;
        }
        continues
    }

    /// The part of this extent inside `window`, if any. A compressed cluster is never cut at its start.
    #[must_use]
    pub fn clip(&self, window: &Range<u64>) -> Option<Self> {
        let start = self.guest.start.max(window.start);
        let end = self.guest.end.min(window.end);
        if start >= end {
            return None;
        }
        let skipped = start.saturating_sub(self.guest.start);
        let kind = match self.kind {
            ExtentKind::Data { at } => ExtentKind::Data {
                at: at.saturating_add(skipped),
            },
            ExtentKind::Compressed { .. } => {
                return Some(Self {
                    guest: self.guest.start..end,
                    kind: self.kind,
                });
            }
            other => other,
        };
        Some(Self {
            guest: start..end,
            kind,
        })
    }
}

/// A lazy walk over extents.
pub type Extents<'a> = Box<dyn Iterator<Item = Result<Extent>> + Send + 'a>;

/// Joins neighbours of any sorted, disjoint walk, and checks that it is one. It ends with the first
/// error, so the walk itself need not.
pub fn coalesce<'a>(raw: impl Iterator<Item = Result<Extent>> + Send + 'a) -> Extents<'a> {
    Box::new(Coalesce {
        inner: raw,
        held: None,
        failed: false,
    })
}

#[derive(Debug)]
struct Coalesce<I> {
    inner: I,
    held: Option<Extent>,
    failed: bool,
}

impl<I: Iterator<Item = Result<Extent>>> Iterator for Coalesce<I> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        loop {
            match self.inner.next() {
                None => return self.held.take().map(Ok),
                Some(Err(e)) => {
                    self.failed = true;
                    return Some(Err(e));
                }
                Some(Ok(next)) if next.is_empty() => {}
                Some(Ok(next)) => match &mut self.held {
                    None => self.held = Some(next),
                    Some(held) => {
                        if held.guest.end != next.guest.start {
                            self.failed = true;
                            return Some(Err(Error::malformed(
                                "the image's map of the disk has a gap or an overlap",
                            )));
                        }
                        if !held.join(&next) {
                            return Some(Ok(std::mem::replace(held, next)));
                        }
                    }
                },
            }
        }
    }
}
