//! Installations of somebody else: beside one we do nothing, and say so.
//!
//! One is there when upstream's operator is deployed in any namespace (with at least one replica), or when
//! somebody who is not one of ours holds the lease. Two controllers at work on the same claims would undo
//! what the other does, and their pods would write to the same disks.

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Client, ResourceExt as _};
use longshore_crds::Condition;
use longshore_crds::names::object;

use super::plan::passive;
use crate::custom::{self, CDI};
use crate::error::{Result, Trying as _};

/// Why we do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Upstream's operator is deployed.
    Operator {
        /// Where.
        namespace: String,
    },
    /// Somebody else has the lease.
    Lease {
        /// Who.
        holder: String,
    },
}

impl Foreign {
    pub(super) fn condition(&self) -> Condition {
        let (reason, message) = match self {
            Self::Operator { namespace } => (
                "ForeignOperator",
                format!(
                    "Longshore does nothing: the deployment {namespace}/{} looks after this cluster; delete it, or scale it to 0, to have Longshore take over",
                    object::OPERATOR
                ),
            ),
            Self::Lease { holder } => (
                "ForeignLease",
                format!(
                    "Longshore does nothing: {holder} holds the lease {}; once that ends, Longshore takes over",
                    object::LEASE
                ),
            ),
        };
        Condition::new("LongshorePassive", true, reason, message)
    }
}

/// The name alone: the right to see deployments is for this name only.
fn selector() -> String {
    format!("metadata.name={}", object::OPERATOR)
}

fn of(deployment: &Deployment) -> Option<Foreign> {
    (deployment.spec.replicas != Some(0)).then(|| Foreign::Operator {
        namespace: deployment.namespace().unwrap_or_default(),
    })
}

/// Upstream's operator, if there is one.
pub(crate) async fn operator(client: &Client) -> Result<Option<Foreign>> {
    let deployments: Api<Deployment> = Api::all(client.clone());
    let named = ListParams::default().fields(&selector());
    let list = deployments.list(&named);
    let list = list
        .await
        .trying("look for", "the deployment cdi-operator")?;
    Ok(list.items.iter().find_map(of))
}

/// Returns when upstream's operator is deployed.
pub(crate) async fn appears(client: &Client) -> Foreign {
    let deployments: Api<Deployment> = Api::all(client.clone());
    let config = watcher::Config::default().fields(&selector());
    let mut events = std::pin::pin!(watch_objects(deployments, config).default_backoff());
    loop {
        match events.next().await {
            Some(Ok(Event::Apply(deployment) | Event::InitApply(deployment))) => {
                if let Some(foreign) = of(&deployment) {
                    return foreign;
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "deployments of others could not be watched, which is tried again"
            ),
            None => std::future::pending().await,
        }
    }
}

/// Says so on each installation there is.
pub(crate) async fn announce(client: &Client, why: &Foreign) -> Result<()> {
    let api = CDI.api(client);
    let list = api.list(&ListParams::default()).await;
    for cdi in list.trying("list", "installations")?.items {
        if let Some(change) = passive(&cdi, why, &custom::now()) {
            let about = CDI.about(&cdi);
            api.patch(
                &cdi.name_any(),
                &PatchParams::default(),
                &Patch::Merge(change),
            )
            .await
            .trying("write on", &about)?;
        }
    }
    Ok(())
}
