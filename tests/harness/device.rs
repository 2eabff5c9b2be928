//! Block devices for tests, which take root.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::eventually;
use crate::program::{have, said};

/// Where there is no right to mount and make devices, a skip that names itself.
pub fn is_root() -> bool {
    let root = File::open("/proc/self").unwrap().metadata().unwrap().uid() == 0;
    if !root {
        eprintln!("skipped: this takes root");
    }
    root
}

/// Takes a mount away. A program that another test starts at that moment has our files open until it is itself.
pub fn unmount(at: &Path) {
    eventually("the end of a mount", || {
        let output = Command::new("umount").arg(at).output().unwrap();
        output.status.success().then_some(())
    });
}

/// A loop device over a file, detached when dropped.
#[derive(Debug)]
pub struct Loop(PathBuf);

impl Loop {
    /// The next free one; None, with the reason, where that can't be.
    pub fn over(file: &Path) -> Option<Self> {
        if !is_root() || !have("losetup") {
            return None;
        }
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .unwrap();
        if !made.status.success() {
            eprintln!("skipped: no loop device: {}", said(&made));
            return None;
        }
        let path = String::from_utf8(made.stdout).unwrap();
        Some(Self(PathBuf::from(path.trim())))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its path, as a word of a command.
    pub fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}
