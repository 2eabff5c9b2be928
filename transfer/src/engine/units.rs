//! Random access, to an image with clusters: extents become tasks of one aligned unit of the disk each.
//!
//! A unit holds whole clusters of the target and, but for odd geometries, of the source, so that each
//! task ends with clusters that are complete, however the source cuts its data. Within a window units
//! go in the order of the image file.

use std::ops::Range;

use longshore_image::ExtentKind;
use longshore_image::chain::{Chain, LayerExtent};

use super::decode::{Task, Unit};
use super::holes::Holes;
use super::planner::{PackedTask, WINDOW_EXTENTS, at, bytes_there};
use super::writer::Back;
use super::{Outcome, Shared};
use crate::budget::Layout;
use crate::cancel::Stopped;

/// Units that are sorted together.
const WINDOW_UNITS: usize = 64;

/// What lies in one unit.
#[derive(Debug)]
struct Gathered {
    index: u64,
    extents: Vec<LayerExtent>,
}

/// Walks the disk and sends tasks until all of it is planned.
pub(super) fn plan(chain: &Chain, back: &Back, shared: &Shared) -> Result<(), Outcome> {
    let layout = back.layout();
    let unit = layout.unit_out as u64;
    let mut window: Vec<Gathered> = Vec::new();
    let mut extents = 0;
    let mut holes = Holes::new(chain);
    for extent in chain.extents() {
        let next = extent.map_err(|e| shared.image(e))?;
        if next.extent.kind == ExtentKind::Zero {
            shared
                .progress
                .add_resolved(next.visible.end - next.visible.start);
            continue;
        }
        holes.skip(next, chain, shared, |data| {
            let mut rest = data.visible.clone();
            while !rest.is_empty() {
                let index = rest.start / unit;
                let end = rest.end.min((index + 1) * unit);
                let part = slice(&data, rest.start..end);
                rest.start = end;
                match window.last_mut() {
                    Some(last) if last.index == index => last.extents.push(part),
                    _ => {
                        if window.len() >= WINDOW_UNITS || extents >= WINDOW_EXTENTS {
                            shared.check()?;
                            send(&mut window, layout, chain, back)?;
                            extents = 0;
                        }
                        window.push(Gathered {
                            index,
                            extents: vec![part],
                        });
                    }
                }
                extents += 1;
            }
            Ok(())
        })?;
    }
    send(&mut window, layout, chain, back)?;
    shared.check()?;
    Ok(())
}

/// The part of `extent` that lies in `range`; a compressed cluster is kept whole, and cut when decoded.
fn slice(extent: &LayerExtent, range: Range<u64>) -> LayerExtent {
    let mut part = extent.clone();
    if let ExtentKind::Data { at } = extent.extent.kind {
        let at = at + (range.start - extent.visible.start);
        part.extent.kind = ExtentKind::Data { at };
        part.extent.guest = range.clone();
    }
    part.visible = range;
    part
}

fn send(
    window: &mut Vec<Gathered>,
    layout: Layout,
    chain: &Chain,
    back: &Back,
) -> Result<(), Stopped> {
    for gathered in window.iter_mut() {
        gathered.extents.sort_unstable_by_key(|e| (e.layer, at(e)));
    }
    window.sort_by_key(|g| g.extents.first().map(|e| (e.layer, at(e))));
    for gathered in window.drain(..) {
        back.send(Task::Unit(task(&gathered, layout, chain)))?;
    }
    Ok(())
}

fn task(gathered: &Gathered, layout: Layout, chain: &Chain) -> Unit {
    let guest = gathered.index * layout.unit_out as u64;
    let mut unit = Unit {
        guest,
        len: (chain.virtual_size().saturating_sub(guest) as usize).min(layout.unit_out),
        plain: Vec::new(),
        packed: Vec::new(),
        bytes: 0,
    };
    let mut packed = PackedTask::default();
    for next in &gathered.extents {
        let len = next.visible.end - next.visible.start;
        unit.bytes += len;
        match next.extent.kind {
            ExtentKind::Data { at } => {
                unit.plain
                    .push((next.layer, next.visible.start, at, len as usize));
            }
            ExtentKind::Compressed { at, len } => {
                let len = bytes_there(chain, next.layer, at, len);
                unit.packed.extend(packed.gather(next, at, len, layout));
            }
            ExtentKind::Zero | ExtentKind::Parent => {}
        }
    }
    unit.packed.extend(packed.take());
    unit
}
