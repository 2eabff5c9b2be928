//! The import controller: a claim that asks for an import gets a pod that does it.
//!
//! A claim asks by its annotations, whether a data volume wrote them or a person. Owns the pod
//! `importer-CLAIM` and the annotations that tell how it does; never the claim itself.

pub(crate) mod plan;
pub(crate) mod pod;
mod said;
pub(crate) mod scrape;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::{Action as Next, Controller};
use kube::runtime::watcher;
use longshore_crds::names::{annotation, label, object, reason};
use serde_json::json;

use self::plan::{Action, Observed, plan};
use crate::claim::Claim as _;
use crate::context::Context;
use crate::error::{Error, Result, Trying as _};
use crate::event::{self, Note};

const COMPONENT: &str = "import-controller";

/// How soon to look again at a claim that somebody else uses: their pods are not watched.
const USERS_PAUSE: Duration = Duration::from_secs(5);

/// How soon to ask a pod again how far it is.
const SCRAPE_PAUSE: Duration = Duration::from_secs(2);

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    let claims: Api<PersistentVolumeClaim> = Api::all(context.client.clone());
    let pods: Api<Pod> = Api::all(context.client.clone());
    let ours =
        watcher::Config::default().labels(&format!("{}={}", label::ROLE, label::ROLE_IMPORTER));
    Controller::new(claims, watcher::Config::default())
        .owns(pods, ours)
        .run(reconcile, again, context)
        .for_each(async |outcome| {
            if let Err(error) = outcome {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a claim was not reconciled"
                );
            }
        })
        .await;
}

async fn reconcile(claim: Arc<PersistentVolumeClaim>, context: Arc<Context>) -> Result<Next> {
    let asks = [annotation::IMPORT_SOURCE, annotation::IMPORT_ENDPOINT];
    if asks.iter().all(|name| claim.annotation(name).is_none()) {
        return Ok(Next::await_change());
    }
    let observed = observe(&context, (*claim).clone()).await?;
    for action in plan(&observed) {
        apply(&context, &observed.claim, action).await?;
    }
    if observed.pod.as_ref().is_some_and(is_running) {
        return Ok(Next::requeue(SCRAPE_PAUSE));
    }
    if observed.users.is_empty() {
        return Ok(Next::await_change());
    }
    Ok(Next::requeue(USERS_PAUSE))
}

fn again(_: Arc<PersistentVolumeClaim>, error: &Error, _: Arc<Context>) -> Next {
    if error.status() == Some(409) {
        return Next::requeue(Duration::from_millis(200));
    }
    Next::requeue(Duration::from_secs(5))
}

async fn observe(context: &Context, claim: PersistentVolumeClaim) -> Result<Observed> {
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    let about = about(&claim);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let name = object::importer(claim.named());
    let pod = pods
        .get_opt(&name)
        .await
        .trying("read the pod of", &about)?;
    // Who else is there matters only before there is a pod: afterwards it is too late to ask.
    let users = if pod.is_none() && !claim.is_filled() {
        let all = pods.list(&ListParams::default()).await;
        let all = all.trying("list the pods beside", &about)?;
        all.items
            .iter()
            .filter(|pod| uses(pod, claim.named()))
            .filter_map(|pod| pod.metadata.name.clone())
            .collect()
    } else {
        Vec::new()
    };
    let class = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.clone());
    let class = context.class(class.as_deref()).await?;
    let address = pod.as_ref().filter(|pod| is_running(pod)).and_then(|pod| {
        let status = pod.status.as_ref()?;
        status.pod_ip.as_deref()
    });
    let reading = match (&context.scraper, address) {
        (Some(scraper), Some(address)) => scraper.read(address).await,
        _ => None,
    };
    Ok(Observed {
        claim,
        pod,
        reading,
        users,
        binds_late: class.is_some_and(|class| class.binds_late),
    })
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase == Some("Running")
}

/// Whether a pod that has not ended mounts the claim.
fn uses(pod: &Pod, claim: &str) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return false;
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    volumes.unwrap_or_default().iter().any(|volume| {
        let source = volume.persistent_volume_claim.as_ref();
        source.is_some_and(|source| source.claim_name == claim)
    })
}

async fn apply(context: &Context, claim: &PersistentVolumeClaim, action: Action) -> Result<()> {
    let about = about(claim);
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    match action {
        Action::Annotate(changes) => {
            let claims: Api<PersistentVolumeClaim> =
                Api::namespaced(context.client.clone(), namespace);
            // The uid is a precondition: another claim of this name is not ours to write on.
            let patch = json!({"metadata": {"uid": claim.uid(), "annotations": changes}});
            claims
                .patch(claim.named(), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .trying("annotate", &about)
                .map(drop)
        }
        Action::Tell(note) => {
            event::tell(&context.client, COMPONENT, &reference(claim), &note).await;
            Ok(())
        }
        Action::CreatePod(request) => {
            let pod = pod::pod(claim, &request, &context.settings.workload);
            match pods.create(&PostParams::default(), &pod).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                Err(error) => {
                    let name = pod.metadata.name.unwrap_or_default();
                    let message = format!("Error starting pod {name}: {error}");
                    let note = Note::warning(reason::ERR_STARTING_POD, message);
                    event::tell(&context.client, COMPONENT, &reference(claim), &note).await;
                    Err(error).trying("create the pod of", &about)
                }
                Ok(_) => Ok(()),
            }
        }
        Action::DeletePod(uid) => {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(uid),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            let name = object::importer(claim.named());
            match pods.delete(&name, &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                outcome => outcome.trying("delete the pod of", &about).map(drop),
            }
        }
    }
}

fn about(claim: &PersistentVolumeClaim) -> String {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    format!("PersistentVolumeClaim {namespace}/{}", claim.named())
}

fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
