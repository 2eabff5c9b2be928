//! The `longshore` command: reads its arguments, joins the other crates, and says how it went.
//!
//! ```text
//! argv -> Args (what was typed) -> Config (checked, usable) -> info | map | copy | run |
//!                                                              why | get | purge -> exit code
//! ```
//!
//! Standard output is data, standard error is talk. Exit codes are a contract:
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done; also when whoever reads our standard output has had enough |
//! | 1 | the work failed or was interrupted |
//! | 2 | wrong usage |
//! | 3 | the image was refused: malformed, unsupported, or not allowed |
//! | 4 | the target is too small or full |
//!
//! How bytes are copied, where they come from and how a machine runs is the business of the crates
//! below; here is what a person at a terminal meets.

mod args;
mod bytes;
mod cluster;
mod config;
mod copy;
mod failure;
mod get;
mod info;
mod look;
mod map;
mod output;
mod pace;
mod progress;
mod purge;
mod run;
mod signals;
mod source;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::Args;
use crate::config::Config;

/// Does what the arguments (the first is the program's name) ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    logging(args.verbose);
    let config = match Config::try_from(args) {
        Ok(config) => config,
        Err(error) => {
            let mut command = Args::command();
            return usage(&command.error(clap::error::ErrorKind::ValueValidation, error));
        }
    };
    let done = match config {
        Config::Info(look) => info::run(&look),
        Config::Map(look) => map::run(&look),
        Config::Copy(copy) => copy::run(*copy),
        Config::Run(config) => run::run(&config),
        Config::Purge(purge) => purge::run(&purge),
        Config::Why(why) => why::run(&why),
        Config::Get(get) => get::run(&get),
        Config::Completions(shell) => output::completions(shell),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Help, version, and what clap has to say about wrong usage; it knows which is which.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed standard output is no failure here either.
    drop(error.print());
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Warnings unless asked for more.
fn logging(verbose: u8) {
    let filter = match verbose {
        0 => "warn",
        1 => "warn,longshore=info",
        2 => "info,longshore=debug",
        _ => "debug,longshore=trace",
    };
    let crates = ["cli", "image", "importer", "launcher", "transfer"];
    let (base, ours) = filter.split_once(",longshore=").unwrap_or((filter, filter));
    let each = crates
        .iter()
        .map(|name| format!(",longshore_{name}={ours}"));
    let filter = base.to_owned() + &each.collect::<String>();
    let options = longshore_telemetry::Options {
        filter,
        ..longshore_telemetry::Options::default()
    };
    // Only in tests is it set up already.
    drop(longshore_telemetry::init(&options));
}
