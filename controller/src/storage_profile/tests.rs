//! Classes and profiles, and what the plan for them is.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use longshore_crds::StorageProfileStatus;
use longshore_crds::names::annotation;
use serde_json::json;

use super::plan::{Action, Observed, SnapshotClass, Volumes, plan};
use crate::custom::part;
use crate::known::NO_PROVISIONER;
use crate::model::merge;

const NOW: &str = "2026-11-21T00:00:00Z";

/// Volumes by class.
struct Some_(Vec<Arc<PersistentVolume>>);

impl Volumes for Some_ {
    fn volumes(&self, class: &str) -> Vec<Arc<PersistentVolume>> {
        let mut all = self.0.clone();
        all.retain(|volume| {
            let spec = volume.spec.as_ref().unwrap();
            spec.storage_class_name.as_deref() == Some(class)
        });
        all
    }
}

fn class(name: &str, provisioner: &str) -> StorageClass {
    serde_json::from_value(json!({"metadata": {"name": name}, "provisioner": provisioner})).unwrap()
}

fn observed(classes: &[StorageClass]) -> Observed<Some_> {
    Observed {
        classes: classes.iter().cloned().map(Arc::new).collect(),
        profiles: Vec::new(),
        snapshot_classes: Vec::new(),
        installation: None,
        known: Some_(Vec::new()),
    }
}

fn snapshots(name: &str, driver: &str) -> SnapshotClass {
    SnapshotClass {
        name: name.to_owned(),
        driver: driver.to_owned(),
        is_default: false,
        for_images: false,
    }
}

/// Does as a server would, and counts how often there was something to do.
fn settle(observed: &mut Observed<Some_>) -> usize {
    for round in 0..10 {
        let actions = plan(observed, NOW);
        if actions.is_empty() {
            return round;
        }
        for action in actions {
            match action {
                Action::Create(mut profile) => {
                    profile.metadata.uid = Some(format!("uid-{}", profile.name_any()));
                    observed.profiles.push(Arc::new(*profile));
                }
                Action::Describe { of, change } => change_one(observed, &of, |profile| {
                    let mut meta = serde_json::to_value(&profile.metadata).unwrap();
                    merge(&mut meta, &change["metadata"]);
                    profile.metadata = serde_json::from_value(meta).unwrap();
                }),
                Action::WriteStatus { of, status } => change_one(observed, &of, |profile| {
                    merge(&mut profile.data["status"], &status);
                }),
                Action::Delete(profile) => {
                    observed
                        .profiles
                        .retain(|other| other.name_any() != profile.name_any());
                }
            }
        }
    }
    panic!("it does not settle: {:?}", plan(observed, NOW));
}

fn change_one(
    observed: &mut Observed<Some_>,
    of: &DynamicObject,
    change: impl Fn(&mut DynamicObject),
) {
    for profile in &mut observed.profiles {
        if profile.name_any() == of.name_any() {
            let mut changed = (**profile).clone();
            change(&mut changed);
            *profile = Arc::new(changed);
        }
    }
}

fn status_of(observed: &Observed<Some_>, name: &str) -> StorageProfileStatus {
    let mut profiles = observed.profiles.iter();
    let profile = profiles.find(|profile| profile.name_any() == name).unwrap();
    part(profile, "status")
}

fn sets(status: &StorageProfileStatus) -> Vec<(&str, &str)> {
    let sets = status.claim_property_sets.iter();
    sets.map(|set| (set.access_modes[0].as_str(), set.volume_mode.as_str()))
        .collect()
}

#[test]
fn a_class_gets_a_profile_that_tells_what_its_volumes_can_do() {
    let mut cluster = observed(&[
        class("local", "rancher.io/local-path"),
        class("rbd", "rook-ceph.rbd.csi.ceph.com"),
        class("odd", "example.org/odd"),
        class("trident", "csi.trident.netapp.io"),
    ]);
    cluster.snapshot_classes = vec![snapshots("rbd-snapshots", "rook-ceph.rbd.csi.ceph.com")];
    assert_eq!(settle(&mut cluster), 2);

    let local = status_of(&cluster, "local");
    assert_eq!(sets(&local), [("ReadWriteOnce", "Filesystem")]);
    assert_eq!(local.clone_strategy.as_deref(), Some("copy"));
    assert_eq!(local.data_import_cron_source_format.as_deref(), Some("pvc"));
    assert_eq!(local.snapshot_class, None);
    assert_eq!(local.conditions[0].reason, "RecognizedProvisioner");

    let rbd = status_of(&cluster, "rbd");
    assert_eq!(
        sets(&rbd),
        [
            ("ReadWriteMany", "Block"),
            ("ReadWriteOnce", "Block"),
            ("ReadWriteOnce", "Filesystem")
        ]
    );
    assert_eq!(rbd.clone_strategy.as_deref(), Some("csi-clone"));
    assert_eq!(
        rbd.data_import_cron_source_format.as_deref(),
        Some("snapshot")
    );
    assert_eq!(rbd.snapshot_class.as_deref(), Some("rbd-snapshots"));

    for (name, reason) in [
        ("odd", "UnrecognizedProvisioner"),
        ("trident", "UnrecognizedStorageClassParameters"),
    ] {
        let status = status_of(&cluster, name);
        assert_eq!(status.claim_property_sets, []);
        assert_eq!(
            (&*status.conditions[0].status, &*status.conditions[0].reason),
            ("False", reason)
        );
    }
}

