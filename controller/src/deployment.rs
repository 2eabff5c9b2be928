//! Our own deployment, as far as the `CDI` object decides about it: where it runs, how many of it, and how
//! important it is. There is no operator that would do it.
//!
//! Owns in it only what the `CDI` says, and takes that back once it says nothing any more. A change rolls
//! out as any other does: a pod that no node takes leaves the old one at work.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use longshore_crds::CdiSpec;
use longshore_crds::names::{annotation, object};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::custom::{part, replacing};
use crate::error::{Result, Trying as _};
use crate::passes;

/// Runs until the process ends.
pub(crate) async fn run(context: Arc<Context>) {
    passes::make(&context.known, "deployment", async || pass(&context).await).await;
}

async fn pass(context: &Context) -> Result<Option<Duration>> {
    let Some(cdi) = context.known.installation() else {
        return Ok(None);
    };
    let namespace = &context.settings.namespace;
    let about = format!("Deployment {namespace}/{}", object::DEPLOYMENT);
    let api: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    let deployment = api.get_opt(object::DEPLOYMENT).await;
    // A controller that somebody started by hand has none.
    let Some(deployment) = deployment.trying("read", &about)? else {
        return Ok(None);
    };
    if let Some(change) = change(&part(&cdi, "spec"), &deployment) {
        api.patch(
            object::DEPLOYMENT,
            &PatchParams::default(),
            &Patch::Merge(change),
        )
        .await
        .trying("write", &about)?;
    }
    Ok(None)
}

/// What the `CDI` decides, and nothing of what it leaves open.
fn decided(spec: &CdiSpec) -> Map<String, Value> {
    let mut all = Map::new();
    let mut set = |name: &str, value: Value| {
        all.insert(name.to_owned(), value);
    };
    if let Some(class) = spec.priority_class.as_deref().filter(|it| !it.is_empty()) {
        set("priorityClassName", json!(class));
    }
    let Some(infra) = &spec.infra else {
        return all;
    };
    if !infra.placement.node_selector.is_empty() {
        set("nodeSelector", json!(infra.placement.node_selector));
    }
    if let Some(affinity) = &infra.placement.affinity {
        set("affinity", affinity.clone());
    }
    if !infra.placement.tolerations.is_empty() {
        set("tolerations", json!(infra.placement.tolerations));
    }
    if let Some(replicas) = infra.deployment_replicas.filter(|count| *count > 0) {
        set(REPLICAS, json!(replicas));
    }
    all
}

/// All others are fields of the pod.
const REPLICAS: &str = "replicas";

/// The merge patch that makes it so; `None` if it was decided so before. What the server makes of it is
/// not compared: it may fill in what was left out.
fn change(spec: &CdiSpec, deployment: &Deployment) -> Option<Value> {
    let wanted = decided(spec);
    let known = deployment.annotations().get(annotation::FROM_CDI);
    let before: Map<String, Value> = known
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    if wanted == before && known.is_some() != wanted.is_empty() {
        return None;
    }
    let mut pod = Map::new();
    let mut whole = Map::new();
    let names = wanted.keys().chain(before.keys());
    for name in names {
        let old = before.get(name).unwrap_or(&Value::Null);
        let new = wanted.get(name).cloned();
        if name == REPLICAS {
            whole.insert(name.clone(), new.unwrap_or_else(|| json!(1)));
        } else {
            pod.insert(name.clone(), replacing(old, new.unwrap_or_default()));
        }
    }
    whole.insert("template".to_owned(), json!({"spec": pod}));
    let mark = (!wanted.is_empty()).then(|| Value::Object(wanted).to_string());
    Some(json!({
        "metadata": {
            "uid": deployment.metadata.uid,
            "annotations": {annotation::FROM_CDI: mark},
        },
        "spec": whole,
    }))
}
