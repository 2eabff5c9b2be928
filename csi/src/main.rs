//! `longshore-csi`: the driver's process.

use std::process::ExitCode;

use clap::Parser;
use longshore_csi::{Args, run};
use longshore_telemetry::{Options, error_chain, init};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = init(&Options::default()) {
        tracing::warn!("{}", error_chain(&error));
    }
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", error_chain(&error));
            ExitCode::FAILURE
        }
    }
}
