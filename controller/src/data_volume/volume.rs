//! `DataVolume` objects as they come from the server.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use longshore_crds::names::annotation;
use longshore_crds::names::object::fnv64a;
use longshore_crds::{Condition, DataVolumeSpec};
use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::claim::{Changes, Claim as _};

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    pub(crate) meta: ObjectMeta,
    /// `None` if it is not what the schema says, which only somebody else's schema lets happen.
    pub(crate) spec: Option<DataVolumeSpec>,
    /// What tells it from other specs, but for the stages of a warm import.
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
        let mut hashed = part("spec").unwrap_or_default();
        // These may be changed, and are heeded.
        for field in ["checkpoints", "finalCheckpoint"] {
            hashed.as_object_mut().map(|spec| spec.remove(field));
        }
        let text = if hashed.is_null() {
            String::new()
        } else {
            hashed.to_string()
        };
        Self {
            spec_hash: format!("{:016x}", fnv64a(text.as_bytes())),
            spec: part("spec").and_then(|spec| serde_json::from_value(spec).ok()),
            status: part("status")
                .and_then(|status| serde_json::from_value(status).ok())
                .unwrap_or_default(),
            meta: object.metadata,
        }
    }

    /// Whether it remembers that `claim` was filled.
    pub(crate) fn has_filled(&self, claim: &PersistentVolumeClaim) -> bool {
        self.annotation(annotation::FILLED_CLAIM) == Some(claim.uid())
    }

    /// What its checkpoints say that `claim`, its own, is to do next; nothing once that was filled.
    pub(crate) fn due(&self, claim: &PersistentVolumeClaim) -> Changes {
        match &self.spec {
            Some(spec) if !self.has_filled(claim) => checkpoint::due(
                claim,
                &spec.checkpoints,
                spec.final_checkpoint == Some(true),
            ),
            _ => Changes::new(),
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
