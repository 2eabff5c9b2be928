//! VMDK: what other tools write, what nobody should, and what always holds.
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests build small images by hand, fail by panicking, and say what they skip"
)]

mod builder;
mod esx_builder;
mod files;
mod forward;
mod oracle;
mod parents;
mod properties;
#[path = "../support/qemu.rs"]
mod qemu;
mod rules_files;
mod rules_sparse;
mod rules_stream;
mod support;