#[test]
fn what_an_administrator_says_goes_before_what_is_known() {
    let mut cluster = observed(&[class("local", "rancher.io/local-path")]);
    settle(&mut cluster);
    let profile = cluster.profiles[0].clone();
    change_one(&mut cluster, &profile, |profile| {
        profile.data["spec"] = json!({
            "claimPropertySets": [{"accessModes": ["ReadWriteMany"], "volumeMode": "Block"}],
            "cloneStrategy": "snapshot", "dataImportCronSourceFormat": "snapshot",
        });
    });
    assert_eq!(settle(&mut cluster), 1);
    let status = status_of(&cluster, "local");
    assert_eq!(sets(&status), [("ReadWriteMany", "Block")]);
    assert_eq!(status.clone_strategy.as_deref(), Some("snapshot"));
    assert_eq!(
        status.data_import_cron_source_format.as_deref(),
        Some("snapshot")
    );
    // Taken back, what is known holds again.
    change_one(&mut cluster, &profile, |profile| {
        profile.data["spec"] = json!({});
    });
    settle(&mut cluster);
    assert_eq!(
        sets(&status_of(&cluster, "local")),
        [("ReadWriteOnce", "Filesystem")]
    );
}

#[test]
fn a_profile_goes_with_its_class_and_no_other_does() {
    let mut cluster = observed(&[class("one", "a"), class("two", "b")]);
    settle(&mut cluster);
    cluster.classes.remove(0);
    assert_eq!(settle(&mut cluster), 1);
    let left: Vec<String> = cluster.profiles.iter().map(|p| p.name_any()).collect();
    assert_eq!(left, ["two"]);
}

#[test]
fn what_volumes_made_by_hand_can_do_is_seen_by_looking_at_them() {
    let mut cluster = observed(&[class("manual", NO_PROVISIONER)]);
    settle(&mut cluster);
    let status = status_of(&cluster, "manual");
    assert_eq!(status.conditions[0].reason, "UnrecognizedProvisioner");
    for (modes, volume_mode) in [
        (vec!["ReadOnlyMany", "ReadWriteOnce"], None),
        (vec!["ReadWriteOnce"], Some("Block")),
        (vec!["ReadWriteOnce"], None),
    ] {
        cluster.known.0.push(Arc::new(PersistentVolume {
            spec: Some(PersistentVolumeSpec {
                storage_class_name: Some("manual".to_owned()),
                access_modes: Some(modes.into_iter().map(str::to_owned).collect()),
                volume_mode: volume_mode.map(str::to_owned),
                ..PersistentVolumeSpec::default()
            }),
            ..PersistentVolume::default()
        }));
    }
    settle(&mut cluster);
    let status = status_of(&cluster, "manual");
    assert_eq!(
        sets(&status),
        [
            ("ReadWriteOnce", "Block"),
            ("ReadWriteOnce", "Filesystem"),
            ("ReadOnlyMany", "Filesystem")
        ]
    );
    assert_eq!(status.conditions[0].status, "True");
}

#[test]
fn a_class_may_name_how_its_disks_are_cloned_and_snapshots_need_their_class() {
    let mut asked = class("asked", "x");
    asked.annotations_mut().insert(
        annotation::CLONE_STRATEGY.to_owned(),
        "csi-clone".to_owned(),
    );
    let mut disk = class("disk", "pd.csi.storage.gke.io");
    disk.parameters = Some(BTreeMap::from([(
        "type".to_owned(),
        "hyperdisk-balanced".to_owned(),
    )]));
    let mut cluster = observed(&[asked, disk]);
    settle(&mut cluster);
    let strategy = |cluster: &Observed<Some_>, name| status_of(cluster, name).clone_strategy;
    assert_eq!(strategy(&cluster, "asked").as_deref(), Some("csi-clone"));
    assert_eq!(strategy(&cluster, "disk").as_deref(), Some("copy"));
    let mut images = snapshots("images", "pd.csi.storage.gke.io");
    images.for_images = true;
    let mut usual = snapshots("usual", "pd.csi.storage.gke.io");
    usual.is_default = true;
    cluster.snapshot_classes = vec![images, usual];
    settle(&mut cluster);
    assert_eq!(strategy(&cluster, "disk").as_deref(), Some("snapshot"));
    assert_eq!(
        status_of(&cluster, "disk").snapshot_class.as_deref(),
        Some("usual")
    );
    let disk = cluster
        .profiles
        .iter()
        .find(|p| p.name_any() == "disk")
        .unwrap();
    let annotations = disk.annotations();
    assert_eq!(
        annotations["cdi.kubevirt.io/minimumSupportedPvcSize"],
        "4Gi"
    );
    assert_eq!(
        annotations["cdi.kubevirt.io/useReadWriteOnceForDataImportCron"],
        "true"
    );
    assert_eq!(
        annotations["cdi.kubevirt.io/snapshotClassForDataImportCron"],
        "images"
    );
    assert_eq!(disk.labels()["cdi.kubevirt.io"], "");
    assert_eq!(
        disk.labels()["app.kubernetes.io/managed-by"],
        "cdi-controller"
    );
}
