//! Objects of `cdi.kubevirt.io`, as they come from the server.
//!
//! They are taken as they are and typed afterwards: one object that does not fit the types, which only
//! somebody else's schema lets happen, must not keep a watch from seeing all others.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

const VERSION: &str = "cdi.kubevirt.io/v1beta1";

/// One of the kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    plural: &'static str,
}

/// An installation.
pub(crate) const CDI: Kind = Kind {
    name: "CDI",
    plural: "cdis",
};
/// The settings in force.
pub(crate) const CDI_CONFIG: Kind = Kind {
    name: "CDIConfig",
    plural: "cdiconfigs",
};
/// A disk and where it comes from.
pub(crate) const DATA_VOLUME: Kind = Kind {
    name: "DataVolume",
    plural: "datavolumes",
};
/// What is known of a class.
pub(crate) const STORAGE_PROFILE: Kind = Kind {
    name: "StorageProfile",
    plural: "storageprofiles",
};

/// What claims are filled from that name it as their data source.
pub(crate) const VOLUME_IMPORT_SOURCE: Kind = Kind {
    name: "VolumeImportSource",
    plural: "volumeimportsources",
};

impl Kind {
    /// How the server calls it.
    pub(crate) fn resource(self) -> ApiResource {
        ApiResource {
            group: "cdi.kubevirt.io".to_owned(),
            version: "v1beta1".to_owned(),
            api_version: VERSION.to_owned(),
            kind: self.name.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    /// Where its objects are.
    pub(crate) fn api(self, client: &Client) -> Api<DynamicObject> {
        Api::all_with(client.clone(), &self.resource())
    }

    /// Where those of a namespace are.
    pub(crate) fn api_in(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.resource())
    }

    /// An object without anything in it.
    pub(crate) fn empty(self, name: &str) -> DynamicObject {
        DynamicObject::new(name, &self.resource())
    }

    /// What events about an object say they are about.
    pub(crate) fn reference(self, meta: &ObjectMeta) -> ObjectReference {
        ObjectReference {
            api_version: Some(VERSION.to_owned()),
            kind: Some(self.name.to_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        }
    }

    /// The object in the words of errors.
    pub(crate) fn about(self, object: &DynamicObject) -> String {
        format!("{} {}", self.name, object.name_any())
    }
}

/// A part of an object, or what it is if it says nothing, or nothing that makes sense.
pub(crate) fn part<T: DeserializeOwned + Default>(object: &DynamicObject, name: &str) -> T {
    let part = object.data.get(name).cloned();
    part.and_then(|part| serde_json::from_value(part).ok())
        .unwrap_or_default()
}

/// The same as it was written.
pub(crate) fn raw(object: &DynamicObject, name: &str) -> Value {
    object.data.get(name).cloned().unwrap_or_default()
}

/// The merge patch that makes `after` of `before`, to the last field.
pub(crate) fn replacing(before: &Value, after: Value) -> Value {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let mut patch: serde_json::Map<String, Value> = after
                .into_iter()
                .map(|(name, value)| {
                    let old = before.get(&name).cloned().unwrap_or_default();
                    (name, replacing(&old, value))
                })
                .collect();
            for name in before.keys() {
                patch.entry(name.clone()).or_insert(Value::Null);
            }
            Value::Object(patch)
        }
        (_, after) => after,
    }
}

/// The time that conditions get: in whole seconds, which is what the server keeps of it.
pub(crate) fn now() -> String {
    let now = Timestamp::now().round(Unit::Second).unwrap_or_default();
    now.to_string()
}
