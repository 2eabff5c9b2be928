//! A person at the console of a guest in the foreground.

use std::io::Read as _;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::helper::Helper;
use crate::host::{QEMU, has};
use crate::rig::eventually;

struct Terminal {
    person: OwnedFd,
    process: OwnedFd,
}

impl Terminal {
    fn open() -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let process = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        Self { person, process }
    }

    fn types(&self, keys: &str) {
        rustix::io::write(&self.person, keys.as_bytes()).unwrap();
    }

    /// Whether the terminal itself still edits lines and makes signals of keys.
    fn cooked(&self) -> bool {
        let modes = tcgetattr(&self.process).unwrap().local_modes;
        modes.contains(LocalModes::ISIG | LocalModes::ICANON | LocalModes::ECHO)
    }

    fn helper(&self, guest: &str, dir: &std::path::Path) -> Helper {
        let mut helper = Helper::on_terminal(guest, dir, self.process.try_clone().unwrap());
        helper.expect("ready");
        eventually("raw mode", || (!self.cooked()).then_some(()));
        helper
    }
}

#[test]
fn what_is_typed_reaches_the_guest_and_the_terminal_comes_back_with_its_end() {
    if !has(QEMU) {
        return;
    }
    let (terminal, dir) = (Terminal::open(), tempfile::tempdir().unwrap());
    let mut helper = terminal.helper("echo", dir.path());
    // Ctrl+C is a key like any other.
    terminal.types("ab\x03c");
    let mut shown = [0; 4];
    helper
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut shown)
        .unwrap();
    assert_eq!(&shown, b"ab\x03c");
    terminal.types("q");
    assert_eq!(helper.code(), 0);
    assert!(terminal.cooked());
}

#[test]
fn the_escape_key_gives_the_terminal_back_and_leaves_the_guest_running() {
    if !has(QEMU) {
        return;
    }
    let (terminal, dir) = (Terminal::open(), tempfile::tempdir().unwrap());
    let mut helper = terminal.helper("obedient", dir.path());
    terminal.types("\x1D");
    eventually("the terminal", || terminal.cooked().then_some(()));
    assert!(helper.child.try_wait().unwrap().is_none());
    helper.signal(Signal::TERM);
    helper.expect("button");
    assert_eq!(helper.code(), 0);
}

#[test]
fn the_terminal_comes_back_when_the_guest_is_killed() {
    if !has(QEMU) {
        return;
    }
    let (terminal, dir) = (Terminal::open(), tempfile::tempdir().unwrap());
    let mut helper = terminal.helper("stubborn", dir.path());
    helper.signal(Signal::TERM);
    helper.told("power button pressed");
    helper.signal(Signal::TERM);
    assert_eq!(helper.code(), 1);
    assert!(terminal.cooked());
}
