//! Repository automation: `cargo xtask --help` lists what there is.
//!
//! Owns everything that a person or CI does *to* the repository: installing packages, checking,
//! testing, making the guest image, showing the demo. It depends on no crate of ours and on few
//! others, so it is ready seconds after a clone.

use std::process::ExitCode;

use clap::Parser;

mod baseline;
mod bench;
mod cargo;
mod cluster;
mod crdgen;
mod demo;
mod deps;
mod fuzz;
mod gotools;
mod guest;
mod http;
mod images;
mod install;
mod manifest;
mod monitoring;
mod paths;
mod peers;
mod pytools;
mod say;
mod shell;
mod soak;
mod test;
mod tidy;

/// Repository automation for Longshore.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Install what is missing and run every check and test, with the time of each stage
    Test(test::Args),
    /// Install the Debian or Ubuntu packages that building, testing and the demo need
    Install(install::Args),
    /// Import an image over HTTP and boot it: installs, builds and shows everything
    Demo(demo::Args),
    /// Make the small bootable Linux guest that the demo and the tests use
    Guest(guest::Args),
    /// Run the fuzz targets, each for a while
    Fuzz(fuzz::Args),
    /// Measure against other tools: hours of a quiet machine, not part of `test`
    Bench(bench::Args),
    /// Look for long for what the tests don't find: `kills`, `differential`
    Soak(soak::Args),
    /// Count what small conversions cost, and compare with what is written down
    Baseline(baseline::Args),
    /// A real Kubernetes on this machine
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Make the custom resource definitions of crds/schema/
    Crdgen(crdgen::Args),
    /// Make our container images
    Images(images::Args),
    /// Print what installs Longshore on a cluster, with images of one's own
    Manifest(manifest::Args),
    /// Build the programs written in Go that tests run: object stores, a control plane, a node, CSI storage
    Tools,
    /// Check the directions between crates, the codec back ends and the licences
    Deps,
    /// Check what no lint checks: file lengths, forgotten markers, numbering
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Test(args) => test::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Guest(args) => guest::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Baseline(args) => baseline::run(&args),
        Command::Cluster(command) => cluster::run(&command),
        Command::Crdgen(args) => crdgen::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Manifest(args) => manifest::run(&args),
        Command::Tools => gotools::run(),
        Command::Deps => deps::run(),
        Command::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::problem(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
