//! `map`: where an image has data. Extents are printed as they are found, never collected.

use longshore_image::chain::{Chain, LayerExtent};
use longshore_image::{ExtentKind, ReferenceKind};
use serde::Serialize;

use crate::failure::Failure;
use crate::look::Look;
use crate::output::Data;

/// Prints it.
pub(crate) fn run(look: &Look) -> Result<(), Failure> {
    let inspection = look.inspect()?;
    let name = look.place.name();
    let Some(chain) = inspection.chain else {
        let why = match inspection.wrappers.first() {
            Some(wrapper) => format!("it is compressed as a whole ({})", wrapper.name()),
            None => "it comes as a stream".to_owned(),
        };
        return Err(Failure::NotRandom { name, why });
    };
    let mut data = Data::open();
    if look.json {
        data.write("[")?;
    } else {
        data.line("           start           length  what                   offset  layer")?;
    }
    let one_file = in_one_file(&chain);
    let mut first = true;
    for extent in chain.extents() {
        let extent = match extent {
            Ok(extent) => extent,
            Err(source) => {
                // What was found so far stays visible, and the JSON list open: it is not complete.
                data.finish()?;
                return Err(Failure::Transfer(longshore_transfer::Error::Image {
                    context: format!("can't read the image {name}"),
                    source,
                }));
            }
        };
        if look.json {
            if !first {
                data.write(",\n")?;
            }
            data.json(&Line::of(&extent, offset(&extent, &one_file)))?;
        } else {
            data.line(&text_line(&extent, offset(&extent, &one_file)))?;
        }
        first = false;
    }
    if look.json {
        data.line("]")?;
    }
    data.finish()
}

/// For each layer, whether its data is in one file: an offset into several says nothing to people.
fn in_one_file(chain: &Chain) -> Vec<bool> {
    let extents = |info: longshore_image::Info| {
        let is_extent = |r: &&longshore_image::Reference| r.kind == ReferenceKind::Extent;
        info.references.iter().filter(is_extent).count()
    };
    let layers = chain.layers().iter();
    layers.map(|layer| extents(layer.info()) < 2).collect()
}

fn has_data(extent: &LayerExtent) -> bool {
    !matches!(extent.extent.kind, ExtentKind::Zero | ExtentKind::Parent)
}

fn offset(extent: &LayerExtent, one_file: &[bool]) -> Option<u64> {
    match extent.extent.kind {
        _ if !one_file.get(extent.layer).is_some_and(|one| *one) => None,
        ExtentKind::Data { at } | ExtentKind::Compressed { at, .. } => Some(at),
        ExtentKind::Zero | ExtentKind::Parent => None,
    }
}

/// An extent as `qemu-img map` spells it, and whether it is compressed.
#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the fields are those of qemu-img"
)]
struct Line {
    start: u64,
    length: u64,
    depth: usize,
    present: bool,
    zero: bool,
    data: bool,
    compressed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl Line {
    fn of(extent: &LayerExtent, offset: Option<u64>) -> Self {
        Self {
            start: extent.visible.start,
            length: extent.visible.end.saturating_sub(extent.visible.start),
            depth: extent.layer,
            present: true,
            zero: !has_data(extent),
            data: has_data(extent),
            compressed: matches!(extent.extent.kind, ExtentKind::Compressed { .. }),
            offset,
        }
    }
}

fn text_line(extent: &LayerExtent, offset: Option<u64>) -> String {
    let length = extent.visible.end.saturating_sub(extent.visible.start);
    let what = match extent.extent.kind {
        ExtentKind::Data { .. } => "data",
        ExtentKind::Compressed { .. } => "compressed",
        ExtentKind::Zero | ExtentKind::Parent => "zero",
    };
    let offset = offset.map_or_else(|| "-".to_owned(), |at| at.to_string());
    format!(
        "{:>16} {length:>16}  {what:<10} {offset:>18}  {:>5}",
        extent.visible.start, extent.layer
    )
}
