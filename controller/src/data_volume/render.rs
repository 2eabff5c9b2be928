//! The claim of a volume: what is created, word for word.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::DynamicObject;
use longshore_crds::contract::Overhead;
use longshore_crds::data_volume::{ClaimSpec, ContentType, DataVolumeSource};
use longshore_crds::names::{annotation, label, object};
use longshore_crds::storage_profile::ClaimPropertySet;
use longshore_crds::volume_source::{ImportSource, VolumeImportSourceSpec};
use longshore_crds::{DataVolumeSpec, Quantity};
use serde_json::json;

use super::volume::Volume;
use crate::checkpoint;
use crate::claim::Claim as _;
use crate::custom::VOLUME_IMPORT_SOURCE;

/// What is known about the storage class, and what is usual.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Profile {
    /// Its name; `None` if there is no such class, and no default one.
    pub(crate) class: Option<String>,
    /// What its volumes can be, the best first.
    pub(crate) sets: Vec<ClaimPropertySet>,
    /// The smallest claim that its provisioner takes.
    pub(crate) smallest: Option<Quantity>,
    /// What of a volume its filesystem takes.
    pub(crate) overhead: Overhead,
    /// Disks are allocated up front unless their volume says otherwise.
    pub(crate) preallocates: bool,
}

/// Why there can be no claim yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) String);

/// The claim for `volume`, whose spec was found to be valid.
pub(super) fn claim(
    volume: &Volume,
    spec: &DataVolumeSpec,
    profile: &Profile,
) -> Result<PersistentVolumeClaim, Unknown> {
    let (wanted, rendered) = match (&spec.pvc, &spec.storage) {
        (Some(claim), _) => (claim.clone(), false),
        (None, Some(storage)) => (filled_in(storage, spec.content_type, profile)?, true),
        (None, None) => return Err(Unknown("the volume asks for no claim".to_owned())),
    };
    let mut wanted = wanted;
    let populated = is_populated(volume, spec);
    if populated {
        wanted.data_source_ref = Some(json!({
            "apiGroup": "cdi.kubevirt.io",
            "kind": VOLUME_IMPORT_SOURCE.name,
            "name": object::import_source(volume.uid()),
        }));
    }
    let is_block = wanted.volume_mode.as_deref() == Some("Block");
    if rendered && !is_block {
        grow(&mut wanted, profile.overhead);
    }
    if rendered && let Some(smallest) = &profile.smallest {
        at_least(&mut wanted, smallest);
    }
    let spec_value = serde_json::to_value(&wanted)
        .and_then(serde_json::from_value)
        .map_err(|error| Unknown(format!("the claim cannot be written: {error}")))?;
    let mut labels = volume.meta.labels.clone().unwrap_or_default();
    labels.insert(label::APP.to_owned(), label::APP_VALUE.to_owned());
    labels.insert(
        label::MANAGED_BY.to_owned(),
        label::MANAGED_BY_VALUE.to_owned(),
    );
    labels.insert(
        label::COMPONENT.to_owned(),
        label::COMPONENT_VALUE.to_owned(),
    );
    if !is_block {
        labels.insert(label::FILLING_UP.to_owned(), "disabled".to_owned());
    }
    Ok(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: volume.meta.name.clone(),
            namespace: volume.meta.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations(volume, spec, profile)),
            owner_references: Some(vec![owner(volume)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec_value),
        status: None,
    })
}

/// Whether the claim is filled by a populator, and not itself what is worked on.
pub(super) fn is_populated(volume: &Volume, spec: &DataVolumeSpec) -> bool {
    volume.annotation(annotation::USE_POPULATOR) == Some("true") && spec.source.is_some()
}

