//! `cdi.kubevirt.io/v1beta1` `CDI`: an installation and its settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ObjectMeta, cdi_config::CdiConfigSpec, condition::Condition};

/// The object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cdi {
    /// `cdi.kubevirt.io/v1beta1`.
    pub api_version: String,
    /// `CDI`.
    pub kind: String,
    /// Name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: CdiSpec,
    /// How far the installation is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CdiStatus>,
}

/// What is wanted of an installation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiSpec {
    /// `Always`, `IfNotPresent` or `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// `RemoveWorkloads` or `BlockUninstallIfWorkloadsExist`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uninstall_strategy: Option<String>,
    /// Where the installation's own pods run, and how many of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infra: Option<Infra>,
    /// Where pods run that work on volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<NodePlacement>,
    /// Changes to the installation's own objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customize_components: Option<CustomizeComponents>,
    /// `copy`, `snapshot` or `csi-clone`, whatever a profile says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clone_strategy_override: Option<String>,
    /// The settings, as in a `CDIConfig`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<CdiConfigSpec>,
    /// How long certificates are good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_config: Option<CertConfig>,
    /// Priority class of the installation's own pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
}

/// Which nodes pods may run on, in the terms of a pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePlacement {
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Nodes and pods to be near to or far from; handed on as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Value>,
    /// Taints that are put up with; handed on as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Value>,
}

/// Where the installation's own pods run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Infra {
    /// Which nodes.
    #[serde(flatten)]
    pub placement: NodePlacement,
    /// How many controllers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_replicas: Option<i32>,
    /// How many API servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server_replicas: Option<i32>,
    /// How many upload proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_proxy_replicas: Option<i32>,
}

/// Changes to the installation's own objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomizeComponents {
    /// Patches to apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<ComponentPatch>,
    /// Command line flags to add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<ComponentFlags>,
}

/// A patch of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentPatch {
    /// Its name.
    #[serde(default)]
    pub resource_name: String,
    /// Its kind.
    #[serde(default)]
    pub resource_type: String,
    /// The patch.
    #[serde(default)]
    pub patch: String,
    /// `json`, `merge` or `strategic`.
    #[serde(rename = "type", default)]
    pub patch_type: String,
}

/// Flags by component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentFlags {
    /// Of the API server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub api: BTreeMap<String, String>,
    /// Of the controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub controller: BTreeMap<String, String>,
    /// Of the upload proxy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upload_proxy: BTreeMap<String, String>,
}

/// How long certificates are good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertConfig {
    /// Of authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<CertTimes>,
    /// Of servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<CertTimes>,
    /// Of clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<CertTimes>,
}

/// How long one is good, in Go's spelling of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertTimes {
    /// From its first moment to its last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// How long before that it is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<String>,
}

/// How far an installation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiStatus {
    /// `Deploying`, `Deployed`, `Deleting`, `Deleted`, `Error` or `Upgrading`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// `Available`, `Progressing` and `Degraded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Version of the program that looks after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,
    /// Version that it is to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,
    /// Version that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_version: Option<String>,
}
