//! Disks and the other devices attached to a guest.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::network::Interface;
use crate::meta::EmptyObject;

/// Everything attached to a guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Devices {
    /// Disks; each has a volume of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Network interfaces; each has a network of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Directories shared with the guest; each has a volume of the same name. Opaque but for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filesystems: Vec<Filesystem>,
    /// A source of random numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng: Option<EmptyObject>,
    /// Whether a machine without interfaces gets one on the pod's network; yes if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoattach_pod_interface: Option<bool>,
    /// Whether there is a graphics card, seen through VNC; yes if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoattach_graphics_device: Option<bool>,
    /// Whether there is a serial console; yes if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoattach_serial_console: Option<bool>,
    /// Whether what the guest writes to its serial console is kept; yes if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_serial_console: Option<bool>,
    /// Whether there is a memory balloon; yes if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoattach_mem_balloon: Option<bool>,
}

/// A disk of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Name of the disk and of its volume.
    #[serde(default)]
    pub name: String,
    /// An ordinary disk. Excludes `lun` and `cdrom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskTarget>,
    /// A SCSI device passed through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lun: Option<DiskTarget>,
    /// A CD-ROM drive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<CdromTarget>,
    /// Place in the boot order, from 1; disks without one are not booted where any has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<u32>,
    /// Serial number the guest sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// How the host caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<DiskCache>,
    /// How the host does its input and output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<DiskIo>,
    /// Whether several machines may write to it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shareable: Option<bool>,
    /// What an error of the host's storage does; the guest stops if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_policy: Option<DiskErrorPolicy>,
    /// Sector sizes the guest sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<BlockSize>,
}

/// How an ordinary disk is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskTarget {
    /// Bus; `sata` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<DiskBus>,
    /// Whether the guest may not write; it may if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
}

/// How a CD-ROM drive is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdromTarget {
    /// Bus; `sata` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<DiskBus>,
    /// Whether the guest may not write; it may not if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    /// Whether the tray starts open; closed if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tray: Option<TrayState>,
}

/// State of a CD-ROM drive's tray.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TrayState {
    /// The disc cannot be read.
    Open,
    /// The disc can be read.
    Closed,
}

/// The bus of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskBus {
    /// A virtio block device.
    Virtio,
    /// An AHCI port.
    Sata,
    /// A virtio SCSI controller.
    Scsi,
    /// USB storage.
    Usb,
}

/// How the host caches a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskCache {
    /// Past the page cache.
    None,
    /// Through the page cache, each write flushed.
    #[serde(rename = "writethrough")]
    WriteThrough,
    /// Through the page cache, flushed when the guest asks.
    #[serde(rename = "writeback")]
    WriteBack,
}

/// How the host does a disk's input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskIo {
    /// Asynchronous requests to the kernel.
    Native,
    /// A pool of threads.
    Threads,
}

/// What an error of the host's storage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskErrorPolicy {
    /// The guest stops.
    Stop,
    /// Nothing.
    Ignore,
    /// The guest is told.
    Report,
    /// The guest stops when space ran out, and is told of everything else.
    Enospace,
}

/// Sector sizes of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockSize {
    /// Sizes chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomBlockSize>,
    /// Sizes taken from the host's storage; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_volume: Option<Value>,
}

/// Sector sizes chosen for a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomBlockSize {
    /// Unit of addressing, in bytes.
    #[serde(default)]
    pub logical: u32,
    /// Unit of writing, in bytes.
    #[serde(default)]
    pub physical: u32,
}

/// A directory shared with the guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filesystem {
    /// Name of the share and of its volume.
    #[serde(default)]
    pub name: String,
    /// Sharing by virtiofs; opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtiofs: Option<Value>,
}
