//! What was planned, done. Each write carries what it was decided on: an older decision changes nothing.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use longshore_crds::names::object;
use serde_json::json;

use super::plan::{Action, Observed, refused};
use super::volume::{Status, Volume};
use super::{about, render};
use crate::context::Context;
use crate::custom::{DATA_VOLUME, VOLUME_IMPORT_SOURCE};
use crate::error::{CONFLICT, Error, NOT_FOUND, Result, Trying as _, unless};
use crate::event;
use crate::write;

const COMPONENT: &str = "datavolume-import-controller";

/// Does one thing about a volume.
pub(super) async fn apply(
    context: &Context,
    observed: &Observed,
    action: &Action,
    now: &str,
) -> Result<()> {
    let volume = &observed.volume;
    let about = about(volume);
    let namespace = volume.meta.namespace.as_deref().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    match action {
        Action::Tell(note) => {
            event::tell(
                context,
                COMPONENT,
                &DATA_VOLUME.reference(&volume.meta),
                note,
            )
            .await;
            Ok(())
        }
        Action::MarkVolume(marks) => {
            let patch = write::marking(&volume.meta, marks);
            volumes(context, namespace)
                .patch(volume.name(), &PatchParams::default(), &patch)
                .await
                .trying("annotate", &about)
                .map(|written| context.written.wrote(&written.metadata))
        }
        Action::MarkClaim(annotations) => {
            let Some(claim) = &observed.claim else {
                return Ok(());
            };
            let marks = annotations.clone().into();
            let outcome = write::mark(context, claim, &marks).await;
            outcome.trying("annotate the claim of", &about)
        }
        Action::CreateClaim(claim) => {
            let outcome = claims.create(&PostParams::default(), claim).await;
            match outcome.trying("create the claim of", &about) {
                Err(error) => told(context, observed, error, now).await,
                Ok(_) => Ok(()),
            }
        }
        Action::CreateSource(source) => {
            let sources = VOLUME_IMPORT_SOURCE.api_in(&context.client, namespace);
            let outcome = sources.create(&PostParams::default(), source).await;
            // Its name is the volume's uid: it can be nobody else's.
            unless(outcome, CONFLICT)
                .trying("create what fills the claim of", &about)
                .map(drop)
        }
        Action::MarkSource { uid, stages } => {
            let patch = json!({"metadata": {"uid": uid}, "spec": stages});
            let sources = VOLUME_IMPORT_SOURCE.api_in(&context.client, namespace);
            let name = object::import_source(volume.uid());
            let outcome = sources
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            // One that is gone is made anew.
            unless(outcome, NOT_FOUND)
                .trying("list the checkpoints of", &about)
                .map(drop)
        }
        Action::DeleteSource(uid) => {
            let params = write::only(Some(uid.clone()));
            let sources = VOLUME_IMPORT_SOURCE.api_in(&context.client, namespace);
            let name = object::import_source(volume.uid());
            let outcome = sources.delete(&name, &params).await;
            unless(outcome, NOT_FOUND)
                .trying("delete what filled the claim of", &about)
                .map(drop)
        }
        Action::Adopt => {
            let Some(claim) = &observed.claim else {
                return Ok(());
            };
            let patch = Patch::Merge(render::adoption(volume, claim));
            claims
                .patch(volume.name(), &PatchParams::default(), &patch)
                .await
                .trying("adopt the claim of", &about)
                .map(drop)
        }
    }
}

/// People shall see why the server does not take a claim: a quota, say. It is tried again later.
async fn told(context: &Context, observed: &Observed, error: Error, now: &str) -> Result<()> {
    let Some(said) = error.refusal() else {
        return Err(error);
    };
    let (notes, status) = refused(&observed.volume, said, now);
    for note in notes {
        event::tell(
            context,
            COMPONENT,
            &DATA_VOLUME.reference(&observed.volume.meta),
            &note,
        )
        .await;
    }
    if let Some(status) = status {
        write_status(context, &observed.volume, &status).await?;
    }
    Err(error)
}

/// Writes a status, unless the volume has changed since it was decided on.
pub(super) async fn write_status(
    context: &Context,
    volume: &Volume,
    status: &Status,
) -> Result<()> {
    let namespace = volume.meta.namespace.as_deref().unwrap_or_default();
    // Conditions are a list without keys, and fields that go must be said to go.
    let whole = json!({
        "metadata": {"uid": volume.uid(), "resourceVersion": volume.meta.resource_version},
        "status": {
            "claimName": status.claim_name,
            "phase": status.phase,
            "progress": status.progress,
            "restartCount": status.restart_count,
            "conditions": status.conditions,
        },
    });
    let params = PatchParams::default();
    volumes(context, namespace)
        .patch_status(volume.name(), &params, &Patch::Merge(whole))
        .await
        .trying("write the status of", &about(volume))
        .map(|written| context.written.wrote(&written.metadata))
}

fn volumes(context: &Context, namespace: &str) -> Api<DynamicObject> {
    DATA_VOLUME.api_in(&context.client, namespace)
}
