//! An image and its parents, seen as one disk.

use std::ops::Range;
use std::sync::Arc;

use crate::{Error, Extent, ExtentKind, Image, Limits, Reservation, Result};

/// Most images in a chain of backing files.
const MAX_DEPTH: usize = 32;

/// How often the bytes of an image may be referred to before it counts as an attack. Internal
/// snapshots do not count (only one tree is read), so honest images are at 1.
const MAX_SHARING: u64 = 16;

/// What any image may refer to, however small its file is, in bytes.
const SHARING_SLACK: u64 = 64 << 20;

/// An image and its parents, flattened: no extent is [`ExtentKind::Parent`].
#[derive(Debug, Clone)]
pub struct Chain {
    layers: Vec<Arc<dyn Image>>,
}

/// An extent and the layer whose data it points into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerExtent {
    /// Index for [`Chain::layer`].
    pub layer: usize,
    /// Where the bytes are; `Zero`, `Data` or `Compressed`.
    pub extent: Extent,
    /// The part of `extent.guest` that is visible: a compressed cluster of a parent may stick out.
    pub visible: Range<u64>,
}

impl Chain {
    /// The chain from `top` down.
    pub fn new(top: Arc<dyn Image>) -> Result<Self> {
        let mut layers = vec![top];
        while let Some(parent) = layers.last().and_then(|last| last.parent()).cloned() {
            if layers.len() >= MAX_DEPTH {
                return Err(Error::malformed(format!(
                    "more than {MAX_DEPTH} images in the chain of backing files"
                )));
            }
            layers.push(parent);
        }
        Ok(Self { layers })
    }

    /// The image on top.
    pub fn top(&self) -> Option<&Arc<dyn Image>> {
        self.layers.first()
    }

    /// The layers, top first.
    pub fn layers(&self) -> &[Arc<dyn Image>] {
        &self.layers
    }

    /// The image that [`LayerExtent::layer`] names.
    pub fn layer(&self, index: usize) -> Result<&Arc<dyn Image>> {
        self.layers
            .get(index)
            .ok_or_else(|| Error::malformed("no such layer in the chain"))
    }

    /// Size of the guest's disk in bytes.
    pub fn virtual_size(&self) -> u64 {
        self.top().map_or(0, |top| top.virtual_size())
    }

    /// Largest compressed cluster of any layer, in guest bytes.
    pub fn cluster_size(&self) -> u64 {
        self.layers
            .iter()
            .map(|l| l.cluster_size())
            .max()
            .unwrap_or(0)
    }

    /// A walk over the whole disk, parents resolved, in guest order.
    pub fn extents(&self) -> ChainExtents<'_> {
        ChainExtents {
            chain: self,
            walks: vec![(
                0,
                0..self.virtual_size(),
                self.walk(0, 0..self.virtual_size()),
            )],
            sharing: self
                .layers
                .iter()
                .map(|l| Sharing::of(l.as_ref()))
                .collect(),
        }
    }

    fn walk(&self, layer: usize, range: Range<u64>) -> crate::Extents<'_> {
        match self.layers.get(layer) {
            Some(image) => image.extents(range),
            None => Box::new(std::iter::empty()),
        }
    }
}

/// Counts what extents refer to against the size of the file that holds it, so that kilobytes of
/// tables that all point at one cluster do not become terabytes of work.
#[derive(Debug)]
pub struct Sharing {
    data_left: u64,
    inflated_left: u64,
}

impl Sharing {
    /// The allowance of a file of `file_len` bytes whose clusters are compressed by `codec`.
    pub fn new(file_len: u64, codec: crate::cluster::ClusterCodec) -> Self {
        let allowed = file_len.saturating_mul(MAX_SHARING);
        Self {
            data_left: allowed.saturating_add(SHARING_SLACK),
            inflated_left: allowed
                .saturating_mul(codec.max_ratio())
                .saturating_add(SHARING_SLACK),
        }
    }

