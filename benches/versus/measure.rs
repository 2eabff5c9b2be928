//! One run of one contender, from an idle disk and a read source to the end of fsync.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::case::Case;
use super::cgroup::Cgroup;
use super::contender::{Contender, Leaves};
use super::record::Record;
use super::shell;

const PIECE: usize = 1 << 20;
const PAGE: usize = 4096;
/// How often the pages that wait to be written are counted.
const SAMPLE: Duration = Duration::from_millis(5);

/// Where one case's files are.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) input: PathBuf,
    /// Written to and removed again by every run.
    pub(super) output: PathBuf,
    /// A folder on the result's filesystem.
    pub(super) scratch: PathBuf,
    pub(super) url: Option<String>,
    /// Of the input, where it is asked for.
    pub(super) sha256: Option<String>,
    /// A file without holes, of about as many bytes as the result has blocks.
    pub(super) dense: PathBuf,
}

/// A case that is being measured.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) case: &'a Case,
    pub(super) files: Files,
    pub(super) processors: usize,
    /// Seconds after which a run is ended: some peer never ends with some image.
    pub(super) patience: Cell<Option<u64>>,
}

/// What we say of ourselves at the end, as far as it is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    finishing_seconds: f64,
}

impl Bench<'_> {
    /// Runs once and leaves the result.
    pub(super) fn once(&self, contender: &Contender, program: &Path) -> Result<Record> {
        self.forget()?;
        warm(&self.files.input)?;
        if contender.leaves() == Leaves::Bytes {
            warm(&self.files.dense)?;
        }
        let load = load();
        let limit = self.case.limit.filter(|_| contender.is_limited());
        let cgroup = match self.case.limit {
            Some(_) => Some(Cgroup::new(limit)?),
            None => None,
        };
        let report = self.files.scratch.join("time.txt");
        let mut command = self.command(contender, program, &report, cgroup.as_ref())?;
        let started = Instant::now();
        let (ended, unwritten) = watched(&mut command, cgroup.as_ref())?;
        let program_took = started.elapsed();
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let killed = cgroup.as_ref().map_or(Ok(0), Cgroup::killed)?;
            let killed = if killed > 0 { ", OOM kill" } else { "" };
            if let Some(seconds) = self
                .patience
                .get()
                .filter(|limit| program_took.as_secs() >= *limit)
            {
                bail!("it had not ended after {seconds} s");
            }
            bail!("{} ({}{killed})", last_line(&said), ended.status);
        }
        let mut record =
            parse(&fs::read_to_string(&report).context("reading what time measured")?)?;
        if contender.leaves() != Leaves::Nothing {
            let file = File::open(&self.files.output).context("opening the result")?;
            file.sync_all().context("fsync of the result")?;
            let found = file.metadata().context("looking at the result")?;
            record.allocated_kib = found.blocks() / 2;
        }
        let took = started.elapsed();
        contender.name.clone_into(&mut record.contender);
        record.wall = took.as_secs_f64();
        record.fsync = took.saturating_sub(program_took).as_secs_f64();
        if contender.is_longshore() {
            record.fsync += finishing(&String::from_utf8_lossy(&ended.stdout))?;
        }
        if let Some(cgroup) = &cgroup {
            record.unwritten_kib = unwritten / 1024;
            record.peak_kib = cgroup.peak()? / 1024;
            record.oom_kills = cgroup.killed()?;
        }
        record.load = load;
        Ok(record)
    }

    fn command(
        &self,
        contender: &Contender,
        program: &Path,
        report: &Path,
        cgroup: Option<&Cgroup>,
    ) -> Result<Command> {
        let mut command = Command::new(shell::program("time").context("time is not installed")?);
        command
            .args(["--quiet", "--format", "%U %S %M %O %I", "--output"])
            .arg(report)
            .arg("--");
        if let Some(cgroup) = cgroup {
            // The shell goes in, and becomes what is measured.
            let mut script = String::from("set -e; ");
            for door in cgroup.doors() {
                script.extend([format!("echo $$ > {}; ", door.display())]);
            }
            script.push_str("exec \"$@\"");
            command.args(["sh", "-c", &script, "sh"]);
        }
        if let Some(threads) = self.case.threads.filter(|count| *count <= self.processors) {
            let list = format!("0-{}", threads.saturating_sub(1));
            command.args(["taskset", "--cpu-list", &list]);
        }
        if let Some(seconds) = self.patience.get() {
            // In the foreground: what ends us ends the rest.
            command.args(["timeout", "--foreground", "--signal=KILL"]);
            command.arg(seconds.to_string());
        }
        let files = &self.files;
        let stdout = if contender.is_longshore() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        command
            .arg(program)
            .args(contender.args(self.case, files))
            // A failure has to fit into a line.
            .env("RUST_BACKTRACE", "0")
            .env("IN", &files.input)
            .env("OUT", &files.output)
            .env("SCRATCH", self.download())
            .env("DENSE", &files.dense)
            .env("FMT", self.case.image.format)
            .env("URL", files.url.as_deref().unwrap_or_default())
            .env("SHA256", files.sha256.as_deref().unwrap_or_default())
            .env("UNPACK", self.case.image.unpack.unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Where those put the source who download it first.
    fn download(&self) -> PathBuf {
        self.files.scratch.join("downloaded")
    }

    /// Removes the last result and waits until the filesystem has nothing left to write, so that
    /// nobody pays for who came before.
    pub(super) fn forget(&self) -> Result<()> {
        for path in [&self.files.output, &self.download()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).context("removing the last result");
                }
                _ => {}
            }
        }
        let folder = self.files.scratch.as_os_str();
        shell::run("sync", &[OsStr::new("--file-system"), folder])?;
        Ok(())
    }
}

