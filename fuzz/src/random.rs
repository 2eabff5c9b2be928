//! Random access.

use std::ops::Range;
use std::sync::Arc;

use longshore_image::chain::{Chain, LayerExtent};
use longshore_image::cluster::ClusterDecoder;
use longshore_image::{
    DenyAll, Error, Extent, ExtentKind, Format, Image, Limits, OpenGate, ReadAt, ReadAtExt,
    Reference, ReferenceKind, Result, coalesce, open as open_image,
};

use super::dice::Dice;
use super::{File, TABLE_BYTES, disk_bytes};

/// More extents than this of one image are not looked at.
const MAX_EXTENTS: usize = 10_000;

/// Lets every reference in, and it is always the image itself: a chain without an end.
#[derive(Debug)]
struct Mirror(Arc<Vec<u8>>);

impl OpenGate for Mirror {
    fn open(&self, _reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        Ok(self.0.clone())
    }

    fn nested(&self, _reference: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(Self(self.0.clone()))
    }
}

/// Files behind a descriptor: every extent is the rest of the input, every parent all of it.
#[derive(Debug)]
struct Behind {
    all: Arc<Vec<u8>>,
    extents: Arc<Vec<u8>>,
}

impl OpenGate for Behind {
    fn open(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        Ok(match reference.kind {
            ReferenceKind::Extent => self.extents.clone(),
            _ => self.all.clone(),
        })
    }

    fn nested(&self, _reference: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(Self {
            all: self.all.clone(),
            extents: self.extents.clone(),
        })
    }
}

/// Opens a VMDK's descriptor with all its extents, walks extents, decodes some of them.
pub(super) fn open_files(data: &[u8]) {
    let end = data.iter().position(|&b| b == 0).unwrap_or(data.len());
    let extents = data.get(end + 1..).unwrap_or_default();
    let all = Arc::new(data.to_vec());
    let gate = Behind {
        all: all.clone(),
        extents: Arc::new(extents.to_vec()),
    };
    let limits = Limits::with_table_bytes(TABLE_BYTES);
    let Ok(image) = open_image(Format::Vmdk, all, &gate, &limits) else {
        return;
    };
    assert_eq!(image.info().virtual_size, image.virtual_size());
    assert!(image.virtual_size() <= Limits::MAX_VIRTUAL_SIZE);
    windows(image.as_ref(), Format::Vmdk, &mut Dice::new(data));
    if let Ok(chain) = Chain::new(image) {
        let _ = walk(&chain, Format::Vmdk);
    }
}

/// Opens `data` with the gate shut and with it open, walks extents, decodes some of them.
pub(super) fn open(format: Format, file: &File) {
    let limits = Limits::with_table_bytes(TABLE_BYTES);
    let gates: [&dyn OpenGate; 2] = [&DenyAll, &Mirror(file.clone())];
    for gate in gates {
        let Ok(image) = open_image(format, file.clone(), gate, &limits) else {
            continue;
        };
        let info = image.info();
        let alone = info.references.is_empty();
        assert_eq!(info.virtual_size, image.virtual_size());
        assert!(image.virtual_size() <= Limits::MAX_VIRTUAL_SIZE);
        windows(image.as_ref(), format, &mut Dice::new(file));
        if let Ok(chain) = Chain::new(image) {
            let _ = walk(&chain, format);
        }
        if alone {
            // The other gate would not be asked either.
            break;
        }
    }
}

/// Extents of two windows are what the larger one shows of the smaller one.
fn windows(image: &dyn Image, format: Format, dice: &mut Dice) {
    let size = image.virtual_size();
    let mut at = || {
        let size = usize::try_from(size.min(disk_bytes(format) * 4)).unwrap();
        u64::try_from(dice.roll(size + 1)).unwrap()
    };
    let (a, b, c, d) = (at(), at(), at(), at());
    let outer = a.min(b)..a.max(b);
    let inner = c.clamp(outer.start, outer.end)..d.clamp(outer.start, outer.end);
    let inner = inner.start.min(inner.end)..inner.start.max(inner.end);
    let (Some(large), Some(small)) = (listed(image, &outer), listed(image, &inner)) else {
        return;
    };
    let clipped = large
        .iter()
        .filter_map(|extent| extent.clip(&inner))
        .map(Ok);
    let clipped: Vec<Extent> = coalesce(clipped).map(Result::unwrap).collect();
    assert_eq!(clipped, small, "{inner:?} of {outer:?}");
}

