//! Imports on a real node: its kubelet runs our pods on real volumes. `cargo xtask test --only node` starts
//! one and runs this within its namespaces.
//!
//! All tests share the node and its controller, each in a namespace of its own. Waiting is `kubectl
//! wait`'s, which watches.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking too"
)]

mod deletion;
mod formats;
mod images;
mod kills;
mod provisioned;
mod pulls;
mod refusals;
mod rig;
mod sources;
mod storage;
mod uninstall;
mod volumes;
