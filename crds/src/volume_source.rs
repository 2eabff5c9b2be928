//! `cdi.kubevirt.io/v1beta1` `VolumeImportSource`, `VolumeUploadSource` and `VolumeCloneSource`: what a
//! claim's `dataSourceRef` names so that it comes filled.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ObjectMeta;
use crate::data_volume::{
    Checkpoint, DataVolumeSource, HttpSource, ImageioSource, ObjectStoreSource, RegistrySource,
    VddkSource,
};
use crate::meta::EmptyObject;

/// Content that claims are filled with by importing it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeImportSource {
    /// `cdi.kubevirt.io/v1beta1`.
    pub api_version: String,
    /// `VolumeImportSource`.
    pub kind: String,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The content.
    #[serde(default)]
    pub spec: VolumeImportSourceSpec,
    /// Always empty; carried, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// The content of a [`VolumeImportSource`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeImportSourceSpec {
    /// Where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ImportSource>,
    /// Whether all blocks of the volume are allocated up front.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preallocation: Option<bool>,
    /// `kubevirt` or `archive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The only claim that it is for; any if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_claim: Option<String>,
    /// Stages of a warm import.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<Checkpoint>,
    /// Whether the last listed stage is the end of a warm import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_checkpoint: Option<bool>,
}

/// Where content is imported from: the sources of a `DataVolume` that an importer reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportSource {
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
    /// Nothing: an empty disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blank: Option<EmptyObject>,
}

impl From<ImportSource> for DataVolumeSource {
    fn from(source: ImportSource) -> Self {
        let ImportSource {
            http,
            s3,
            gcs,
            registry,
            imageio,
            vddk,
            blank,
        } = source;
        Self {
            http,
            s3,
            gcs,
            registry,
            imageio,
            vddk,
            blank,
            ..Self::default()
        }
    }
}

/// What an importer reads of a volume's sources; nothing is left of the others.
impl From<DataVolumeSource> for ImportSource {
    fn from(source: DataVolumeSource) -> Self {
        Self {
            http: source.http,
            s3: source.s3,
            gcs: source.gcs,
            registry: source.registry,
            imageio: source.imageio,
            vddk: source.vddk,
            blank: source.blank,
        }
    }
}

/// A claim that a client's upload fills.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeUploadSource {
    /// `cdi.kubevirt.io/v1beta1`.
    pub api_version: String,
    /// `VolumeUploadSource`.
    pub kind: String,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What will come.
    #[serde(default)]
    pub spec: VolumeUploadSourceSpec,
    /// Always empty; carried, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// What a [`VolumeUploadSource`] waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeUploadSourceSpec {
    /// `kubevirt` or `archive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Whether all blocks of the volume are allocated up front.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preallocation: Option<bool>,
}

/// A claim or a snapshot that others are made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeCloneSource {
    /// `cdi.kubevirt.io/v1beta1`.
    pub api_version: String,
    /// `VolumeCloneSource`.
    pub kind: String,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is copied.
    #[serde(default)]
    pub spec: VolumeCloneSourceSpec,
    /// Always empty; carried, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// What a [`VolumeCloneSource`] copies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeCloneSourceSpec {
    /// The object.
    #[serde(default)]
    pub source: TypedObject,
    /// Whether all blocks of the volume are allocated up front.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preallocation: Option<bool>,
    /// Priority of the pods that do the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// An object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypedObject {
    /// Its group; none for those of the core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// Its kind.
    #[serde(default)]
    pub kind: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}
