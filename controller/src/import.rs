//! The import controller: a claim that asks for an import gets a pod that does it.
//!
//! A claim asks by its annotations, whether a data volume wrote them or a person. Owns the pod
//! `importer-CLAIM` and the annotations that tell how it does; never the claim itself.

mod apply;
mod authorities;
mod observe;
pub(crate) mod plan;
pub(crate) mod pod;
mod said;
pub(crate) mod scrape;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::Api;
use kube::runtime::controller::{Action as Next, Controller};
use kube::runtime::watcher;
use longshore_crds::names::{annotation, label};

use self::apply::apply;
use self::observe::observe;
use self::plan::{Plan, plan};
use crate::claim::Claim as _;
use crate::context::Context;
use crate::error::Result;
use crate::rounds::{after, again, drive};

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    let claims: Api<PersistentVolumeClaim> = Api::all(context.client.clone());
    let pods: Api<Pod> = Api::all(context.client.clone());
    let ours =
        watcher::Config::default().labels(&format!("{}={}", label::ROLE, label::ROLE_IMPORTER));
    let controller = Controller::new(claims, watcher::Config::default());
    let listed = context.health.await_list("claims", controller.store());
    let rounds = controller.owns(pods, ours).run(reconcile, again, context);
    futures::join!(drive("claim", rounds), listed);
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
    let Some(observed) = observe(&context, &claim, now).await? else {
        return Ok(Next::await_change());
    };
    let Plan { actions, again } = plan(&observed, now);
    for action in actions {
        apply(&context, &observed.claim, action).await?;
    }
    Ok(after(again))
}

fn about(claim: &PersistentVolumeClaim) -> String {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    format!("PersistentVolumeClaim {namespace}/{}", claim.named())
}
