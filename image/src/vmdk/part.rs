//! Parts of a disk, and the walk over them.

use std::ops::Range;
use std::sync::Arc;

use super::grains::Grains;
use super::sesparse::{self, SeSparse};
use super::several::in_extent;
use crate::raw::Holes;
use crate::{Extent, ExtentKind, ReadAt, Result};

/// Where the bytes of a part are.
#[derive(Debug)]
pub(super) enum Content {
    /// Nowhere: it is all zeros.
    Zero,
    /// In a file as they are, from this offset in bytes.
    Flat { file: Arc<dyn ReadAt>, offset: u64 },
    /// In a sparse extent, hosted or COWD.
    Grains(Grains),
    /// In a seSparse extent.
    SeSparse(SeSparse),
}

/// A part of a disk.
#[derive(Debug)]
pub(super) struct Part {
    /// Bytes of the disk.
    pub(super) guest: Range<u64>,
    /// Where its file starts in the image's data.
    pub(super) base: u64,
    pub(super) content: Content,
    /// The name of its file, if it is not the image itself.
    pub(super) name: Option<String>,
}

impl Part {
    /// Bytes of the disk in a compressed grain; 0 if there are none.
    pub(super) fn packed(&self) -> u64 {
        match &self.content {
            Content::Grains(grains) if grains.header().is_stream() => grains.header().grain_bytes(),
            _ => 0,
        }
    }

    /// Bytes per grain.
    pub(super) fn grain(&self) -> Option<u64> {
        match &self.content {
            Content::Grains(grains) => Some(grains.header().grain_bytes()),
            Content::SeSparse(_) => Some(sesparse::GRAIN),
            Content::Zero | Content::Flat { .. } => None,
        }
    }

    fn file_len(&self) -> u64 {
        match &self.content {
            Content::Zero => 0,
            Content::Flat { file, .. } => file.len(),
            Content::Grains(grains) => grains.file().len(),
            Content::SeSparse(extent) => extent.file().len(),
        }
    }

    /// What is where in `range` of this part; offsets are those of its file.
    fn walk(&self, range: Range<u64>, missing: ExtentKind) -> Inner<'_> {
        match &self.content {
            Content::Zero => Inner::Zero(Some(range)),
            Content::Flat { file, offset } => {
                let start = range.start.saturating_add(*offset);
                let end = range.end.saturating_add(*offset);
                Inner::Flat {
                    holes: Holes::new(file, start..end),
                    offset: *offset,
                }
            }
            Content::Grains(grains) => Inner::Grains(grains.walk(range, missing)),
            Content::SeSparse(extent) => Inner::SeSparse(extent.walk(range, missing)),
        }
    }
}

/// The walk of one part, in its own offsets.
enum Inner<'a> {
    Zero(Option<Range<u64>>),
    Flat { holes: Holes<'a>, offset: u64 },
    Grains(super::extents::Walk<'a>),
    SeSparse(sesparse::Walk<'a>),
}

impl Iterator for Inner<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Zero(range) => range.take().map(|guest| {
                Ok(Extent {
                    guest,
                    kind: ExtentKind::Zero,
                })
            }),
            Self::Flat { holes, offset } => {
                let found = holes.next()?;
                Some(found.map(|extent| Extent {
                    guest: extent.guest.start.saturating_sub(*offset)
                        ..extent.guest.end.saturating_sub(*offset),
                    kind: extent.kind,
                }))
            }
            Self::Grains(walk) => walk.next(),
            Self::SeSparse(walk) => walk.next(),
        }
    }
}

/// Extents of a range of the disk, not joined yet.
pub(super) struct Walk<'a> {
    /// Those that are not over.
    parts: &'a [Part],
    range: Range<u64>,
    /// What a grain is that is in no table.
    missing: ExtentKind,
    inner: Option<Inner<'a>>,
    /// The rest of what came last: zeros behind the end of a file.
    pending: Option<Extent>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(parts: &'a [Part], range: Range<u64>, has_parent: bool) -> Self {
        let first = parts.partition_point(|part| part.guest.end <= range.start);
        Self {
            parts: parts.get(first..).unwrap_or_default(),
            range,
            missing: if has_parent {
                ExtentKind::Parent
            } else {
                ExtentKind::Zero
            },
            inner: None,
            pending: None,
        }
    }

    /// `extent` of `part` as it is on the disk, and in the data of the image. What lies behind the end of
    /// the file is not there: the next file might be.
    fn place(&mut self, part: &Part, mut extent: Extent) -> Extent {
        let file = part.file_len();
        let shift = |at: u64| at.saturating_add(part.guest.start);
        extent.guest = shift(extent.guest.start)..shift(extent.guest.end);
        match extent.kind {
            ExtentKind::Data { at } => {
                let there = extent.guest.start.saturating_add(file.saturating_sub(at));
                if there < extent.guest.end {
                    self.pending = Some(Extent {
                        guest: there..extent.guest.end,
                        kind: ExtentKind::Zero,
                    });
                    extent.guest.end = there;
                }
                extent.kind = ExtentKind::Data {
                    at: at.saturating_add(part.base),
                };
            }
            ExtentKind::Compressed { at, len } => {
                let there = u32::try_from(file.saturating_sub(at)).unwrap_or(u32::MAX);
                extent.kind = ExtentKind::Compressed {
                    at: at.saturating_add(part.base),
                    len: len.min(there),
                };
            }
            ExtentKind::Zero | ExtentKind::Parent => {}
        }
        extent
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(rest) = self.pending.take() {
                return Some(Ok(rest));
            }
            let (part, later) = self.parts.split_first()?;
            if self.range.end <= part.guest.start || self.range.is_empty() {
                return None;
            }
            let inner = self.inner.get_or_insert_with(|| {
                let start = self.range.start.max(part.guest.start);
                let end = self.range.end.min(part.guest.end);
                let own = |at: u64| at.saturating_sub(part.guest.start);
                part.walk(own(start)..own(end), self.missing)
            });
            match inner.next() {
                Some(Ok(extent)) => return Some(Ok(self.place(part, extent))),
                Some(Err(e)) => {
                    return Some(Err(match &part.name {
                        Some(name) => in_extent(name, e),
                        None => e,
                    }));
                }
                None => {
                    self.inner = None;
                    self.parts = later;
                }
            }
        }
    }
}
