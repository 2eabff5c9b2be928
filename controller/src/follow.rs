//! Watches, handed on for as long as they are polled: what fails is told and tried again.

use std::fmt::Debug;

use futures::{Stream, StreamExt as _, pin_mut};
use kube::api::Api;
use kube::runtime::reflector::store::Writer;
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
) -> impl Stream<Item = Result<K, Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    watch_objects(objects, config)
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(kept)
        .touched_objects()
}
