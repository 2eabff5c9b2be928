//! Disks under a running guest: locked against others, and never failing in silence.

use std::process::Command;

use longshore_launcher::supervisor::{End, Notice, PauseCause, Request};

use crate::guests;
use crate::host::{QEMU, has};
use crate::rig::Setup;

/// A disk whose first write fails with the given error, once.
macro_rules! failing_once {
    ($errno:literal) => {
        concat!(
            r#"{"driver":"raw","node-name":"disk","file":{"driver":"blkdebug","image":"#,
            r#"{"driver":"file","filename":"$FILE"},"inject-error":"#,
            r#"[{"event":"write_aio","once":true,"errno":"#,
            $errno,
            r#"}]}}"#
        )
    };
}
const NO_SPACE: &str = failing_once!(28);
const IO_ERROR: &str = failing_once!(5);

#[test]
fn the_disk_of_a_running_guest_is_locked_against_other_users() {
    if !has(QEMU) || !has("qemu-img") {
        return;
    }
    let vm = Setup::new(guests::obedient()).start();
    vm.console().expect("ready\r\n");
    let disk = vm.path("disk.img");
    let copy = vm.path("copy.img");
    // Not `info`: it looks at a raw image without reading it, and takes no lock.
    let mut convert = Command::new("qemu-img");
    convert
        .args(["convert", "-f", "raw", "-O", "raw"])
        .arg(&disk)
        .arg(&copy);
    let refused = convert.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("lock"), "{said}");

    let filename = disk.to_str().unwrap();
    let blockdev = format!(
        r#"{{"driver":"raw","node-name":"disk","file":{{"driver":"file","filename":"{filename}"}}}}"#
    );
    let second = Setup {
        blockdev: blockdev.leak(),
        ..Setup::new(guests::hello())
    };
    let second = second.start().join();
    let end = &second.outcome.end;
    assert!(
        matches!(end, End::StartFailed { .. }),
        "{end:?}: {}",
        second.log
    );
    assert!(
        second.outcome.stderr.contains("lock"),
        "{}",
        second.outcome.stderr
    );

    vm.ask(Request::Stop);
    let ended = vm.join();
    assert_eq!(
        ended.outcome.end,
        End::Stopped,
        "the first guest was not disturbed"
    );
    assert!(!copy.exists() || std::fs::metadata(&copy).unwrap().len() == 0);
}

fn disk_failed(notice: &Notice) -> bool {
    matches!(notice, Notice::IoError { .. })
}

fn paused_by_disk(notice: &Notice) -> bool {
    matches!(
        notice,
        Notice::Paused {
            cause: PauseCause::IoError { .. }
        }
    )
}

#[test]
fn a_full_volume_pauses_the_guest_and_a_resume_tries_again() {
    if !has(QEMU) {
        return;
    }
    let vm = Setup {
        blockdev: NO_SPACE,
        ..Setup::new(guests::writer())
    }
    .start();
    let told = vm.told(disk_failed);
    let Notice::IoError {
        device,
        operation,
        no_space,
        stops,
        ..
    } = &told
    else {
        panic!()
    };
    assert_eq!(
        (device.as_str(), operation.as_str()),
        ("ua-disk", "write"),
        "{told}"
    );
    assert!(*no_space && *stops);
    vm.told(paused_by_disk);
    vm.ask(Request::Resume);
    let ended = vm.join();
    assert_eq!(ended.outcome.end, End::PoweredOff);
    assert!(ended.log.contains("written"), "{:?}", ended.log);
}

#[test]
fn a_full_volume_is_tried_again_without_being_asked() {
    if !has(QEMU) {
        return;
    }
    let vm = Setup {
        blockdev: NO_SPACE,
        ..Setup::new(guests::writer())
    }
    .start();
    vm.told(paused_by_disk);
    let ended = vm.join();
    assert_eq!(ended.outcome.end, End::PoweredOff);
    assert!(ended.log.contains("written"), "{:?}", ended.log);
}

#[test]
fn an_error_that_the_guest_is_told_of_is_reported_too() {
    if !has(QEMU) {
        return;
    }
    let ended = Setup {
        blockdev: IO_ERROR,
        ..Setup::new(guests::writer())
    }
    .start()
    .join();
    assert!(ended.log.contains("failed"), "{:?}", ended.log);
    let reported = |notice: &Notice| matches!(notice, Notice::IoError { stops: false, .. });
    assert!(ended.was_told(reported), "{:?}", ended.notices);
    assert_eq!(ended.outcome.end, End::PoweredOff);
}
