//! The import controller: a claim that asks for an import gets a pod that does it.
//!
//! A claim asks by its annotations, whether a data volume wrote them or a person. Owns the pod
//! `importer-CLAIM` and the annotations that tell how it does; never the claim itself.

mod apply;
mod authorities;
pub(crate) mod line;
mod observe;
pub(crate) mod plan;
pub(crate) mod pod;
mod progress;
mod said;
pub(crate) mod scrape;
mod source;
#[cfg(test)]
mod tests;
pub(crate) mod users;

use std::sync::Arc;

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::api::Api;
use kube::runtime::controller::{Action as Next, Controller};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher, watcher as watch_objects};
use longshore_crds::names::{annotation, label};
use tokio::sync::oneshot;

use self::apply::apply;
use self::observe::observe;
use self::plan::{Plan, begins, belongs, plan};
use crate::claim::Claim as _;
use crate::context::Context;
use crate::error::Result;
use crate::metrics;
use crate::rounds::{after, again, drive};

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    let claims: Api<PersistentVolumeClaim> = Api::all(context.client.clone());
    let pods: Api<Pod> = Api::all(context.client.clone());
    let ours =
        watcher::Config::default().labels(&format!("{}={}", label::ROLE, label::ROLE_IMPORTER));
    let controller = Controller::new(claims, watcher::Config::default());
    let listed = context.health.await_list("claims", controller.store());
    let (known, is_known) = oneshot::channel();
    let follow = follow_pods(&context, pods.clone(), ours.clone(), known);
    let nodes = follow_nodes(&context);
    let work = async {
        // Before that nobody knows whether there is room for one more.
        drop(is_known.await);
        let rounds = controller.owns(pods, ours).run(
            |claim, context| metrics::timed("import", reconcile(claim, context)),
            again,
            Arc::clone(&context),
        );
        drive("claim", rounds).await;
    };
    futures::join!(work, listed, follow, nodes);
}

/// Tells the line which importers there are.
async fn follow_pods(
    context: &Context,
    pods: Api<Pod>,
    ours: watcher::Config,
    known: oneshot::Sender<()>,
) {
    let mut known = Some(known);
    let mut listed = Vec::new();
    let events = watch_objects(pods, ours).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => listed.push(pod),
            Ok(Event::InitDone) => {
                context.line.sees_all(&std::mem::take(&mut listed));
                known.take().map(|known| known.send(()));
            }
            Ok(Event::Apply(pod)) => context.line.sees(&pod),
            Ok(Event::Delete(pod)) => context.line.misses(&pod),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "importers could not be watched, which is tried again"
            ),
        }
    }
}

/// Tells the line which nodes there are.
async fn follow_nodes(context: &Context) {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let events = watch_objects(nodes, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(node) | Event::Apply(node)) => context.line.knows(&node),
            Ok(Event::Delete(node)) => context.line.loses(&node),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "nodes could not be watched, which is tried again"
            ),
        }
    }
}

/// One round for one claim.
pub(crate) async fn reconcile(
    claim: Arc<PersistentVolumeClaim>,
    context: Arc<Context>,
) -> Result<Next> {
    let asks = [
        annotation::IMPORT_SOURCE,
        annotation::IMPORT_ENDPOINT,
        annotation::IMPORT_POD,
    ];
    if asks.iter().all(|name| claim.annotation(name).is_none()) {
        return Ok(Next::await_change());
    }
    let now = context.now();
    let limits = context.installation().limits();
    if let Some(pause) = context.line.still(&claim, limits, now) {
        return Ok(Next::requeue(pause));
    }
    let Some(mut observed) = observe(&context, &claim, now).await? else {
        context.line.leaves(&claim);
        return Ok(Next::await_change());
    };
    let mut decided = plan(&observed, now);
    match (&observed.pod, begins(&decided)) {
        // The pod of somebody else is not watched, and so would be at work for ever.
        (Some(pod), _) if belongs(pod, &observed.claim) => context.line.sees(pod),
        (Some(_), _) | (None, None) => context.line.leaves(&observed.claim),
        (None, Some(request)) => {
            let line = &context.line;
            observed.wait = line.asks(&observed.claim, &request.import, limits, now);
            if observed.wait.is_some() {
                decided = plan(&observed, now);
            }
        }
    }
    let Plan { actions, again } = decided;
    for action in actions {
        let outcome = apply(&context, &observed.claim, action).await;
        if outcome.is_err() {
            // Whoever comes next need not wait for what may not come about for long.
            context.line.leaves(&observed.claim);
        }
        outcome?;
    }
    Ok(after(again))
}
