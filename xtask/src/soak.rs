//! `cargo xtask soak`: builds the command and hands over to the soak package, which owns what is looked for
//! and how. But for `scaling` and `scale`, which take times: that is done from here, with what is released. And
//! `chaos` is run on a node that is started for it.

use anyhow::Result;
use clap::Parser as _;

use crate::shell::Run;
use crate::{cargo, cluster, gotools, install, paths};

mod scale;
mod scaling;

/// Which soak, and its own options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Handed on as they are, for example: kills, differential --minutes 60, chaos --minutes 60, scaling --zram, or
    /// scale --results DIR
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    install::run(&install::Args::default())?;
    if args.args.first().is_some_and(|first| first == "scaling") {
        return scaling::run(&scaling::Args::parse_from(&args.args));
    }
    if args.args.first().is_some_and(|first| first == "scale") {
        return scale::run(&scale::Args::parse_from(&args.args));
    }
    if args.args.first().is_some_and(|first| first == "chaos") {
        return chaos(&args.args);
    }
    // Not a release: overflow is looked for, too, and the code that touches every byte is optimised anyway.
    cargo::locked("build")
        .args(["--package", "longshore-cli", "--package", "longshore-soak"])
        .check()?;
    let programs = paths::target().join("debug");
    // Hours of it must not be in anybody's way.
    Run::new("nice")
        .args(["-n", "19"])
        .arg(programs.join("longshore-soak"))
        .args(&args.args)
        .dir(paths::root())
        .env("LONGSHORE", programs.join("longshore"))
        .check()
}

/// Starts a node, and everything that goes wrong on it.
fn chaos(args: &[String]) -> Result<()> {
    cargo::locked("build")
        .args(["--package", "longshore-soak"])
        .check()?;
    let run = Run::new(paths::target().join("debug/longshore-soak"))
        .args(args)
        .dir(paths::root());
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        // That takes no cluster.
        return run.quiet().check();
    }
    let [store] = gotools::build(&gotools::STORES, ["versitygw"])?;
    let run = run.env("LONGSHORE_VERSITYGW", store);
    let cluster = cluster::Running::node(&format!("chaos-{}", std::process::id()))?;
    cluster.within(&run)?.check()
}
