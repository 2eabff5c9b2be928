//! What a program of ours says while it works: log set-up, one way to print an error, build facts.
//!
//! Logs go to stderr, always: stdout is data. Libraries only emit `tracing` events and never call
//! [`init`]; that is for `main`. Metrics and progress are not here.

mod build;
mod chain;
mod log;

pub use crate::build::{BuildInfo, build_info};
pub use crate::chain::error_chain;
pub use crate::log::{DEFAULT_FILTER, Error, Format, Options, init};
