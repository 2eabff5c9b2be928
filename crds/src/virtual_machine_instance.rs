//! `kubevirt.io/v1` `VirtualMachineInstance`: one run of a machine, its hardware and its volumes.

pub mod devices;
pub mod domain;
pub mod network;
pub mod volume;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ObjectMeta;

pub use devices::{Devices, Disk, DiskBus};
pub use domain::Domain;
pub use network::{Interface, Network};
pub use volume::Volume;

/// One run of a virtual machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstance {
    /// `kubevirt.io/v1`.
    pub api_version: String,
    /// `VirtualMachineInstance`.
    pub kind: String,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Hardware, disks and networks.
    pub spec: VirtualMachineInstanceSpec,
    /// What a cluster made of it; carried, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

impl VirtualMachineInstance {
    /// The API group and version served.
    pub const API_VERSION: &'static str = "kubevirt.io/v1";
    /// The kind.
    pub const KIND: &'static str = "VirtualMachineInstance";
}

/// Hardware, disks and networks of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceSpec {
    /// Hardware.
    #[serde(default)]
    pub domain: Domain,
    /// Contents of the disks, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// What the interfaces connect to, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Host name of the guest; the name of the machine if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Seconds between asking the guest to power off and cutting its power; 30 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<u64>,
    /// Whether the machine starts with its processors stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_strategy: Option<StartStrategy>,
    /// Architecture of the guest, in Go's spelling; that of the host if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
}

/// How a machine starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartStrategy {
    /// Powered on with its processors stopped.
    Paused,
}
