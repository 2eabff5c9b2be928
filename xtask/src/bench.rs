//! `cargo xtask bench`: builds the release command and the peers, and hands over to the benches
//! package, which owns what is measured and how.

use anyhow::Result;

use crate::{cargo, install, paths, peers, say};

/// Which benchmark, and its own options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Handed on as they are, for example: versus
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Where the benches look for what we built.
const COMMAND: &str = "LONGSHORE_BENCH_COMMAND";
const QCOW2_RS: &str = "LONGSHORE_BENCH_QCOW2_RS";

pub(crate) fn run(args: &Args) -> Result<()> {
    install::run(&install::Args::default())?;
    cargo::locked("build")
        .args(["--release", "--package", "longshore-cli"])
        .check()?;
    let run = cargo::locked("run")
        .args(["--release", "--package", "longshore-benches", "--"])
        .args(&args.args)
        .env(COMMAND, paths::target().join("release/longshore"));
    // A peer that no longer builds is named in the results, and ends nothing.
    match peers::build() {
        Ok(peer) => run.env(QCOW2_RS, peer).check(),
        Err(error) => {
            say::problem(&format!("building the qcow2-rs peer: {error:#}"));
            run.check()
        }
    }
}
