//! Claims that somebody else fills, from what their spec names.
//!
//! Nothing tells when that is done: as upstream has it, such a claim is bound once it is filled. That holds where
//! whoever makes its volume heeds what it shall be filled from; elsewhere it is bound to an empty one.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use longshore_crds::data_volume::DataVolumeSpec;
use longshore_crds::names::{annotation, reason};

use crate::claim::Claim as _;

/// Whether a volume made this claim for somebody else to fill.
pub(super) fn is_one(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(annotation::EXTERNAL_POPULATION).is_some() && claim.populator().is_none()
}

/// Why one may not be; see [`obstacle`].
pub(super) const REASONS: [&str; 2] = [
    reason::NO_CSI_DRIVER_FOR_EXTERNAL_POPULATION,
    reason::NO_ANY_VOLUME_DATA_SOURCE,
];

/// Why such a claim is not filled though it is bound, in upstream's words; `None` if it is. `has_driver`: its class
/// is of a CSI driver.
pub(super) fn obstacle(
    claim: &PersistentVolumeClaim,
    has_driver: bool,
) -> Option<(&'static str, &'static str)> {
    let kinds = kinds(claim);
    let is_of = |kind| kinds.contains(&Some(kind));
    if is_of("VolumeSnapshot") {
        return None;
    }
    if !has_driver {
        return Some((
            reason::NO_CSI_DRIVER_FOR_EXTERNAL_POPULATION,
            "No CSI drivers were found: External population not supported",
        ));
    }
    let [reference, _] = kinds;
    // A server that does not know the field drops it.
    if reference.is_none() && !is_of("PersistentVolumeClaim") {
        return Some((
            reason::NO_ANY_VOLUME_DATA_SOURCE,
            "AnyVolumeDataSource feature gate is not enabled: External population not supported",
        ));
    }
    None
}

/// What the claim's dataSourceRef is, and its dataSource.
fn kinds(claim: &PersistentVolumeClaim) -> [Option<&str>; 2] {
    let Some(spec) = &claim.spec else {
        return [None, None];
    };
    let reference = spec.data_source_ref.as_ref().map(|it| it.kind.as_str());
    let source = spec.data_source.as_ref().map(|it| it.kind.as_str());
    [reference, source]
}

/// The name of what a volume's claim shall be filled from by somebody else.
pub(super) fn filler(spec: &DataVolumeSpec) -> Option<&str> {
    let claim = spec.pvc.as_ref().or(spec.storage.as_ref())?;
    let reference = claim
        .data_source_ref
        .as_ref()
        .or(claim.data_source.as_ref())?;
    reference.get("name")?.as_str()
}
