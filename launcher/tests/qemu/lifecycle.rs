//! How guests run and end, by their own doing and by ours.

use std::time::{Duration, Instant};

use longshore_launcher::supervisor::{Denied, Disposition, End, EndCause, Notice, Request};

use crate::guests;
use crate::host::{QEMU, accelerators, fast_accelerators, has};
use crate::rig::{Setup, second_sector};

#[test]
fn a_guest_prints_a_line_and_powers_off() {
    if !has(QEMU) {
        return;
    }
    for accelerator in accelerators() {
        let started = Instant::now();
        let ended = Setup {
            accelerator,
            ..Setup::new(guests::hello())
        }
        .start()
        .join();
        eprintln!("{accelerator}: {:?}", started.elapsed());
        assert_eq!(
            ended.outcome.end,
            End::PoweredOff,
            "{accelerator}: {:?}",
            ended.notices
        );
        assert_eq!(ended.outcome.exit_code(), 0);
        assert!(
            ended.log.contains("hello from the boot sector\r\n"),
            "{:?}",
            ended.log
        );
        assert!(ended.was_told(|notice| matches!(notice, Notice::Started { .. })));
        assert!(ended.was_told(|notice| *notice == Notice::Running));
        for socket in ["qmp.sock", "serial.sock", "console.sock"] {
            assert!(
                !ended.dir.path().join(socket).exists(),
                "{socket} is left behind"
            );
        }
    }
}

#[test]
fn a_guest_reads_its_disk_through_the_bios() {
    if !has(QEMU) {
        return;
    }
    let sector = second_sector();
    let words = sector.chunks_exact(2);
    let sum = words.fold(0_u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
    });
    for accelerator in accelerators() {
        let ended = Setup {
            accelerator,
            ..Setup::new(guests::checksum())
        }
        .start()
        .join();
        assert_eq!(ended.outcome.end, End::PoweredOff, "{accelerator}");
        let line = format!("{sum:04X} is the checksum\r\n");
        assert!(
            ended.log.contains(&line),
            "{accelerator}: {line:?} in {:?}",
            ended.log
        );
    }
}

#[test]
fn a_guest_obeys_the_power_button() {
    if !has(QEMU) {
        return;
    }
    for accelerator in accelerators() {
        let vm = Setup {
            accelerator,
            ..Setup::new(guests::obedient())
        }
        .start();
        vm.console().expect("ready\r\n");
        assert_eq!(vm.ask(Request::Stop), Disposition::Queued);
        let ended = vm.join();
        assert_eq!(
            ended.outcome.end,
            End::Stopped,
            "{accelerator}: {:?}",
            ended.notices
        );
        assert_eq!(ended.outcome.exit_code(), 0);
        assert!(ended.log.contains("button\r\n"));
    }
}

#[test]
fn a_guest_that_ignores_the_button_is_ended_after_its_grace_period() {
    if !has(QEMU) {
        return;
    }
    let grace = Duration::from_millis(700);
    let vm = Setup {
        grace,
        ..Setup::new(guests::stubborn())
    }
    .start();
    vm.console().expect("ready\r\n");
    let asked = Instant::now();
    vm.ask(Request::Stop);
    let ended = vm.join();
    assert!(asked.elapsed() >= grace);
    assert_eq!(ended.outcome.end, End::GraceOver { grace });
    assert_eq!(ended.outcome.exit_code(), 1);
    assert!(ended.was_told(|notice| *notice
        == Notice::Ending {
            cause: EndCause::GraceOver
        }));
}

#[test]
fn a_guest_that_is_asked_to_stop_is_not_asked_for_anything_else() {
    if !has(QEMU) {
        return;
    }
    let vm = Setup::new(guests::stubborn()).start();
    vm.console().expect("ready\r\n");
    assert_eq!(vm.ask(Request::Stop), Disposition::Queued);
    assert_eq!(vm.ask(Request::Stop), Disposition::AlreadySo);
    assert_eq!(
        vm.ask(Request::Reset),
        Disposition::Denied(Denied::Stopping)
    );
    assert_eq!(vm.ask(Request::Kill), Disposition::Queued);
    assert_eq!(vm.join().outcome.end, End::Killed);
}

#[test]
fn a_kill_does_not_ask_the_guest() {
    if !has(QEMU) {
        return;
    }
    let vm = Setup::new(guests::obedient()).start();
    vm.console().expect("ready\r\n");
    assert_eq!(vm.ask(Request::Kill), Disposition::Queued);
    let ended = vm.join();
    assert_eq!(ended.outcome.end, End::Killed);
    assert!(!ended.log.contains("button"));
}

#[test]
fn the_time_limit_ends_a_guest_that_runs_on() {
    if !has(QEMU) {
        return;
    }
    let limit = Duration::from_secs(2);
    let ended = Setup {
        timeout: Some(limit),
        ..Setup::new(guests::stubborn())
    }
    .start()
    .join();
    assert_eq!(ended.outcome.end, End::TimedOut { limit });
    assert_eq!(ended.outcome.exit_code(), 1);
}

