//! Random access: extents become tasks, in the order of the image file within a window.

use longshore_image::ExtentKind;
use longshore_image::chain::{Chain, LayerExtent};

use super::decode::{Group, Packed, Plain, Task};
use super::holes::Holes;
use super::share::Sharing;
use super::skip::skip;
use super::writer::Back;
use super::{Outcome, Shared};
use crate::budget::{Layout, UNIT};
use crate::cancel::Stopped;

/// Guest bytes of data that are sorted together. Wide enough that an image written out of order still
/// reads in long runs; small against the page cache.
const WINDOW_BYTES: u64 = 64 << 20;
/// Most extents in a window (clusters of 512 bytes would fill it otherwise); about 1.5 MiB.
pub(super) const WINDOW_EXTENTS: usize = 16 << 10;
/// Reading over a gap of this many bytes is cheaper than another system call.
const GAP: u64 = 16 << 10;

/// Plain data is read and written in steps of this many bytes: what was read is still in the core's own
/// cache when it is written.
const PLAIN_STEP: usize = 256 << 10;
/// So many steps are one task, since handing over a task costs more than a step should.
const PLAIN_STEPS: usize = 8;

/// Walks the disk and sends tasks until all of it is planned.
pub(super) fn plan(chain: &Chain, back: &Back, shared: &Shared) -> Result<(), Outcome> {
    let mut window = Window {
        extents: Vec::new(),
        bytes: 0,
        chain,
        back,
        shared,
    };
    let mut holes = Holes::new(chain);
    let mut sharing = Sharing::new(chain, back);
    for extent in chain.extents() {
        let next = extent.map_err(|e| shared.image(e))?;
        if next.extent.kind == ExtentKind::Zero {
            shared
                .progress
                .add_resolved(next.visible.end - next.visible.start);
            continue;
        }
        holes.skip(next, chain, shared, |data| {
            skip(data, shared, |todo| {
                sharing.share(todo, chain, back, shared, |rest| window.add(rest))
            })
        })?;
    }
    window.send()?;
    shared.check()?;
    Ok(())
}

/// Extents that are sorted together.
struct Window<'a> {
    extents: Vec<LayerExtent>,
    bytes: u64,
    chain: &'a Chain,
    back: &'a Back,
    shared: &'a Shared,
}