/// Runs to the end, and counts the pages that wait to be written meanwhile: the most there were.
fn watched(command: &mut Command, cgroup: Option<&Cgroup>) -> Result<(Output, u64)> {
    let Some(cgroup) = cgroup else {
        return Ok((command.output().context("starting time")?, 0));
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = cgroup.unwritten().max(most);
                thread::sleep(SAMPLE);
            }
            most
        });
        let output = command.output().context("starting time");
        over.store(true, Ordering::Relaxed);
        let most = sampler.join().unwrap_or_default();
        Ok((output?, most))
    })
}

/// How long our own last steps took: fsync, rename.
fn finishing(said: &str) -> Result<f64> {
    let last = said.lines().last().unwrap_or_default();
    let done: Done = serde_json::from_str(last)
        .with_context(|| format!("reading what longshore said at the end: {last}"))?;
    Ok(done.finishing_seconds)
}

/// Takes and gives back memory of a result's size: the first large use of memory after a pause is
/// slow on virtual machines, whoever it is.
pub(super) fn touch(bytes: u64) -> Result<()> {
    let mut memory = vec![0_u8; usize::try_from(bytes).context("more than fits into memory")?];
    for byte in memory.iter_mut().step_by(PAGE) {
        *byte = 1;
    }
    black_box(&memory);
    Ok(())
}

/// Reads everything once: the source is in the page cache when the clock starts.
fn warm(path: &Path) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut buffer = vec![0; PIECE];
    while file.read(&mut buffer).context("reading the source")? > 0 {}
    Ok(())
}

fn parse(report: &str) -> Result<Record> {
    let line = report.lines().last().unwrap_or_default();
    let cells: Vec<&str> = line.split(' ').collect();
    let &[user, sys, rss, outblock, inblock] = cells.as_slice() else {
        bail!("time measured something else: {report}");
    };
    let fault = || format!("reading what time measured: {report}");
    Ok(Record {
        user: user.parse().with_context(fault)?,
        sys: sys.parse().with_context(fault)?,
        rss_kib: rss.parse().with_context(fault)?,
        outblock: outblock.parse().with_context(fault)?,
        inblock: inblock.parse().with_context(fault)?,
        ..Record::default()
    })
}

