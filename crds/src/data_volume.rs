//! `cdi.kubevirt.io/v1beta1` `DataVolume`: a volume and where its content comes from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ObjectMeta, Quantity,
    meta::{EmptyObject, ResourceRequirements},
};

/// A volume to be made and filled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataVolume {
    /// `cdi.kubevirt.io/v1beta1`.
    pub api_version: String,
    /// `DataVolume`.
    pub kind: String,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Source and size.
    pub spec: DataVolumeSpec,
    /// What a cluster made of it; carried, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

impl DataVolume {
    /// The API group and version served.
    pub const API_VERSION: &'static str = "cdi.kubevirt.io/v1beta1";
    /// The kind.
    pub const KIND: &'static str = "DataVolume";
}

/// Source, size and treatment of a [`DataVolume`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSpec {
    /// Where the content comes from. Excludes `sourceRef`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<DataVolumeSource>,
    /// An object that knows where the content comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<DataVolumeSourceRef>,
    /// The claim to make, word for word. Excludes `storage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pvc: Option<ClaimSpec>,
    /// The claim to make, gaps filled in from what is known about the storage class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<ClaimSpec>,
    /// Priority of the pods that do the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Service account of the pods that do the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Whether the content is a disk image or an archive of files; a disk image if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ContentType>,
    /// Stages of a warm import.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<Checkpoint>,
    /// Whether the last listed stage is the end of a warm import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_checkpoint: Option<bool>,
    /// Whether all blocks of the target are allocated up front.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preallocation: Option<bool>,
}

impl DataVolumeSpec {
    /// The storage asked for, from `storage` or `pvc`.
    pub fn requested_storage(&self) -> Option<&Quantity> {
        let claim = self.storage.as_ref().or(self.pvc.as_ref())?;
        claim.resources.as_ref()?.requests.get("storage")
    }
}

/// What the bytes of the source are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContentType {
    /// An image of a disk.
    #[default]
    Kubevirt,
    /// A tar archive of files.
    Archive,
}

/// One stage of a warm import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The snapshot before; empty for the first stage.
    #[serde(default)]
    pub previous: String,
    /// The snapshot to copy.
    #[serde(default)]
    pub current: String,
}

/// A reference to a `DataSource`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSourceRef {
    /// `DataSource`.
    #[serde(default)]
    pub kind: String,
    /// Its namespace; that of the volume if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// Where content comes from; exactly one field is set in a valid object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataVolumeSource {
    /// An image behind a web address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// An object in S3 or what speaks its protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<ObjectStoreSource>,
    /// An object in Google Cloud Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcs: Option<ObjectStoreSource>,
    /// A disk inside a container image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySource>,
    /// A disk of oVirt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imageio: Option<ImageioSource>,
    /// A disk of VMware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vddk: Option<VddkSource>,
    /// Another claim, to be cloned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pvc: Option<ObjectSource>,
    /// A volume snapshot, to be cloned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<ObjectSource>,
    /// A client that sends the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<EmptyObject>,
    /// Nothing: an empty disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blank: Option<EmptyObject>,
}

impl DataVolumeSource {
    /// Names of the fields that are set.
    pub fn kinds(&self) -> Vec<&'static str> {
        let set = [
            ("http", self.http.is_some()),
            ("s3", self.s3.is_some()),
            ("gcs", self.gcs.is_some()),
            ("registry", self.registry.is_some()),
            ("imageio", self.imageio.is_some()),
            ("vddk", self.vddk.is_some()),
            ("pvc", self.pvc.is_some()),
            ("snapshot", self.snapshot.is_some()),
            ("upload", self.upload.is_some()),
            ("blank", self.blank.is_some()),
        ];
        set.into_iter()
            .filter_map(|(name, is_set)| is_set.then_some(name))
            .collect()
    }
}

/// An image behind a web address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpSource {
    /// Address of the image, `http` or `https`.
    #[serde(default)]
    pub url: String,
    /// Secret with `accessKeyId` and `secretKey` for basic authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<String>,
    /// `ConfigMap` with certificates to trust in addition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_config_map: Option<String>,
    /// Headers to send, each `Name: value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_headers: Vec<String>,
    /// Secrets whose every value is a header to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_extra_headers: Vec<String>,
    /// Digest of the bytes as they are served, `sha256:hex` or another algorithm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Whether the server's certificate goes unchecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// An object in a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStoreSource {
    /// Address of the object.
    #[serde(default)]
    pub url: String,
    /// Secret with credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<String>,
    /// `ConfigMap` with certificates to trust in addition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_config_map: Option<String>,
}

/// A disk inside a container image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrySource {
    /// `docker://` or `oci-archive:` address. Excludes `imageStream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Image stream of `OpenShift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_stream: Option<String>,
    /// Whether the pod or the node fetches the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_method: Option<String>,
    /// Secret with credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<String>,
    /// `ConfigMap` with certificates to trust in addition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_config_map: Option<String>,
    /// Which variant of the image to take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// A variant of a container image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// Architecture, in Go's spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
}

/// A disk of oVirt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageioSource {
    /// Address of the engine.
    #[serde(default)]
    pub url: String,
    /// Identity of the disk.
    #[serde(default)]
    pub disk_id: String,
    /// Secret with credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<String>,
    /// `ConfigMap` with certificates to trust in addition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_config_map: Option<String>,
    /// Whether the server's certificate goes unchecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// A disk of VMware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VddkSource {
    /// Address of vCenter or `ESXi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Identity of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Path of the disk in its datastore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_file: Option<String>,
    /// Thumbprint of the server's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumbprint: Option<String>,
    /// Secret with credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<String>,
    /// `ConfigMap` with certificates to trust in addition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_config_map: Option<String>,
    /// Container image with the VDDK library.
    #[serde(rename = "initImageURL", skip_serializing_if = "Option::is_none")]
    pub init_image_url: Option<String>,
    /// `ConfigMap` with arguments for the VDDK plug-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_args: Option<String>,
}

/// A claim or a snapshot to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectSource {
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// The claim to make for a volume; `pvc` and `storage` have the same fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpec {
    /// How many nodes may mount it, and how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// `Filesystem`, `Block` or, for `storage`, `FromStorageProfile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// `requests.storage` is the size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Storage class; the cluster's default if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// A particular persistent volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// Class of attributes, for `pvc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_attributes_class_name: Option<String>,
    /// Labels of the persistent volumes to choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Object to fill the claim from; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_source: Option<Value>,
    /// Newer form of `dataSource`; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_source_ref: Option<Value>,
}

/// A choice by labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must be there with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions; opaque.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Value>,
}
