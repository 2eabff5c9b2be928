//! `cargo xtask bench`: builds the release command and the peers, and hands over to the benches
//! package, which owns what is measured and how.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::guest::packages;
use crate::{cargo, gotools, install, paths, peers, say};

/// Which benchmark, and its own options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What, and its options as they are: micro (criterion's), versus, line, report, compare (`versus --help`
    /// tells them)
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Where the benches look for what we built.
const COMMAND: &str = "LONGSHORE_BENCH_COMMAND";
const QCOW2_RS: &str = "LONGSHORE_BENCH_QCOW2_RS";
const NGINX: &str = "LONGSHORE_BENCH_NGINX";
const VERSITYGW: &str = "LONGSHORE_BENCH_VERSITYGW";

/// The package of benchmarks of single functions.
const MICRO: &str = "longshore-micro";

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(("micro", rest)) = args.args.split_first().map(|(name, rest)| (&**name, rest)) {
        install::run(&install::Args::default())?;
        return cargo::locked("bench")
            .args([
                "--package",
                MICRO,
                "--bench",
                "codecs",
                "--bench",
                "tables",
                "--",
            ])
            .args(rest)
            .check();
    }
    let mut run = cargo::locked("run")
        .args(["--release", "--package", "longshore-benches", "--"])
        .args(&args.args);
    // The others only read what was measured.
    if args
        .args
        .first()
        .is_some_and(|name| name == "versus" || name == "line")
    {
        install::run(&install::Args::default())?;
        cargo::locked("build")
            .args(["--release", "--package", "longshore-cli"])
            .check()?;
        run = run.env(COMMAND, paths::target().join("release/longshore"));
        // What is missing is named in the results, and ends nothing.
        match peers::build() {
            Ok(peer) => run = run.env(QCOW2_RS, peer),
            Err(error) => say::problem(&format!("building the qcow2-rs peer: {error:#}")),
        }
        match nginx() {
            Ok(nginx) => run = run.env(NGINX, nginx),
            Err(error) => say::problem(&format!("unpacking nginx: {error:#}")),
        }
        if args.args.first().is_some_and(|name| name == "line") {
            let [store] = gotools::build(&gotools::STORES, ["versitygw"])?;
            run = run.env(VERSITYGW, store);
        }
    }
    run.check()
}

/// The machine's own, or the package's, which is not installed.
fn nginx() -> Result<PathBuf> {
    if let Some(path) = paths::program("nginx") {
        return Ok(path);
    }
    let path = packages::nginx()?.folder.join("usr/sbin/nginx");
    path.is_file()
        .then_some(path)
        .context("the package has no usr/sbin/nginx")
}
