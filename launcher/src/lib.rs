//! Runs a virtual machine: spec to plan to a supervised QEMU process.

pub mod accel;
pub mod qmp;
mod socket;
mod sys;
