//! What an earlier run has done is not read again.

use std::ops::Range;

use longshore_image::ExtentKind;
use longshore_image::chain::LayerExtent;

use super::holes::split;
use super::{Outcome, Shared};

/// Passes on what of `extent` is still to be done. Compressed clusters are done as a whole or not at all.
pub(super) fn skip(
    extent: LayerExtent,
    shared: &Shared,
    mut todo: impl FnMut(LayerExtent) -> Result<(), Outcome>,
) -> Result<(), Outcome> {
    let Some(done) = &shared.done else {
        return todo(extent);
    };
    if done.covers(&extent.visible) {
        resolved(shared, &extent.visible);
        return Ok(());
    }
    if !matches!(extent.extent.kind, ExtentKind::Data { .. }) {
        return todo(extent);
    }
    let mut rest = Some(extent.clone());
    let mut at = extent.visible.start;
    for gap in done.gaps(extent.visible.clone()) {
        resolved(shared, &(at..gap.start));
        let Some(next) = rest.take() else { break };
        let (_, from_gap) = split(next, gap.start - at);
        let Some(from_gap) = from_gap else { break };
        let (now, later) = split(from_gap, gap.end - gap.start);
        if let Some(now) = now {
            todo(now)?;
        }
        (rest, at) = (later, gap.end);
    }
    resolved(shared, &(at..extent.visible.end));
    Ok(())
}

fn resolved(shared: &Shared, range: &Range<u64>) {
    shared.progress.add_resolved(range.end - range.start);
}