fn last_line(said: &str) -> &str {
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    lines.next_back().unwrap_or("it said nothing")
}

/// Processes that wanted to run in the last minute.
fn load() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Whether two files have the same bytes; a hole is zeros.
pub(crate) fn equal(one: &Path, other: &Path) -> Result<()> {
    let open =
        |path: &Path| File::open(path).with_context(|| format!("opening {}", path.display()));
    let (one, other) = (open(one)?, open(other)?);
    let sizes = [one.metadata()?.len(), other.metadata()?.len()];
    ensure!(
        sizes[0] == sizes[1],
        "sizes differ: {} and {}",
        sizes[0],
        sizes[1]
    );
    let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
    let mut at = 0;
    while at < sizes[0] {
        let length = usize::try_from((sizes[0] - at).min(PIECE as u64))?;
        let [left, right] = &mut buffers;
        let (left, right) = (&mut left[..length], &mut right[..length]);
        one.read_exact_at(left, at).context("reading a result")?;
        other.read_exact_at(right, at).context("reading a result")?;
        if left != right {
            let same = left
                .iter()
                .zip(&*right)
                .take_while(|(left, right)| left == right);
            bail!("the result differs at {}", at + same.count() as u64);
        }
        at += length as u64;
    }
    Ok(())
}

/// The sha256 of a file.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let args: [OsString; 2] = ["--".into(), path.as_os_str().to_owned()];
    let text = shell::run("sha256sum", &args.each_ref().map(OsString::as_os_str))?;
    let digest = text.split_whitespace().next().unwrap_or_default();
    ensure!(digest.len() == 64, "sha256sum said: {text}");
    Ok(digest.to_owned())
}

/// The kind of a filesystem, for the record.
pub(super) fn filesystem(path: &Path) -> Result<String> {
    let args = ["--file-system", "--format", "%T"].map(OsStr::new);
    let kind = shell::run(
        "stat",
        &[&args[..], &[OsStr::from_bytes(path.as_os_str().as_bytes())]].concat(),
    )?;
    Ok(kind.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_equals_zeros_and_a_flipped_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let [hole, zeros, other, short] =
            ["hole", "zeros", "other", "short"].map(|name| folder.path().join(name));
        let length = 3 * PIECE + 5;
        File::create(&hole).unwrap().set_len(length as u64).unwrap();
        let mut bytes = vec![0; length];
        fs::write(&zeros, &bytes).unwrap();
        bytes[2 * PIECE + 7] = 1;
        fs::write(&other, &bytes).unwrap();
        fs::write(&short, &bytes[..length - 1]).unwrap();
        equal(&hole, &zeros).unwrap();
        let text = equal(&hole, &other).unwrap_err().to_string();
        assert_eq!(text, format!("the result differs at {}", 2 * PIECE + 7));
        assert!(
            equal(&hole, &short)
                .unwrap_err()
                .to_string()
                .contains("sizes")
        );
    }

    #[test]
    fn what_time_prints_is_read_and_its_complaints_are_passed_over() {
        let record = parse("Command exited\n1.25 0.50 30000 512 8\n").unwrap();
        assert_eq!(
            (record.rss_kib, record.outblock, record.inblock),
            (30_000, 512, 8)
        );
        assert!((record.cpu() - 1.75).abs() < 1e-9);
        assert!(parse("").is_err());
    }

    #[test]
    fn our_own_last_steps_are_read_from_the_last_event() {
        let said = "{\"event\":\"progress\",\"fraction\":1.0}\n\
                    {\"event\":\"done\",\"seconds\":2.0,\"finishingSeconds\":0.25}\n";
        assert!((finishing(said).unwrap() - 0.25).abs() < 1e-9);
        assert!(finishing("").is_err());
    }
}
