//! The authorities that vouch for a proxy, brought to where an importer can mount them.
//!
//! `trustedCAProxy` names a `ConfigMap` in the installation's namespace, and a pod mounts only what is in
//! its own: so each pod that imports through such a proxy gets a copy, which goes with the pod.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, PostParams};
use longshore_crds::names::object;

use crate::claim::Claim as _;
use crate::context::Context;
use crate::error::{CONFLICT, NOT_FOUND, Result, Trying as _, unless};
use crate::installation;

/// They, if the settings in force name any.
pub(super) async fn found(context: &Context) -> Result<Option<ConfigMap>> {
    let installation = context.installation();
    let Some(name) = installation.proxy_authorities() else {
        return Ok(None);
    };
    let home = &context.settings.namespace;
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), home);
    let about = format!("ConfigMap {home}/{name} with the authorities of the proxy");
    let found = maps.get(name).await.trying("read", &about)?;
    Ok(Some(found))
}

/// Copies them to where the pod of this name and uid, which works for `claim` and does not run yet, mounts them.
pub(super) async fn bring(
    context: &Context,
    claim: &PersistentVolumeClaim,
    (pod, uid): (&str, &str),
    authorities: ConfigMap,
) -> Result<()> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let name = object::proxy_authorities(claim.named());
    let about = format!("ConfigMap {namespace}/{name}");
    let cdi = context.known.installation();
    let copy = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(installation::labels(cdi.as_deref())),
            owner_references: Some(vec![owner(pod, uid)]),
            ..ObjectMeta::default()
        },
        data: authorities.data,
        ..ConfigMap::default()
    };
    let params = PostParams::default();
    let outcome = maps.create(&params, &copy).await;
    if unless(outcome, CONFLICT)
        .trying("create", &about)?
        .is_some()
    {
        return Ok(());
    }
    // One of a pod before this one: it goes with that, and may be of other authorities. To look at it would
    // take the right to read everybody's.
    let outcome = maps.delete(&name, &DeleteParams::default()).await;
    unless(outcome, NOT_FOUND).trying("delete", &about)?;
    let outcome = maps.create(&params, &copy).await;
    outcome.trying("create", &about).map(drop)
}

/// Nothing waits for the copy's end, which would take the right to write finalizers of pods.
fn owner(pod: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}
