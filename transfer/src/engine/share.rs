//! Data that source and target can have together: one filesystem keeps both files and can let them share
//! blocks (XFS, Btrfs, bcachefs, NFS 4.2). Then nothing of it is read or written.
//!
//! Only where offsets in the image and on the disk are aligned alike. What is not goes the way of all
//! data, as does everything once the filesystem has refused: whether it can is asked by doing it.

use longshore_image::chain::{Chain, LayerExtent};
use longshore_image::{ExtentKind, FileRange};

use super::holes::split;
use super::writer::Back;
use super::{Outcome, Shared};

/// Runs of less than this are copied: sharing costs a transaction of the filesystem, and leaves extents
/// as small as the run.
const LEAST: u64 = 32 << 10;
/// Most bytes in one go, so that we hear of an interrupt in between.
const MOST: u64 = 1 << 30;

/// What is known about sharing with each layer of a chain.
pub(super) struct Sharing {
    block: Option<u64>,
    /// Layers that turned out to be elsewhere.
    refused: Vec<bool>,
}

impl Sharing {
    pub(super) fn new(chain: &Chain, back: &Back) -> Self {
        Self {
            block: back.shares_blocks_of(),
            refused: vec![false; chain.layers().len()],
        }
    }

    /// Shares what can be shared of `extent`; what can't be goes to `copy`, in order.
    pub(super) fn share(
        &mut self,
        extent: LayerExtent,
        chain: &Chain,
        back: &Back,
        shared: &Shared,
        mut copy: impl FnMut(LayerExtent) -> Result<(), Outcome>,
    ) -> Result<(), Outcome> {
        let mut rest = Some(extent);
        while let Some(next) = rest.take() {
            let layer = next.layer;
            let Some((skip, from)) = self.alike(&next, chain) else {
                return copy(next);
            };
            shared.check()?;
            let (head, middle) = split(next, skip);
            if let Some(head) = head {
                copy(head)?;
            }
            let Some(middle) = middle else { continue };
            if back.share(middle.visible.start, &from)? {
                (_, rest) = split(middle, from.len);
            } else {
                if let Some(refused) = self.refused.get_mut(layer) {
                    *refused = true;
                }
                return copy(middle);
            }
        }
        Ok(())
    }

    /// The first run of whole blocks that are blocks of an open file too, and how many bytes come
    /// before it.
    fn alike<'a>(&self, extent: &LayerExtent, chain: &'a Chain) -> Option<(u64, FileRange<'a>)> {
        let block = self.block?;
        let ExtentKind::Data { at } = extent.extent.kind else {
            return None;
        };
        if self.refused.get(extent.layer).copied().unwrap_or(true) {
            return None;
        }
        let data = chain.layers().get(extent.layer)?.data();
        let range = &extent.visible;
        let skip = range.start.next_multiple_of(block) - range.start;
        let len = (range.end - range.start).checked_sub(skip)?;
        let found = data.in_file(at.checked_add(skip)?)?;
        let from = found.up_to(len.min(found.len).min(MOST) / block * block);
        let alike = found.at % block == 0 && from.len >= LEAST.max(block);
        alike.then_some((skip, from))
    }
}
