//! What a claim asks of its own pod, besides what the installation says of all: where it runs, and what it
//! may use. Upstream has nothing like it, so the annotations are ours.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, PersistentVolumeClaim, ResourceRequirements, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use longshore_crds::names::annotation;
use serde::de::DeserializeOwned;

use super::Workload;
use crate::claim::Claim as _;

/// It.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Own {
    node_selector: BTreeMap<String, String>,
    affinity: Option<Affinity>,
    tolerations: Vec<Toleration>,
    resources: ResourceRequirements,
}

/// An annotation makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the annotation {name} is not what a pod's spec has there: {why}")]
pub(crate) struct Odd {
    name: &'static str,
    why: String,
}

impl Own {
    pub(crate) fn of(claim: &PersistentVolumeClaim) -> Result<Self, Odd> {
        Ok(Self {
            node_selector: read(claim, annotation::POD_NODE_SELECTOR)?.unwrap_or_default(),
            affinity: read(claim, annotation::POD_AFFINITY)?,
            tolerations: read(claim, annotation::POD_TOLERATIONS)?.unwrap_or_default(),
            resources: read(claim, annotation::POD_RESOURCES)?.unwrap_or_default(),
        })
    }

    /// `usual` as this claim wants it: labels and amounts by name, tolerations besides those of all, an
    /// affinity in place of theirs.
    pub(crate) fn over(&self, mut usual: Workload) -> Workload {
        usual.node_selector.extend(self.node_selector.clone());
        usual.tolerations.extend(self.tolerations.iter().cloned());
        if let Some(affinity) = &self.affinity {
            usual.affinity = Some(affinity.clone());
        }
        let amounts = |usual: &mut Option<BTreeMap<String, Quantity>>, own: &Option<_>| {
            if let Some(own) = own {
                usual.get_or_insert_default().extend(BTreeMap::clone(own));
            }
        };
        let all = &mut usual.resources;
        amounts(&mut all.limits, &self.resources.limits);
        amounts(&mut all.requests, &self.resources.requests);
        usual
    }
}

fn read<T: DeserializeOwned>(
    claim: &PersistentVolumeClaim,
    name: &'static str,
) -> Result<Option<T>, Odd> {
    let Some(text) = claim.annotation(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    serde_json::from_str(text).map(Some).map_err(|error| Odd {
        name,
        why: error.to_string(),
    })
}
