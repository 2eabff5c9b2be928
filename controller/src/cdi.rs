//! The controller of installations: there is always one, and it tells that it works.
//!
//! ```text
//! none -----------------------> create `cdi`
//! one, whatever its name -----> phase Deployed, versions, conditions; its settings become the CDIConfig's
//! several --------------------> the oldest is in force, the others are in phase Error
//! somebody deletes it --------> it goes (and `cdi` comes, with usual settings); with the strategy
//!                               BlockUninstallIfWorkloadsExist only once there are no data volumes
//! ```
//!
//! Owns the status, one finalizer (only where that strategy needs it) and one annotation. Nothing that
//! holds data hangs on an installation: no owner reference leads to it, so its deletion takes nothing with
//! it but itself. What others' installations are to us is [`foreign`]'s business.

pub(crate) mod foreign;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams, PostParams};

use self::plan::{Action, Observed, plan};
use crate::context::Context;
use crate::custom::{CDI, DATA_VOLUME};
use crate::error::{CONFLICT, Result, Trying as _, unless};
use crate::{event, passes};

const COMPONENT: &str = "cdi-operator";

/// How soon to look again whether the data volumes are gone that a deletion waits for.
const VOLUMES_PAUSE: Duration = Duration::from_secs(5);

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    passes::make(&context.known, "installation", async || {
        pass(&context).await
    })
    .await;
}

/// Looks at all of it once.
pub(crate) async fn pass(context: &Context) -> Result<Option<Duration>> {
    let installations = context.known.installations();
    let mut observed = Observed {
        installations,
        configuration: context.known.configuration(),
        volumes: 0,
        version: version(),
    };
    let waits = observed.waits_for_volumes();
    if waits {
        observed.volumes = volumes(context).await?;
    }
    for action in plan(&observed, &context.now().to_string()) {
        apply(context, action).await?;
    }
    Ok((waits && observed.volumes > 0).then_some(VOLUMES_PAUSE))
}

/// The version that clients see.
fn version() -> String {
    format!("v{}", env!("CARGO_PKG_VERSION"))
}

/// How many data volumes there are that people made.
async fn volumes(context: &Context) -> Result<usize> {
    let volumes = DATA_VOLUME.api(&context.client);
    let ours = ListParams::default().labels("!cdi.kubevirt.io/dataImportCron");
    let list = volumes.list_metadata(&ours).await;
    Ok(list.trying("list", "data volumes")?.items.len())
}

async fn apply(context: &Context, action: Action) -> Result<()> {
    let api = CDI.api(&context.client);
    match action {
        Action::Create(object) => {
            let outcome = api.create(&PostParams::default(), &object).await;
            unless(outcome, CONFLICT)
                .trying("create", &CDI.about(&object))
                .map(drop)
        }
        Action::Change { of, change } => api
            .patch(
                &of.name_any(),
                &PatchParams::default(),
                &Patch::Merge(change),
            )
            .await
            .trying("write", &CDI.about(&of))
            .map(drop),
        Action::Tell { of, note } => {
            let about = CDI.reference(&of.metadata);
            event::tell(context, COMPONENT, &about, &note).await;
            Ok(())
        }
    }
}
