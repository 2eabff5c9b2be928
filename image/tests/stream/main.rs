//! The stream decoders against the command line tools, in any chunks, damaged, and within their memory.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they skip"
)]

mod blocks;
mod chunks;
mod damage;

mod memory;
mod oracle;
mod support;
