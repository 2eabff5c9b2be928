//! What `cargo xtask soak` runs: hours of looking for what the tests, which must be quick, do not find.
//!
//! Owns the runs and their reports. Does not own the fuzz targets (`fuzz/`) nor building: `xtask` builds.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "as in the tests' harness: when the surroundings fail, the run is over"
)]

use std::process::ExitCode;

use clap::Parser;

mod chaos;
mod dice;
mod differential;
mod kills;
mod report;
mod say;

/// Look for long.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak", bin_name = "cargo xtask soak")]
enum Command {
    /// Images of every format with fields changed, read by us and by qemu-img
    Differential(differential::Args),
    /// The command, killed at random moments: no target looks complete when it is not
    Kills(kills::Args),
    /// Imports on a node where everything is killed at random: nothing wrong, stuck or left in the end
    Chaos(chaos::Args),
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Differential(args) => differential::run(&args),
        Command::Kills(args) => kills::run(&args),
        Command::Chaos(args) => chaos::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::problem(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
