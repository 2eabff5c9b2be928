//! qcow and Parallels: what qemu-img writes, what nobody should, and what always holds.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests build small images by hand, fail by panicking, and say what they skip"
)]

mod parallels;
mod qcow;
#[path = "../support/qemu.rs"]
mod qemu;
mod support;
