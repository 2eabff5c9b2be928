//! A watch, handed on for as long as it is polled: what fails is told and tried again.

use std::fmt::Debug;

use futures::{Stream, StreamExt as _, pin_mut};
use kube::api::Api;
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
