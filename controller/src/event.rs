//! Events: what people see with `kubectl describe`, and clients of upstream look for.
//!
//! They are `core/v1` events, as upstream's are. Each is told once per object, reason and text: the same
//! again raises its count.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use longshore_crds::names::object;
use serde_json::json;

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

    pub(crate) fn warning(reason: &str, message: String) -> Self {
        Self {
            kind: "Warning",
            reason: reason.to_owned(),
            message,
        }
    }
}

/// The longest text that the API takes.
const LONGEST: usize = 1024;

/// Tells `note` about `about`, as `component`. Nothing depends on it: a failure is logged.
pub(crate) async fn tell(client: &Client, component: &str, about: &ObjectReference, note: &Note) {
    if let Err(error) = try_tell(client, component, about, note).await {
        tracing::warn!(%error, reason = note.reason, "an event could not be written");
    }
}

async fn try_tell(
    client: &Client,
    component: &str,
    about: &ObjectReference,
    note: &Note,
) -> Result<(), kube::Error> {
    let namespace = about.namespace.as_deref().unwrap_or("default");
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let mut message = note.message.clone();
    while message.len() > LONGEST {
        message.pop();
    }
    let name = name(about, note);
    let now = Time(Timestamp::now());
    if let Some(known) = events.get_opt(&name).await? {
        let more =
            json!({"count": known.count.unwrap_or(1).saturating_add(1), "lastTimestamp": now});
        events
            .patch(
                &known.name_any(),
                &PatchParams::default(),
                &Patch::Merge(more),
            )
            .await?;
        return Ok(());
    }
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name),
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
        last_timestamp: Some(now),
        ..Event::default()
    };
    events.create(&PostParams::default(), &event).await?;
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
    let hash = what.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let front = about.name.as_deref().unwrap_or_default();
    object::shortened(&format!("{front}.{hash:016x}"), 253)
}
