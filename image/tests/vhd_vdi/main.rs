//! VHD and VDI: what other tools write, what nobody should, and what always holds.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests build small images by hand, fail by panicking, and say what they skip"
)]

mod differencing;
mod differential;
mod fixed;
mod oracle;
mod properties;
#[path = "../support/qemu.rs"]
#[expect(dead_code, reason = "other formats use the rest")]
mod qemu;
mod support;
mod vdi_builder;
mod vdi_rules;
mod vhd_builder;
mod vhd_rules;
