//! Images as other writers make them, through the program, against `qemu-img convert -O raw`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking too")]

mod matrix;
mod memory;
mod oracle;
mod wrappers;
