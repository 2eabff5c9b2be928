//! What to do about profiles. Pure: the same classes and profiles give the same plan.
//!
//! ```text
//! class without profile ----> create it; its status follows when it is seen
//! class with profile -------> labels, annotations, status, where they are others
//! profile without class ----> delete it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use longshore_crds::names::{annotation, label, reason};
use longshore_crds::storage_profile::ClaimPropertySet;
use longshore_crds::{Condition, StorageProfileSpec, StorageProfileStatus};
use serde_json::{Value, json};

use super::{capabilities, provisioner};
use crate::custom::{STORAGE_PROFILE, part, raw};
use crate::installation;
use crate::known::{Known, NO_PROVISIONER};

/// The volumes that there are of a class, which only classes without a provisioner ask for.
pub(super) trait Volumes {
    fn volumes(&self, class: &str) -> Vec<Arc<PersistentVolume>>;
}

impl Volumes for &Known {
    fn volumes(&self, class: &str) -> Vec<Arc<PersistentVolume>> {
        self.volumes_of(class)
    }
}

/// All that a plan depends on.
pub(super) struct Observed<V> {
    pub(super) classes: Vec<Arc<StorageClass>>,
    pub(super) profiles: Vec<Arc<DynamicObject>>,
    pub(super) snapshot_classes: Vec<SnapshotClass>,
    /// Whose labels are handed on.
    pub(super) installation: Option<Arc<DynamicObject>>,
    pub(super) known: V,
}

/// A class of snapshots, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SnapshotClass {
    pub(super) name: String,
    pub(super) driver: String,
    pub(super) is_default: bool,
    /// Of snapshots that golden images are kept as.
    pub(super) for_images: bool,
}

const IS_DEFAULT_SNAPSHOT: &str = "snapshot.storage.kubernetes.io/is-default-class";

impl SnapshotClass {
    pub(super) fn of(object: &DynamicObject) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let default = object.annotations().get(IS_DEFAULT_SNAPSHOT);
        Self {
            name: object.name_any(),
            driver: text(&object.data["driver"]),
            is_default: default.is_some_and(|text| text == "true"),
            for_images: object.data["parameters"]["snapshot-type"] == "images",
        }
    }
}

/// What there is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Create(Box<DynamicObject>),
    /// Change labels and annotations.
    Describe {
        of: Arc<DynamicObject>,
        change: Value,
    },
    WriteStatus {
        of: Arc<DynamicObject>,
        status: Value,
    },
    Delete(Arc<DynamicObject>),
}

/// Decides. `now` is what conditions that change carry.
pub(super) fn plan(observed: &Observed<impl Volumes>, now: &str) -> Vec<Action> {
    let by_name: BTreeMap<String, &Arc<DynamicObject>> = observed
        .profiles
        .iter()
        .map(|profile| (profile.name_any(), profile))
        .collect();
    let mut actions = Vec::new();
    let mut wanted = BTreeSet::new();
    for class in &observed.classes {
        if class.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = class.name_any();
        match by_name.get(&name) {
            None => actions.push(Action::Create(Box::new(created(observed, class)))),
            Some(profile) if profile.metadata.deletion_timestamp.is_some() => {}
            Some(profile) => update(observed, class, profile, now, &mut actions),
        }
        wanted.insert(name);
    }
    let orphans = by_name.iter().filter(|(name, profile)| {
        !wanted.contains(*name) && profile.metadata.deletion_timestamp.is_none()
    });
    actions.extend(orphans.map(|(_, profile)| Action::Delete(Arc::clone(profile))));
    actions
}

fn created(observed: &Observed<impl Volumes>, class: &StorageClass) -> DynamicObject {
    let mut profile = STORAGE_PROFILE.empty(&class.name_any());
    profile.metadata.labels = Some(labels(observed));
    profile.metadata.annotations = Some(
        annotations(observed, class)
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
    );
    profile.data = json!({"spec": {}});
    profile
}

