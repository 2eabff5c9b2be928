//! `cdi.kubevirt.io/v1beta1` `CDIConfig`: the settings in force, in one object named `config`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ObjectMeta,
    meta::{EmptyObject, LocalObjectReference, ResourceRequirements},
};

/// The object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiConfig {
    /// `cdi.kubevirt.io/v1beta1`.
    pub api_version: String,
    /// `CDIConfig`.
    pub kind: String,
    /// Name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: CdiConfigSpec,
    /// What is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CdiConfigStatus>,
}

/// What is wanted; `config` of a `CDI` has the same fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiConfigSpec {
    /// Where clients find the upload proxy, if not where an ingress says.
    #[serde(
        rename = "uploadProxyURLOverride",
        skip_serializing_if = "Option::is_none"
    )]
    pub upload_proxy_url_override: Option<String>,
    /// The way of importers to their sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import_proxy: Option<ImportProxy>,
    /// Class of scratch volumes, of which there are none here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch_space_storage_class: Option<String>,
    /// What pods that work on volumes may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_resource_requirements: Option<ResourceRequirements>,
    /// Names of behaviours that are asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feature_gates: Vec<String>,
    /// What of a volume its filesystem takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_overhead: Option<FilesystemOverhead>,
    /// Whether disks are allocated up front unless their volume says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preallocation: Option<bool>,
    /// Registries, as `host` or `host:port`, whose certificates are not checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub insecure_registries: Vec<String>,
    /// Once how long a finished volume was kept; read by nobody any more.
    #[serde(
        rename = "dataVolumeTTLSeconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub data_volume_ttl_seconds: Option<i32>,
    /// What servers ask of TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_security_profile: Option<TlsSecurityProfile>,
    /// Secrets with which nodes fetch the images of pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// How much is logged, as a klog level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_verbosity: Option<i32>,
    /// Whether a webhook completes claims that are labelled for that: `Enabled` or `Disabled`. There is none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_pvc_rendering: Option<String>,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiConfigStatus {
    /// Where clients find the upload proxy.
    #[serde(rename = "uploadProxyURL", skip_serializing_if = "Option::is_none")]
    pub upload_proxy_url: Option<String>,
    /// Authorities that vouch for it, as PEM.
    #[serde(rename = "uploadProxyCA", skip_serializing_if = "Option::is_none")]
    pub upload_proxy_ca: Option<String>,
    /// The way of importers to their sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import_proxy: Option<ImportProxy>,
    /// Class of scratch volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch_space_storage_class: Option<String>,
    /// What pods that work on volumes may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_pod_resource_requirements: Option<ResourceRequirements>,
    /// What of a volume its filesystem takes, for each class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_overhead: Option<FilesystemOverhead>,
    /// Whether disks are allocated up front.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preallocation: Option<bool>,
    /// Secrets with which nodes fetch the images of pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// The way of importers to their sources. Addresses may hold passwords, so `Debug` shows none.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportProxy {
    /// For http addresses.
    #[serde(rename = "HTTPProxy", skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// For https addresses.
    #[serde(rename = "HTTPSProxy", skip_serializing_if = "Option::is_none")]
    pub https: Option<String>,
    /// Hosts that need none, separated by commas.
    #[serde(rename = "noProxy", skip_serializing_if = "Option::is_none")]
    pub none_for: Option<String>,
    /// `ConfigMap` of the installation's namespace with authorities that vouch for the proxy.
    #[serde(rename = "trustedCAProxy", skip_serializing_if = "Option::is_none")]
    pub trusted_ca: Option<String>,
}

impl std::fmt::Debug for ImportProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportProxy")
            .field("http", &self.http.as_ref().map(|_| ".."))
            .field("https", &self.https.as_ref().map(|_| ".."))
            .field("none_for", &self.none_for)
            .field("trusted_ca", &self.trusted_ca)
            .finish()
    }
}

/// Shares of volumes, each a text such as `0.055`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilesystemOverhead {
    /// Of volumes of classes that are not listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<String>,
    /// By class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_class: BTreeMap<String, String>,
}

/// What servers ask of TLS, in the terms of `OpenShift`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsSecurityProfile {
    /// `Old`, `Intermediate`, `Modern` or `Custom`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Set with `Old`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<EmptyObject>,
    /// Set with `Intermediate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate: Option<EmptyObject>,
    /// Set with `Modern`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modern: Option<EmptyObject>,
    /// Set with `Custom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomTlsProfile>,
}

/// Ciphers and the oldest version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomTlsProfile {
    /// Names of ciphers, as OpenSSL spells them.
    #[serde(default)]
    pub ciphers: Vec<String>,
    /// `VersionTLS10` to `VersionTLS13`.
    #[serde(rename = "minTLSVersion", default)]
    pub min_tls_version: String,
}
