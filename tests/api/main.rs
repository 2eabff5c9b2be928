//! The controllers against a real API server: `cargo xtask test --only api` starts one.
//!
//! There are no nodes, so each test says what a kubelet would. Waiting is `kubectl wait`'s, which watches.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking too")]

mod claims;
mod imports;
mod installations;
mod kinds;
mod line;
mod populators;
mod rig;
mod stages;
mod upstream;
mod volumes;
mod why;
