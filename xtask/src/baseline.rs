//! `cargo xtask baseline`: what small fixed conversions cost, counted and not timed.
//!
//! Instructions (valgrind), calls on source and target and their bytes (strace) do not depend on how
//! busy the machine is, so a test can compare them with what is written down in
//! `benches/baseline.csv`. Counted is the debug build, whose image, transfer and codec crates are
//! optimised: it is there anyway when tests run.
//!
//! What is counted still depends on the compilers, on QEMU and the compressors that make the images,
//! and on the processor as valgrind shows it (one with AVX2 looks the same whoever made it). The first
//! two are recorded in the file and named when they differ; the third is asked for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::Run;
use crate::{cargo, paths, say};
use cases::{CASES, Case};
use counts::Counts;
use table::{Entry, Table};

mod cases;
mod counts;
mod disk;
mod table;

/// What to do with what was counted.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Write the baseline anew instead of comparing with it
    #[arg(long)]
    update: bool,
    /// Only this case (may be given more than once); not with --update
    #[arg(long = "case", value_name = "NAME", conflicts_with = "update")]
    cases: Vec<String>,
}

const FILE: &str = "benches/baseline.csv";

pub(crate) fn run(args: &Args) -> Result<()> {
    compare(args).map(drop)
}

/// Counts and compares; gives the number of cases. A tool that is missing is an error in CI, and
/// elsewhere said.
pub(crate) fn compare(args: &Args) -> Result<u64> {
    if let Some(why) = unable()? {
        if std::env::var_os("CI").is_some() || args.update {
            bail!("{why}");
        }
        say::line(&format!("the baseline is not compared: {why}"));
        return Ok(0);
    }
    let programs = cargo::programs()?;
    let file = paths::root().join(FILE);
    let made_with = made_with()?;
    let mut table = Table {
        made_with: made_with.clone(),
        entries: Vec::new(),
    };
    let work = Work::new()?;
    // Names of functions would take valgrind seconds to read.
    let command = work.0.join("longshore");
    Run::new("strip")
        .arg("-o")
        .arg(&command)
        .arg(programs.join("longshore"))
        .quiet()
        .check()?;
    let raw = work.0.join("disk.raw");
    paths::write(&raw, disk::make())?;
    let chosen: Vec<&Case> = CASES
        .iter()
        .filter(|case| args.cases.is_empty() || args.cases.iter().any(|name| name == case.name))
        .collect();
    for case in &chosen {
        let entry = count(case, &command, &work.0)?;
        say::line(&entry.to_string());
        table.entries.push(entry);
    }
    if args.update {
        paths::write(&file, table.render())?;
        say::line(&format!("written: {}", file.display()));
        return Ok(chosen.len() as u64);
    }
    let before = Table::parse(&paths::read(&file)?)?;
    judge(&before, &table)?;
    Ok(chosen.len() as u64)
}

fn judge(before: &Table, now: &Table) -> Result<()> {
    let verdict = table::compare(before, now);
    for line in &verdict.better {
        say::line(&format!("better: {line}"));
    }
    if !verdict.better.is_empty() {
        say::line("keep it: cargo xtask baseline --update");
    }
    if verdict.worse.is_empty() {
        return Ok(());
    }
    for line in &verdict.worse {
        say::line(&format!("worse: {line}"));
    }
    let mut text = format!(
        "{} counts are worse than the baseline; if that has to be, say why in the commit that renews it: \
         cargo xtask baseline --update",
        verdict.worse.len()
    );
    if before.made_with != now.made_with {
        text.extend([format!(
            " (the baseline was counted with {}; here are {})",
            before.made_with, now.made_with
        )]);
    }
    bail!("{text}");
}

fn count(case: &Case, command: &Path, work: &Path) -> Result<Entry> {
    let image = case.make(work)?;
    let image_bytes = fs::metadata(&image)
        .with_context(|| format!("looking at {}", image.display()))?
        .len();
    let Counts {
        reads,
        read_bytes,
        writes,
        write_bytes,
        others,
    } = counts::calls(case, command, work, &image)?;
    let instructions = counts::instructions(case, command, work, &image)?;
    if image.file_name().is_some_and(|name| name != "disk.raw") {
        fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))?;
    }
    Ok(Entry {
        case: case.name.to_owned(),
        values: [
            image_bytes,
            instructions,
            reads,
            read_bytes,
            writes,
            write_bytes,
            others,
        ],
    })
}

/// Why nothing can be counted here.
fn unable() -> Result<Option<String>> {
    for tool in [
        "valgrind", "strace", "strip", "qemu-img", "gzip", "xz", "zstd", "bzip2",
    ] {
        if paths::program(tool).is_none() {
            return Ok(Some(format!(
                "{tool} is not installed: cargo xtask install"
            )));
        }
    }
    let processor = paths::read(Path::new("/proc/cpuinfo"))?;
    if !processor.split_whitespace().any(|flag| flag == "avx2") {
        return Ok(Some(
            "the processor has no AVX2: other code runs on it".to_owned(),
        ));
    }
    Ok(None)
}

/// What else decides about the counts.
fn made_with() -> Result<String> {
    let first = |program: &str| -> Result<String> {
        let text = Run::new(program).arg("--version").quiet().capture()?;
        Ok(text.lines().next().unwrap_or_default().replace(',', ";"))
    };
    let tools = ["rustc", "cc", "qemu-img", "valgrind"].map(first);
    Ok(tools.into_iter().collect::<Result<Vec<_>>>()?.join(" / "))
}

/// In memory, so that every machine has the same kind of filesystem: others share blocks, or copy in
/// the kernel, and count differently.
struct Work(PathBuf);

impl Work {
    fn new() -> Result<Self> {
        let path = Path::new("/dev/shm").join(format!("longshore-baseline-{}", std::process::id()));
        paths::make_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