fn update(
    observed: &Observed<impl Volumes>,
    class: &StorageClass,
    profile: &Arc<DynamicObject>,
    now: &str,
    actions: &mut Vec<Action>,
) {
    let mut labels = labels(observed);
    labels.retain(|name, value| profile.labels().get(name) != Some(value));
    let mut annotations = annotations(observed, class);
    if profile
        .annotations()
        .contains_key(annotation::SMALLEST_CLAIM)
    {
        // Whoever wrote another one knows better.
        annotations.remove(annotation::SMALLEST_CLAIM);
    }
    annotations.retain(|name, value| profile.annotations().get(*name) != value.as_ref());
    if !labels.is_empty() || !annotations.is_empty() {
        let uid = &profile.metadata.uid;
        let change =
            json!({"metadata": {"uid": uid, "labels": labels, "annotations": annotations}});
        let of = Arc::clone(profile);
        actions.push(Action::Describe { of, change });
        // What else there is follows when that is seen: it makes the version that we know an old one.
        return;
    }
    let spec: StorageProfileSpec = part(profile, "spec");
    let before: StorageProfileStatus = part(profile, "status");
    let next = status(observed, class, spec, &before, now);
    if next != before {
        let of = Arc::clone(profile);
        let status = replaced(&raw(profile, "status"), &next);
        actions.push(Action::WriteStatus { of, status });
    }
}

/// The merge patch that leaves `next` and nothing else.
fn replaced(before: &Value, next: &StorageProfileStatus) -> Value {
    let mut patch = serde_json::to_value(next).unwrap_or_default();
    if let (Some(patch), Some(before)) = (patch.as_object_mut(), before.as_object()) {
        for name in before.keys() {
            patch.entry(name.clone()).or_insert(Value::Null);
        }
    }
    patch
}

fn labels(observed: &Observed<impl Volumes>) -> BTreeMap<String, String> {
    let mut labels = installation::labels(observed.installation.as_deref());
    labels.insert(label::ROLE.to_owned(), String::new());
    labels
}

/// What there is to note, with `None` for what must not be there.
fn annotations(
    observed: &Observed<impl Volumes>,
    class: &StorageClass,
) -> BTreeMap<&'static str, Option<String>> {
    let key = provisioner::key(class).unwrap_or_default();
    let smallest = capabilities::smallest(&key).map(str::to_owned);
    let on_disk = class.provisioner == "pd.csi.storage.gke.io";
    let mut of_images = observed.snapshot_classes.iter().filter(|snapshots| {
        on_disk && snapshots.driver == class.provisioner && snapshots.for_images
    });
    let images = of_images.next().map(|snapshots| snapshots.name.clone());
    BTreeMap::from([
        (annotation::SMALLEST_CLAIM, smallest),
        (
            annotation::CRON_ONE_NODE,
            on_disk.then(|| "true".to_owned()),
        ),
        (annotation::CRON_SNAPSHOT_CLASS, images),
    ])
}

fn status(
    observed: &Observed<impl Volumes>,
    class: &StorageClass,
    spec: StorageProfileSpec,
    before: &StorageProfileStatus,
    now: &str,
) -> StorageProfileStatus {
    let key = provisioner::key(class);
    let known = match &key {
        Some(key) if key == NO_PROVISIONER => {
            let sets = sets_of(&observed.known.volumes(&class.name_any()));
            (!sets.is_empty()).then_some(sets)
        }
        Some(key) => capabilities::sets(key),
        None => None,
    };
    let recognized = recognized(class, key.is_some(), known.is_some());
    let key = key.unwrap_or_default();
    let snapshots = snapshot_class(observed, class, spec.snapshot_class.as_deref());
    let has_snapshots = snapshots.is_some();
    StorageProfileStatus {
        storage_class: Some(class.name_any()),
        provisioner: Some(class.provisioner.clone()),
        clone_strategy: spec
            .clone_strategy
            .or_else(|| clone_strategy(class, &key, has_snapshots)),
        claim_property_sets: if spec.claim_property_sets.is_empty() {
            known.unwrap_or_default()
        } else {
            spec.claim_property_sets
        },
        data_import_cron_source_format: spec.data_import_cron_source_format.or_else(|| {
            let advised = capabilities::source_format(&key).filter(|_| has_snapshots);
            Some(advised.unwrap_or("pvc").to_owned())
        }),
        snapshot_class: snapshots,
        conditions: vec![recognized.since(&before.conditions, now)],
    }
}