#[test]
fn triple_faults_are_told_and_a_loop_of_them_ends() {
    if !has(QEMU) {
        return;
    }
    // A device that emulates does not deliver triple faults: the vCPU spins in the kernel.
    for accelerator in fast_accelerators() {
        let ended = Setup {
            accelerator,
            ..Setup::new(guests::triple_fault())
        }
        .start()
        .join();
        let end = &ended.outcome.end;
        assert!(
            matches!(end, End::ResetLoop { resets: 10, .. }),
            "{accelerator}: {end:?}"
        );
        assert_eq!(ended.outcome.exit_code(), 1);
        // It may have begun once more before it was ended.
        assert!(ended.log.matches("falling").count() >= 5);
    }
}

#[test]
fn where_resets_are_not_allowed_the_first_one_ends_the_guest() {
    if !has(QEMU) {
        return;
    }
    let setup = Setup {
        extra: &["-no-reboot"],
        ..Setup::new(guests::triple_fault())
    };
    let ended = setup.start().join();
    assert_eq!(ended.outcome.end, End::Reset);
    assert_eq!(ended.outcome.exit_code(), 1);
}

#[test]
fn a_reset_starts_the_guest_again() {
    if !has(QEMU) {
        return;
    }
    let vm = Setup::new(guests::obedient()).start();
    let mut console = vm.console();
    console.expect("ready\r\n");
    assert_eq!(vm.ask(Request::Reset), Disposition::Queued);
    console.expect("ready\r\n");
    vm.ask(Request::Stop);
    let ended = vm.join();
    assert_eq!(ended.outcome.end, End::Stopped);
    assert!(
        !ended.was_told(|notice| *notice == Notice::GuestReset),
        "it was ours"
    );
}

#[test]
fn a_paused_guest_stands_still_and_can_be_resumed() {
    if !has(QEMU) {
        return;
    }
    let vm = Setup::new(guests::echo()).start();
    let mut console = vm.console();
    console.expect("ready\r\n");
    assert_eq!(vm.ask(Request::Resume), Disposition::AlreadySo);
    assert_eq!(vm.ask(Request::Pause), Disposition::Queued);
    vm.told(|notice| matches!(notice, Notice::Paused { .. }));
    assert_eq!(vm.ask(Request::Pause), Disposition::AlreadySo);
    console.say("x");
    assert_eq!(vm.ask(Request::Resume), Disposition::Queued);
    vm.told_times(2, |notice| *notice == Notice::Running);
    console.expect("x");
    console.say("q");
    console.expect("bye\r\n");
    assert_eq!(vm.join().outcome.end, End::PoweredOff);
}

#[test]
fn a_paused_guest_is_woken_to_see_its_power_button() {
    if !has(QEMU) {
        return;
    }
    let vm = Setup::new(guests::obedient()).start();
    vm.console().expect("ready\r\n");
    vm.ask(Request::Pause);
    vm.told(|notice| matches!(notice, Notice::Paused { .. }));
    vm.ask(Request::Stop);
    assert_eq!(vm.join().outcome.end, End::Stopped);
}

#[test]
fn a_guest_that_is_to_start_paused_runs_only_when_resumed() {
    if !has(QEMU) {
        return;
    }
    let vm = Setup {
        start_paused: true,
        ..Setup::new(guests::hello())
    }
    .start();
    vm.told(|notice| matches!(notice, Notice::Paused { .. }));
    assert_eq!(std::fs::read_to_string(vm.path("console.log")).unwrap(), "");
    assert_eq!(vm.ask(Request::Resume), Disposition::Queued);
    let ended = vm.join();
    assert_eq!(ended.outcome.end, End::PoweredOff);

    let vm = Setup {
        start_paused: true,
        ..Setup::new(guests::hello())
    }
    .start();
    vm.told(|notice| matches!(notice, Notice::Paused { .. }));
    vm.ask(Request::Stop);
    let ended = vm.join();
    assert_eq!(ended.outcome.end, End::NeverStarted);
    assert_eq!(ended.log, "");
}

#[test]
fn a_console_nobody_reads_does_not_slow_a_chatty_guest_and_the_log_has_it_all() {
    if !has(QEMU) {
        return;
    }
    let vm = Setup::new(guests::chatty()).start();
    let idle = vm.console();
    let ended = vm.join();
    drop(idle);
    assert_eq!(ended.outcome.end, End::PoweredOff);
    assert_eq!(ended.log.matches(".\r\n").count(), 1 << 16);
    assert!(ended.log.ends_with("done\r\n"));
}

#[test]
fn a_qemu_that_refuses_its_arguments_is_reported_in_its_own_words() {
    if !has(QEMU) {
        return;
    }
    let setup = Setup {
        extra: &["-device", "no-such-device"],
        ..Setup::new(guests::hello())
    };
    let ended = setup.start().join();
    assert!(matches!(ended.outcome.end, End::StartFailed { .. }));
    assert_eq!(ended.outcome.exit_code(), 1);
    let text = ended.outcome.to_string();
    assert!(
        text.contains("no-such-device") && text.contains("not a valid device"),
        "{text}"
    );
}
