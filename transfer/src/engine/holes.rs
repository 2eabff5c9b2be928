//! Holes in the files of images: clusters that are set aside and were never written
//! (`preallocation=metadata`, fixed disks made sparse). They read as zeros and cost nothing.

use std::io;
use std::ops::Range;

use longshore_image::chain::{Chain, LayerExtent};
use longshore_image::{ExtentKind, Format, ReadAt};

use super::{Outcome, Shared};
use crate::Error;

/// Holes of less than this between data are read: that is cheaper than another system call.
const LEAST: u64 = 64 << 10;
/// So many pieces of data are taken for one at most, before anything is done with them.
const MOST_JOINED: u32 = 64;

/// What was last learnt of a layer's file: it is asked once for each run of data or hole, however many
/// extents lie in it.
#[derive(Debug, Clone)]
struct Known {
    range: Range<u64>,
    data: bool,
}

/// Data and holes of the files of a chain.
pub(super) struct Holes {
    known: Vec<Known>,
}

impl Holes {
    pub(super) fn new(chain: &Chain) -> Self {
        // A raw layer's extents are its data and holes already.
        let known = chain.layers().iter().map(|layer| Known {
            range: match layer.info().format {
                Format::Raw => 0..u64::MAX,
                _ => 0..0,
            },
            data: true,
        });
        Self {
            known: known.collect(),
        }
    }

    /// Passes on what of `extent` may be something other than zeros; the rest is settled.
    pub(super) fn skip(
        &mut self,
        extent: LayerExtent,
        chain: &Chain,
        shared: &Shared,
        mut data: impl FnMut(LayerExtent) -> Result<(), Outcome>,
    ) -> Result<(), Outcome> {
        let mut rest = Some(extent);
        while let Some(next) = rest.take() {
            let ExtentKind::Data { at } = next.extent.kind else {
                return data(next);
            };
            let known = self.at(&next, at, chain, shared)?;
            let (now, later) = split(next, known.range.end - at);
            if let Some(now) = now {
                if known.data {
                    data(now)?;
                } else {
                    let zeros = now.visible.end - now.visible.start;
                    shared.progress.add_resolved(zeros);
                }
            }
            rest = later;
        }
        Ok(())
    }

    /// What `at` of the extent's layer is in; it goes on beyond `at`.
    fn at(
        &mut self,
        extent: &LayerExtent,
        at: u64,
        chain: &Chain,
        shared: &Shared,
    ) -> Result<Known, Outcome> {
        // Past everything it is as the extent is: readers know what to make of it.
        let unknown = Known {
            range: at..u64::MAX,
            data: true,
        };
        let (Some(known), Some(layer)) = (
            self.known.get_mut(extent.layer),
            chain.layers().get(extent.layer),
        ) else {
            return Ok(unknown);
        };
        if !known.range.contains(&at) {
            let file = layer.data();
            let found = data_from(file.as_ref(), at).map_err(|e| Error::Source {
                name: shared.name.to_string(),
                source: Box::new(e),
            })?;
            *known = match found {
                Some(found) if found.start <= at => Known {
                    range: at..found.end,
                    data: true,
                },
                Some(found) => Known {
                    range: at..found.start,
                    data: false,
                },
                None if at < file.len() => Known {
                    range: at..file.len(),
                    data: false,
                },
                None => unknown.clone(),
            };
            if known.range.is_empty() {
                *known = unknown;
            }
        }
        Ok(known.clone())
    }
}

/// The first data from `at` on, and what follows it closely.
fn data_from(file: &dyn ReadAt, at: u64) -> io::Result<Option<Range<u64>>> {
    let Some(mut found) = file.next_data(at)? else {
        return Ok(None);
    };
    for _ in 0..MOST_JOINED {
        match file.next_data(found.end)? {
            Some(next) if next.start.saturating_sub(found.end) < LEAST => found.end = next.end,
            _ => break,
        }
    }
    Ok(Some(found))
}

/// The first `n` bytes of plain data, and the rest.
pub(super) fn split(extent: LayerExtent, n: u64) -> (Option<LayerExtent>, Option<LayerExtent>) {
    let ExtentKind::Data { at } = extent.extent.kind else {
        return (Some(extent), None);
    };
    let middle = extent.visible.start.saturating_add(n);
    let middle = middle.min(extent.visible.end);
    let mut head = extent.clone();
    head.visible.end = middle;
    head.extent.guest = head.visible.clone();
    let mut rest = extent;
    rest.extent.kind = ExtentKind::Data {
        at: at.saturating_add(middle - rest.visible.start),
    };
    rest.visible.start = middle;
    rest.extent.guest = rest.visible.clone();
    let there = |part: LayerExtent| (!part.visible.is_empty()).then_some(part);
    (there(head), there(rest))
}
