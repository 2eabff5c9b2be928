//! Filesystems of their own for tests, over loop devices. These take root.

use std::path::PathBuf;
use std::process::Command;

use longshore_tests::device::is_root;
use longshore_tests::program::{have, run, said};

use crate::rig::Rig;

/// A small filesystem at `mnt` of a rig, unmounted when dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// A new filesystem of `kind` and `bytes`. `None`, and the reason printed, where none can be mounted:
    /// without root, without loop devices, or under a kernel that does not have it. A missing mkfs is a
    /// failure in CI.
    pub(crate) fn of(rig: &Rig, kind: &str, bytes: u64) -> Option<Self> {
        if !is_root() || !known(kind) || !have(&format!("mkfs.{kind}")) {
            return None;
        }
        let file = std::fs::File::create(rig.path("fs")).unwrap();
        file.set_len(bytes).unwrap();
        run(Command::new(format!("mkfs.{kind}"))
            .arg("-q")
            .arg(rig.path("fs")));
        let at = rig.path("mnt");
        std::fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-o", "loop"])
            .arg(rig.path("fs"))
            .arg(&at)
            .output()
            .unwrap();
        if !mounted.status.success() {
            eprintln!("skipped: no loop mount of {kind}: {}", said(&mounted));
            return None;
        }
        Some(Self(at))
    }

    /// Names of what is in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "lost+found").collect()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The kernel has this filesystem, or a module of it.
fn known(kind: &str) -> bool {
    let built_in = || {
        let list = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        list.lines()
            .any(|line| line.split_whitespace().last() == Some(kind))
    };
    let loaded = || Command::new("modprobe").args(["-q", kind]).status();
    let known = built_in() || loaded().is_ok_and(|status| status.success());
    if !known {
        eprintln!("skipped: this kernel has no {kind}");
    }
    known
}
