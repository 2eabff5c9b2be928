//! Volumes that somebody made for a claim before there was one: restored from a backup, or brought from
//! another cluster. With the annotation `storage.checkStaticVolume` such a volume becomes the claim's own as
//! it is, whatever the source of the `DataVolume` is.
//!
//! The claim names its volume, so it gets that one or none.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use longshore_crds::Quantity;
use longshore_crds::names::annotation;
use longshore_crds::storage_profile::ClaimPropertySet;

use crate::claim::{Changes, Claim as _};

/// Whether `volume` waits for the claim of this name.
pub(super) fn is_for(volume: &PersistentVolume, namespace: &str, name: &str) -> bool {
    let spec = volume.spec.as_ref();
    let reference = spec.and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|it| {
        it.namespace.as_deref() == Some(namespace) && it.name.as_deref() == Some(name)
    })
}

/// Of `volumes`, which wait for `claim`, the first one that is what it asks for. One that names no class is of
/// the one called `default`.
pub(super) fn fitting<'a>(
    volumes: &'a [PersistentVolume],
    claim: &PersistentVolumeClaim,
    default: Option<&str>,
) -> Option<&'a str> {
    let class = claim.class().or(default).unwrap_or_default();
    let mut names: Vec<&str> = volumes
        .iter()
        .filter(|volume| is_of(volume, class) && fits(volume, claim))
        .filter_map(|volume| volume.metadata.name.as_deref())
        .collect();
    names.sort_unstable();
    names.first().copied()
}

/// What claims of a class that has no object can be: volumes of it that are there, and large enough.
pub(super) fn sets(
    volumes: &[PersistentVolume],
    class: &str,
    least: Option<&Quantity>,
) -> Vec<ClaimPropertySet> {
    let found = volumes.iter().filter(|volume| {
        is_of(volume, class) && is_available(volume) && is_big_enough(volume, least)
    });
    let set = |volume: &PersistentVolume| {
        let spec = volume.spec.as_ref()?;
        Some(ClaimPropertySet {
            access_modes: spec.access_modes.clone()?,
            volume_mode: mode(spec.volume_mode.as_deref()).to_owned(),
        })
    };
    found.filter_map(set).collect()
}

/// A class that has no object may have volumes that somebody made.
fn is_of(volume: &PersistentVolume, class: &str) -> bool {
    let spec = volume.spec.as_ref();
    let its = spec.and_then(|spec| spec.storage_class_name.as_deref());
    its.unwrap_or_default() == class
}

fn is_available(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|it| it.phase.as_deref());
    phase == Some("Available") && volume.metadata.deletion_timestamp.is_none()
}

fn is_big_enough(volume: &PersistentVolume, least: Option<&Quantity>) -> bool {
    let size = || -> Option<Quantity> {
        let capacity = volume.spec.as_ref()?.capacity.as_ref()?;
        capacity.get("storage")?.0.parse().ok()
    };
    least.is_none_or(|least| size().is_some_and(|size| size.nanos() >= least.nanos()))
}

fn mode(named: Option<&str>) -> &str {
    named.unwrap_or("Filesystem")
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else {
        return false;
    };
    let access = has.access_modes.as_deref().unwrap_or_default();
    let named = wants.volume_name.as_deref().filter(|name| !name.is_empty());
    is_available(volume)
        && is_big_enough(volume, claim.requested().as_ref())
        && mode(has.volume_mode.as_deref()) == mode(wants.volume_mode.as_deref())
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