/// All extents of `range`, checked, unless there are too many or one is an error.
fn listed(image: &dyn Image, range: &Range<u64>) -> Option<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut next = range.start;
    for extent in image.extents(range.clone()) {
        let extent = extent.ok()?;
        let first = extents.is_empty() && matches!(extent.kind, ExtentKind::Compressed { .. });
        assert!(!extent.is_empty(), "an empty extent");
        assert!(
            extent.guest.start == next || first && extent.guest.start < next,
            "a gap or an overlap at {next:#x}: {extent:?}"
        );
        if let ExtentKind::Compressed { .. } = extent.kind {
            assert!(extent.len() <= image.cluster_size(), "{extent:?}");
        }
        if let Some(before) = extents.last() {
            let mut before: Extent = Extent::clone(before);
            assert!(!before.join(&extent), "{before:?} goes on in {extent:?}");
        }
        next = extent.guest.end;
        extents.push(extent);
        if extents.len() > MAX_EXTENTS {
            return None;
        }
    }
    assert_eq!(next, range.end, "{range:?} is not covered");
    Some(extents)
}

/// The disk from its start, as much of it as is looked at.
fn walk(chain: &Chain, format: Format) -> Result<Vec<u8>> {
    let size = chain.virtual_size().min(disk_bytes(format));
    // Pages that nothing is written to cost nothing.
    let mut disk = vec![0; usize::try_from(size).unwrap()];
    let mut decoders: Vec<_> = chain
        .layers()
        .iter()
        .map(|layer| ClusterDecoder::new(layer.cluster_codec()))
        .collect();
    let mut done = 0;
    for (extent, _) in chain.extents().zip(0..MAX_EXTENTS) {
        let extent = extent?;
        assert_eq!(
            extent.visible.start, done,
            "a gap or an overlap: {extent:?}"
        );
        done = extent.visible.end;
        let visible = extent.visible.start..extent.visible.end.min(size);
        if visible.is_empty() {
            continue;
        }
        let place = usize::try_from(visible.start).unwrap()..usize::try_from(visible.end).unwrap();
        let place = &mut disk[place];
        fill(chain, &mut decoders, &extent, visible.start, place)?;
    }
    if done < chain.virtual_size() {
        return Err(Error::malformed("too many extents to look at"));
    }
    assert_eq!(done, chain.virtual_size(), "the disk is not covered");
    Ok(disk)
}

/// Reads `place` from byte `at` of the disk on; all of it lies in `extent` of `chain`.
pub fn fill(
    chain: &Chain,
    decoders: &mut [ClusterDecoder],
    extent: &LayerExtent,
    at: u64,
    place: &mut [u8],
) -> Result<()> {
    let layer = chain.layer(extent.layer)?;
    let skipped = at - extent.extent.guest.start;
    match extent.extent.kind {
        ExtentKind::Zero => {}
        ExtentKind::Data { at } => layer.data().read_padded_at(place, at + skipped)?,
        ExtentKind::Compressed { at, len } => {
            let there = layer.data().len().saturating_sub(at).min(u64::from(len));
            let there = usize::try_from(there).unwrap();
            let packed = layer.data().read_vec_at(at, there, "a cluster")?;
            let skipped = usize::try_from(skipped).unwrap();
            let mut cluster = vec![0; skipped + place.len()];
            decoders[extent.layer].decode(&packed, &mut cluster)?;
            place.copy_from_slice(&cluster[skipped..]);
        }
        ExtentKind::Parent => panic!("a chain shows its parents"),
    }
    Ok(())
}

/// A small image's whole disk.
pub(super) struct Disk {
    /// What the image calls its kind.
    pub(super) variant: String,
    pub(super) bytes: Vec<u8>,
}

/// Reads all of a small image.
pub(super) fn read(format: Format, file: &File) -> Option<Disk> {
    let limits = Limits::with_table_bytes(TABLE_BYTES);
    let image = open_image(format, file.clone(), &DenyAll, &limits).ok()?;
    if image.virtual_size() > disk_bytes(format) {
        return None;
    }
    let variant = image.info().variant;
    let bytes = walk(&Chain::new(image).ok()?, format).ok()?;
    Some(Disk { variant, bytes })
}
