//! Watches, handed on for as long as they are polled: what fails is told and tried again.

use std::fmt::Debug;
use std::hash::Hash;
use std::mem;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, TryStreamExt as _, pin_mut, stream};
use kube::api::Api;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Error, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

/// Tells what becomes of all objects of a kind that `config` chooses; `what` they are, in a word.
pub(crate) async fn follow<K>(
    client: &Client,
    config: watcher::Config,
    what: &'static str,
    tell: impl FnMut(Event<K>),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watch_objects(Api::all(client.clone()), config);
    tell_all(events.default_backoff(), what, tell).await;
}

/// The same of a watch that somebody else has made.
pub(crate) async fn tell_all<K>(
    events: impl Stream<Item = Result<Event<K>, Error>>,
    what: &'static str,
    mut tell: impl FnMut(Event<K>),
) {
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => tell(event),
            Err(error) => tracing::warn!(
                what,
                error = &error as &dyn std::error::Error,
                "the cluster could not be watched, which is tried again"
            ),
        }
    }
}

/// A watch of objects that `kept` keeps: each that was made, has changed or is gone is handed on once that is
/// kept. Whoever looks there then sees that, or what came after it, so nothing is missed. Who wrote which
/// field of an object, half of its size, is not kept.
pub(crate) fn touched<K>(
    objects: Api<K>,
    config: watcher::Config,
    kept: Writer<K>,
    kind: K::DynamicType,
) -> impl Stream<Item = Result<K, Error>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Debug + Eq + Hash + Clone + Send + Sync,
{
    let shown = kept.as_reader();
    let events = watch_objects(objects, config)
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(kept);
    once_kept(events, shown, kind)
}

/// What `events`, which are kept as `shown`, touch.
///
/// A list is kept as a whole when its last page has come: what is on it is handed on only then, and so is what is
/// no longer on it, of whose end nobody else tells.
fn once_kept<K>(
    events: impl Stream<Item = Result<Event<K>, Error>> + Send,
    shown: Store<K>,
    kind: K::DynamicType,
) -> impl Stream<Item = Result<K, Error>> + Send
where
    K: Resource + Clone + Send + Sync + 'static,
    K::DynamicType: Debug + Eq + Hash + Clone + Send + Sync,
{
    let mut before = Vec::new();
    let touched = events.flat_map(move |event| {
        let found = match event {
            Ok(Event::Init) => {
                before = shown.state();
                Vec::new()
            }
            Ok(Event::InitApply(_)) => Vec::new(),
            Ok(Event::InitDone) => {
                let mut gone = mem::take(&mut before);
                gone.retain(|object| {
                    let place = ObjectRef::from_obj_with(&**object, kind.clone());
                    shown.get(&place).is_none()
                });
                shown.state().into_iter().chain(gone).map(Ok).collect()
            }
            Ok(Event::Apply(object) | Event::Delete(object)) => vec![Ok(Arc::new(object))],
            Err(error) => vec![Err(error)],
        };
        stream::iter(found)
    });
    touched.map_ok(Arc::unwrap_or_clone)
}

#[cfg(test)]
mod tests;