fn recognized(class: &StorageClass, sort_is_known: bool, is_known: bool) -> Condition {
    let provisioner = &class.provisioner;
    let (is, reason, message) = if is_known {
        (
            true,
            reason::RECOGNIZED_PROVISIONER,
            format!("what volumes of {provisioner} can do is known"),
        )
    } else if !sort_is_known {
        (
            false,
            reason::UNRECOGNIZED_PARAMETERS,
            format!(
                "{provisioner} makes volumes of several sorts, and the parameters of the class name none that is known: set spec.claimPropertySets"
            ),
        )
    } else if provisioner == NO_PROVISIONER {
        (
            false,
            reason::UNRECOGNIZED_PROVISIONER,
            "the class has no volumes yet to learn from: make some, or set spec.claimPropertySets"
                .to_owned(),
        )
    } else {
        (
            false,
            reason::UNRECOGNIZED_PROVISIONER,
            format!(
                "what volumes of {provisioner} can do is not known: set spec.claimPropertySets, or name accessModes and volumeMode in each DataVolume"
            ),
        )
    };
    Condition::new("Recognized", is, reason, message)
}

/// What the volumes that somebody made by hand can do, in an order that does not depend on theirs.
fn sets_of(volumes: &[Arc<PersistentVolume>]) -> Vec<ClaimPropertySet> {
    let mut found = BTreeSet::new();
    for spec in volumes.iter().filter_map(|volume| volume.spec.as_ref()) {
        let mode = spec.volume_mode.as_deref().unwrap_or("Filesystem");
        for access in spec.access_modes.iter().flatten() {
            found.insert((rank(access), access.clone(), mode.to_owned()));
        }
    }
    // As many as the schema takes.
    let sets = found.into_iter().take(8);
    sets.map(|(_, access, mode)| ClaimPropertySet {
        access_modes: vec![access],
        volume_mode: mode,
    })
    .collect()
}

/// What lets a machine move comes first, what it cannot write to last.
fn rank(access: &str) -> u8 {
    match access {
        "ReadWriteMany" => 0,
        "ReadWriteOnce" => 1,
        "ReadOnlyMany" => 3,
        _ => 2,
    }
}

/// The one that is asked for, else the driver's default one, else its first by name.
fn snapshot_class(
    observed: &Observed<impl Volumes>,
    class: &StorageClass,
    asked: Option<&str>,
) -> Option<String> {
    let of_driver = observed
        .snapshot_classes
        .iter()
        .filter(|snapshots| snapshots.driver == class.provisioner);
    if let Some(asked) = asked {
        let mut named = of_driver.filter(|snapshots| snapshots.name == asked);
        return named.next().map(|snapshots| snapshots.name.clone());
    }
    let best = of_driver.min_by_key(|snapshots| (!snapshots.is_default, &snapshots.name));
    best.map(|snapshots| snapshots.name.clone())
}

fn clone_strategy(class: &StorageClass, key: &str, has_snapshots: bool) -> Option<String> {
    if let Some(asked) = class.annotations().get(annotation::CLONE_STRATEGY) {
        let known = ["copy", "snapshot", "csi-clone"].contains(&asked.as_str());
        return known.then(|| asked.clone());
    }
    let usual = if has_snapshots { "snapshot" } else { "copy" };
    let strategy = match capabilities::clone_strategy(key).unwrap_or(usual) {
        "snapshot" if !has_snapshots => "copy",
        strategy => strategy,
    };
    Some(strategy.to_owned())
}
