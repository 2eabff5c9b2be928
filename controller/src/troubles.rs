//! What the cluster complains of: the last warning about each claim and each importer's pod, but ours.
//!
//! Warnings are watched, not asked for: events are kept in no index, so a list of those about one object
//! makes the API server read all of its namespace, and a thousand objects that wait made it do that a
//! thousand times every few seconds.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::watcher;
use longshore_crds::names::object;

use crate::event::OURS;
use crate::follow::follow;

/// What the cluster told of something that does not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What was told, as far as watches have shown it.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    of_claims: Told,
    of_pods: Told,
}

/// Objects of one kind that are remembered to be in trouble. Nobody is told of those beyond it.
const MOST: usize = 10_000;

/// The last warnings, by the uid of what they are about.
#[derive(Debug, Default)]
struct Told(Mutex<HashMap<String, Last>>);

#[derive(Debug)]
struct Last {
    /// Of the event.
    uid: Option<String>,
    at: Option<Timestamp>,
    trouble: Trouble,
}

impl Troubles {
    /// What was told last about this object.
    pub(crate) fn of(&self, meta: &ObjectMeta) -> Option<Trouble> {
        let uid = meta.uid.as_deref()?;
        let last = |told: &Told| Some(told.lock().get(uid)?.trouble.clone());
        last(&self.of_claims).or_else(|| last(&self.of_pods))
    }

    /// Follows what is told for as long as it is polled.
    pub(crate) async fn follow(&self, client: &Client) {
        let claims = self.of_claims.follow(client, "PersistentVolumeClaim");
        futures::join!(claims, self.of_pods.follow(client, "Pod"));
    }
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(&self, client: &Client, kind: &str) {
        let mut listed = HashMap::new();
        let tell = |event: watcher::Event<Event>| match event {
            watcher::Event::Init => listed = HashMap::new(),
            watcher::Event::InitApply(event) => put(&mut listed, event),
            watcher::Event::InitDone => *self.lock() = mem::take(&mut listed),
            watcher::Event::Apply(event) => put(&mut self.lock(), event),
            watcher::Event::Delete(event) => remove(&mut self.lock(), &event),
        };
        let fields = format!("type=Warning,involvedObject.kind={kind}");
        let config = watcher::Config::default().fields(&fields);
        follow(client, config, "events", tell).await;
    }
}

fn put(known: &mut HashMap<String, Last>, event: Event) {
    let about = &event.involved_object;
    let component = event.source.as_ref().and_then(|it| it.component.as_deref());
    let is_ours = OURS.contains(&component.unwrap_or_default());
    // Of the pods of the cluster few are ours.
    let is_other = about.kind.as_deref() == Some("Pod")
        && !about
            .name
            .as_deref()
            .is_some_and(|name| name.starts_with(object::IMPORTER_PREFIX));
    let Some(uid) = about.uid.clone().filter(|_| !is_ours && !is_other) else {
        return;
    };
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let at = last.max(event.event_time.as_ref().map(|time| time.0));
    // The newer kind of events tells of its repeats there.
    let series = event.series.as_ref();
    let repeated = series.and_then(|series| series.last_observed_time.as_ref());
    let at = at.max(repeated.map(|time| time.0));
    match known.get(&uid) {
        Some(last) if last.at > at => return,
        None if known.len() >= MOST => return,
        _ => {}
    }
    let trouble = Trouble {
        reason: event.reason.unwrap_or_default(),
        message: event.message.unwrap_or_default(),
    };
    let uid_of_event = event.metadata.uid;
    known.insert(
        uid,
        Last {
            uid: uid_of_event,
            at,
            trouble,
        },
    );
}

/// The last one is kept the longest: when it goes, those before it have gone.
fn remove(known: &mut HashMap<String, Last>, event: &Event) {
    let Some(uid) = event.involved_object.uid.as_deref() else {
        return;
    };
    if known
        .get(uid)
        .is_some_and(|last| last.uid == event.metadata.uid)
    {
        known.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(uid: &str, about: &str, at: &str, message: &str, component: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {"uid": uid},
            "involvedObject": {"kind": "Pod", "name": about, "uid": format!("uid of {about}")},
            "reason": "FailedMount", "message": message, "lastTimestamp": at,
            "source": {"component": component},
        }))
        .unwrap()
    }

    fn said<'a>(known: &'a HashMap<String, Last>, about: &str) -> Option<&'a str> {
        let last = known.get(&format!("uid of {about}"))?;
        Some(last.trouble.message.as_str())
    }

    #[test]
    fn the_last_warning_about_an_object_counts_until_it_is_gone() {
        let (early, late) = ("2026-11-22T00:00:00Z", "2026-11-22T00:00:09Z");
        let mut known = HashMap::new();
        put(
            &mut known,
            event("1", "importer-a", late, "late", "kubelet"),
        );
        put(
            &mut known,
            event("2", "importer-a", early, "early", "kubelet"),
        );
        assert_eq!(said(&known, "importer-a"), Some("late"));
        // The same event again, as one that counts.
        put(
            &mut known,
            event("1", "importer-a", late, "later", "kubelet"),
        );
        assert_eq!(said(&known, "importer-a"), Some("later"));
        remove(
            &mut known,
            &event("2", "importer-a", early, "early", "kubelet"),
        );
        assert_eq!(said(&known, "importer-a"), Some("later"));
        remove(
            &mut known,
            &event("1", "importer-a", late, "later", "kubelet"),
        );
        assert!(known.is_empty());
    }

    #[test]
    fn neither_what_we_say_ourselves_nor_the_pods_of_others_are_troubles() {
        let at = "2026-11-22T00:00:00Z";
        let mut known = HashMap::new();
        put(&mut known, event("1", "importer-a", at, "ours", OURS[0]));
        put(&mut known, event("2", "web-0", at, "theirs", "kubelet"));
        assert!(known.is_empty());
    }
}