impl Window<'_> {
    fn add(&mut self, extent: LayerExtent) -> Result<(), Outcome> {
        let mut rest = Some(extent);
        while let Some(extent) = rest.take() {
            // A huge run of data is cut, so that windows stay windows.
            let room = WINDOW_BYTES.saturating_sub(self.bytes).max(UNIT);
            let (now, later) = cut(extent, room);
            self.bytes += now.visible.end - now.visible.start;
            self.extents.push(now);
            rest = later;
            if self.bytes >= WINDOW_BYTES || self.extents.len() >= WINDOW_EXTENTS {
                self.shared.check()?;
                self.send()?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Stopped> {
        self.bytes = 0;
        let layout = self.back.layout();
        send(&mut self.extents, layout, self.chain, self.back)
    }
}

/// The first `room` bytes of plain data, and the rest; compressed clusters stay whole.
fn cut(extent: LayerExtent, room: u64) -> (LayerExtent, Option<LayerExtent>) {
    let ExtentKind::Data { at } = extent.extent.kind else {
        return (extent, None);
    };
    let len = extent.visible.end - extent.visible.start;
    if len <= room {
        return (extent, None);
    }
    // Cut where the disk is aligned, so that writes are too.
    let middle = ((extent.visible.start + room) / UNIT * UNIT).max(extent.visible.start + UNIT);
    if middle >= extent.visible.end {
        return (extent, None);
    }
    let mut now = extent.clone();
    now.visible.end = middle;
    now.extent.guest.end = middle;
    let mut later = extent;
    later.extent.kind = ExtentKind::Data {
        at: at + (middle - later.visible.start),
    };
    later.visible.start = middle;
    later.extent.guest.start = middle;
    (now, Some(later))
}

fn send(
    window: &mut Vec<LayerExtent>,
    layout: Layout,
    chain: &Chain,
    back: &Back,
) -> Result<(), Stopped> {
    window.sort_unstable_by_key(|e| (e.layer, at(e)));
    let mut plain = PlainTask::default();
    let mut packed = PackedTask::default();
    for next in window.drain(..) {
        match next.extent.kind {
            ExtentKind::Data { at } => plain.add(&next, at, layout.unit_out, back)?,
            ExtentKind::Compressed { at, len } => {
                let len = bytes_there(chain, next.layer, at, len);
                packed.add(&next, at, len, layout, back)?;
            }
            ExtentKind::Zero | ExtentKind::Parent => {}
        }
    }
    plain.send(back)?;
    packed.send(back)
}

/// How much of a compressed cluster is inside its file.
pub(super) fn bytes_there(chain: &Chain, layer: usize, at: u64, len: u32) -> u64 {
    let file = chain.layer(layer).map_or(u64::MAX, |l| l.data().len());
    u64::from(len).min(file.saturating_sub(at))
}

pub(super) fn at(extent: &LayerExtent) -> u64 {
    match extent.extent.kind {
        ExtentKind::Data { at } | ExtentKind::Compressed { at, .. } => at,
        ExtentKind::Zero | ExtentKind::Parent => 0,
    }
}

/// Plain data being gathered to a task of some steps.
#[derive(Debug, Default)]
struct PlainTask {
    layer: usize,
    steps: Vec<Vec<Plain>>,
    step: Vec<Plain>,
    bytes: usize,
}

impl PlainTask {
    fn add(
        &mut self,
        next: &LayerExtent,
        mut at: u64,
        unit: usize,
        back: &Back,
    ) -> Result<(), Stopped> {
        if next.layer != self.layer {
            self.send(back)?;
            self.layer = next.layer;
        }
        let unit = unit.min(PLAIN_STEP);
        let mut guest = next.visible.start;
        while guest < next.visible.end {
            let aligned_end = (guest / unit as u64 + 1) * unit as u64;
            let room = (unit - self.bytes) as u64;
            let n = (next.visible.end.min(aligned_end) - guest).min(room);
            let len = n as usize;
            self.step.push(Plain { guest, at, len });
            self.bytes += len;
            guest += n;
            at += n;
            if self.bytes >= unit || guest == aligned_end {
                self.end_step();
                if self.steps.len() >= PLAIN_STEPS {
                    self.send(back)?;
                }
            }
        }
        Ok(())
    }

    fn end_step(&mut self) {
        if !self.step.is_empty() {
            self.steps.push(std::mem::take(&mut self.step));
        }
        self.bytes = 0;
    }

    fn send(&mut self, back: &Back) -> Result<(), Stopped> {
        self.end_step();
        if self.steps.is_empty() {
            return Ok(());
        }
        back.send(Task::ReadPlain {
            layer: self.layer,
            steps: std::mem::take(&mut self.steps),
        })
    }
}

/// Compressed clusters being gathered to one unit of output and of input.
#[derive(Debug, Default)]
pub(super) struct PackedTask {
    layer: usize,
    reads: Vec<(u64, usize)>,
    clusters: Vec<Packed>,
    input: usize,
    output: usize,
}

impl PackedTask {
    pub(super) fn add(
        &mut self,
        next: &LayerExtent,
        at: u64,
        len: u64,
        layout: Layout,
        back: &Back,
    ) -> Result<(), Stopped> {
        match self.gather(next, at, len, layout) {
            Some(group) => back.send(Task::ReadPacked(group)),
            None => Ok(()),
        }
    }

    pub(super) fn send(&mut self, back: &Back) -> Result<(), Stopped> {
        match self.take() {
            Some(group) => back.send(Task::ReadPacked(group)),
            None => Ok(()),
        }
    }

    /// Adds a cluster, and gives what was gathered before if that is enough.
    pub(super) fn gather(
        &mut self,
        next: &LayerExtent,
        at: u64,
        len: u64,
        layout: Layout,
    ) -> Option<Group> {
        let output = (next.extent.guest.end - next.extent.guest.start) as usize;
        // What does not fit in a unit can't be a cluster that honest writers keep compressed.
        let len = len.min(layout.unit_in as u64);
        let full = self.output + output > layout.unit_out
            || self.input + len as usize > layout.unit_in
            || next.layer != self.layer;
        let enough = if full { self.take() } else { None };
        self.layer = next.layer;
        let start = match self.reads.last_mut() {
            Some((from, read)) if at >= *from && at <= *from + *read as u64 + GAP => {
                let end = (*from + *read as u64).max(at + len);
                let grown = (end - *from) as usize - *read;
                let start = self.input - *read + (at - *from) as usize;
                if self.input + grown > layout.unit_in {
                    // The gap does not fit: a read of its own.
                    self.reads.push((at, len as usize));
                    self.input += len as usize;
                    self.input - len as usize
                } else {
                    *read += grown;
                    self.input += grown;
                    start
                }
            }
            _ => {
                self.reads.push((at, len as usize));
                self.input += len as usize;
                self.input - len as usize
            }
        };
        self.clusters.push(Packed {
            guest: next.extent.guest.clone(),
            visible: next.visible.clone(),
            input: start..start + len as usize,
        });
        self.output += output;
        enough
    }

    /// What is gathered, if anything.
    pub(super) fn take(&mut self) -> Option<Group> {
        (self.input, self.output) = (0, 0);
        if self.clusters.is_empty() {
            return None;
        }
        Some(Group {
            layer: self.layer,
            reads: std::mem::take(&mut self.reads),
            clusters: std::mem::take(&mut self.clusters),
        })
    }
}
