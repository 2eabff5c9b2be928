//! Interfaces of a guest and what they connect to.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::meta::EmptyObject;

/// A network interface of the guest; one of the bindings is set in a valid object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Name of the interface and of its network.
    #[serde(default)]
    pub name: String,
    /// Behind address translation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<EmptyObject>,
    /// On a bridge with the pod's interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<EmptyObject>,
    /// A virtual function of a network card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sriov: Option<EmptyObject>,
    /// Through `passt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passt_binding: Option<EmptyObject>,
    /// Through a plug-in of the cluster; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<Value>,
    /// Model of the network card; `virtio` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Hardware address; derived from the machine if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Ports reachable from outside; all of them if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Place in the boot order, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<u32>,
}

/// A port of the guest that can be reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Name of the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `TCP` or `UDP`; `TCP` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Number of the port.
    #[serde(default)]
    pub port: u16,
}

/// What an interface connects to; exactly one kind is set in a valid object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Name of the network and of its interface.
    #[serde(default)]
    pub name: String,
    /// The network of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodNetwork>,
    /// A secondary network of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multus: Option<MultusNetwork>,
}

/// The network of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodNetwork {
    /// Addresses behind `masquerade`; `10.0.2.0/24` if unset.
    #[serde(rename = "vmNetworkCIDR", skip_serializing_if = "Option::is_none")]
    pub vm_network_cidr: Option<String>,
    /// IPv6 addresses behind `masquerade`; `fd10:0:2::/120` if unset.
    #[serde(rename = "vmIPv6NetworkCIDR", skip_serializing_if = "Option::is_none")]
    pub vm_ipv6_network_cidr: Option<String>,
}

/// A secondary network of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MultusNetwork {
    /// Name of the network attachment definition.
    #[serde(default)]
    pub network_name: String,
    /// Whether it takes the place of the pod's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,
}
