//! The controller of the configuration: one `CDIConfig`, named `config`.
//!
//! ```text
//! CDI spec.config --(unless the CDI is no authority)--> spec --+
//! storage classes, ingresses ----------------------------------+--> status: what is in force
//! ```
//!
//! Owns the status, and the spec where the `CDI` is the authority.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};

use self::plan::{Action, Observed, plan};
use crate::context::Context;
use crate::custom::CDI_CONFIG;
use crate::error::{CONFLICT, Result, Trying as _, unless};
use crate::passes;

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    passes::make(&context.known, "configuration", async || {
        pass(&context).await
    })
    .await;
}

/// Looks at it once.
pub(crate) async fn pass(context: &Context) -> Result<Option<Duration>> {
    let namespace = &context.settings.namespace;
    let ingresses: Api<Ingress> = Api::namespaced(context.client.clone(), namespace);
    let ingresses = ingresses.list(&ListParams::default()).await;
    let observed = Observed {
        installation: context.known.installation(),
        configuration: context.known.configuration(),
        classes: context.known.classes(),
        ingresses: ingresses.trying("list", "ingresses")?.items,
    };
    let Some(action) = plan(&observed) else {
        return Ok(None);
    };
    let api = CDI_CONFIG.api(&context.client);
    match action {
        Action::Create(object) => {
            let about = CDI_CONFIG.about(&object);
            let outcome = api.create(&PostParams::default(), &object).await;
            unless(outcome, CONFLICT)
                .trying("create", &about)
                .map(|_| None)
        }
        Action::Change { of, change } => api
            .patch(
                &of.name_any(),
                &PatchParams::default(),
                &Patch::Merge(change),
            )
            .await
            .trying("write", &CDI_CONFIG.about(&of))
            .map(|_| None),
    }
}
