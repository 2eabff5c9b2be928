//! Images with named fields changed, read by us and by `qemu-img convert`.
//!
//! ```text
//! seed (qemu-img's, or built byte by byte) -> fields found in it -> one to four changed -> checksums made
//! right -> ours | qemu-img -> equal bytes, or both refuse, or a class of docs/differences.md; else a finding
//! ```
//!
//! Case N of a format is the same in every run. A finding is kept as files, with what was changed.

mod cases;
mod fields;
mod known;
mod mutate;
mod oracle;
mod ours;
mod tables;
mod tally;
mod vmdk;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::cases::{Files, Kind, Seed};
use self::known::{Known, Who};
use self::oracle::{Oracle, Said};
use self::ours::Refusal;
use self::tally::Tally;
use crate::dice::Dice;
use crate::{report, say};

/// How long, and on what.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long to go on
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Only these formats, as qemu-img spells them
    #[arg(long)]
    format: Vec<String>,
    /// The first case
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this one case of one --format, say what was changed and keep its files
    #[arg(long)]
    only: Option<u64>,
    /// Where images are written: 2 GiB are enough, memory is quickest
    #[arg(long, default_value = "/dev/shm")]
    work: PathBuf,
    /// Where findings are kept
    #[arg(long, default_value = "target/soak/findings")]
    findings: PathBuf,
    /// Where the report goes
    #[arg(long, default_value = "target/soak/differential.md")]
    report: PathBuf,
}

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Both read the same disk.
    Equal,
    /// Both refuse.
    Refused,
    /// They differ, as a line of the list says.
    Known(usize),
    /// QEMU crashed, hung, or had no room for what the image says.
    OracleFailed(&'static str),
    Finding(String),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("longshore-soak-")
        .tempdir_in(&args.work)
        .with_context(|| format!("making a directory in {}", args.work.display()))?;
    let oracle = Oracle::new(dir.path());
    let known = Known::read();
    let mut kinds = cases::all(&oracle);
    if !args.format.is_empty() {
        kinds.retain(|kind| args.format.iter().any(|name| name == kind.qemu));
    }
    if kinds.is_empty() {
        bail!("there is no such format");
    }
    let mut tally = Tally::new(&kinds);
    let started = Instant::now();
    let mut numbers = match args.only {
        Some(only) => only..only + 1,
        None => args.first..u64::MAX,
    };
    ours::quiet_panics();
    let mut last_word = Instant::now();
    let mut seen = HashSet::new();
    while let Some(number) = numbers.next()
        && started.elapsed() < Duration::from_mins(args.minutes)
    {
        for (index, kind) in kinds.iter().enumerate() {
            let case = Case::make(kind, number);
            let verdict = judge(kind, &case, &oracle, &known);
            if let Verdict::Finding(what) = &verdict
                && seen.insert((index, shape(what)))
            {
                let kept = keep(&args.findings, kind, number, &case, what)?;
                let what = what.replace('\n', " ");
                say::line(&format!(
                    "{} {number}: {what} ({})",
                    kind.qemu,
                    kept.display()
                ));
            }
            if args.only.is_some() {
                let kept = keep(&args.findings, kind, number, &case, &format!("{verdict:?}"))?;
                say::line(&format!("{verdict:?}: {}", kept.display()));
            }
            tally.add(index, &case.changes, &verdict);
        }
        if last_word.elapsed() > Duration::from_mins(1) {
            last_word = Instant::now();
            say::line(&tally.line(started.elapsed()));
            write_report(args, &tally, &known, started.elapsed())?;
        }
    }
    write_report(args, &tally, &known, started.elapsed())?;
    say::line(&tally.line(started.elapsed()));
    match tally.findings() {
        0 => Ok(()),
        some => bail!("{some} findings, in {}", args.findings.display()),
    }
}

fn write_report(args: &Args, tally: &Tally, known: &Known, elapsed: Duration) -> Result<()> {
    let text = report::head("Differential fuzzing against qemu-img", elapsed) + &tally.table(known);
    if let Some(folder) = args.report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&args.report, text).context("writing the report")
}

/// An image that was changed.
struct Case {
    seed: &'static str,
    files: Files,
    changes: Vec<mutate::Change>,
}

impl Case {
    fn make(kind: &Kind, number: u64) -> Self {
        let mut dice = Dice::new(number.wrapping_mul(1_000_003) ^ kind.salt());
        let Seed { name, files } = dice.pick(&kind.seeds);
        let mut files = files.clone();
        let changes = mutate::mutate(kind, &mut files, &mut dice);
        Self {
            seed: name,
            files,
            changes,
        }
    }
}

fn judge(kind: &Kind, case: &Case, oracle: &Oracle, known: &Known) -> Verdict {
    oracle.write(&case.files);
    let opened = ours::open(kind.format, &case.files, oracle.dir());
    let said = oracle.convert(kind.qemu);
    let theirs = match &said {
        Said::Disk(file) => Some(file),
        _ => None,
    };
    let known = |who, text: &str, what: String| {
        let text = format!("{text}\n{}\n{}", case.beginning(), case.story());
        let class = known.find(kind.qemu, who, &text);
        class.unwrap_or(Verdict::Finding(what))
    };
    let ours = opened.and_then(|chain| ours::compare(&chain, theirs));
    let verdict = match (ours, &said) {
        (Err(Refusal::Panic(what)), _) => Verdict::Finding(format!("we panic: {what}")),
        (_, Said::Failed(how)) => Verdict::OracleFailed(how),
        (Err(Refusal::Error(_)), Said::Refused(_)) => Verdict::Refused,
        (Err(Refusal::Error(e)), Said::Disk(_)) => {
            known(Who::OnlyQemu, &e, format!("only qemu reads it: {e}"))
        }
        (Ok(_), Said::Refused(text)) => {
            let what = format!("only we read it: {}", text.trim());
            known(Who::OnlyUs, text, what)
        }
        (Ok(None), Said::Disk(_)) => Verdict::Equal,
        (Ok(Some(at)), Said::Disk(_)) => known(Who::Both, &at, format!("the disks differ: {at}")),
    };
    match ours::stream_agrees(kind.format, &case.files) {
        Some(what) if !matches!(verdict, Verdict::Finding(_)) => Verdict::Finding(what),
        _ => verdict,
    }
}

impl Case {
    /// Of the image, what the list may look for.
    fn beginning(&self) -> String {
        let (_, main) = &self.files[0];
        String::from_utf8_lossy(&main[..main.len().min(24 << 10)]).into_owned()
    }

    /// Which image it was, and what was changed.
    fn story(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        for change in &self.changes {
            text = text + "changed " + change.field + "\n";
        }
        text
    }
}

/// A finding without its numbers: of those that only differ in them, one is kept.
fn shape(what: &str) -> String {
    let words = what.split(|c: char| !c.is_alphabetic());
    let words = words.filter(|word| word.len() > 2);
    words.collect::<Vec<_>>().join(" ")
}

/// Writes the files of a finding and what it is.
fn keep(home: &Path, kind: &Kind, number: u64, case: &Case, what: &str) -> Result<PathBuf> {
    let folder = home.join(format!("{}-{number}", kind.qemu));
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in &case.files {
        std::fs::write(folder.join(name), bytes)?;
    }
    let changes: Vec<String> = case.changes.iter().map(ToString::to_string).collect();
    let text = format!("seed {}\n{}\n{what}\n", case.seed, changes.join("\n"));
    std::fs::write(folder.join("WHAT"), text)?;
    Ok(folder)
}
