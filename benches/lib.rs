//! What `cargo xtask bench` runs: our command beside others, under the rules of `benches/README.md`.
//!
//! Owns what is measured and how. Does not own building the contenders: `xtask` does that, and hands
//! over where they are.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod say;
mod versus;

/// Measure Longshore against other tools.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
enum Command {
    /// Conversions of one operating system's disk, in every format, beside the peers
    Versus(versus::Args),
    /// Write summary.md and chart.svg of a folder of results again, from its raw data
    Report {
        /// The folder with raw.csv
        results: PathBuf,
    },
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Versus(args) => versus::run(&args),
        Command::Report { results } => versus::report(&results),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::problem(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
