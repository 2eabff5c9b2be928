//! What is known when a verdict is reached: plain data, as it was read.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use longshore_crds::Condition;
use serde::Deserialize;

use super::Kind;
use crate::cluster::Seen;

/// All that a verdict depends on.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) now: Timestamp,
    /// Where the API server is.
    pub(super) server: String,
    pub(super) volume: Seen<Volume>,
    /// The claim of the volume, or the one that was asked about.
    pub(super) claim: Seen<PersistentVolumeClaim>,
    /// The claim that is filled in its place.
    pub(super) prime: Seen<PersistentVolumeClaim>,
    /// The pod that fills either.
    pub(super) pod: Seen<Pod>,
    /// What was told of all of these, by anybody.
    pub(super) events: Seen<Vec<Event>>,
    /// Other pods that use the claim.
    pub(super) users: Seen<Vec<String>>,
    pub(super) classes: Seen<Vec<StorageClass>>,
    pub(super) quotas: Seen<Vec<ResourceQuota>>,
    /// What the controller holds while it works.
    pub(super) lease: Seen<Lease>,
    /// The controller.
    pub(super) deployment: Seen<Deployment>,
    /// What the installation says of itself.
    pub(super) installation: Seen<Vec<Condition>>,
}

/// A data volume, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub(super) struct Volume {
    pub(super) meta: ObjectMeta,
    pub(super) status: Status,
    /// The class that it names, if it names one.
    pub(super) class: Option<String>,
}

/// What it says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) claim_name: Option<String>,
    pub(super) phase: Option<String>,
    pub(super) progress: Option<String>,
    pub(super) restart_count: Option<i64>,
    pub(super) conditions: Vec<Condition>,
}

impl Volume {
    /// An object as the server gave it. What does not fit is as if it were not there.
    pub(super) fn of(object: DynamicObject) -> Self {
        let status = object.data.get("status").cloned();
        let spec = object.data.get("spec");
        let class = ["pvc", "storage"].into_iter().find_map(|part| {
            let name = spec?.get(part)?.get("storageClassName")?;
            name.as_str().map(str::to_owned)
        });
        Self {
            status: status
                .and_then(|status| serde_json::from_value(status).ok())
                .unwrap_or_default(),
            class,
            meta: object.metadata,
        }
    }

    pub(super) fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    pub(super) fn condition(&self, kind: &str) -> Option<&Condition> {
        let mut all = self.status.conditions.iter();
        all.find(|condition| condition.kind == kind)
    }
}

/// An annotation of an object.
pub(super) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    Some(meta.annotations.as_ref()?.get(name)?.as_str())
}

/// What a claim is: `Pending`, `Bound` or `Lost`.
pub(super) fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// When somebody told something last.
pub(super) fn told_at(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref())
        .map(|time| time.0);
    let only = event.event_time.as_ref().map(|time| time.0);
    last.max(series).max(only)
}

impl Observed {
    /// What was told about an object, the newest first.
    pub(super) fn told_about(&self, meta: &ObjectMeta) -> Vec<&Event> {
        let uid = meta.uid.as_deref();
        let all = self.events.there().map(Vec::as_slice).unwrap_or_default();
        let mut about: Vec<&Event> = all
            .iter()
            .filter(|event| uid.is_some() && event.involved_object.uid.as_deref() == uid)
            .collect();
        about.sort_by_key(|event| std::cmp::Reverse(told_at(event)));
        about
    }

    /// How long there has been an object, in seconds.
    pub(super) fn age(&self, meta: &ObjectMeta) -> i64 {
        let made = meta.creation_timestamp.as_ref().map(|time| time.0);
        made.map_or(0, |made| self.now.duration_since(made).as_secs())
    }
}
