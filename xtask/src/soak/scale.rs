//! How does the work of the controller grow with the number of imports? Starts a cluster for each measurement and
//! hands over to the benches package, which owns what is measured and how.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cluster::crowd::Crowd;
use crate::shell::Run;
use crate::{cargo, paths, say};

/// What to measure.
#[derive(Debug, clap::Parser)]
#[command(name = "scale")]
pub(crate) struct Args {
    /// How many data volumes are made at once, one measurement after the other
    #[arg(long = "count", value_name = "N", value_delimiter = ',', default_values_t = [250, 500, 1000, 2000, 5000])]
    counts: Vec<usize>,
    /// With which limits, or whether the controller is killed in the middle: each with each count
    #[arg(
        long = "case",
        value_name = "CASE",
        value_delimiter = ',',
        value_parser = ["none", "usual", "restart"],
        default_value = "none"
    )]
    cases: Vec<String>,
    /// Nodes that there seem to be
    #[arg(long, default_value_t = 20)]
    nodes: usize,
    /// The name of the cluster, which is removed if it is there
    #[arg(long, default_value = "scale")]
    name: String,
    /// Measure a controller that is not optimised: for those who work on it
    #[arg(long)]
    debug: bool,
    /// Where results go; what is there is added to
    #[arg(long, value_name = "DIR")]
    results: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.nodes == 0 || args.counts.contains(&0) {
        bail!("there must be nodes and DataVolumes");
    }
    let mut build = cargo::locked("build").args(["--package", "longshore-controller"]);
    let mut benches = cargo::locked("build").args(["--package", "longshore-benches"]);
    if !args.debug {
        build = build.arg("--release");
        benches = benches.arg("--release");
    }
    build.check()?;
    benches.check()?;
    let profile = if args.debug { "debug" } else { "release" };
    let programs = paths::target().join(profile);
    for count in &args.counts {
        for case in &args.cases {
            say::line(&format!("\n==== {case}: {count} DataVolumes"));
            one(args, &programs, case, *count)
                .with_context(|| format!("measuring {count} DataVolumes, {case}"))?;
        }
    }
    report(&programs, &args.results)
}

/// One measurement, on a cluster of its own.
fn one(args: &Args, programs: &Path, case: &str, count: usize) -> Result<()> {
    let crowd = Crowd::start(&args.name, args.nodes)?;
    Run::new(programs.join("longshore-benches"))
        .args(["scale", "--case", case])
        .arg(format!("--count={count}"))
        .arg("--results")
        .arg(&args.results)
        .arg("--kubeconfig")
        .arg(crowd.kubeconfig())
        .arg("--kubectl")
        .arg(crowd.kubectl())
        .arg("--audit")
        .arg(crowd.audit())
        .arg("--controller")
        .arg(programs.join("longshore-controller"))
        .dir(paths::root())
        .check()
}

fn report(programs: &Path, results: &Path) -> Result<()> {
    Run::new(programs.join("longshore-benches"))
        .args(["scale-report"])
        .arg(results)
        .dir(paths::root())
        .check()
}
