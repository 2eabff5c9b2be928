//! VHDX: what other tools write, what nobody should, and what always holds.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests build small images by hand, fail by panicking, and say what they skip"
)]

mod builder;
mod log;
mod oracle;
mod parents;
mod properties;
#[path = "../support/qemu.rs"]
#[expect(dead_code, reason = "other formats use the rest")]
mod qemu;
mod rules;
mod seeds;
mod support;
