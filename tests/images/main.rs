//! Images as other writers make them, through the program, against `qemu-img convert -O raw`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking too"
)]
#![expect(clippy::print_stderr, reason = "measured peaks are worth reading")]

mod files;
mod matrix;
mod memory;
mod oracle;
mod wrappers;
mod write;
