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

mod apply;
mod external;
mod observe;
pub(crate) mod plan;
pub(crate) mod render;
mod statics;
mod status;
#[cfg(test)]
mod tests;
pub(crate) mod validate;
pub(crate) mod volume;

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, DynamicObject};
use kube::runtime::controller::{Action as Next, Controller};
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher;

use self::apply::{apply, write_status};
use self::observe::observe;
use self::plan::{Plan, plan};
pub(crate) use self::status::progress;
use self::volume::Volume;
use crate::context::Context;
use crate::custom::DATA_VOLUME;
use crate::error::Result;
use crate::follow::touched;
use crate::metrics;
use crate::rounds::{after, again, bounded, drive};
use crate::written;

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>, shown: Writer<PersistentVolumeClaim>) {
    let client = context.client.clone();
    let volumes = DATA_VOLUME.api(&client);
    let claims = touched(Api::all(client), watcher::Config::default(), shown, ());
    let kind = DATA_VOLUME.resource();
    let kept = Writer::new(kind.clone());
    let known = kept.as_reader();
    let listed = context.health.await_list("data volumes", known.clone());
    metrics::counts(&known);
    let volumes = touched(volumes, watcher::Config::default(), kept, kind.clone());
    let controller = Controller::for_stream_with(volumes, known, kind);
    let rounds = controller
        .with_config(bounded())
        .owns_stream(claims)
        // What a volume waits for may be a class, or what is said of one.
        .reconcile_all_on(context.known.each_change())
        .run(
            |object, context| metrics::timed("datavolume", reconcile(object, context)),
            again,
            context,
        );
    futures::join!(drive("volume", rounds), listed);
}

/// One round for one volume.
pub(crate) async fn reconcile(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Next> {
    if context.written.is_older(&object.metadata) {
        return Ok(Next::requeue(written::PAUSE));
    }
    let now = context.now();
    let observed = observe(&context, Volume::of((*object).clone()), now).await?;
    let Some(observed) = observed else {
        return Ok(Next::requeue(written::PAUSE));
    };
    let Plan {
        actions,
        status,
        again,
    } = plan(&observed, &now.to_string());
    for action in &actions {
        apply(&context, &observed, action, &now.to_string()).await?;
    }
    if let Some(status) = status {
        write_status(&context, &observed.volume, &status).await?;
        let (uid, before) = (observed.volume.uid(), &observed.volume.status.phase);
        metrics::enters(uid, before.as_deref(), status.phase.as_deref());
    }
    Ok(after(again))
}

fn about(volume: &Volume) -> String {
    let namespace = volume.meta.namespace.as_deref().unwrap_or_default();
    format!("DataVolume {namespace}/{}", volume.name())
}
