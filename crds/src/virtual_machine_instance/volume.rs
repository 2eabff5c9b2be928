//! Volumes: what the disks of a guest hold.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Quantity, meta::LocalObjectReference};

/// Content of a disk; exactly one source is set in a valid object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name of the volume and of its disk.
    #[serde(default)]
    pub name: String,
    /// The claim of a data volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_volume: Option<DataVolumeVolume>,
    /// A claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimVolume>,
    /// Configuration for cloud-init, `NoCloud` form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_init_no_cloud: Option<CloudInitVolume>,
    /// Configuration for cloud-init, config drive form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_init_config_drive: Option<CloudInitVolume>,
    /// An empty disk that lives as long as the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_disk: Option<EmptyDiskVolume>,
    /// A file of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_disk: Option<HostDiskVolume>,
    /// A disk inside a container image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_disk: Option<ContainerDiskVolume>,
    /// Changes to a claim that are thrown away in the end; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Value>,
    /// Files from a `ConfigMap`; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<Value>,
    /// Files from a `Secret`; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Value>,
    /// Files with fields of the instance; opaque.
    #[serde(rename = "downwardAPI", skip_serializing_if = "Option::is_none")]
    pub downward_api: Option<Value>,
    /// The token of a service account; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<Value>,
    /// Answers for the Windows installer; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysprep: Option<Value>,
    /// Metrics of the host; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downward_metrics: Option<Value>,
    /// A claim that takes memory dumps; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_dump: Option<Value>,
}

impl Volume {
    /// Names of the sources that are set.
    pub fn kinds(&self) -> Vec<&'static str> {
        let set = [
            ("dataVolume", self.data_volume.is_some()),
            (
                "persistentVolumeClaim",
                self.persistent_volume_claim.is_some(),
            ),
            ("cloudInitNoCloud", self.cloud_init_no_cloud.is_some()),
            (
                "cloudInitConfigDrive",
                self.cloud_init_config_drive.is_some(),
            ),
            ("emptyDisk", self.empty_disk.is_some()),
            ("hostDisk", self.host_disk.is_some()),
            ("containerDisk", self.container_disk.is_some()),
            ("ephemeral", self.ephemeral.is_some()),
            ("configMap", self.config_map.is_some()),
            ("secret", self.secret.is_some()),
            ("downwardAPI", self.downward_api.is_some()),
            ("serviceAccount", self.service_account.is_some()),
            ("sysprep", self.sysprep.is_some()),
            ("downwardMetrics", self.downward_metrics.is_some()),
            ("memoryDump", self.memory_dump.is_some()),
        ];
        set.into_iter()
            .filter_map(|(name, is_set)| is_set.then_some(name))
            .collect()
    }
}

/// The claim of a data volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeVolume {
    /// Name of the data volume.
    #[serde(default)]
    pub name: String,
    /// Whether it may be taken out of a running machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotpluggable: Option<bool>,
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimVolume {
    /// Name of the claim.
    #[serde(default)]
    pub claim_name: String,
    /// Whether it is mounted for reading only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Whether it may be taken out of a running machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotpluggable: Option<bool>,
}

/// Configuration for cloud-init.
///
/// User data is given in one of three ways, network data likewise. Passwords and keys are
/// commonly in here, so `Debug` shows no content.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudInitVolume {
    /// User data, in plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// User data, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data_base64: Option<String>,
    /// Secret whose `userdata` (or `userData`) is the user data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
    /// Network data, in plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_data: Option<String>,
    /// Network data, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_data_base64: Option<String>,
    /// Secret whose `networkdata` (or `networkData`) is the network data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_data_secret_ref: Option<LocalObjectReference>,
}

impl fmt::Debug for CloudInitVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |text: &Option<String>| text.as_ref().map(String::len);
        f.debug_struct("CloudInitVolume")
            .field("user_data_len", &length(&self.user_data))
            .field("user_data_base64_len", &length(&self.user_data_base64))
            .field("secret_ref", &self.secret_ref)
            .field("network_data_len", &length(&self.network_data))
            .field(
                "network_data_base64_len",
                &length(&self.network_data_base64),
            )
            .field("network_data_secret_ref", &self.network_data_secret_ref)
            .finish()
    }
}

/// An empty disk that lives as long as the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDiskVolume {
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Quantity>,
}

/// A file of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostDiskVolume {
    /// Path of the file.
    #[serde(default)]
    pub path: String,
    /// Whether the file has to exist.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub disk_type: Option<HostDiskType>,
    /// Size of a file to be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Quantity>,
    /// Whether several machines use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
}

/// Whether the file of a host disk has to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostDiskType {
    /// It has to.
    Disk,
    /// It is made if missing.
    DiskOrCreate,
}

/// A disk inside a container image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDiskVolume {
    /// The container image.
    #[serde(default)]
    pub image: String,
    /// Secret with credentials for the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secret: Option<String>,
    /// Path of the disk inside the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// When the image is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
}
