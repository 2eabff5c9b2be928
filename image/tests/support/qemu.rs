//! A directory of its own, and the tools that make images in it: what the tests of every format share.
//! Each takes this file in by its path.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use longshore_image::{Error, OpenGate, ReadAt, Reference, Result};

/// A directory of its own, and QEMU's tools in it, for images of one format.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    format: &'static str,
}

impl Bench {
    /// None, with the name of what is missing, on a machine without the tools; a failure under CI.
    pub(crate) fn new(format: &'static str) -> Option<Self> {
        for tool in ["qemu-img", "qemu-io"] {
            if Command::new(tool).arg("--version").output().is_err() {
                assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
                eprintln!("skipped: {tool} is missing");
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        Some(Self { dir, format })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs `tool` here; its success, and what it said.
    pub(crate) fn attempt(&self, tool: &str, words: &[&str]) -> (bool, String) {
        let out = Command::new(tool)
            .args(words)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let text = [out.stdout, out.stderr].concat();
        (
            out.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Runs `tool` here; it must succeed.
    pub(crate) fn run(&self, tool: &str, words: &[&str]) {
        let (ok, text) = self.attempt(tool, words);
        assert!(ok, "{tool} {words:?}: {text}");
    }

    /// Runs qemu-img with words split at spaces.
    pub(crate) fn img(&self, words: &str) {
        self.run("qemu-img", &words.split_whitespace().collect::<Vec<_>>());
    }

    /// Runs qemu-io commands on `name`.
    pub(crate) fn io(&self, name: &str, commands: &[&str]) {
        let mut words = vec!["-f", self.format];
        for command in commands {
            words.extend(["-c", command]);
        }
        words.push(name);
        self.run("qemu-io", &words);
    }

    /// What qemu-img says the disk's bytes are.
    pub(crate) fn oracle(&self, name: &str) -> Vec<u8> {
        let format = self.format;
        self.img(&format!("convert -f {format} -O raw {name} {name}.oracle"));
        self.read(&format!("{name}.oracle"))
    }

    /// A gate that lets in what is here.
    pub(crate) fn gate(&self) -> InDir {
        InDir(self.dir.path().to_owned())
    }
}

/// Lets everything in its directory in.
#[derive(Debug)]
pub(crate) struct InDir(pub(crate) PathBuf);

impl OpenGate for InDir {
    fn open(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let bytes = std::fs::read(self.0.join(Path::new(&reference.name)))
            .map_err(|e| Error::io("opening a reference", e))?;
        Ok(Arc::new(bytes))
    }

    fn nested(&self, _: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(Self(self.0.clone()))
    }
}
