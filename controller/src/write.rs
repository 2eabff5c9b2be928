//! Writes that several controllers make. Each carries what it was decided on: an older decision changes nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use crate::claim::{Changes, Claim as _};
use crate::context::Context;

/// Changes of a claim.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Marks {
    pub(crate) annotations: Changes,
    /// Added, never taken away.
    pub(crate) labels: BTreeMap<String, String>,
}

impl From<Changes> for Marks {
    fn from(annotations: Changes) -> Self {
        Self {
            annotations,
            ..Self::default()
        }
    }
}

/// How they are asked for of an object that is still as it was seen.
pub(crate) fn marking(seen: &ObjectMeta, marks: &Marks) -> Patch<Value> {
    Patch::Merge(json!({"metadata": {
        "uid": seen.uid,
        "resourceVersion": seen.resource_version,
        "annotations": marks.annotations,
        "labels": marks.labels,
    }}))
}

/// Makes them, if the claim is still as it was seen.
pub(crate) async fn mark(
    context: &Context,
    claim: &PersistentVolumeClaim,
    marks: &Marks,
) -> Result<(), kube::Error> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let patch = marking(&claim.metadata, marks);
    let params = PatchParams::default();
    let written = claims.patch(claim.named(), &params, &patch).await?;
    context.written.wrote(&written.metadata);
    Ok(())
}

/// To delete the object of this uid and no other of its name.
pub(crate) fn only(uid: Option<String>) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        uid,
        resource_version: None,
    })
}
