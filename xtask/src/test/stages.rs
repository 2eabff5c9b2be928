//! The stages, cheapest first.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::cargo;
use crate::guest::packages;
use crate::shell::Run;
use crate::test::count::Count;
use crate::{
    baseline, cluster, crdgen, demo, deps, fuzz, gotools, guest, images, install, monitoring,
    paths, peers, tidy,
};

pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Whether `--quick` includes it.
    pub(super) quick: bool,
    pub(super) run: fn(&mut Count) -> Result<()>,
}

/// What has to be there before anything is built.
pub(super) const INSTALL: &str = "install";

pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: INSTALL,
        about: "the packages that the rest needs",
        quick: false,
        run: install,
    },
    Stage {
        name: "fmt",
        about: "formatting",
        quick: true,
        run: fmt,
    },
    Stage {
        name: "tidy",
        about: "what no lint checks",
        quick: true,
        run: |_| tidy::run(),
    },
    Stage {
        name: "crdgen",
        about: "the definitions in deploy/ are what crds/schema/ says",
        quick: true,
        run: |_| crdgen::run(&crdgen::Args::check()),
    },
    Stage {
        name: "deps",
        about: "crate directions, codec back ends, licences",
        quick: true,
        run: |_| deps::run(),
    },
    Stage {
        name: "clippy",
        about: "lints, warnings denied",
        quick: true,
        run: clippy,
    },
    Stage {
        name: "unit",
        about: "unit tests of every crate, fuzz regressions included",
        quick: true,
        run: unit,
    },
    Stage {
        name: "doc",
        about: "documentation, warnings denied",
        quick: false,
        run: doc,
    },
    Stage {
        name: "guest",
        about: "the Linux guest that the launcher's tests and the demo boot",
        quick: false,
        run: |_| guest::run(&guest::Args::default()),
    },
    Stage {
        name: "integration",
        about: "oracle, import, launcher and command tests",
        quick: false,
        run: integration,
    },
    Stage {
        name: "api",
        about: "the controllers, against a real API server",
        quick: false,
        run: api,
    },
    Stage {
        name: "monitoring",
        about: "the alerts of deploy/monitoring.yaml, by promtool",
        quick: false,
        run: |_| monitoring::check(),
    },
    Stage {
        name: "node",
        about: "imports on a real node, with its bytes, faults and kills",
        quick: false,
        run: node,
    },
    Stage {
        name: "peers",
        about: "what qcow2-rs makes of images, compared with what we make of them",
        quick: false,
        run: peers,
    },
    Stage {
        name: "baseline",
        about: "instructions, calls and bytes of small conversions, beside what is written down",
        quick: false,
        run: baseline,
    },
    Stage {
        name: "fuzz",
        about: "the fuzz targets build, and take their regression files under the sanitizer",
        quick: false,
        run: |_| fuzz::run(&fuzz::Args::replay()),
    },
    Stage {
        name: "demo",
        about: "what the README shows: import an image, boot it, power off",
        quick: false,
        // Another build of everything, optimised, is minutes that show nothing new.
        run: |_| demo::run(&demo::Args::of_tests()),
    },
];

/// For clap: what `--only` takes.
pub(super) fn names() -> Vec<&'static str> {
    STAGES.iter().map(|stage| stage.name).collect()
}

/// Far beyond what any stage takes on two cores: a hang must leave time to say so before CI's own
/// limit.
const LIMIT: Duration = Duration::from_mins(30);

fn install(_: &mut Count) -> Result<()> {
    install::run(&install::Args::default())
}

fn fmt(_: &mut Count) -> Result<()> {
    cargo::plain("fmt").args(["--all", "--check"]).check()?;
    // Workspaces of their own.
    for manifest in ["fuzz/Cargo.toml", "benches/peers/qcow2-rs/Cargo.toml"] {
        cargo::plain("fmt")
            .args(["--check", "--manifest-path"])
            .arg(paths::root().join(manifest))
            .check()?;
    }
    Ok(())
}

fn clippy(_: &mut Count) -> Result<()> {
    cargo::locked("clippy")
        .args(["--workspace", "--all-targets", "--", "--deny", "warnings"])
        .check()
}

