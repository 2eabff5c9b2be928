//! One run of one contender, from an idle disk and a read source to the end of fsync.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::contender::Contender;
use super::fixture::Image;
use super::record::Record;
use super::shell;

const PIECE: usize = 1 << 20;
const PAGE: usize = 4096;

/// Where one case's files are.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) image: &'a Image,
    pub(super) input: PathBuf,
    /// Written to and removed again by every run.
    pub(super) output: PathBuf,
    /// What GNU time writes.
    pub(super) report: PathBuf,
}

impl Bench<'_> {
    /// Runs once and leaves the result.
    pub(super) fn once(&self, contender: &Contender, program: &Path) -> Result<Record> {
        self.forget()?;
        warm(&self.input)?;
        let load = load();
        let mut command = Command::new(shell::program("time").context("time is not installed")?);
        command
            .args(["--quiet", "--format", "%U %S %M %O %I", "--output"])
            .arg(&self.report)
            .arg("--")
            .arg(program)
            .args(contender.args(self.image, &self.input, &self.output))
            // A failure has to fit into a line.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let ended = command.output().context("starting time")?;
        let program_took = started.elapsed();
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            bail!("{} ({})", last_line(&said), ended.status);
        }
        let file = File::open(&self.output).context("opening the result")?;
        file.sync_all().context("fsync of the result")?;
        let took = started.elapsed();
        let found = file.metadata().context("looking at the result")?;
        let report = fs::read_to_string(&self.report).context("reading what time measured")?;
        let mut record = parse(&report)?;
        contender.name.clone_into(&mut record.contender);
        record.wall = took.as_secs_f64();
        record.fsync = took.saturating_sub(program_took).as_secs_f64();
        record.allocated_kib = found.blocks() / 2;
        record.load = load;
        Ok(record)
    }

    /// Removes the last result and waits until the filesystem has nothing left to write, so that
    /// nobody pays for who came before.
    pub(super) fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.output) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).context("removing the last result");
            }
            _ => {}
        }
        let folder = self.output.parent().context("a result has a folder")?;
        shell::run("sync", &[OsStr::new("--file-system"), folder.as_os_str()])?;
        Ok(())
    }
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
pub(super) fn equal(one: &Path, other: &Path) -> Result<()> {
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
}
