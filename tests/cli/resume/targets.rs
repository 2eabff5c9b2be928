//! Devices, and filesystems that are full. These take root and loop devices.

use std::os::unix::fs::FileExt;
use std::process::Command;

use longshore_tests::device::Loop;
use longshore_tests::eventually;
use longshore_tests::http::{Fault, Page, Server};
use longshore_tests::journal::Steps;
use longshore_tests::program::{run, said, silent};

use super::{DOSE, SLOW, disk, last_event, resumed};
use crate::mount::Mount;
use crate::rig::{MIB, Rig};

/// The one journal in `journals`.
fn journal(rig: &Rig) -> Vec<u8> {
    let Ok(names) = rig.path("journals").read_dir() else {
        return Vec::new();
    };
    let found: Vec<_> = names
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "longshore-journal"))
        .collect();
    assert!(found.len() <= 1, "{found:?}");
    found
        .first()
        .map_or_else(Vec::new, |path| std::fs::read(path).unwrap_or_default())
}

#[test]
fn a_device_goes_on_and_only_if_it_is_as_it_was_left() {
    let rig = Rig::quick();
    rig.write("backing", &vec![0xff; 24 * MIB]);
    let Some(device) = Loop::over(&rig.path("backing")) else {
        return;
    };
    let bytes = disk(16 * MIB + 512);
    let server = Server::start([("/disk", Page::of(bytes.clone()).throttle_all(SLOW))]);
    let url = server.url("/disk");
    let words = [
        "import",
        "--journal-dir",
        "journals",
        "--journal-step",
        "1Mi",
        "--progress",
        "json",
        &url,
        device.name(),
    ];
    let rate = server.rate("/disk").unwrap();
    let kill = || {
        rate.dose(DOSE);
        // The first step has the first MiB of the disk in it.
        let mut steps = Steps::from(MIB);
        let mut child = silent(&mut rig.command(&words));
        eventually("a step of the journal", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended: {ended:?}");
            steps.one_more(journal(&rig).len()).then_some(())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        rate.dose(u64::MAX);
    };
    let made = |from_there: bool| {
        let output = rig.ends(&words, 0);
        let there = resumed(&last_event(&output));
        assert_eq!(there > 0, from_there, "{}", said(&output));
        let found = std::fs::read(device.path()).unwrap();
        assert!(found[..bytes.len()] == bytes, "the disk");
        assert!(found[17 * MIB..].iter().all(|b| *b == 0xff), "beyond it");
        assert!(journal(&rig).is_empty());
        output
    };
    kill();
    let head = &std::fs::read(device.path()).unwrap()[..MIB];
    assert!(head[..MIB - 4096].iter().all(|b| *b == 0), "nothing boots");
    kill();
    made(true);
    // The finished disk is no half-finished one.
    made(false);
    // Somebody made a filesystem on it meanwhile.
    kill();
    let node = std::fs::File::options()
        .write(true)
        .open(device.path())
        .unwrap();
    node.write_all_at(&[0x53, 0xef], 1080).unwrap();
    node.sync_all().unwrap();
    let output = made(false);
    assert!(
        said(&output).contains("the target was a block device"),
        "{}",
        said(&output)
    );
    // Another device in the same place.
    kill();
    node.write_all_at(&vec![0; 24 * MIB][..17 * MIB], 0)
        .unwrap();
    node.sync_all().unwrap();
    let output = made(false);
    assert!(said(&output).contains("no mark"), "{}", said(&output));
}

#[test]
fn what_was_written_before_the_filesystem_was_full_is_kept() {
    let rig = Rig::quick();
    let Some(mount) = Mount::of(&rig, "ext4", 32 << 20) else {
        return;
    };
    let bytes: Vec<u8> = disk(24 * MIB).iter().map(|byte| byte | 1).collect();
    rig.write("mnt/in_the_way", &vec![1; 12 * MIB]);
    let server = Server::start([("/disk", Page::of(bytes.clone()))]);
    let url = server.url("/disk");
    let words = [
        "import",
        "--journal-step",
        "1Mi",
        "--progress",
        "json",
        &url,
        "mnt/out.raw",
    ];
    let output = rig.ends(&words, 4);
    assert_eq!(last_event(&output)["resumable"], true, "{}", said(&output));
    assert!(
        said(&output).contains("run the same command again"),
        "{}",
        said(&output)
    );
    std::fs::remove_file(rig.path("mnt/in_the_way")).unwrap();
    let event = last_event(&rig.ends(&words, 0));
    assert!(resumed(&event) >= MIB as u64, "{event}");
    assert!(rig.read("mnt/out.raw") == bytes);
    assert_eq!(mount.names(), ["out.raw"]);
}

/// A small filesystem in memory, at `journals`.
struct Small<'a>(&'a Rig);

impl<'a> Small<'a> {
    fn mount(rig: &'a Rig, options: &str) -> Option<Self> {
        std::fs::create_dir_all(rig.path("journals")).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(rig.path("journals"))
            .output()
            .unwrap();
        if !mounted.status.success() {
            eprintln!("skipped: no mount of tmpfs: {}", said(&mounted));
            return None;
        }
        Some(Self(rig))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path("journals")).status();
    }
}

#[test]
fn an_import_goes_on_without_a_journal_where_there_is_no_room_for_one() {
    let rig = Rig::quick();
    rig.write("backing", &vec![0xff; 24 * MIB]);
    let Some(device) = Loop::over(&rig.path("backing")) else {
        return;
    };
    let bytes = disk(16 * MIB);
    let server = Server::start([("/disk", Page::of(bytes.clone()))]);
    let url = server.url("/disk");
    let mut words = vec!["import", "--journal-dir", "journals"];
    words.extend(["--journal-step", "1Mi", &url, device.name()]);
    // There is room for its beginning only; not even for that; and nobody may write.
    for options in ["size=64k", "size=4k,nr_inodes=1", "size=1m,ro"] {
        let Some(_small) = Small::mount(&rig, options) else {
            return;
        };
        let output = rig.ends(&words, 0);
        assert!(
            said(&output).contains("the journal can't be written"),
            "{options}: {}",
            said(&output)
        );
        let found = std::fs::read(device.path()).unwrap();
        assert!(found[..bytes.len()] == bytes, "{options}");
        assert!(journal(&rig).is_empty(), "{options}");
    }
}

#[test]
fn a_journal_that_can_only_be_read_is_gone_on_with_once() {
    let rig = Rig::quick();
    rig.write("backing", &vec![0xff; 24 * MIB]);
    let Some(device) = Loop::over(&rig.path("backing")) else {
        return;
    };
    let Some(_small) = Small::mount(&rig, "size=8m") else {
        return;
    };
    let bytes = disk(16 * MIB);
    let page = Page::of(bytes.clone());
    let server = Server::start([(
        "/disk",
        page.clone()
            .fault(Fault::Cut(8 << 20))
            .faults(&Fault::Status(403), 50),
    )]);
    let url = server.url("/disk");
    let mut words = vec!["import", "--journal-dir", "journals", "--progress", "json"];
    words.extend(["--journal-step", "1Mi", &url, device.name()]);
    rig.ends(&words, 1);
    server.set("/disk", page);
    run(Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(rig.path("journals")));
    for there in [true, false] {
        let output = rig.ends(&words, 0);
        assert_eq!(
            resumed(&last_event(&output)) > 0,
            there,
            "{}",
            said(&output)
        );
        assert!(said(&output).contains("stays behind"), "{}", said(&output));
        let found = std::fs::read(device.path()).unwrap();
        assert!(found[..bytes.len()] == bytes, "{there}");
    }
}
