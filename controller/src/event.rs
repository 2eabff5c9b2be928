//! Events: what people see with `kubectl describe`, and clients of upstream look for.
//!
//! They are `core/v1` events, as upstream's are. Each is told once per object, reason and text: the same
//! again raises its count.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use longshore_crds::names::object;
use serde_json::json;

use crate::context::Context;
use crate::error::{CONFLICT, NOT_FOUND, unless};

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    kind: &'static str,
    reason: String,
    message: String,
}

impl Note {
    pub(crate) fn normal(reason: &str, message: String) -> Self {
        Self {
            kind: "Normal",
            reason: reason.to_owned(),
            message,
        }
    }

    /// The same about the claim in whose place `prime` is filled, as upstream tells it.
    pub(crate) fn of_prime(&self, prime: &str) -> Self {
        Self {
            message: format!("[{prime}] : {}", self.message),
            ..self.clone()
        }
    }

    pub(crate) fn warning(reason: &str, message: String) -> Self {
        Self {
            kind: "Warning",
            reason: reason.to_owned(),
            message,
        }
    }
}

/// The components that we speak as.
pub(crate) const OURS: [&str; 3] = [
    "import-controller",
    "datavolume-import-controller",
    "import-populator",
];

/// The longest text that the API takes.
const LONGEST: usize = 1024;

/// Tells `note` about `about`, as `component`. Nothing depends on it: a failure is logged.
pub(crate) async fn tell(context: &Context, component: &str, about: &ObjectReference, note: &Note) {
    crate::metrics::told(&note.reason);
    if let Err(error) = try_tell(context, component, about, note).await {
        tracing::warn!(%error, reason = note.reason, "an event could not be written");
    }
}

async fn try_tell(
    context: &Context,
    component: &str,
    about: &ObjectReference,
    note: &Note,
) -> std::result::Result<(), kube::Error> {
    let namespace = about.namespace.as_deref().unwrap_or("default");
    let events: Api<Event> = Api::namespaced(context.client.clone(), namespace);
    let mut message = note.message.clone();
    while message.len() > LONGEST {
        message.pop();
    }
    let name = name(about, note);
    let now = Time(context.now());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::new()),
            ..ObjectMeta::default()
        },
        involved_object: about.clone(),
        type_: Some(note.kind.to_owned()),
        reason: Some(note.reason.clone()),
        message: Some(message),
        source: Some(EventSource {
            component: Some(component.to_owned()),
            host: None,
        }),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now.clone()),
        ..Event::default()
    };
    // Most things are told once: whether this one was is asked only then.
    let created = events.create(&PostParams::default(), &event).await;
    if unless(created, CONFLICT)?.is_some() {
        return Ok(());
    }
    let Some(known) = events.get_opt(&name).await? else {
        // It has run out in between.
        return Ok(());
    };
    let more = json!({"count": known.count.unwrap_or(1).saturating_add(1), "lastTimestamp": now});
    let more = Patch::Merge(more);
    let params = PatchParams::default();
    unless(events.patch(&name, &params, &more).await, NOT_FOUND)?;
    Ok(())
}

/// The same for the same thing told about the same object.
fn name(about: &ObjectReference, note: &Note) -> String {
    let what = format!(
        "{}/{}/{}",
        about.uid.as_deref().unwrap_or_default(),
        note.reason,
        note.message
    );
    let hash = object::fnv64a(what.as_bytes());
    let front = about.name.as_deref().unwrap_or_default();
    object::shortened(&format!("{front}.{hash:016x}"), 253)
}
