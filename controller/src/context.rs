//! What all controllers share: the client, what is known of the cluster, and the settings in force.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::api::Api;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt as _};
use longshore_crds::StorageProfileStatus;
use longshore_crds::names::annotation;

use crate::claim::{Claim as _, about};
use crate::custom::part;
use crate::data_volume::render::Profile;
use crate::error::{Result, Trying as _};
use crate::health::Health;
use crate::import::line::Line;
use crate::import::pod::Workload;
use crate::import::scrape::Scraper;
use crate::import::users::Users;
use crate::installation::Installation;
use crate::known::Known;
use crate::settings::Settings;
use crate::troubles::Troubles;
use crate::written::Written;

/// It.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) scraper: Option<Scraper>,
    /// What time it is.
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) known: Known,
    pub(crate) health: Arc<Health>,
    /// Imports that wait for their turn.
    pub(crate) line: Line,
    /// Which pods use which claims.
    pub(crate) users: Arc<Users>,
    /// The importers' pods and the claims of volumes, as the watches that bring rounds about have shown them.
    pub(crate) pods: Store<Pod>,
    /// See `pods`.
    pub(crate) claims: Store<PersistentVolumeClaim>,
    /// What the cluster complains of.
    pub(crate) troubles: Troubles,
    /// What was written of volumes and claims and may not have come back yet.
    pub(crate) written: Written,
}

/// A storage class, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) name: String,
    /// Who makes its volumes.
    pub(crate) provisioner: String,
    /// That is a CSI driver, which the cluster knows.
    pub(crate) has_driver: bool,
    /// Volumes are made once somebody uses them.
    pub(crate) binds_late: bool,
}

impl Class {
    /// Whether its volumes are made by Kubernetes itself, or by hand.
    pub(crate) fn is_in_tree(&self) -> bool {
        self.provisioner.starts_with("kubernetes.io/")
    }
}

pub(crate) const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const IS_DEFAULT_VIRT: &str = "storageclass.kubevirt.io/is-default-virt-class";

impl Context {
    /// What time it is, in seconds as the API keeps them.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)().round(Unit::Second).unwrap_or_default()
    }

    /// The settings in force.
    pub(crate) fn installation(&self) -> Installation {
        Installation::of(&self.known)
    }

    /// The class of this name, or the one that Kubernetes gives claims that name none; `None` if there is none.
    pub(crate) fn class(&self, name: Option<&str>) -> Option<Class> {
        match name {
            // Explicitly none: a volume that exists already.
            Some("") => None,
            Some(name) => self.known.class(name).map(|it| self.class_of(&it)),
            None => self.default_class(is_default),
        }
    }

    /// The same for disks of virtual machines, which may have a default one of their own.
    pub(crate) fn class_of_disk(&self, name: Option<&str>) -> Option<Class> {
        let own = name.is_none().then(|| self.default_class(is_default_virt));
        own.flatten().or_else(|| self.class(name))
    }

    fn default_class(&self, is_default: fn(&StorageClass) -> bool) -> Option<Class> {
        default_of(self.known.classes(), is_default).map(|it| self.class_of(&it))
    }

    fn class_of(&self, class: &StorageClass) -> Class {
        Class {
            name: class.name_any(),
            provisioner: class.provisioner.clone(),
            has_driver: self.known.has_driver(&class.provisioner),
            binds_late: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
        }
    }

    /// What a claim of this class can be.
    pub(crate) fn profile(&self, class: Option<&Class>) -> Profile {
        let name = class.map(|class| class.name.as_str());
        let object = name.and_then(|name| self.known.profile(name));
        let status: Option<StorageProfileStatus> = object.as_ref().map(|one| part(one, "status"));
        let smallest = object.as_ref().and_then(|one| {
            let text = one.annotations().get(annotation::SMALLEST_CLAIM)?;
            text.parse().ok()
        });
        Profile {
            class: name.map(str::to_owned),
            sets: status
                .map(|status| status.claim_property_sets)
                .unwrap_or_default(),
            smallest,
            overhead: self.installation().overhead(name),
            preallocates: self.installation().preallocates(),
        }
    }

    /// A claim as it is now; `None` if the one that was seen is there no more.
    pub(crate) async fn anew(
        &self,
        seen: &PersistentVolumeClaim,
    ) -> Result<Option<PersistentVolumeClaim>> {
        let namespace = seen.metadata.namespace.as_deref().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = claims.get_opt(seen.named()).await;
        let claim = claim.trying("read", &about(seen))?;
        Ok(claim.filter(|claim| claim.metadata.uid == seen.metadata.uid))
    }

    /// What pods are made with that fill a claim of this class.
    pub(crate) fn workload(&self, class: Option<&str>) -> Workload {
        self.installation().workload(&self.settings.workload, class)
    }
}

/// Whether claims that name no class get this one.
pub(crate) fn is_default(class: &StorageClass) -> bool {
    says(class, IS_DEFAULT)
}

/// Whether those of virtual machines do.
pub(crate) fn is_default_virt(class: &StorageClass) -> bool {
    says(class, IS_DEFAULT_VIRT)
}

fn says(class: &StorageClass, name: &str) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(name))
        .is_some_and(|text| text == "true")
}

/// Of several, the one made last, and of those the first by name, as Kubernetes has it.
fn default_of(
    classes: Vec<Arc<StorageClass>>,
    is_default: fn(&StorageClass) -> bool,
) -> Option<Arc<StorageClass>> {
    let marked = classes.into_iter().filter(|class| is_default(class));
    marked.max_by_key(|class| {
        let made = class.metadata.creation_timestamp.as_ref();
        (
            made.map(|time| time.0),
            Reverse(class.metadata.name.clone()),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(name: &str, made: &str, mark: &str) -> Arc<StorageClass> {
        let object: Value = json!({
            "metadata": {
                "name": name, "creationTimestamp": made, "annotations": {mark: "true"},
            },
            "provisioner": "example.org",
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn the_default_class_is_the_youngest_and_of_those_the_first_by_name() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let all = vec![
            class("a", old, IS_DEFAULT),
            class("c", new, IS_DEFAULT),
            class("b", new, IS_DEFAULT),
            class("v", old, IS_DEFAULT_VIRT),
            class("z", new, "another"),
        ];
        let found = |is_default| default_of(all.clone(), is_default).map(|it| it.name_any());
        assert_eq!(found(is_default).as_deref(), Some("b"));
        assert_eq!(found(is_default_virt).as_deref(), Some("v"));
        assert_eq!(default_of(Vec::new(), is_default), None);
    }
}
