//! Counting: instructions by valgrind, calls and bytes by strace.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::cases::Case;
use crate::shell::Run;

/// Calls on files of the work folder: source and target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) writes: u64,
    pub(super) write_bytes: u64,
    /// Seeks, sizes, holes, write-out: whatever moves no bytes.
    pub(super) others: u64,
}

const READS: &[&str] = &["read", "pread64", "readv", "preadv", "preadv2"];
const WRITES: &[&str] = &[
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev2",
    "copy_file_range",
    "sendfile",
    "splice",
];
const OTHERS: &[&str] = &[
    "lseek",
    "fallocate",
    "ftruncate",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "fadvise64",
    "ioctl",
];

/// Instructions of the whole program, its start included.
pub(super) fn instructions(case: &Case, command: &Path, work: &Path, image: &Path) -> Result<u64> {
    let tool = Run::new("valgrind")
        .args([
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
            // Threads take turns in an order that the machine does not decide.
            "--fair-sched=yes",
        ])
        .arg(command);
    let said = case.watched(tool, work, image)?;
    refs(&said).with_context(|| format!("valgrind counted nothing: {said}"))
}

/// The number in `==123== I   refs:      73,132,387`.
fn refs(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("I   refs:"))?;
    let number = line.rsplit(' ').next()?;
    number.replace(',', "").parse().ok()
}

/// Calls and bytes.
pub(super) fn calls(case: &Case, command: &Path, work: &Path, image: &Path) -> Result<Counts> {
    // Each thread into a file of its own: no call is cut in two.
    let trace = work.join("trace");
    let names = [READS, WRITES, OTHERS].concat().join(",");
    let tool = Run::new("strace")
        .args(["-ff", "-qq", "--decode-fds=path", "--string-limit=0", "-o"])
        .arg(&trace)
        .arg(format!("--trace={names}"))
        .arg(command);
    case.watched(tool, work, image)?;
    let folder = work.to_str().context("the work folder's name is plain")?;
    let mut counts = Counts::default();
    for entry in fs::read_dir(work).context("listing the work folder")? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "trace") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            for line in text.lines() {
                add(&mut counts, line, folder);
            }
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    if counts.reads + counts.writes + counts.others == 0 {
        bail!("{}: strace saw no call on source or target", case.name);
    }
    Ok(counts)
}

/// A line such as `pread64(9</folder/image>, ""..., 512, 0) = 512`. What goes to other files, such as
/// the loader's, is not ours to count; a pipe stands for the source.
fn add(counts: &mut Counts, line: &str, folder: &str) {
    let Some((name, rest)) = line.split_once('(') else {
        return;
    };
    let first = rest.split([',', ')']).next().unwrap_or_default();
    let ours = first
        .split_once('<')
        .is_some_and(|(_, path)| path.starts_with(folder));
    let piped = first.starts_with("0<pipe:");
    if !ours && !piped {
        return;
    }
    let moved = line
        .rsplit_once(" = ")
        .and_then(|(_, result)| result.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    if READS.contains(&name) {
        counts.reads += 1;
        counts.read_bytes += moved;
    } else if WRITES.contains(&name) {
        counts.writes += 1;
        counts.write_bytes += moved;
    } else {
        counts.others += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valgrinds_number_is_read_with_its_commas() {
        let said = "==1== Cachegrind\n==1== I   refs:      73,132,387\n";
        assert_eq!(refs(said), Some(73_132_387));
        assert_eq!(refs("==1== nothing"), None);
    }

    #[test]
    fn only_calls_on_source_and_target_count() {
        let mut counts = Counts::default();
        for line in [
            "pread64(9</w/image>, \"\"..., 512, 0) = 512",
            "pwrite64(12</w/.result.partial>, \"\"..., 4096, 0) = 4096",
            "read(0<pipe:[12]>, \"\"..., 65536) = 1000",
            "read(3</usr/lib/libc.so.6>, \"\"..., 832) = 832",
            "lseek(9</w/image>, 0, SEEK_DATA) = -1 ENXIO (No such device or address)",
            "ioctl(12</w/.result.partial>, FICLONERANGE, {src_fd=9</w/image>}) = -1 EOPNOTSUPP",
            "write(2</dev/null>, \"\"..., 10) = 10",
            "+++ exited with 0 +++",
        ] {
            add(&mut counts, line, "/w");
        }
        let expected = Counts {
            reads: 2,
            read_bytes: 1512,
            writes: 1,
            write_bytes: 4096,
            others: 2,
        };
        assert_eq!(counts, expected);
    }
}