fn unit(count: &mut Count) -> Result<()> {
    tests(cargo::locked("test").arg("--no-fail-fast"), count)
}

/// The suites of the integration tests that need no cluster.
const SUITES: [&str; 4] = ["cli", "images", "import", "disks"];

fn integration(count: &mut Count) -> Result<()> {
    let run = suites(&SUITES)?
        .arg("--no-fail-fast")
        .env(guest::VARIABLE, guest::make()?)
        .env(monitoring::VARIABLE, monitoring::promtool()?);
    let [s3, gcs] = gotools::build(&gotools::STORES, ["versitygw", "fake-gcs-server"])?;
    let [vsphere] = gotools::build(&gotools::VSPHERE, ["vsphere-simulator"])?;
    let [tokens] = gotools::build(&gotools::TOKENS, ["token-server"])?;
    let run = run
        .env("LONGSHORE_TOKEN_SERVER", tokens)
        .env("LONGSHORE_VSPHERE_SIMULATOR", vsphere)
        .env("LONGSHORE_VERSITYGW", s3)
        .env("LONGSHORE_FAKE_GCS_SERVER", gcs);
    tests(run, count)
}

/// `cargo test` of suites that drive our programs from outside, so that cargo does not know that they need them.
fn suites(names: &[&str]) -> Result<Run> {
    let programs = cargo::programs()?;
    let run = cargo::suites(names)
        .env("LONGSHORE", programs.join("longshore"))
        .env("LONGSHORE_IMPORTER", programs.join("longshore-importer"))
        .env(
            "LONGSHORE_CONTROLLER",
            programs.join("longshore-controller"),
        );
    Ok(run)
}

fn api(count: &mut Count) -> Result<()> {
    let run = suites(&["api"])?;
    let cluster = cluster::Running::api(&format!("test-{}", std::process::id()))?;
    // They wait for the controller much more than they work.
    let run = run
        .args(["--no-fail-fast", "--", "--test-threads=8"])
        .env("LONGSHORE_KUBECONFIG", cluster.kubeconfig())
        .env("LONGSHORE_KUBECTL", cluster.kubectl())
        .env(monitoring::VARIABLE, monitoring::promtool()?);
    tests(run, count)
}

fn node(count: &mut Count) -> Result<()> {
    count.passed += images::check(false)?;
    // The node has no way to a registry, nor to anything else.
    suites(&["node"])?.arg("--no-run").check()?;
    let [s3, gcs] = gotools::build(&gotools::STORES, ["versitygw", "fake-gcs-server"])?;
    let [vsphere] = gotools::build(&gotools::VSPHERE, ["vsphere-simulator"])?;
    let busybox = packages::plain("busybox-static")?.folder;
    let cluster = cluster::Running::node(&format!("test-{}", std::process::id()))?;
    // They wait for the node much more than they work.
    let run = suites(&["node"])?
        .args(["--no-fail-fast", "--", "--test-threads=8"])
        .env("LONGSHORE_VSPHERE_SIMULATOR", vsphere)
        .env("LONGSHORE_BUSYBOX", busybox.join("bin/busybox"))
        .env("LONGSHORE_VERSITYGW", s3)
        .env("LONGSHORE_FAKE_GCS_SERVER", gcs);
    tests(cluster.within(&run)?, count)
}

/// An image is a test of its own.
fn peers(count: &mut Count) -> Result<()> {
    count.passed += peers::compare()?;
    Ok(())
}

/// A conversion is a test of its own.
fn baseline(count: &mut Count) -> Result<()> {
    count.passed += baseline::compare(&baseline::Args::default())?;
    Ok(())
}

fn doc(_: &mut Count) -> Result<()> {
    cargo::locked("doc")
        .args(["--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "--deny warnings")
        .check()
}

/// Runs cargo test; that no test ran at all is a failure too.
fn tests(run: Run, count: &mut Count) -> Result<()> {
    let status = run.watch(LIMIT, |line| count.see(line))?;
    if !status.success() {
        bail!("cargo test failed ({status})");
    }
    if count.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}
