//! Supervisors as processes: signals, closed and stuck pipes, and death at any moment.

use std::io::Read as _;
use std::time::{Duration, Instant};

use longshore_launcher::supervisor::{End, EndCause, Notice, Request};
use rustix::process::{Pid, Signal, kill_process};

use crate::guests;
use crate::helper::{Helper, IN_USE};
use crate::host::{QEMU, has};
use crate::rig::{Client, DEADLINE, Setup, eventually};

/// Waits for the end of a process that is nobody's child any more; whether it is reaped then depends
/// on the machine's first process.
fn gone(pid: Pid) {
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    eventually("qemu's end", || match std::fs::read_to_string(&stat) {
        Ok(stat) => stat.rsplit(") ").next()?.starts_with('Z').then_some(()),
        Err(_) => Some(()),
    });
}

#[test]
fn sigterm_presses_the_power_button_and_obedience_is_success() {
    if !has(QEMU) {
        return;
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let dir = tempfile::tempdir().unwrap();
        let mut helper = Helper::start("obedient", dir.path());
        let qemu = helper.qemu();
        helper.expect("ready");
        helper.signal(signal);
        helper.expect("button");
        assert_eq!(helper.code(), 0, "{signal:?}");
        gone(qemu);
    }
}

#[test]
fn the_second_signal_kills_at_once() {
    if !has(QEMU) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut helper = Helper::start("stubborn", dir.path());
    let qemu = helper.qemu();
    helper.expect("ready");
    helper.signal(Signal::TERM);
    // Two signals that are pending together are one.
    helper.told("power button pressed");
    let second = Instant::now();
    helper.signal(Signal::TERM);
    assert_eq!(helper.code(), 1);
    assert!(second.elapsed() < DEADLINE / 3, "grace was not waited for");
    gone(qemu);
}

#[test]
fn qemu_dies_with_a_supervisor_that_is_killed_and_the_next_run_is_not_disturbed() {
    if !has(QEMU) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut helper = Helper::start("stubborn", dir.path());
        let qemu = helper.qemu();
        helper.expect("ready");
        helper.signal(Signal::KILL);
        // Not even waiting for its qemu to be gone: that is the next run's business.
        let mut next = Helper::start("hello", dir.path());
        next.expect("hello from the boot sector");
        assert_eq!(next.code(), 0);
        gone(qemu);
    }
    let sockets = ["qmp.sock", "serial.sock", "console.sock"];
    let left = sockets.map(|name| dir.path().join(name).exists());
    assert_eq!(left, [false; 3]);
}

#[test]
fn a_supervisor_may_be_killed_at_any_moment() {
    if !has(QEMU) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // From before it has a lock to after its guest is off.
    for moment in [
        0, 1, 2, 4, 8, 12, 16, 20, 25, 30, 40, 60, 80, 100, 150, 200, 300,
    ] {
        let helper = Helper::start("hello", dir.path());
        std::thread::sleep(Duration::from_millis(moment));
        // Its destructor kills it.
        drop(helper);
        let mut next = Helper::start("hello", dir.path());
        next.expect("hello from the boot sector");
        assert_eq!(next.code(), 0, "after a kill at {moment} ms");
    }
}

#[test]
fn a_second_run_in_the_same_directory_is_refused_while_the_first_lives() {
    if !has(QEMU) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut first = Helper::start("obedient", dir.path());
    first.qemu();
    first.expect("ready");
    let mut second = Helper::start("obedient", dir.path());
    assert_eq!(second.code(), IN_USE);
    first.signal(Signal::TERM);
    first.expect("button");
    assert_eq!(first.code(), 0);
}

#[test]
fn a_closed_standard_output_does_not_end_the_guest() {
    if !has(QEMU) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut helper = Helper::start("obedient", dir.path());
    // Not before: the test harness in the helper cannot do without it.
    helper.qemu();
    helper.stdout = None;
    let mut console = Client::connect(&dir.path().join("console.sock"));
    console.expect("ready\r\n");
    helper.signal(Signal::TERM);
    console.expect("button\r\n");
    assert_eq!(helper.code(), 0);
}

#[test]
fn a_standard_output_that_nobody_reads_holds_up_neither_guest_nor_exit() {
    if !has(QEMU) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut helper = Helper::start("chatty", dir.path());
    assert_eq!(helper.code(), 0);
    let log = std::fs::read_to_string(dir.path().join("console.log")).unwrap();
    assert_eq!(log.matches(".\r\n").count(), 1 << 16);
    let mut shown = Vec::new();
    helper
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut shown)
        .unwrap();
    assert!(shown.len() < log.len(), "the pipe was read after all");
}

fn pid_of(notice: &Notice) -> Pid {
    let Notice::Started { pid, .. } = notice else {
        panic!()
    };
    Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap()
}

#[test]
fn a_qemu_that_is_killed_or_ended_from_outside_is_a_failure() {
    if !has(QEMU) {
        return;
    }
    for (signal, from_outside) in [(Signal::KILL, false), (Signal::TERM, true)] {
        let vm = Setup::new(guests::stubborn()).start();
        let qemu = pid_of(&vm.told(|notice| matches!(notice, Notice::Started { .. })));
        vm.console().expect("ready\r\n");
        kill_process(qemu, signal).unwrap();
        let ended = vm.join();
        let end = ended.outcome.end.clone();
        assert_eq!(
            matches!(end, End::EndedFromOutside { .. }),
            from_outside,
            "{end:?}"
        );
        assert_eq!(matches!(end, End::Crashed { .. }), !from_outside, "{end:?}");
        assert_eq!(ended.outcome.exit_code(), 1);
    }
}

#[test]
fn a_qemu_that_hangs_is_killed_when_its_time_is_over() {
    if !has(QEMU) {
        return;
    }
    let grace = Duration::from_millis(200);
    let vm = Setup {
        grace,
        ..Setup::new(guests::obedient())
    }
    .start();
    let qemu = pid_of(&vm.told(|notice| matches!(notice, Notice::Started { .. })));
    vm.console().expect("ready\r\n");
    kill_process(qemu, Signal::STOP).unwrap();
    vm.ask(Request::Stop);
    let ended = vm.join();
    assert_eq!(ended.outcome.end, End::GraceOver { grace });
    assert!(ended.was_told(|notice| *notice
        == Notice::Ending {
            cause: EndCause::GraceOver
        }));
}
