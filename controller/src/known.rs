//! What is known of the cluster as a whole: storage classes, what is said of them, and the settings.
//!
//! Kept up to date by watches, so that whoever wants to know asks nobody. What a controller writes comes
//! back by the same way, a moment later; writes carry what they were decided on, so a moment is harmless.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::future::join_all;
use futures::{FutureExt as _, Stream, future::BoxFuture, stream};
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::api::{Api, DynamicObject};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Client, Resource, ResourceExt as _};
use longshore_crds::names::object;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::custom::{CDI, CDI_CONFIG, Kind, STORAGE_PROFILE, raw};
use crate::follow::tell_all;

/// Whose volumes somebody made by hand.
pub(crate) const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// It.
#[derive(Clone)]
pub(crate) struct Known {
    classes: Store<StorageClass>,
    drivers: Store<CSIDriver>,
    volumes: Store<PersistentVolume>,
    profiles: Store<DynamicObject>,
    configurations: Store<DynamicObject>,
    installations: Store<DynamicObject>,
    changes: watch::Receiver<()>,
}

impl Known {
    /// Knowledge, and what keeps it up to date for as long as it is polled.
    pub(crate) fn watch(client: &Client) -> (Self, BoxFuture<'static, ()>) {
        let (teller, changes) = watch::channel(());
        let teller = Arc::new(teller);
        let (classes, class_writer) = reader::<StorageClass>(());
        let (drivers, driver_writer) = reader(());
        let (volumes, volume_writer) = reader(());
        let (profiles, profile_writer) = reader(STORAGE_PROFILE.resource());
        let (configurations, configuration_writer) = reader(CDI_CONFIG.resource());
        let (installations, installation_writer) = reader(CDI.resource());
        let ours = |kind: Kind, writer| {
            follow(
                kind.api(client),
                writer,
                Arc::clone(&teller),
                trimmed,
                |_| true,
            )
            .boxed()
        };
        let matters = {
            let (classes, volumes) = (classes.clone(), volumes.clone());
            move |volume: &PersistentVolume| {
                let class = class_of(volume).and_then(|name| classes.get(&ObjectRef::new(name)));
                class.is_none_or(|class| class.provisioner == NO_PROVISIONER)
                    && !volumes.state().iter().any(|other| is_like(other, volume))
            }
        };
        let following = vec![
            ours(STORAGE_PROFILE, profile_writer),
            ours(CDI_CONFIG, configuration_writer),
            ours(CDI, installation_writer),
            follow(
                Api::all(client.clone()),
                class_writer,
                Arc::clone(&teller),
                trimmed,
                |_| true,
            )
            .boxed(),
            follow(
                Api::all(client.clone()),
                driver_writer,
                Arc::clone(&teller),
                trimmed,
                |_| true,
            )
            .boxed(),
            follow(
                Api::all(client.clone()),
                volume_writer,
                Arc::clone(&teller),
                modes_only,
                matters,
            )
            .boxed(),
        ];
        let known = Self {
            classes,
            drivers,
            volumes,
            profiles,
            configurations,
            installations,
            changes,
        };
        (known, join_all(following).map(drop).boxed())
    }

