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

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use kube::api::{Api, DynamicObject};
use kube::runtime::controller::{Action as Next, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use longshore_crds::names::annotation;

use self::apply::apply;
use self::observe::observe;
use self::plan::{Plan, plan};
use crate::claim::{Claim as _, controller};
use crate::context::Context;
use crate::custom::VOLUME_IMPORT_SOURCE;
use crate::error::Result;
use crate::rounds::{after, again, bounded, drive};

/// Whose events these are.
pub(crate) const COMPONENT: &str = "import-populator";

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    let claims: Api<PersistentVolumeClaim> = Api::all(context.client.clone());
    let sources = VOLUME_IMPORT_SOURCE.api(&context.client);
    let rounds = Controller::new(claims.clone(), watcher::Config::default());
    let store = rounds.store();
    let listed = context
        .health
        .await_list("populated claims", rounds.store());
    let rounds = rounds
        .with_config(bounded())
        .owns(claims, watcher::Config::default())
        .watches_with(
            sources,
            VOLUME_IMPORT_SOURCE.resource(),
            watcher::Config::default(),
            move |source| filled_from(&store, &source),
        )
        // What a claim waits for may be a class or its driver.
        .reconcile_all_on(context.known.each_change())
        .run(reconcile, again, context);
    futures::join!(drive("populated claim", rounds), listed);
}

/// One round for one claim.
pub(crate) async fn reconcile(
    claim: Arc<PersistentVolumeClaim>,
    context: Arc<Context>,
) -> Result<Next> {
    if claim.populator().is_none() {
        return Ok(Next::await_change());
    }
    let now = context.now();
    let Some(observed) = observe(&context, &claim, now).await? else {
        return Ok(Next::await_change());
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
