//! What is converted: one small disk in every format, and both ways.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::shell::Run;

/// A conversion that is counted.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    made: Made,
    /// What we are told beside the two files; `-` reads the image from standard input.
    args: &'static [&'static str],
}

#[derive(Debug, Clone, Copy)]
enum Made {
    Itself,
    /// `qemu-img convert` with these options.
    Convert(&'static [&'static str]),
    /// `qemu-img create` with these options and this size: no data at all.
    Empty(&'static [&'static str], &'static str),
    /// A program that writes to standard output.
    Packed(&'static [&'static str]),
}

const fn case(name: &'static str, made: Made, args: &'static [&'static str]) -> Case {
    Case { name, made, args }
}

const ZLIB: Made = Made::Convert(&["-O", "qcow2", "-c"]);

pub(super) const CASES: &[Case] = &[
    case("raw", Made::Itself, &["--from", "raw"]),
    case(
        "qcow2",
        Made::Convert(&["-O", "qcow2"]),
        &["--from", "qcow2"],
    ),
    case("qcow2-zlib", ZLIB, &["--from", "qcow2"]),
    case("qcow2-zlib-piped", ZLIB, &["--from", "qcow2", "-"]),
    case(
        "qcow2-zlib-4k",
        Made::Convert(&["-O", "qcow2", "-c", "-o", "cluster_size=4096"]),
        &["--from", "qcow2"],
    ),
    case(
        "qcow2-zstd",
        Made::Convert(&["-O", "qcow2", "-c", "-o", "compression_type=zstd"]),
        &["--from", "qcow2"],
    ),
    case(
        "qcow2-empty-8T",
        Made::Empty(&["-f", "qcow2"], "8T"),
        &["--from", "qcow2"],
    ),
    case(
        "vmdk-stream",
        Made::Convert(&["-O", "vmdk", "-o", "subformat=streamOptimized"]),
        &["--from", "vmdk"],
    ),
    case("vmdk", Made::Convert(&["-O", "vmdk"]), &["--from", "vmdk"]),
    case("vdi", Made::Convert(&["-O", "vdi"]), &["--from", "vdi"]),
    case(
        "vhd",
        Made::Convert(&["-O", "vpc", "-o", "force_size=on"]),
        &["--from", "vhd"],
    ),
    case("vhdx", Made::Convert(&["-O", "vhdx"]), &["--from", "vhdx"]),
    case(
        "raw.gz",
        Made::Packed(&["gzip", "-6", "--no-name", "--stdout"]),
        &["--from", "raw"],
    ),
    case(
        "raw.xz",
        Made::Packed(&["xz", "-6", "-T1", "--stdout"]),
        &["--from", "raw"],
    ),
    case(
        "raw.zst",
        Made::Packed(&["zstd", "-3", "--quiet", "--stdout"]),
        &["--from", "raw"],
    ),
    case(
        "raw.bz2",
        Made::Packed(&["bzip2", "-9", "--stdout"]),
        &["--from", "raw"],
    ),
    case("to-qcow2", Made::Itself, &["--from", "raw", "-O", "qcow2"]),
    case(
        "to-qcow2-zlib",
        Made::Itself,
        &["--from", "raw", "-O", "qcow2", "--compress"],
    ),
];

impl Case {
    /// Makes the image of `disk.raw` in the same folder.
    pub(super) fn make(&self, work: &Path) -> Result<PathBuf> {
        let raw = work.join("disk.raw");
        let path = work.join(self.name);
        match self.made {
            Made::Itself => return Ok(raw),
            Made::Convert(options) => {
                Run::new("qemu-img")
                    .args(["convert", "-f", "raw"])
                    .args(options)
                    .args([&raw, &path])
                    .quiet()
                    .check()?;
            }
            Made::Empty(options, size) => {
                Run::new("qemu-img")
                    .args(["create", "-q"])
                    .args(options)
                    .arg(&path)
                    .arg(size)
                    .quiet()
                    .check()?;
            }
            Made::Packed(line) => {
                let (program, options) = line.split_first().context("a command has a name")?;
                let bytes = Run::new(program)
                    .args(options)
                    .arg(&raw)
                    .quiet()
                    .capture_bytes()?;
                paths::write(&path, bytes)?;
            }
        }
        Ok(path)
    }

    /// Where the result goes.
    pub(super) fn target(work: &Path) -> PathBuf {
        work.join("result")
    }

    /// Our arguments: one thread and a fixed budget, so that the machine decides nothing.
    pub(super) fn args(&self, work: &Path, image: &Path) -> Vec<OsString> {
        let fixed = [
            "convert",
            "--progress",
            "off",
            "--threads",
            "1",
            "--memory",
            "112Mi",
        ];
        let mut args: Vec<OsString> = fixed.iter().chain(self.args).map(OsString::from).collect();
        if !self.is_piped() {
            args.push(image.into());
        }
        args.push(Self::target(work).into());
        args
    }

    fn is_piped(&self) -> bool {
        self.args.contains(&"-")
    }

    /// Runs a tool around our command; what it writes on standard error comes back.
    pub(super) fn watched(&self, tool: Run, work: &Path, image: &Path) -> Result<String> {
        let target = Self::target(work);
        drop(std::fs::remove_file(&target));
        let mut command = tool.args(self.args(work, image)).into_command();
        // A pipe, not a file that could be read at will.
        let feeder = if self.is_piped() {
            let mut cat = Run::new("cat").arg(image).into_command();
            let mut child = cat.stdout(Stdio::piped()).spawn().context("starting cat")?;
            command.stdin(child.stdout.take().context("a piped child has an output")?);
            Some(child)
        } else {
            command.stdin(Stdio::null());
            None
        };
        let output = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .context("starting the tool that counts")?;
        // It holds the reading end, on which cat may still wait.
        drop(command);
        if let Some(mut child) = feeder {
            child.wait().context("waiting for cat")?;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            bail!("{} ({}): {}", self.name, output.status, said.trim());
        }
        drop(std::fs::remove_file(&target));
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_and_runs_on_one_thread() {
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
        for case in CASES {
            let args = case.args(Path::new("/w"), Path::new("/w/in"));
            assert!(args.windows(2).any(|pair| pair == ["--threads", "1"]));
            assert_eq!(
                args.contains(&"/w/in".into()),
                !case.is_piped(),
                "{}",
                case.name
            );
        }
    }
}
