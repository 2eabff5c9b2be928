//! The command as people and scripts meet it: exit codes, what it prints, what it leaves behind.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking too, and skips name themselves"
)]

mod budgets;
mod contract;
mod devices;
mod faults;
mod files;
mod forged;
mod holes;
mod kills;
mod locks;
mod look;
mod mount;
mod objects;
mod progress;
mod resume;
mod rig;
mod run;
mod sharing;
mod vhd;
