//! What `cargo xtask bench` runs: our command beside others, under the rules of `benches/README.md`.
//!
//! Owns what is measured and how. Does not own building the contenders: `xtask` does that, and hands
//! over where they are.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod line;
mod say;
mod scale;
mod versus;

/// Measure Longshore against other tools.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
enum Command {
    /// Conversions and imports of one operating system's disk, in every format, beside the peers
    Versus(versus::Args),
    /// Write summary, JSON and chart of a folder of results again, from its raw data
    Report {
        /// Print the JSON instead of the summary
        #[arg(long)]
        json: bool,
        /// The folder with raw.csv
        results: PathBuf,
    },
    /// Say what became slower or faster from one set of results to another
    ///
    /// A case is slower only if the whole 95 % interval of the ratio lies above 1.05, and still does
    /// when divided by what the peers' times did meanwhile. Exit code 1 if any is.
    Compare(versus::CompareArgs),
    /// Imports over a line of one gigabit a second, with delay, loss and cuts; takes root
    Line(line::Args),
    /// Many imports at once, on a cluster that `cargo xtask soak scale` starts
    #[command(hide = true)]
    Scale(scale::Args),
    /// Write the summary of what that has measured, and print it
    #[command(hide = true)]
    ScaleReport {
        /// The folder with raw.csv and requests.csv
        results: PathBuf,
    },
    /// Be a long line between a client and a server
    #[command(hide = true)]
    Relay(line::relay::Args),
    /// Inflate a gzip file into nothing: what one thread of zlib-rs can do at best
    #[command(hide = true)]
    Gunzip {
        /// The file
        file: PathBuf,
    },
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Versus(args) => versus::run(&args),
        Command::Report { json, results } => versus::report(&results, json),
        Command::Compare(args) => versus::compare(&args),
        Command::Line(args) => line::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::ScaleReport { results } => {
            scale::report::write(&results).map(|text| say::data(&text))
        }
        Command::Relay(args) => line::relay::run(&args),
        Command::Gunzip { file } => versus::gunzip(&file),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::problem(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
