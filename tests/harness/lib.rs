//! What integration tests share: servers that misbehave on demand, certificates for them, and disks to
//! serve. It checks nothing itself.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what tests are made of fails by panicking and talks to whoever runs them, as tests do"
)]
#![expect(
    clippy::missing_panics_doc,
    reason = "all of it panics where a test cannot go on"
)]

pub mod cluster;
pub mod data;
pub mod device;
pub mod gate;
pub mod http;
pub mod imageio;
pub mod journal;
pub mod nbd;
pub mod node;
pub mod program;
pub mod promtool;
pub mod registry;
pub mod stores;
pub mod vddk;
pub mod vsphere;

use std::time::{Duration, Instant};

/// Longer than anything takes, however busy the machine: tests fail by it, and never pass by it.
const PATIENCE: Duration = Duration::from_mins(3);

/// Looks again and again for what nothing tells of.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What went wrong, and all that led to it.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