    /// These objects, each with the plural of its kind, and no changes.
    #[cfg(test)]
    pub(crate) fn seen<'a>(
        objects: impl Iterator<Item = (&'a str, &'a serde_json::Value)>,
    ) -> Self {
        fn filled<K>(kind: K::DynamicType, objects: &[&serde_json::Value]) -> Store<K>
        where
            K: Resource + Clone + DeserializeOwned + 'static,
            K::DynamicType: Eq + Hash + Clone,
        {
            let (store, mut writer) = reader(kind);
            writer.apply_watcher_event(&Event::Init);
            for object in objects {
                let object = serde_json::from_value((*object).clone()).unwrap();
                writer.apply_watcher_event(&Event::InitApply(object));
            }
            writer.apply_watcher_event(&Event::InitDone);
            store
        }
        let objects: Vec<_> = objects.collect();
        let of = |plural: &str| -> Vec<&serde_json::Value> {
            let all = objects.iter().filter(|(kind, _)| *kind == plural);
            all.map(|(_, object)| *object).collect()
        };
        let (_, changes) = watch::channel(());
        Self {
            classes: filled((), &of("storageclasses")),
            drivers: filled((), &of("csidrivers")),
            volumes: filled((), &of("persistentvolumes")),
            profiles: filled(STORAGE_PROFILE.resource(), &of("storageprofiles")),
            configurations: filled(CDI_CONFIG.resource(), &of("cdiconfigs")),
            installations: filled(CDI.resource(), &of("cdis")),
            changes,
        }
    }

    /// Waits until all of it was listed once.
    pub(crate) async fn listed(&self) {
        // They are ready at once or their writers are gone, and then so is the process.
        drop(self.classes.wait_until_ready().await);
        drop(self.drivers.wait_until_ready().await);
        drop(self.volumes.wait_until_ready().await);
        drop(self.profiles.wait_until_ready().await);
        drop(self.configurations.wait_until_ready().await);
        drop(self.installations.wait_until_ready().await);
    }

    /// Waits until it is settled how things are done: the configuration says so.
    pub(crate) async fn configured(&self) {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            let configuration = self.configuration();
            if configuration.is_some_and(|object| raw(&object, "status").is_object()) {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The same as a stream.
    pub(crate) fn each_change(&self) -> impl Stream<Item = ()> + Send + use<> {
        stream::unfold(self.changes(), async |mut changes| {
            changes.changed().await.ok()?;
            Some(((), changes))
        })
    }

    /// Tells of each change, though of several at once only once.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    pub(crate) fn classes(&self) -> Vec<Arc<StorageClass>> {
        self.classes.state()
    }

    pub(crate) fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(&ObjectRef::new(name))
    }

    /// Whether there is a CSI driver of this name.
    pub(crate) fn has_driver(&self, name: &str) -> bool {
        self.drivers.get(&ObjectRef::new(name)).is_some()
    }

    /// Volumes with this class's name on them.
    pub(crate) fn volumes_of(&self, class: &str) -> Vec<Arc<PersistentVolume>> {
        let mut volumes = self.volumes.state();
        volumes.retain(|volume| class_of(volume) == Some(class));
        volumes
    }

    pub(crate) fn profiles(&self) -> Vec<Arc<DynamicObject>> {
        self.profiles.state()
    }

    pub(crate) fn profile(&self, name: &str) -> Option<Arc<DynamicObject>> {
        self.profiles
            .get(&ObjectRef::new_with(name, STORAGE_PROFILE.resource()))
    }

    pub(crate) fn configuration(&self) -> Option<Arc<DynamicObject>> {
        let name = ObjectRef::new_with(object::CONFIG, CDI_CONFIG.resource());
        self.configurations.get(&name)
    }

    /// All of them, the oldest first: that is the one in force.
    pub(crate) fn installations(&self) -> Vec<Arc<DynamicObject>> {
        let mut all = self.installations.state();
        all.sort_by_key(|one| {
            let made = one.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (made, one.name_any())
        });
        all
    }

    /// The one in force.
    pub(crate) fn installation(&self) -> Option<Arc<DynamicObject>> {
        self.installations().into_iter().next()
    }
}

fn reader<K>(kind: K::DynamicType) -> (Store<K>, Writer<K>)
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let writer = Writer::new(kind);
    (writer.as_reader(), writer)
}

/// Puts what there is into `writer`, and tells of changes of what `matters`.
async fn follow<K>(
    api: Api<K>,
    writer: Writer<K>,
    changed: Arc<watch::Sender<()>>,
    trim: impl FnMut(&mut K),
    matters: impl Fn(&K) -> bool,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let events = watch_objects(api, watcher::Config::default())
        .default_backoff()
        .modify(trim)
        .reflect(writer);
    let tell = |event| match event {
        Event::Init | Event::InitApply(_) => {}
        Event::InitDone => {
            changed.send_replace(());
        }
        Event::Apply(object) | Event::Delete(object) => {
            if matters(&object) {
                changed.send_replace(());
            }
        }
    };
    tell_all(events, "what controllers know", tell).await;
}

fn trimmed<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Of volumes, of which there may be many, only what is asked of them.
fn modes_only(volume: &mut PersistentVolume) {
    volume.status = None;
    volume.metadata.managed_fields = None;
    volume.metadata.annotations = None;
    volume.metadata.labels = None;
    if let Some(spec) = volume.spec.take() {
        volume.spec = Some(k8s_openapi::api::core::v1::PersistentVolumeSpec {
            access_modes: spec.access_modes,
            storage_class_name: spec.storage_class_name,
            volume_mode: spec.volume_mode,
            ..Default::default()
        });
    }
}

/// Another one that tells the same of its class: a thousand of a kind are no more news than one.
fn is_like(other: &PersistentVolume, volume: &PersistentVolume) -> bool {
    other.metadata.name != volume.metadata.name && other.spec == volume.spec
}

fn class_of(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.storage_class_name.as_deref()
}
