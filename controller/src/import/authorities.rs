//! The authorities that vouch for a proxy, brought to where an importer can mount them.
//!
//! `trustedCAProxy` names a `ConfigMap` in the installation's namespace, and a pod mounts only what is in
//! its own: so each claim that is imported through such a proxy gets a copy, which goes with the claim.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use longshore_crds::names::object;

use crate::claim::{Claim as _, owner};
use crate::context::Context;
use crate::error::{CONFLICT, Result, Trying as _, unless};
use crate::installation;

/// Makes the copy for `claim`, if the settings in force ask for one, and gives its name.
pub(super) async fn brought(
    context: &Context,
    claim: &PersistentVolumeClaim,
) -> Result<Option<String>> {
    let installation = context.installation();
    let Some(source) = installation.proxy_authorities() else {
        return Ok(None);
    };
    let home = &context.settings.namespace;
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), home);
    let about = format!("ConfigMap {home}/{source} with the authorities of the proxy");
    let original = maps.get(source).await.trying("read", &about)?;
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let name = object::proxy_authorities(claim.uid());
    let about = format!("ConfigMap {namespace}/{name}");
    let cdi = context.known.installation();
    let copy = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(installation::labels(cdi.as_deref())),
            owner_references: Some(vec![owner(claim)]),
            ..ObjectMeta::default()
        },
        data: original.data,
        ..ConfigMap::default()
    };
    let outcome = maps.create(&PostParams::default(), &copy).await;
    // One may be there from an attempt before. To compare them would take the right to read everybody's.
    unless(outcome, CONFLICT).trying("create", &about)?;
    Ok(Some(name))
}
