//! `DataVolume` objects as they come from the server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use longshore_crds::names::object::fnv64a;
use longshore_crds::{Condition, DataVolumeSpec};
use serde::{Deserialize, Serialize};

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    pub(crate) meta: ObjectMeta,
    /// `None` if it is not what the schema says, which only somebody else's schema lets happen.
    pub(crate) spec: Option<DataVolumeSpec>,
    /// What tells it from other specs.
    pub(crate) spec_hash: String,
    pub(crate) status: Status,
}

/// Its status, with the fields that the schema has and no others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restart_count: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
}

impl Volume {
    pub(crate) fn of(object: DynamicObject) -> Self {
        let part = |name: &str| object.data.get(name).cloned();
        let text = part("spec").map(|spec| spec.to_string());
        Self {
            spec_hash: format!("{:016x}", fnv64a(text.unwrap_or_default().as_bytes())),
            spec: part("spec").and_then(|spec| serde_json::from_value(spec).ok()),
            status: part("status")
                .and_then(|status| serde_json::from_value(status).ok())
                .unwrap_or_default(),
            meta: object.metadata,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        Some(self.meta.annotations.as_ref()?.get(name)?.as_str())
    }
}
