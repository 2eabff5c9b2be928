//! `qemu-img convert`, kept short of time and memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::cases::Files;

/// How QEMU ended.
pub(crate) enum Said {
    /// The disk, in a file.
    Disk(File),
    /// What it said.
    Refused(String),
    /// Not the image's fault, or a crash: no answer.
    Failed(&'static str),
}

/// A directory for images, and QEMU in it. The image's first file is always called `image`.
#[derive(Debug)]
pub(crate) struct Oracle(PathBuf);

impl Oracle {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    /// The files of an image and no others.
    pub(crate) fn write(&self, files: &Files) {
        for entry in std::fs::read_dir(&self.0).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (name, bytes) in files {
            std::fs::write(self.0.join(name), bytes).unwrap();
        }
    }

    /// A tool in the directory: 4 s, 3 GiB of addresses.
    fn tool(&self, words: &[&str]) -> Output {
        let limits = [
            "--as=3221225472",
            "--cpu=10",
            "--core=0",
            "timeout",
            "-s",
            "KILL",
            "10",
        ];
        Command::new("prlimit")
            .args(limits)
            .args(words)
            .current_dir(&self.0)
            .env("LC_ALL", "C")
            .output()
            .unwrap()
    }

    /// Makes a seed; it must work.
    pub(crate) fn make(&self, words: &str) {
        let words: Vec<&str> = words.split_whitespace().collect();
        let output = self.tool(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
    }

    /// Converts `image`.
    pub(crate) fn convert(&self, format: &str) -> Said {
        let words = [
            "qemu-img", "convert", "-f", format, "-O", "raw", "image", "disk",
        ];
        let mut output = self.tool(&words);
        let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("qemu-img check -r all") {
            // A VHDX log, which it replays into the file only. Ours has been read by now.
            self.tool(&[
                "qemu-img", "check", "-q", "-r", "all", "-f", format, "image",
            ]);
            output = self.tool(&words);
            said = String::from_utf8_lossy(&output.stderr).into_owned();
        }
        match output.status.code() {
            Some(0) => Said::Disk(File::open(self.0.join("disk")).unwrap()),
            // `timeout` passes its own end by SIGKILL on.
            Some(137) | None => Said::Failed("killed: too slow"),
            Some(134 | 139) => Said::Failed("crashed"),
            _ if said.contains("No space left") || said.contains("File too large") => {
                Said::Failed("no room for the disk")
            }
            _ if said.contains("annot allocate memory") => Said::Failed("no memory"),
            Some(_) => Said::Refused(said),
        }
    }
}
