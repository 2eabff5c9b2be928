//! `longshore-controller`: the process that the deployment `cdi-deployment` runs.

use std::process::ExitCode;

use longshore_telemetry::{Format, Options, error_chain, init};

#[tokio::main]
async fn main() -> ExitCode {
    let logging = init(&Options {
        format: Format::Json,
        ..Options::default()
    });
    if let Err(error) = logging {
        tracing::warn!("{}", error_chain(&error));
    }
    match longshore_controller::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", error_chain(&error));
            ExitCode::FAILURE
        }
    }
}
