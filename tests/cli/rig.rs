//! A directory to work in, and the program in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use longshore_tests::data;
use longshore_tests::program::{fed, longshore, said, shell};

pub(crate) const MIB: usize = 1 << 20;

pub(crate) struct Rig(tempfile::TempDir);

impl Rig {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A directory in memory: see [`data::quick_dir`].
    pub(crate) fn quick() -> Self {
        Self(data::quick_dir())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A raw image of noise, zeros and text.
    pub(crate) fn image(&self, name: &str, len: usize) -> Vec<u8> {
        let bytes = data::disk(len, 7);
        self.write(name, &bytes);
        bytes
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs a script in the directory, which must succeed.
    pub(crate) fn shell(&self, script: &str) -> Vec<u8> {
        shell(self.dir(), script)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = longshore();
        command.args(args).current_dir(self.dir());
        command.stdin(Stdio::null());
        command.env_remove("LONGSHORE_PASSWORD");
        command
    }

    pub(crate) fn longshore(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs it, and checks how it ends.
    pub(crate) fn ends(&self, args: &[&str], code: i32) -> Output {
        let output = self.longshore(args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            said(&output)
        );
        output
    }

    /// Runs it with something on its standard input, through a pipe.
    pub(crate) fn fed(&self, args: &[&str], input: &[u8]) -> Output {
        fed(&mut self.command(args), input)
    }

    /// Names of everything in the directory, hidden files too.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// The line that says what went wrong.
pub(crate) fn error_of(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.starts_with("error: "));
    line.unwrap_or_else(|| panic!("no error line: {}", said(output)))
        .to_owned()
}

pub(crate) fn json_of(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}
