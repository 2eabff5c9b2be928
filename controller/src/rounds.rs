//! What is the same around every controller's rounds: how failures are told, and when to come back.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::runtime::controller::{self, Action as Next, Config};

use crate::context::Context;
use crate::error::{CONFLICT, Error};

/// Somebody was faster: what they wrote is on its way to us.
const SOON: Duration = Duration::from_millis(200);

/// The server refused, or did not answer.
const LATER: Duration = Duration::from_secs(5);

/// Rounds of one controller at the same time. Each has a request under way, and so a connection to the API server:
/// a thousand objects that come at once shall not bring about a thousand of them. Half of these may ask pods
/// how far they are, which can take seconds each ([`crate::import::scrape`]).
pub(crate) const AT_ONCE: u16 = 64;

/// How every controller of many objects works.
pub(crate) fn bounded() -> Config {
    Config::default().concurrency(AT_ONCE)
}

/// What there is to do, and when to look again if nothing happens.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan<A> {
    pub(crate) actions: Vec<A>,
    pub(crate) again: Option<Duration>,
}

impl<A> Default for Plan<A> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<A> From<Vec<A>> for Plan<A> {
    fn from(actions: Vec<A>) -> Self {
        Self {
            actions,
            again: None,
        }
    }
}

impl<A> Plan<A> {
    pub(crate) fn and_look_after(self, pause: Duration) -> Self {
        Self {
            again: Some(pause),
            ..self
        }
    }
}

/// How soon to look again at what could not be reconciled.
pub(crate) fn pause(error: &Error) -> Duration {
    match error.status() {
        Some(CONFLICT) => SOON,
        _ => LATER,
    }
}

/// The same, as controllers ask for it.
pub(crate) fn again<K>(_: Arc<K>, error: &Error, _: Arc<Context>) -> Next {
    Next::requeue(pause(error))
}

/// Drives a controller, and logs what was not reconciled. `what` it is about, in a word.
pub(crate) async fn drive<T, E, Q>(
    what: &'static str,
    rounds: impl Stream<Item = Result<T, controller::Error<E, Q>>>,
) where
    E: std::error::Error + 'static,
    Q: std::error::Error + 'static,
{
    rounds
        .for_each(async |outcome| match outcome {
            // What is handed on because it is gone needs no round.
            Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a {what} was not reconciled"
            ),
        })
        .await;
}

/// Back after a while, or when something changes.
pub(crate) fn after(pause: Option<Duration>) -> Next {
    pause.map_or_else(Next::await_change, Next::requeue)
}
