//! The controller of storage profiles: each storage class gets one, of its name, and it goes with it.
//!
//! Owns the profile's status, labels and annotations; its spec is the administrator's. What of all this a
//! claim is made of is the business of whoever makes claims ([`crate::data_volume`]).

mod capabilities;
mod plan;
mod provisioner;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use self::plan::{Action, Observed, SnapshotClass, plan};
use crate::context::Context;
use crate::custom::STORAGE_PROFILE;
use crate::error::{CONFLICT, NOT_FOUND, Result, Trying as _, unless};
use crate::{passes, write};

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    passes::make(&context.known, "storage profile", async || {
        pass(&context).await
    })
    .await;
}

/// Looks at all of it once.
pub(crate) async fn pass(context: &Context) -> Result<Option<Duration>> {
    let observed = Observed {
        classes: context.known.classes(),
        profiles: context.known.profiles(),
        snapshot_classes: snapshot_classes(context).await?,
        installation: context.known.installation(),
        known: &context.known,
    };
    for action in plan(&observed, &context.now().to_string()) {
        apply(context, action).await?;
    }
    Ok(None)
}

/// None where the cluster does not know of snapshots at all.
async fn snapshot_classes(context: &Context) -> Result<Vec<SnapshotClass>> {
    let kind = ApiResource {
        group: "snapshot.storage.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "snapshot.storage.k8s.io/v1".to_owned(),
        kind: "VolumeSnapshotClass".to_owned(),
        plural: "volumesnapshotclasses".to_owned(),
    };
    let classes: Api<DynamicObject> = Api::all_with(context.client.clone(), &kind);
    let list = classes.list(&ListParams::default()).await;
    let list = unless(list, NOT_FOUND).trying("list", "volume snapshot classes")?;
    let classes = list.map(|list| list.items).unwrap_or_default();
    Ok(classes.iter().map(SnapshotClass::of).collect())
}

async fn apply(context: &Context, action: Action) -> Result<()> {
    let profiles = STORAGE_PROFILE.api(&context.client);
    match action {
        Action::Create(profile) => {
            let about = STORAGE_PROFILE.about(&profile);
            let outcome = profiles.create(&PostParams::default(), &profile).await;
            // What is there will be seen in a moment.
            unless(outcome, CONFLICT).trying("create", &about).map(drop)
        }
        Action::Describe { of, change } => {
            let (name, about) = (of.name_any(), STORAGE_PROFILE.about(&of));
            let patch = Patch::Merge(change);
            profiles
                .patch(&name, &PatchParams::default(), &patch)
                .await
                .trying("describe", &about)
                .map(drop)
        }
        Action::WriteStatus { of, status } => {
            let (name, about) = (of.name_any(), STORAGE_PROFILE.about(&of));
            let whole = json!({
                "metadata": {"uid": of.metadata.uid, "resourceVersion": of.metadata.resource_version},
                "status": status,
            });
            profiles
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(whole))
                .await
                .trying("write the status of", &about)
                .map(drop)
        }
        Action::Delete(profile) => {
            let about = STORAGE_PROFILE.about(&profile);
            let params = write::only(profile.metadata.uid.clone());
            let outcome = profiles.delete(&profile.name_any(), &params).await;
            unless(outcome, NOT_FOUND)
                .trying("delete", &about)
                .map(drop)
        }
    }
}
