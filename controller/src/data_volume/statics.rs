//! Volumes that somebody made for a claim before there was one: restored from a backup, or brought from
//! another cluster. With the annotation `storage.checkStaticVolume` such a volume becomes the claim's own as
//! it is, whatever the source of the `DataVolume` is.
//!
//! The claim names its volume, so it gets that one or none.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use longshore_crds::Quantity;
use longshore_crds::names::annotation;

use crate::claim::{Changes, Claim as _};

/// Whether `volume` waits for the claim of this name.
pub(super) fn is_for(volume: &PersistentVolume, namespace: &str, name: &str) -> bool {
    let spec = volume.spec.as_ref();
    let reference = spec.and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|it| {
        it.namespace.as_deref() == Some(namespace) && it.name.as_deref() == Some(name)
    })
}

/// Of `volumes`, which wait for `claim`, the first one that is what it asks for.
pub(super) fn fitting<'a>(
    volumes: &'a [PersistentVolume],
    claim: &PersistentVolumeClaim,
) -> Option<&'a str> {
    let mut names: Vec<&str> = volumes
        .iter()
        .filter(|volume| fits(volume, claim))
        .filter_map(|volume| volume.metadata.name.as_deref())
        .collect();
    names.sort_unstable();
    names.first().copied()
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let phase = volume.status.as_ref().and_then(|it| it.phase.as_deref());
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else {
        return false;
    };
    let size: Option<Quantity> = has
        .capacity
        .as_ref()
        .and_then(|capacity| capacity.get("storage")?.0.parse().ok());
    let is_big_enough = claim
        .requested()
        .is_none_or(|wanted| size.is_some_and(|size| size.nanos() >= wanted.nanos()));
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let access = has.access_modes.as_deref().unwrap_or_default();
    let named = wants.volume_name.as_deref().filter(|name| !name.is_empty());
    volume.metadata.deletion_timestamp.is_none()
        && phase == Some("Available")
        && is_big_enough
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && has.storage_class_name.as_deref().unwrap_or_default()
            == wants.storage_class_name.as_deref().unwrap_or_default()
        && wants
            .access_modes
            .iter()
            .flatten()
            .all(|one| access.contains(one))
        && named.is_none_or(|name| volume.metadata.name.as_deref() == Some(name))
}

/// `claim`, for this volume, and with nothing in it that would have it filled.
pub(super) fn taking(mut claim: PersistentVolumeClaim, volume: &str) -> PersistentVolumeClaim {
    if let Some(spec) = &mut claim.spec {
        spec.volume_name = Some(volume.to_owned());
    }
    let annotations = claim.metadata.annotations.get_or_insert_default();
    annotations.retain(|name, _| !FILLS.iter().any(|start| name.starts_with(start)));
    annotations.insert(
        annotation::VOLUME_LIST.to_owned(),
        format!("[\"{volume}\"]"),
    );
    claim
}

/// What asks for an import begins so.
const FILLS: [&str; 2] = [
    "cdi.kubevirt.io/storage.import.",
    "cdi.kubevirt.io/storage.checkpoint.",
];

/// Whether the claim is to be what its volume is.
pub(super) fn takes(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(annotation::VOLUME_LIST).is_some()
}

/// What is noted on such a claim once it has its volume: it is filled.
pub(super) fn taken(claim: &PersistentVolumeClaim) -> Changes {
    if !claim.is_bound() {
        return Changes::new();
    }
    let text = |text: &str| Some(text.to_owned());
    Changes::from([
        (annotation::VOLUME_LIST.to_owned(), None),
        (annotation::POPULATED_FOR.to_owned(), text(claim.named())),
        (annotation::POD_PHASE.to_owned(), text("Succeeded")),
    ])
}
