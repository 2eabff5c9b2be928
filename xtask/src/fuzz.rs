//! `cargo xtask fuzz`: libFuzzer on the pinned stable toolchain, without cargo-fuzz.
//!
//! The compiler has everything built in; what cargo-fuzz adds is the flags, and those are below.
//! Corpora grow in the cache, outside the checkout; an input that crashes goes to
//! `target/fuzz/artifacts`, and belongs into `fuzz/regressions/TARGET` once fixed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::Run;
use crate::{cargo, paths, say};

/// How long, and what.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// How long to run each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only try the seeds and the regression files again, which takes no time and no luck
    #[arg(long, conflicts_with = "seconds")]
    replay: bool,
    /// Targets to run, one after the other; all if none is named
    targets: Vec<String>,
}

impl Args {
    pub(crate) fn replay() -> Self {
        Self {
            replay: true,
            ..Self::default()
        }
    }
}

/// Coverage for libFuzzer to steer by, and the address sanitizer for the C parts that our code
/// calls.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Ccodegen-units=1",
];

/// Named, because flags meant for the targets must not reach build scripts and macros.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// An input may not make a decoder use more than this, nor hold it up for longer.
const LIMITS: &[&str] = &["-rss_limit_mb=1024", "-timeout=10", "-max_len=262144"];

pub(crate) fn run(args: &Args) -> Result<()> {
    let home = paths::root().join("fuzz");
    let known = targets(&paths::read(&home.join("Cargo.toml"))?);
    if known.is_empty() {
        bail!("fuzz/Cargo.toml has no targets");
    }
    if let Some(unknown) = args.targets.iter().find(|target| !known.contains(target)) {
        bail!(
            "there is no target {unknown}; there are: {}",
            known.join(" ")
        );
    }
    let chosen = if args.targets.is_empty() {
        &known
    } else {
        &args.targets
    };
    let programs = build(&home)?;
    let mut failed = Vec::new();
    for target in chosen {
        say::line(&format!("\nfuzzing {target}"));
        if let Err(error) = one(target, &programs.join(target), &home, args) {
            say::problem(&format!("{target}: {error:#}"));
            failed.push(target.as_str());
        }
    }
    if !failed.is_empty() {
        bail!(
            "fuzz targets failed: {} (the inputs are in target/fuzz/artifacts)",
            failed.join(" ")
        );
    }
    say::line(&format!("\n{} fuzz targets ran clean", chosen.len()));
    Ok(())
}

/// Builds all targets; gives the folder they are in.
fn build(home: &Path) -> Result<PathBuf> {
    let folder = paths::target().join("fuzz");
    cargo::locked("build")
        .args(["--release", "--bins", "--target", TRIPLE, "--target-dir"])
        .arg(&folder)
        .arg("--manifest-path")
        .arg(home.join("Cargo.toml"))
        .env("RUSTFLAGS", FLAGS.join(" "))
        // Sanitizers are behind a nightly flag; this opens it on the toolchain that everything else
        // is built with.
        .env("RUSTC_BOOTSTRAP", "1")
        .check()?;
    Ok(folder.join(TRIPLE).join("release"))
}

fn one(target: &str, program: &Path, home: &Path, args: &Args) -> Result<()> {
    let corpus = paths::cache("fuzz")?.join(target);
    let artifacts = paths::target().join("fuzz/artifacts").join(target);
    for folder in [&corpus, &artifacts] {
        paths::make_dir(folder)?;
    }
    let mut prefix = artifacts.into_os_string();
    prefix.push("/");
    let mut argument = std::ffi::OsString::from("-artifact_prefix=");
    argument.push(prefix);
    let kept = ["seeds", "regressions"].map(|kind| home.join(kind).join(target));
    let kept = kept.iter().filter(|folder| folder.is_dir());
    let run = Run::new(program).dir(home).args(LIMITS).arg(argument);
    // The C parts are instrumented too, and include one file twice, each with constants of its own.
    let run = run.env("ASAN_OPTIONS", "detect_odr_violation=0");
    let run = if args.replay {
        run.arg("-runs=0").args(kept)
    } else {
        // New finds go into the first folder; the others are only read.
        let time = format!("-max_total_time={}", args.seconds);
        run.arg(time)
            .arg("-print_final_stats=1")
            .arg(&corpus)
            .args(kept)
    };
    run.check().context("running the target")
}

/// The names of a manifest's `[[bin]]` sections.
fn targets(manifest: &str) -> Vec<String> {
    let sections = manifest
        .split("\n[")
        .filter_map(|section| section.strip_prefix("[bin]]"));
    let name = |section: &str| {
        section.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == "name").then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    sections.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::targets;

    #[test]
    fn targets_are_the_binaries_of_the_manifest() {
        let manifest = "[package]\nname = \"fuzz\"\n\n[[bin]]\nname = \"open\"\npath = \"a.rs\"\n\n[[bin]]\npath = \"b.rs\"\nname = \"extents\"\n[profile.release]\nname = \"x\"\n";
        assert_eq!(targets(manifest), ["open", "extents"]);
        assert_eq!(
            targets("[package]\nname = \"fuzz\"\n"),
            Vec::<String>::new()
        );
    }
}
