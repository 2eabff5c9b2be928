//! What was planned, done. Each write carries what it was decided on: an older decision changes nothing.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use longshore_crds::names::reason;
use serde_json::json;

use super::plan::{Action, refused, release};
use super::pod::is_held;
use super::source::Request;
use super::{authorities, pod};
use crate::claim::{Claim as _, about, reference};
use crate::context::Context;
use crate::error::{Error, NOT_FOUND, Result, Trying as _, unless};
use crate::event::{self, Note};
use crate::{populate, write};

const COMPONENT: &str = "import-controller";

/// Does one thing about `claim`.
pub(super) async fn apply(
    context: &Context,
    claim: &PersistentVolumeClaim,
    action: Action,
) -> Result<()> {
    let about = about(claim);
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    match action {
        Action::Tell(note) => {
            tell(context, claim, &note).await;
            Ok(())
        }
        Action::Mark(marks) => {
            let outcome = write::mark(context, claim, &marks).await;
            outcome.trying("annotate", &about)
        }
        Action::CreatePod(request) => Box::pin(create(context, claim, *request)).await,
        Action::Release { uid, name, gates } => {
            let patch = json!({"metadata": {"uid": uid}, "spec": {"schedulingGates": gates}});
            pods.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .trying("release the pod of", &about)
                .map(drop)
        }
        Action::DeletePod { uid, name, at_once } => {
            let params = DeleteParams {
                grace_period_seconds: at_once.then_some(0),
                ..write::only(Some(uid))
            };
            let outcome = pods.delete(&name, &params).await;
            unless(outcome, NOT_FOUND)
                .trying("delete the pod of", &about)
                .map(drop)
        }
    }
}

/// Makes the pod, and lets it go if nobody else came before it.
async fn create(
    context: &Context,
    claim: &PersistentVolumeClaim,
    mut request: Request,
) -> Result<()> {
    let about = about(claim);
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    request.trusts(&context.installation());
    let mut workload = context.workload(claim.class());
    workload.proxy_authorities = match authorities::brought(context, claim).await {
        Ok(name) => name,
        Err(error) => {
            let message = format!("Error starting pod: {error}");
            let note = Note::warning(reason::ERR_STARTING_POD, message);
            tell(context, claim, &note).await;
            return Err(error);
        }
    };
    let pod = pod::pod(claim, &request, &workload);
    let outcome = pods.create(&PostParams::default(), &pod).await;
    let outcome = outcome.trying("create the pod of", &about);
    if let Some(said) = outcome.as_ref().err().and_then(Error::refusal) {
        // Of these none makes a pod.
        for action in refused(claim, said) {
            Box::pin(apply(context, claim, action)).await?;
        }
    }
    let pod = outcome?;
    // If somebody was faster, or nobody can tell yet, or this does not come to its end, the pod stays held:
    // it brings about another round, which sees that.
    if is_held(&pod)
        && let Some(users) = context.users.beside(&pod, namespace, claim.named()).await
        && users.is_empty()
        && let Some(action) = release(&pod)
    {
        Box::pin(apply(context, claim, action)).await?;
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
