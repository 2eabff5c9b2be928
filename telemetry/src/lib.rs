//! What a program of ours says while it works: log set-up, one way to print an error, build facts, and
//! an endpoint for metrics.
//!
//! Logs go to stderr, always: stdout is data. Libraries only emit `tracing` events and never call
//! [`init`]; that is for `main`. Which metrics there are is the business of the program that has them.

mod build;
mod chain;
mod endpoint;
mod log;
mod metrics;

pub use crate::build::{BuildInfo, build_info};
pub use crate::chain::error_chain;
pub use crate::endpoint::{Endpoint, EndpointError};
pub use crate::log::{DEFAULT_FILTER, Error, Format, Options, init};
pub use crate::metrics::{Exposition, Histogram, Kind};
