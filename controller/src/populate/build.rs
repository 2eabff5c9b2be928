//! The claim that is filled in another one's place: what is created, word for word.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use longshore_crds::names::{annotation, label, object};
use longshore_crds::volume_source::VolumeImportSourceSpec;

use crate::checkpoint;
use crate::claim::{Claim as _, owner};
use crate::custom::VOLUME_IMPORT_SOURCE;
use crate::data_volume::render::source_annotations;

/// What the claim says about the pods that work for it.
const HANDED_ON: [&str; 10] = [
    annotation::POD_RETAIN,
    annotation::POD_PRIORITY_CLASS,
    annotation::POD_SERVICE_ACCOUNT,
    // The source may name another one.
    annotation::VDDK_IMAGE,
    annotation::VDDK_ARGS,
    annotation::POD_NODE_SELECTOR,
    annotation::POD_AFFINITY,
    annotation::POD_TOLERATIONS,
    annotation::POD_RESOURCES,
    // Where its first user will be: the volume must be there.
    annotation::SELECTED_NODE,
];

/// The claim to fill in the place of `claim` from `source`, which was found to be valid.
pub(super) fn prime(
    claim: &PersistentVolumeClaim,
    source: &VolumeImportSourceSpec,
    preallocates: bool,
) -> PersistentVolumeClaim {
    let wanted = claim.spec.clone().unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(object::prime(claim.uid())),
            namespace: claim.metadata.namespace.clone(),
            labels: Some(labels(claim)),
            annotations: Some(annotations(claim, source, preallocates)),
            owner_references: Some(vec![owner(claim)]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: wanted.access_modes,
            resources: wanted.resources,
            selector: wanted.selector,
            storage_class_name: wanted.storage_class_name,
            volume_attributes_class_name: wanted.volume_attributes_class_name,
            volume_mode: wanted.volume_mode,
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// Those of the claim, which its importer's pod gets in this way, and ours.
fn labels(claim: &PersistentVolumeClaim) -> BTreeMap<String, String> {
    let mut labels = claim.metadata.labels.clone().unwrap_or_default();
    // What the claim left open is known by now, and is the prime's as it is.
    labels.remove(label::APPLY_STORAGE_PROFILE);
    let mut set = |name: &str, value: &str| {
        labels.insert(name.to_owned(), value.to_owned());
    };
    for (name, value) in [
        (label::APP, label::APP_VALUE),
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::COMPONENT, label::COMPONENT_VALUE),
        (label::NO_BACKUP, "true"),
    ] {
        set(name, value);
    }
    if !claim.is_block() {
        set(label::FILLING_UP, "disabled");
    }
    labels
}

fn annotations(
    claim: &PersistentVolumeClaim,
    source: &VolumeImportSourceSpec,
    preallocates: bool,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        all.insert(name.to_owned(), value.to_owned());
    };
    let content = source.content_type.as_deref();
    set(annotation::POPULATOR_KIND, VOLUME_IMPORT_SOURCE.name);
    // Nobody but the importer ever uses it.
    set(annotation::BIND_IMMEDIATE, "");
    set(
        annotation::CONTENT_TYPE,
        content
            .filter(|text| !text.is_empty())
            .unwrap_or("kubevirt"),
    );
    let preallocation = source.preallocation.unwrap_or(preallocates);
    set(
        annotation::PREALLOCATION_REQUESTED,
        &preallocation.to_string(),
    );
    let networks = annotation::POD_NETWORKS.iter().copied();
    let meshes = annotation::POD_DEFAULTS.iter().map(|(name, _)| *name);
    for name in HANDED_ON.into_iter().chain(networks).chain(meshes) {
        if let Some(value) = claim.annotation(name) {
            set(name, value);
        }
    }
    let whence = source.source.clone().unwrap_or_default();
    all.extend(source_annotations(&whence.into()));
    let stages = checkpoint::first(&source.checkpoints, source.final_checkpoint == Some(true));
    all.extend(
        stages
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    all
}