    /// The file turned out `bytes` longer.
    pub fn grow(&mut self, bytes: u64, codec: crate::cluster::ClusterCodec) {
        let more = bytes.saturating_mul(MAX_SHARING);
        self.data_left = self.data_left.saturating_add(more);
        self.inflated_left = self
            .inflated_left
            .saturating_add(more.saturating_mul(codec.max_ratio()));
    }

    fn of(image: &dyn Image) -> Self {
        Self::new(image.data().len(), image.cluster_codec())
    }

    /// Takes `extent` from the allowance.
    pub fn charge(&mut self, extent: &Extent) -> Result<()> {
        let left = match extent.kind {
            ExtentKind::Data { .. } => &mut self.data_left,
            ExtentKind::Compressed { .. } => &mut self.inflated_left,
            ExtentKind::Zero | ExtentKind::Parent => return Ok(()),
        };
        *left = left.checked_sub(extent.len()).ok_or_else(|| {
            Error::limit(
                "the image refers to the same bytes over and over: its tables are damaged or hostile",
                0,
            )
        })?;
        Ok(())
    }
}

/// See [`Chain::extents`].
pub struct ChainExtents<'a> {
    chain: &'a Chain,
    /// A stack: each entry is the walk of one layer over the range that the layer above left open.
    walks: Vec<(usize, Range<u64>, crate::Extents<'a>)>,
    sharing: Vec<Sharing>,
}

impl std::fmt::Debug for ChainExtents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainExtents")
            .field("depth", &self.walks.len())
            .finish_non_exhaustive()
    }
}

impl Iterator for ChainExtents<'_> {
    type Item = Result<LayerExtent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (layer, window, walk) = self.walks.last_mut()?;
            let (layer, window) = (*layer, window.clone());
            let Some(next) = walk.next() else {
                self.walks.pop();
                // A parent that ends early leaves zeros behind.
                let covered = self.chain.layers.get(layer).map_or(0, |l| l.virtual_size());
                let rest = covered.max(window.start)..window.end;
                if layer > 0 && !rest.is_empty() {
                    return Some(Ok(LayerExtent {
                        layer,
                        extent: Extent {
                            guest: rest.clone(),
                            kind: ExtentKind::Zero,
                        },
                        visible: rest,
                    }));
                }
                continue;
            };
            let mut extent = match next {
                Ok(extent) => extent,
                Err(e) => {
                    self.walks.clear();
                    return Some(Err(e));
                }
            };
            let visible = extent.guest.start.max(window.start)..extent.guest.end.min(window.end);
            if visible.is_empty() {
                continue;
            }
            if extent.kind == ExtentKind::Parent {
                let below = layer.saturating_add(1);
                if below < self.chain.layers.len() {
                    let walk = self.chain.walk(below, visible.clone());
                    self.walks.push((below, visible, walk));
                    continue;
                }
                extent.kind = ExtentKind::Zero;
            }
            if !matches!(extent.kind, ExtentKind::Compressed { .. }) {
                extent = extent.clip(&visible).unwrap_or(extent);
            }
            if let Some(Err(e)) = self.sharing.get_mut(layer).map(|s| s.charge(&extent)) {
                self.walks.clear();
                return Some(Err(e));
            }
            return Some(Ok(LayerExtent {
                layer,
                extent,
                visible,
            }));
        }
    }
}

/// Memory of a parent chain is charged by each image for itself; this keeps the charge with it.
#[derive(Debug)]
pub struct Charged<T> {
    /// What was charged for.
    pub value: T,
    _charge: Reservation,
}

impl<T> Charged<T> {
    /// Charges `bytes` for `what`, then makes it.
    pub fn make(
        limits: &Limits,
        bytes: u64,
        what: &'static str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Self> {
        let charge = limits.reserve(bytes, what)?;
        Ok(Self {
            value: make()?,
            _charge: charge,
        })
    }
}
