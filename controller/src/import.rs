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

use std::mem;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::api::Api;
use kube::runtime::controller::{Action as Next, Controller};
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use longshore_crds::names::{annotation, label};
use tokio::sync::oneshot;

use self::apply::apply;
use self::observe::{glance, observe};
use self::plan::{Plan, begins, belongs, may_be_late, plan};
use self::users::Shown;
use crate::claim::Claim as _;
use crate::context::Context;
use crate::error::Result;
use crate::follow::{follow, touched};
use crate::metrics;
use crate::rounds::{after, again, bounded, drive};
use crate::written;

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>, shown: Writer<Pod>) {
    let client = &context.client;
    let (claims, kept) = reflector::store();
    let listed = context.health.await_list("claims", claims.clone());
    let all: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let controller =
        Controller::for_stream(touched(all, watcher::Config::default(), kept, ()), claims);
    let ours =
        watcher::Config::default().labels(&format!("{}={}", label::ROLE, label::ROLE_IMPORTER));
    let pods = touched(Api::all(client.clone()), ours, shown, ());
    let (known, is_known) = oneshot::channel();
    let follow = follow_pods(&context, known);
    let nodes = follow_nodes(&context);
    let work = async {
        // Before that nobody knows whether there is room for one more, nor who uses what.
        drop(is_known.await);
        let rounds = controller.with_config(bounded()).owns_stream(pods).run(
            |claim, context| metrics::timed("import", reconcile(claim, context)),
            again,
            Arc::clone(&context),
        );
        drive("claim", rounds).await;
    };
    futures::join!(work, listed, follow, nodes);
}

/// Tells who uses which claims, and the line which importers there are.
async fn follow_pods(context: &Context, known: oneshot::Sender<()>) {
    let (mut users, mut importers) = (Shown::default(), Vec::new());
    let mut known = Some(known);
    let tell = |event: Event<Pod>| match event {
        Event::Init => (users, importers) = (Shown::default(), Vec::new()),
        Event::InitApply(pod) => {
            users.put(&pod);
            if is_importer(&pod) {
                importers.push(pod);
            }
        }
        Event::InitDone => {
            context.users.sees_all(mem::take(&mut users));
            context.line.sees_all(&mem::take(&mut importers));
            known.take().map(|known| known.send(()));
        }
        Event::Apply(pod) => {
            context.users.sees(&pod);
            if is_importer(&pod) {
                context.line.sees(&pod);
            }
        }
        Event::Delete(pod) => {
            context.users.misses(&pod);
            if is_importer(&pod) {
                context.line.misses(&pod);
            }
        }
    };
    // What has ended uses nothing and is not at work: to the server as to us it is as good as gone.
    let config = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    follow(&context.client, config, "pods", tell).await;
}

/// Tells the line which nodes there are.
async fn follow_nodes(context: &Context) {
    let mut listed = Vec::new();
    let tell = |event: Event<Node>| match event {
        Event::Init => listed.clear(),
        Event::InitApply(node) => listed.push(node),
        Event::InitDone => context.line.knows_all(&mem::take(&mut listed)),
        Event::Apply(node) => context.line.knows(&node),
        Event::Delete(node) => context.line.loses(&node),
    };
    follow(&context.client, watcher::Config::default(), "nodes", tell).await;
}

fn is_importer(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|all| all.get(label::ROLE))
        .map(String::as_str)
        == Some(label::ROLE_IMPORTER)
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
        annotation::UPLOAD_TARGET,
        annotation::CLONE_REQUEST,
    ];
    if asks.iter().all(|name| claim.annotation(name).is_none()) {
        return Ok(Next::await_change());
    }
    if context.written.is_older(&claim.metadata) {
        return Ok(Next::requeue(written::PAUSE));
    }
    let now = context.now();
    let limits = context.installation().limits();
    if let Some(pause) = context.line.still(&claim, limits, now) {
        return Ok(Next::requeue(pause));
    }
    // Most rounds find nothing to do, which needs no look at what there is.
    if let Some(shown) = glance(&context, &claim, now).await {
        let Plan { actions, again } = plan(&shown, now);
        if may_be_late(&shown, &actions) {
            if shown.pod.is_none() {
                context.line.leaves(&claim);
            }
            for action in actions {
                apply(&context, &claim, now, action).await?;
            }
            return Ok(after(again));
        }
    }
    let Some(mut observed) = observe(&context, &claim, now).await? else {
        context.line.leaves(&claim);
        return Ok(Next::await_change());
    };
    let mut decided = plan(&observed, now);
    match (&observed.pod, begins(&decided)) {
        // The pod of somebody else is not watched, and so would be at work for ever.
        (Some(pod), _) if belongs(pod, &observed.claim) => context.line.finds(pod, now),
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
        let outcome = apply(&context, &observed.claim, now, action).await;
        if outcome.is_err() {
            // Whoever comes next need not wait for what may not come about for long.
            context.line.leaves(&observed.claim);
        }
        outcome?;
    }
    Ok(after(again))
}
