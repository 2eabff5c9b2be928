//! API types of the objects Longshore reads and serves.
//!
//! `kubevirt.io/v1` machines, `cdi.kubevirt.io/v1beta1` volumes, the few core objects they refer
//! to, and the loader that turns a YAML file into them. The types model what Longshore acts upon:
//! [`manifest`] lists every other field of a document by its path, so nothing is dropped in
//! silence. Nothing here talks to a cluster, opens a file or decides what a field leads to; that
//! is the work of the crates above.

#![deny(missing_docs)]

pub mod cdi;
pub mod cdi_config;
pub mod condition;
pub mod contract;
pub mod core_objects;
pub mod data_volume;
pub mod field_path;
pub mod manifest;
pub mod meta;
pub mod names;
pub mod quantity;
#[cfg(test)]
mod schema;
pub mod storage_profile;
pub mod virtual_machine;
pub mod virtual_machine_instance;
pub mod volume_source;

pub use cdi::{Cdi, CdiSpec, CdiStatus};
pub use cdi_config::{CdiConfig, CdiConfigSpec, CdiConfigStatus};
pub use condition::Condition;
pub use data_volume::{DataVolume, DataVolumeSpec};
pub use field_path::FieldPath;
pub use manifest::Manifest;
pub use meta::ObjectMeta;
pub use quantity::Quantity;
pub use storage_profile::{StorageProfile, StorageProfileSpec, StorageProfileStatus};
pub use virtual_machine::VirtualMachine;
pub use virtual_machine_instance::VirtualMachineInstance;
pub use volume_source::{VolumeCloneSource, VolumeImportSource, VolumeUploadSource};
