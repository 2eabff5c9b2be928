//! The controller of data volumes: each gets a claim, and tells how far it is.
//!
//! ```text
//! (no claim) -> Pending -> WaitForFirstConsumer -> PVCBound -> ImportScheduled -> ImportInProgress
//!                                                                  ^                  |      |
//!                                                                  +---- restarted ---+      v
//!                                                            Failed <- checksum, Lost   Succeeded
//! ```
//!
//! Owns the claim of the volume's name and the volume's status. What fills the claim is the import
//! controller's business ([`crate::import`]): the two know each other by the claim's annotations only.

pub(crate) mod plan;
pub(crate) mod render;
mod status;
mod validate;
pub(crate) mod volume;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action as Next, Controller};
use kube::runtime::watcher;
use longshore_crds::names::annotation;
use serde_json::json;

use self::plan::{Action, Observed, Plan, plan};
use self::volume::{Volume, resource};
use crate::context::Context;
use crate::error::{Error, Result, Trying as _};
use crate::event;

const COMPONENT: &str = "datavolume-import-controller";

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    let client = context.client.clone();
    let volumes: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
    let claims: Api<PersistentVolumeClaim> = Api::all(client);
    Controller::new_with(volumes, watcher::Config::default(), resource())
        .owns_with(claims, (), watcher::Config::default())
        .run(reconcile, again, context)
        .for_each(async |outcome| {
            if let Err(error) = outcome {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a volume was not reconciled"
                );
            }
        })
        .await;
}

async fn reconcile(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Next> {
    let observed = observe(&context, Volume::of((*object).clone())).await?;
    let now = Timestamp::now().round(Unit::Second).unwrap_or_default();
    let Plan { actions, status } = plan(&observed, &now.to_string());
    let volume = &observed.volume;
    for action in &actions {
        apply(&context, volume, action).await?;
    }
    if let Some(status) = status {
        write_status(&context, volume, &status).await?;
    }
    Ok(Next::await_change())
}

fn again(_: Arc<DynamicObject>, error: &Error, _: Arc<Context>) -> Next {
    // Somebody was faster: what they wrote is on its way to us.
    if error.status() == Some(409) {
        return Next::requeue(Duration::from_millis(200));
    }
    Next::requeue(Duration::from_secs(5))
}

async fn observe(context: &Context, volume: Volume) -> Result<Observed> {
    let namespace = volume.meta.namespace.clone().unwrap_or_default();
    let about = about(&volume);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
    let claim = claims
        .get_opt(volume.name())
        .await
        .trying("read the claim of", &about)?;
    let wanted = volume.spec.as_ref().and_then(|spec| {
        let claim = spec.pvc.as_ref().or(spec.storage.as_ref())?;
        claim.storage_class_name.clone()
    });
    let class = context.class(wanted.as_deref()).await?;
    Ok(Observed {
        volume,
        claim,
        profile: context.profile(class.as_ref()),
        binds_late: class.is_some_and(|class| class.binds_late),
        adoption: context.settings.adoption,
    })
}

async fn apply(context: &Context, volume: &Volume, action: &Action) -> Result<()> {
    let about = about(volume);
    let namespace = volume.meta.namespace.as_deref().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    match action {
        Action::Stamp => {
            let stamp = json!({"metadata": {
                "uid": volume.uid(),
                "annotations": {annotation::USE_POPULATOR: "false"},
            }});
            let volumes: Api<DynamicObject> =
                Api::namespaced_with(context.client.clone(), namespace, &resource());
            volumes
                .patch(volume.name(), &PatchParams::default(), &Patch::Merge(stamp))
                .await
                .trying("annotate", &about)
                .map(drop)
        }
        Action::CreateClaim(claim) => {
            match claims.create(&PostParams::default(), claim).await {
                // Created by us a moment ago, or by somebody else: the next look tells.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                outcome => outcome.trying("create the claim of", &about).map(drop),
            }
        }
        Action::Adopt => claims
            .patch(
                volume.name(),
                &PatchParams::default(),
                &Patch::Merge(render::adoption(volume)),
            )
            .await
            .trying("adopt the claim of", &about)
            .map(drop),
        Action::Tell(note) => {
            event::tell(&context.client, COMPONENT, &reference(volume), note).await;
            Ok(())
        }
    }
}

async fn write_status(context: &Context, volume: &Volume, status: &volume::Status) -> Result<()> {
    let namespace = volume.meta.namespace.as_deref().unwrap_or_default();
    let volumes: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), namespace, &resource());
    // Conditions are a list without keys, and fields that go must be said to go.
    let whole = json!({
        "metadata": {"uid": volume.uid()},
        "status": {
            "claimName": status.claim_name,
            "phase": status.phase,
            "progress": status.progress,
            "restartCount": status.restart_count,
            "conditions": status.conditions,
        },
    });
    let params = PatchParams::default();
    volumes
        .patch_status(volume.name(), &params, &Patch::Merge(whole))
        .await
        .trying("write the status of", &about(volume))
        .map(drop)
}

fn about(volume: &Volume) -> String {
    let namespace = volume.meta.namespace.as_deref().unwrap_or_default();
    format!("DataVolume {namespace}/{}", volume.name())
}

fn reference(volume: &Volume) -> ObjectReference {
    ObjectReference {
        api_version: Some("cdi.kubevirt.io/v1beta1".to_owned()),
        kind: Some("DataVolume".to_owned()),
        name: volume.meta.name.clone(),
        namespace: volume.meta.namespace.clone(),
        uid: volume.meta.uid.clone(),
        ..ObjectReference::default()
    }
}
