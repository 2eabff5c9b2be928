//! The populator of imports: a claim that names a `VolumeImportSource` as its data source comes filled.
//!
//! ```text
//! claim (pending) --> prime claim --> filled by the import controller --> its volume handed over --> claim (bound)
//!                         |                                                                              |
//!                         +---------------- what is said of it is said of the claim                      v
//!                                                                                        prime claim deleted
//! ```
//!
//! Owns the prime claim `prime-UID` beside the claim of that uid, and the annotations of the claim that
//! tell how it does. What fills the prime claim is [`crate::import`], by the prime's annotations; who binds
//! claims is the cluster, by what the volume says whose it is. That the claim has the right volume is
//! written on the volume, in the same write that hands it over: nothing else could tell afterwards.

mod apply;
mod build;
mod mirror;
mod observe;
mod obstacle;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject};
use kube::runtime::controller::{Action as Next, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{reflector, watcher};
use longshore_crds::names::annotation;

use self::apply::apply;
use self::observe::{glance, observe};
use self::plan::{Plan, may_be_late, plan};
use crate::claim::{Claim as _, controller};
use crate::context::Context;
use crate::custom::VOLUME_IMPORT_SOURCE;
use crate::error::Result;
use crate::follow::touched;
use crate::rounds::{after, again, bounded, drive};
use crate::written;

/// Whose events these are.
pub(crate) const COMPONENT: &str = "import-populator";

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    let sources = VOLUME_IMPORT_SOURCE.api(&context.client);
    let (shown, kept) = reflector::store();
    let claims = Api::all(context.client.clone());
    let claims = touched(claims, watcher::Config::default(), kept, ());
    let (there, named) = (shown.clone(), shown.clone());
    let claims = claims.flat_map(move |claim| {
        let found = match claim {
            Ok(claim) => concerned(&claim, &there).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(found)
    });
    let listed = context.health.await_list("populated claims", shown.clone());
    let rounds = Controller::for_stream(claims, shown.clone())
        .with_config(bounded())
        .watches_with(
            sources,
            VOLUME_IMPORT_SOURCE.resource(),
            watcher::Config::default(),
            move |source| filled_from(&named, &source),
        )
        // What a claim waits for may be a class or its driver.
        .reconcile_all_on(context.known.each_change())
        .run(
            move |claim, context| {
                let shown = shown.clone();
                async move { Box::pin(reconcile(claim, context, &shown)).await }
            },
            again,
            context,
        );
    futures::join!(drive("populated claim", rounds), listed);
}

/// Whom it concerns that a claim was touched: itself, if it is there still, and the one in whose place it is
/// filled. Of each only where it is.
fn concerned(
    claim: &PersistentVolumeClaim,
    shown: &Store<PersistentVolumeClaim>,
) -> Vec<PersistentVolumeClaim> {
    let owner = controller(&claim.metadata).filter(|owner| owner.kind == "PersistentVolumeClaim");
    let names = [Some(claim.named()), owner.map(|owner| owner.name.as_str())];
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let is_there = |name: &&str| shown.get(&ObjectRef::new(name).within(namespace)).is_some();
    let at = |name: &str| PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        ..PersistentVolumeClaim::default()
    };
    names
        .into_iter()
        .flatten()
        .filter(is_there)
        .map(at)
        .collect()
}

/// One round for one claim; `shown` is what the watch has shown that brought it about.
pub(crate) async fn reconcile(
    claim: Arc<PersistentVolumeClaim>,
    context: Arc<Context>,
    shown: &Store<PersistentVolumeClaim>,
) -> Result<Next> {
    if claim.populator().is_none() {
        return Ok(Next::await_change());
    }
    if context.written.is_older(&claim.metadata) {
        return Ok(Next::requeue(written::PAUSE));
    }
    let now = context.now();
    // Most rounds find nothing to do, or only hand on how far the prime is.
    let glanced = glance(&context, &claim, shown, now);
    let observed = match glanced.filter(|seen| may_be_late(&plan(seen, now).actions)) {
        Some(seen) => seen,
        None => match observe(&context, &claim, now).await? {
            Some(observed) => observed,
            None => return Ok(Next::await_change()),
        },
    };
    let Plan { actions, again } = plan(&observed, now);
    for action in actions {
        apply(&context, &observed, action).await?;
    }
    Ok(after(again))
}

/// The claims that name `source`.
fn filled_from(
    claims: &Store<PersistentVolumeClaim>,
    source: &DynamicObject,
) -> Vec<ObjectRef<PersistentVolumeClaim>> {
    let is_filled_from = |claim: &PersistentVolumeClaim| {
        claim.metadata.namespace == source.metadata.namespace
            && claim.populator().is_some_and(|populator| {
                populator.kind == VOLUME_IMPORT_SOURCE.name
                    && Some(populator.name) == source.metadata.name.as_deref()
            })
    };
    let all = claims.state();
    let found = all.iter().filter(|claim| is_filled_from(claim));
    found.map(|claim| ObjectRef::from_obj(&**claim)).collect()
}

/// The claim in whose place `claim` is filled.
pub(crate) fn target(claim: &PersistentVolumeClaim) -> Option<ObjectReference> {
    let owner = controller(&claim.metadata)?;
    let is_prime = owner.kind == "PersistentVolumeClaim"
        && claim.annotation(annotation::POPULATOR_KIND).is_some();
    is_prime.then(|| ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(owner.kind.clone()),
        name: Some(owner.name.clone()),
        namespace: claim.metadata.namespace.clone(),
        uid: Some(owner.uid.clone()),
        ..ObjectReference::default()
    })
}
