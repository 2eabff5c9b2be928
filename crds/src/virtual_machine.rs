//! `kubevirt.io/v1` `VirtualMachine`: a machine that may be stopped, and the disks made for it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{DataVolumeSpec, ObjectMeta, virtual_machine_instance::VirtualMachineInstanceSpec};

/// A virtual machine and how it should run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachine {
    /// `kubevirt.io/v1`.
    pub api_version: String,
    /// `VirtualMachine`.
    pub kind: String,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: VirtualMachineSpec,
    /// What a cluster made of it; carried, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// What is wanted of a [`VirtualMachine`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineSpec {
    /// Old form of `runStrategy`: `true` is `Always`, `false` is `Halted`. Excludes the new form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// When there should be a running instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_strategy: Option<RunStrategy>,
    /// The instance to run.
    pub template: InstanceTemplate,
    /// Volumes to be filled before the machine starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_volume_templates: Vec<DataVolumeTemplate>,
    /// Reference to a size that lives in the cluster; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instancetype: Option<Value>,
    /// Reference to defaults that live in the cluster; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preference: Option<Value>,
}

/// When a cluster keeps an instance of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunStrategy {
    /// An instance always exists; one that ended is made again.
    Always,
    /// Made again only after a failure.
    RerunOnFailure,
    /// Started and stopped on request.
    Manual,
    /// No instance.
    Halted,
    /// Started once; however it ends, that was it.
    Once,
    /// Waits for an instance that migrates from another cluster.
    WaitAsReceiver,
}

/// The instance a machine runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceTemplate {
    /// Labels and annotations of the instance.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Hardware, disks and networks.
    #[serde(default)]
    pub spec: VirtualMachineInstanceSpec,
}

/// A `DataVolume` made along with the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeTemplate {
    /// `cdi.kubevirt.io/v1beta1`, where written at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// `DataVolume`, where written at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The name is required: volumes refer to it.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Source and size.
    pub spec: DataVolumeSpec,
    /// What a cluster made of it; carried, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

impl VirtualMachine {
    /// The API group and version served.
    pub const API_VERSION: &'static str = "kubevirt.io/v1";
    /// The kind.
    pub const KIND: &'static str = "VirtualMachine";

    /// Name of the machine, empty where the manifest has none.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Namespace of the machine, `default` where the manifest has none.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }
}
