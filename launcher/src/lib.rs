//! Runs a virtual machine: spec to plan to a supervised QEMU process.

pub mod accel;
mod chain;
pub mod cloud_init;
pub mod console;
pub mod iso;
pub mod plan;
pub mod qmp;
mod socket;
pub mod supervisor;
mod sys;
