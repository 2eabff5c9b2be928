//! What was planned, done. Each write carries what it was decided on: an older decision changes nothing.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use longshore_crds::names::object;
use longshore_telemetry::error_chain;
use serde_json::json;

use super::plan::{Action, Release, is_too_late, refused, release};
use super::pod::is_held;
use super::source::Request;
use super::{authorities, pod};
use crate::claim::{Claim as _, about, reference};
use crate::context::Context;
use crate::error::{Error, FORBIDDEN, NOT_FOUND, Result, Trying as _, unless};
use crate::event::{self, Note};
use crate::{populate, write};

const COMPONENT: &str = "import-controller";

/// Does one thing about `claim`, as it was decided on what there was at the time `seen`.
pub(super) async fn apply(
    context: &Context,
    claim: &PersistentVolumeClaim,
    seen: Timestamp,
    action: Action,
) -> Result<()> {
    let about = about(claim);
    match action {
        Action::Tell(note) => {
            tell(context, claim, &note).await;
            Ok(())
        }
        Action::Mark(marks) => {
            let outcome = write::mark(context, claim, &marks).await;
            outcome.trying("annotate", &about)
        }
        Action::CreatePod(request) => Box::pin(create(context, claim, seen, *request)).await,
        Action::Release(pod) => {
            let found = if pod.by_proxy {
                authorities_of_proxy(context, claim, seen).await?
            } else {
                None
            };
            Box::pin(let_go(context, claim, seen, pod, found)).await
        }
        Action::DeletePod { uid, name, at_once } => {
            let params = DeleteParams {
                grace_period_seconds: at_once.then_some(0),
                ..write::only(Some(uid))
            };
            let outcome = pods(context, claim).delete(&name, &params).await;
            unless(outcome, NOT_FOUND)
                .trying("delete the pod of", &about)
                .map(drop)
        }
    }
}

fn pods(context: &Context, claim: &PersistentVolumeClaim) -> Api<Pod> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    Api::namespaced(context.client.clone(), namespace)
}

/// Makes the pod, and lets it go if nobody else came before it.
async fn create(
    context: &Context,
    claim: &PersistentVolumeClaim,
    seen: Timestamp,
    mut request: Request,
) -> Result<()> {
    let about = about(claim);
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    request.trusts(&context.installation());
    let mut workload = context.workload(claim.class());
    let found = authorities_of_proxy(context, claim, seen).await?;
    let copy = found
        .as_ref()
        .map(|_| object::proxy_authorities(claim.named()));
    workload.proxy_authorities = copy;
    let pod = pod::pod(claim, &request, &workload);
    let outcome = pods(context, claim)
        .create(&PostParams::default(), &pod)
        .await;
    let outcome = outcome.trying("create the pod of", &about);
    let pod = unless_refused(context, claim, seen, outcome).await?;
    // If somebody was faster, or nobody can tell yet, or this does not come to its end, the pod stays held:
    // it brings about another round, which sees that.
    let Some(release) = release(claim, &pod) else {
        return Ok(());
    };
    if !is_held(&pod) {
        // Older servers, and webhooks, hold nothing: it waits for what it mounts.
        return mounted(context, claim, seen, &release, found).await;
    }
    if let Some(users) = context.users.beside(&pod, namespace, claim.named()).await
        && users.is_empty()
    {
        let_go(context, claim, seen, release, found).await?;
    }
    Ok(())
}

/// Lets a pod go, with all that it mounts.
async fn let_go(
    context: &Context,
    claim: &PersistentVolumeClaim,
    seen: Timestamp,
    pod: Release,
    found: Option<ConfigMap>,
) -> Result<()> {
    if pod.by_proxy && found.is_none() {
        // It was made by settings that are gone. It has not begun yet: another one follows.
        let Release { uid, name, .. } = pod;
        let at_once = true;
        let away = Action::DeletePod { uid, name, at_once };
        return Box::pin(apply(context, claim, seen, away)).await;
    }
    mounted(context, claim, seen, &pod, found).await?;
    let Release {
        uid, name, gates, ..
    } = pod;
    if is_too_late(seen, context.now()) {
        // It stays held, and the next round looks anew.
        return Ok(());
    }
    let patch = json!({"metadata": {"uid": uid}, "spec": {"schedulingGates": gates}});
    pods(context, claim)
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .trying("release the pod of", &about(claim))
        .map(drop)
}

/// Brings to a pod the authorities that it mounts.
async fn mounted(
    context: &Context,
    claim: &PersistentVolumeClaim,
    seen: Timestamp,
    Release { uid, name, .. }: &Release,
    found: Option<ConfigMap>,
) -> Result<()> {
    let Some(found) = found else {
        return Ok(());
    };
    let outcome = authorities::bring(context, claim, (name, uid), found).await;
    unless_refused(context, claim, seen, outcome).await
}

/// Who vouches for the proxy, if anybody does. That this cannot be known is told.
async fn authorities_of_proxy(
    context: &Context,
    claim: &PersistentVolumeClaim,
    seen: Timestamp,
) -> Result<Option<ConfigMap>> {
    let outcome = authorities::found(context).await;
    // What passes is not told: it is tried again.
    if let Err(error) = &outcome
        && matches!(error.status(), Some(FORBIDDEN | NOT_FOUND))
    {
        not_started(context, claim, seen, &error_chain(error)).await?;
    }
    outcome
}

/// Tells what the server said of what it would not make.
async fn unless_refused<T>(
    context: &Context,
    claim: &PersistentVolumeClaim,
    seen: Timestamp,
    outcome: Result<T>,
) -> Result<T> {
    if let Some(said) = outcome.as_ref().err().and_then(Error::refusal) {
        not_started(context, claim, seen, said).await?;
    }
    outcome
}

async fn not_started(
    context: &Context,
    claim: &PersistentVolumeClaim,
    seen: Timestamp,
    said: &str,
) -> Result<()> {
    // Of these none makes a pod.
    for action in refused(claim, said) {
        Box::pin(apply(context, claim, seen, action)).await?;
    }
    Ok(())
}

/// Tells people about `claim`, and about the one in whose place it is filled.
async fn tell(context: &Context, claim: &PersistentVolumeClaim, note: &Note) {
    event::tell(context, COMPONENT, &reference(claim), note).await;
    if let Some(target) = populate::target(claim) {
        let note = note.of_prime(claim.named());
        event::tell(context, populate::COMPONENT, &target, &note).await;
    }
}
