//! The messages of the Container Storage Interface (`csi.v1`, specification 1.11) and of the kubelet's
//! registration (`pluginregistration`, v1), as far as this driver looks at them or fills them in.
//!
//! Written by hand: names and numbers of fields are those of the two `.proto` files. What is left out is
//! skipped when it comes, and is empty for whoever reads our answers.

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

/// Keys and values, as classes and topologies have them.
pub type Words = BTreeMap<String, String>;

/// A request or an answer that says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// `google.protobuf.BoolValue`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct BoolValue {
    #[prost(bool, tag = "1")]
    pub value: bool,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

// Identity.

#[derive(Clone, PartialEq, Eq, Message)]
pub struct PluginInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub vendor_version: String,
}

/// A list of things that a service can do.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Capabilities {
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<Capability>,
}

/// `PluginCapability`, `ControllerServiceCapability` and `NodeServiceCapability`: each is a choice of
/// messages that hold one number.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Capability {
    #[prost(oneof = "Ability", tags = "1, 2")]
    pub ability: Option<Ability>,
}

#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
pub enum Ability {
    /// A service of the plugin, or a call of a service.
    #[prost(message, tag = "1")]
    Service(Number),
    /// Only of the plugin: how volumes grow.
    #[prost(message, tag = "2")]
    Expansion(Number),
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Number {
    #[prost(int32, tag = "1")]
    pub number: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Ready {
    #[prost(message, optional, tag = "1")]
    pub ready: Option<BoolValue>,
}

// What several services speak of.

#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeCapability {
    #[prost(oneof = "Access", tags = "1, 2")]
    pub access: Option<Access>,
    #[prost(message, optional, tag = "3")]
    pub mode: Option<AccessMode>,
}

/// `access_type`.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Access {
    #[prost(message, tag = "1")]
    Block(Empty),
    #[prost(message, tag = "2")]
    Mount(Mount),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub fs_type: String,
    #[prost(string, repeated, tag = "2")]
    pub flags: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct AccessMode {
    #[prost(enumeration = "Mode", tag = "1")]
    pub mode: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum Mode {
    Unknown = 0,
    SingleNodeWriter = 1,
    SingleNodeReader = 2,
    MultiNodeReader = 3,
    MultiNodeSingleWriter = 4,
    MultiNodeMultiWriter = 5,
    SingleNodeSingleWriter = 6,
    SingleNodeMultiWriter = 7,
}

/// Nought means that it was not said.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct CapacityRange {
    #[prost(int64, tag = "1")]
    pub required_bytes: i64,
    #[prost(int64, tag = "2")]
    pub limit_bytes: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Topology {
    #[prost(btree_map = "string, string", tag = "1")]
    pub segments: Words,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TopologyRequirement {
    #[prost(message, repeated, tag = "1")]
    pub requisite: Vec<Topology>,
    #[prost(message, repeated, tag = "2")]
    pub preferred: Vec<Topology>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContentSource {
    #[prost(oneof = "Origin", tags = "1, 2")]
    pub origin: Option<Origin>,
}

/// What a volume's bytes are copied from.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Origin {
    #[prost(message, tag = "1")]
    Snapshot(Id),
    #[prost(message, tag = "2")]
    Volume(Id),
}

/// A message that holds only the name of a volume or a snapshot.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Id {
    #[prost(string, tag = "1")]
    pub id: String,
}

// Controller.

#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateVolumeRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub capacity: Option<CapacityRange>,
    #[prost(message, repeated, tag = "3")]
    pub capabilities: Vec<VolumeCapability>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub parameters: Words,
    #[prost(message, optional, tag = "6")]
    pub source: Option<ContentSource>,
    #[prost(message, optional, tag = "7")]
    pub topology: Option<TopologyRequirement>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateVolumeResponse {
    #[prost(message, optional, tag = "1")]
    pub volume: Option<Volume>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Volume {
    #[prost(int64, tag = "1")]
    pub capacity_bytes: i64,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(message, optional, tag = "4")]
    pub source: Option<ContentSource>,
    #[prost(message, repeated, tag = "5")]
    pub topology: Vec<Topology>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ValidateRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub context: Words,
    #[prost(message, repeated, tag = "3")]
    pub capabilities: Vec<VolumeCapability>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub parameters: Words,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ValidateResponse {
    #[prost(message, optional, tag = "1")]
    pub confirmed: Option<Confirmed>,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Confirmed {
    #[prost(btree_map = "string, string", tag = "1")]
    pub context: Words,
    #[prost(message, repeated, tag = "2")]
    pub capabilities: Vec<VolumeCapability>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub parameters: Words,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetCapacityRequest {
    #[prost(message, optional, tag = "3")]
    pub topology: Option<Topology>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct GetCapacityResponse {
    #[prost(int64, tag = "1")]
    pub available: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ExpandRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub capacity: Option<CapacityRange>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ExpandResponse {
    #[prost(int64, tag = "1")]
    pub capacity_bytes: i64,
    #[prost(bool, tag = "2")]
    pub node_has_to: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateSnapshotRequest {
    #[prost(string, tag = "1")]
    pub source: String,
    #[prost(string, tag = "2")]
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateSnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub snapshot: Option<Snapshot>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Snapshot {
    #[prost(int64, tag = "1")]
    pub size_bytes: i64,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(string, tag = "3")]
    pub source: String,
    #[prost(message, optional, tag = "4")]
    pub created: Option<Timestamp>,
    #[prost(bool, tag = "5")]
    pub ready: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListSnapshotsRequest {
    #[prost(int32, tag = "1")]
    pub max_entries: i32,
    #[prost(string, tag = "2")]
    pub starting_token: String,
    #[prost(string, tag = "3")]
    pub source: String,
    #[prost(string, tag = "4")]
    pub id: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListSnapshotsResponse {
    /// Each is a message that holds only a snapshot.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<CreateSnapshotResponse>,
    #[prost(string, tag = "2")]
    pub next_token: String,
}

// Node.

#[derive(Clone, PartialEq, Eq, Message)]
pub struct StageRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "3")]
    pub staging_path: String,
    #[prost(message, optional, tag = "4")]
    pub capability: Option<VolumeCapability>,
}

/// Of a volume that is to be unstaged, or unpublished.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UndoRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub path: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct PublishRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "3")]
    pub staging_path: String,
    #[prost(string, tag = "4")]
    pub target_path: String,
    #[prost(message, optional, tag = "5")]
    pub capability: Option<VolumeCapability>,
    #[prost(bool, tag = "6")]
    pub readonly: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct NodeExpandRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub path: String,
    #[prost(message, optional, tag = "3")]
    pub capacity: Option<CapacityRange>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct NodeInfo {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub topology: Option<Topology>,
}

// Registration.

/// What the kubelet is told when it finds the socket.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Registered {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub endpoint: String,
    #[prost(string, repeated, tag = "4")]
    pub versions: Vec<String>,
}

/// What the kubelet made of it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    pub registered: bool,
    #[prost(string, tag = "2")]
    pub error: String,
}
