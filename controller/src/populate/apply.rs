//! What was planned, done. Each write carries what it was decided on: an older decision changes nothing.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, Patch, PatchParams, PostParams};
use longshore_crds::names::{annotation, reason};
use serde_json::json;

use super::COMPONENT;
use super::plan::{Action, Observed, refused};
use crate::claim::{Claim as _, about, reference};
use crate::context::Context;
use crate::error::{Error, NOT_FOUND, Result, Trying as _, unless};
use crate::event::{self, Note};
use crate::write;

/// Does one thing about a claim.
pub(super) async fn apply(context: &Context, observed: &Observed, action: Action) -> Result<()> {
    let claim = &observed.claim;
    let about = about(claim);
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    match action {
        Action::Tell(note) => {
            event::tell(context, COMPONENT, &reference(claim), &note).await;
            Ok(())
        }
        Action::TellPrime(note) => {
            if let Some(prime) = &observed.prime {
                event::tell(context, COMPONENT, &reference(prime), &note).await;
            }
            Ok(())
        }
        Action::Mark(marks) => {
            let outcome = write::mark(context, claim, &marks).await;
            outcome.trying("annotate", &about)
        }
        Action::MarkPrime(annotations) => {
            let Some(prime) = &observed.prime else {
                return Ok(());
            };
            let marks = annotations.into();
            let outcome = write::mark(context, prime, &marks).await;
            outcome.trying("name the next checkpoint of", &about)
        }
        Action::CreatePrime(prime) => {
            let outcome = claims.create(&PostParams::default(), &prime).await;
            let outcome = outcome.trying("create the prime claim of", &about);
            if outcome.is_ok() {
                let note = Note::normal(
                    reason::CREATED_PRIME,
                    "PVC Prime created successfully".to_owned(),
                );
                event::tell(context, COMPONENT, &reference(claim), &note).await;
            }
            if let Some(said) = outcome.as_ref().err().and_then(Error::refusal) {
                // Of these none makes a claim.
                for action in refused(claim, said) {
                    Box::pin(apply(context, observed, action)).await?;
                }
            }
            outcome.map(drop)
        }
        Action::Rebind => {
            let Some(volume) = &observed.volume else {
                return Ok(());
            };
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
            let patch = Patch::Merge(rebound(volume, claim));
            volumes
                .patch(name, &PatchParams::default(), &patch)
                .await
                .trying("hand the volume over to", &about)
                .map(drop)
        }
        Action::DeletePrime => {
            let Some(prime) = &observed.prime else {
                return Ok(());
            };
            let params = write::only(prime.metadata.uid.clone());
            let outcome = claims.delete(prime.named(), &params).await;
            unless(outcome, NOT_FOUND)
                .trying("delete the prime claim of", &about)
                .map(drop)
        }
    }
}

/// The patch that makes `volume` the one of `claim`, and says so for good: the binding could be anybody's.
fn rebound(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> serde_json::Value {
    json!({
        "metadata": {
            "uid": volume.metadata.uid,
            "resourceVersion": volume.metadata.resource_version,
            "annotations": {annotation::POPULATED_CLAIM: claim.uid()},
        },
        "spec": {"claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace,
            "name": claim.named(),
            "uid": claim.uid(),
            // Of the claim that it was before.
            "resourceVersion": null,
        }},
    })
}