/// What a populator fills the claim of `volume` from.
pub(super) fn source(volume: &Volume, spec: &DataVolumeSpec) -> DynamicObject {
    let wanted = VolumeImportSourceSpec {
        source: spec.source.clone().map(ImportSource::from),
        preallocation: spec.preallocation,
        content_type: spec.content_type.map(|content| match content {
            ContentType::Archive => "archive".to_owned(),
            ContentType::Kubevirt => "kubevirt".to_owned(),
        }),
        target_claim: (!spec.checkpoints.is_empty()).then(|| volume.name().to_owned()),
        checkpoints: spec.checkpoints.clone(),
        final_checkpoint: spec.final_checkpoint,
    };
    let mut source = VOLUME_IMPORT_SOURCE.empty(&object::import_source(volume.uid()));
    source.metadata.namespace.clone_from(&volume.meta.namespace);
    source.metadata.owner_references = Some(vec![owner(volume)]);
    let labels = [
        (label::APP, label::APP_VALUE),
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::COMPONENT, label::COMPONENT_VALUE),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    source.metadata.labels = Some(labels.into());
    source.data = json!({"spec": wanted});
    source
}

/// The one that a volume's claim has.
pub(super) fn owner(volume: &Volume) -> OwnerReference {
    OwnerReference {
        api_version: "cdi.kubevirt.io/v1beta1".to_owned(),
        kind: "DataVolume".to_owned(),
        name: volume.name().to_owned(),
        uid: volume.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What the volume leaves open is taken from the profile.
fn filled_in(
    storage: &ClaimSpec,
    content: Option<ContentType>,
    profile: &Profile,
) -> Result<ClaimSpec, Unknown> {
    let mut claim = storage.clone();
    if claim.storage_class_name.is_none() {
        claim.storage_class_name.clone_from(&profile.class);
    }
    if claim.volume_mode.as_deref() == Some("FromStorageProfile") {
        claim.volume_mode = None;
    }
    if claim.volume_mode.is_none() && content == Some(ContentType::Archive) {
        // Files need a filesystem.
        claim.volume_mode = Some("Filesystem".to_owned());
    }
    let fits = |set: &&ClaimPropertySet| {
        let mode = claim.volume_mode.as_ref();
        let mut modes = claim.access_modes.iter();
        mode.is_none_or(|mode| *mode == set.volume_mode)
            && modes.all(|access| set.access_modes.contains(access))
    };
    match profile.sets.iter().find(fits) {
        Some(set) => {
            if claim.access_modes.is_empty() {
                claim.access_modes.clone_from(&set.access_modes);
            }
            claim.volume_mode = Some(set.volume_mode.clone());
        }
        // Whoever names access modes may know better; the mode is then the cluster's usual one.
        None if !claim.access_modes.is_empty() => {}
        None => return Err(unknown(storage, profile)),
    }
    Ok(claim)
}

fn unknown(storage: &ClaimSpec, profile: &Profile) -> Unknown {
    let name = match (&profile.class, &storage.storage_class_name) {
        (Some(name), _) => name,
        (None, Some(name)) => {
            return Unknown(format!(
                "PVC spec is missing accessMode and no storageClass to choose profile: there is no class {name:?}, and no volume of it that is available and fits"
            ));
        }
        (None, None) => {
            return Unknown(
                "PVC spec is missing accessMode and no storageClass to choose profile".to_owned(),
            );
        }
    };
    let mode = storage
        .volume_mode
        .as_deref()
        .filter(|_| !profile.sets.is_empty());
    let which = mode.map_or_else(String::new, |mode| format!(" for volumeMode {mode}"));
    Unknown(format!(
        "PVC spec is missing accessMode and no accessMode specified in StorageProfile {name}{which}: name accessModes and volumeMode, or put them into the profile's spec.claimPropertySets"
    ))
}

/// A smaller claim would be refused.
fn at_least(claim: &mut ClaimSpec, smallest: &Quantity) {
    let resources = claim.resources.as_mut();
    if let Some(size) = resources.and_then(|resources| resources.requests.get_mut("storage"))
        && size.nanos() < smallest.nanos()
    {
        size.clone_from(smallest);
    }
}

/// Adds room for the filesystem: the size that was asked for is the disk's.
fn grow(claim: &mut ClaimSpec, overhead: Overhead) {
    let Some(resources) = &mut claim.resources else {
        return;
    };
    let Some(size) = resources.requests.get_mut("storage") else {
        return;
    };
    let Some(bytes) = size.to_u64() else {
        return;
    };
    let needed = overhead.required(bytes);
    // A number of bytes is always a quantity.
    if let Ok(grown) = needed.to_string().parse::<Quantity>() {
        *size = grown;
    }
}

/// What is said of the volume, or found out about a claim, and so is nothing to begin one with.
const NOT_HANDED_ON: [&str; 20] = [
    // Kept by kubectl, about another object.
    "kubectl.kubernetes.io/last-applied-configuration",
    annotation::FILLED_CLAIM,
    annotation::PREPOPULATED,
    annotation::POPULATED_FOR,
    annotation::VOLUME_LIST,
    annotation::CANCELLED,
    annotation::SPEC_IGNORED,
    annotation::PROGRESS,
    annotation::IMPORT_POD,
    annotation::POD_PHASE,
    annotation::POD_RESTARTS,
    annotation::RUNNING,
    annotation::RUNNING_REASON,
    annotation::RUNNING_MESSAGE,
    annotation::FATAL_ERROR,
    annotation::PRIME,
    annotation::POPULATOR_PROGRESS,
    annotation::BOUND,
    annotation::BOUND_REASON,
    annotation::BOUND_MESSAGE,
];

fn annotations(
    volume: &Volume,
    spec: &DataVolumeSpec,
    profile: &Profile,
) -> BTreeMap<String, String> {
    let mut all = volume.meta.annotations.clone().unwrap_or_default();
    all.retain(|name, _| !NOT_HANDED_ON.contains(&name.as_str()));
    let mut set = |name: &str, value: &str| {
        all.insert(name.to_owned(), value.to_owned());
    };
    set(annotation::CREATED_FOR, volume.uid());
    set(annotation::SPEC, &volume.spec_hash);
    if spec.source.is_none() && spec.source_ref.is_none() {
        set(annotation::EXTERNAL_POPULATION, "true");
    }
    set(
        annotation::CONTENT_TYPE,
        match spec.content_type {
            Some(ContentType::Archive) => "archive",
            _ => "kubevirt",
        },
    );
    let usual = profile.preallocates.then_some(true);
    if let Some(preallocation) = spec.preallocation.or(usual) {
        set(
            annotation::PREALLOCATION_REQUESTED,
            &preallocation.to_string(),
        );
    }
    for (name, value) in [
        (annotation::POD_PRIORITY_CLASS, &spec.priority_class_name),
        (annotation::POD_SERVICE_ACCOUNT, &spec.service_account_name),
    ] {
        if let Some(value) = value {
            set(name, value);
        }
    }
    if let Some(source) = &spec.source
        && !is_populated(volume, spec)
    {
        for (name, value) in source_annotations(source) {
            set(&name, &value);
        }
    }
    if !is_populated(volume, spec) {
        let stages = checkpoint::first(&spec.checkpoints, spec.final_checkpoint == Some(true));
        for (name, value) in &stages {
            set(name, value.as_deref().unwrap_or_default());
        }
    }
    all
}

/// The annotations by which the import controller, and every other one, knows the source.
pub(crate) fn source_annotations(source: &DataVolumeSource) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: Option<&str>| {
        // Examples have empty references in them.
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            all.push((name.to_owned(), value.to_owned()));
        }
    };
    if let Some(http) = &source.http {
        set(annotation::IMPORT_SOURCE, Some("http"));
        set(annotation::IMPORT_ENDPOINT, Some(&http.url));
        set(annotation::IMPORT_SECRET, http.secret_ref.as_deref());
        set(
            annotation::IMPORT_CERTIFICATES,
            http.cert_config_map.as_deref(),
        );
        set(annotation::IMPORT_CHECKSUM, http.checksum.as_deref());
        if http.insecure_skip_verify == Some(true) {
            set(annotation::IMPORT_INSECURE, Some("true"));
        }
        for (prefix, values) in [
            (annotation::IMPORT_EXTRA_HEADER, &http.extra_headers),
            (annotation::IMPORT_SECRET_HEADER, &http.secret_extra_headers),
        ] {
            for (number, value) in values.iter().enumerate() {
                set(&format!("{prefix}{number}"), Some(value));
            }
        }
    }
    for (word, store) in [("s3", &source.s3), ("gcs", &source.gcs)] {
        if let Some(store) = store {
            set(annotation::IMPORT_SOURCE, Some(word));
            set(annotation::IMPORT_ENDPOINT, Some(&store.url));
            set(annotation::IMPORT_SECRET, store.secret_ref.as_deref());
            set(
                annotation::IMPORT_CERTIFICATES,
                store.cert_config_map.as_deref(),
            );
        }
    }
    if let Some(registry) = &source.registry {
        set(annotation::IMPORT_SOURCE, Some("registry"));
        let stream = registry.image_stream.as_deref();
        let name = registry.url.as_deref().or(stream);
        set(annotation::IMPORT_ENDPOINT, name);
        set(annotation::IMPORT_IMAGE_STREAM, stream.map(|_| "true"));
        set(annotation::IMPORT_SECRET, registry.secret_ref.as_deref());
        set(
            annotation::IMPORT_CERTIFICATES,
            registry.cert_config_map.as_deref(),
        );
        set(annotation::IMPORT_METHOD, registry.pull_method.as_deref());
        let platform = registry.platform.as_ref();
        set(
            annotation::IMPORT_ARCHITECTURE,
            platform.and_then(|platform| platform.architecture.as_deref()),
        );
    }
    if source.blank.is_some() {
        set(annotation::IMPORT_SOURCE, Some("none"));
    }
    if let Some(imageio) = &source.imageio {
        set(annotation::IMPORT_SOURCE, Some("imageio"));
        set(annotation::IMPORT_ENDPOINT, Some(&imageio.url));
        set(annotation::IMPORT_DISK_ID, Some(&imageio.disk_id));
        set(annotation::IMPORT_SECRET, imageio.secret_ref.as_deref());
        set(
            annotation::IMPORT_CERTIFICATES,
            imageio.cert_config_map.as_deref(),
        );
        if imageio.insecure_skip_verify == Some(true) {
            set(annotation::IMPORT_INSECURE, Some("true"));
        }
    }
    if let Some(vddk) = &source.vddk {
        set(annotation::IMPORT_SOURCE, Some("vddk"));
        for (name, value) in [
            (annotation::IMPORT_ENDPOINT, &vddk.url),
            (annotation::IMPORT_SECRET, &vddk.secret_ref),
            (annotation::IMPORT_CERTIFICATES, &vddk.cert_config_map),
            (annotation::IMPORT_UUID, &vddk.uuid),
            (annotation::IMPORT_BACKING_FILE, &vddk.backing_file),
            (annotation::IMPORT_THUMBPRINT, &vddk.thumbprint),
            (annotation::VDDK_IMAGE, &vddk.init_image_url),
            (annotation::VDDK_ARGS, &vddk.extra_args),
        ] {
            set(name, value.as_deref());
        }
    }
    all
}

/// The patch that gives a claim to `volume` which was there before it, and is filled, or will be by a
/// populator.
pub(super) fn adoption(volume: &Volume, claim: &PersistentVolumeClaim) -> serde_json::Value {
    // A merge replaces lists.
    let mut owners = claim.metadata.owner_references.clone().unwrap_or_default();
    owners.push(owner(volume));
    let mut annotations = json!({annotation::CREATED_FOR: volume.uid()});
    if claim.populator().is_none() {
        annotations[annotation::POD_PHASE] = json!("Succeeded");
    }
    json!({"metadata": {
        "uid": claim.uid(),
        "resourceVersion": claim.metadata.resource_version,
        "ownerReferences": owners,
        "annotations": annotations,
    }})
}
