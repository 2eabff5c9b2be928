//! A worker that was killed, and the one that goes on: by what the server was asked for.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use longshore_tests::data::disk;
use longshore_tests::device::{Loop, is_root, unmount};
use longshore_tests::eventually;
use longshore_tests::http::{Page, Rate, Server};
use longshore_tests::journal::Steps;
use longshore_tests::program::{have, run, said, silent};

use super::Pod;
use crate::serving;

const MIB: usize = 1 << 20;
const DISK: usize = 24 * MIB;
/// A line slow enough that an import is seen at work.
const SLOW: u64 = 8 << 20;
/// What comes quickly enough in a run that is killed: a third of a disk.
const DOSE: u64 = 8 << 20;
/// What a kill costs at the most: what had come and was not written down.
const COST: u64 = 12 << 20;

/// An importer that writes its journal at every MiB.
fn pod(url: &str) -> Pod {
    Pod::http(url)
        .set("LONGSHORE_JOURNAL_STEP", "1Mi")
        .set("IMPORTER_CLAIM_UID", "the-claim")
        .set("IMPORTER_IMAGE_SIZE", "40Mi")
}

/// How long the journal in `directory` is.
fn journal(directory: &Path) -> usize {
    let Ok(names) = directory.read_dir() else {
        return 0;
    };
    let paths = names.map(|entry| entry.unwrap().path());
    let journals = paths.filter(|path| path.extension().is_some_and(|e| e == "longshore-journal"));
    journals
        .map(|path| path.metadata().map_or(0, |meta| meta.size()))
        .map(|len| usize::try_from(len).unwrap())
        .sum()
}

/// A disk that is served, and how fast.
struct Source {
    server: Server,
    rate: Rate,
}

impl Source {
    /// And a pod that imports it.
    fn of(bytes: &[u8]) -> (Self, Pod) {
        let rate = Rate::of_all(SLOW);
        let page = Page::of(bytes.to_vec()).throttle_by(&rate);
        let (server, url) = serving("/disk.raw", page);
        (Self { server, rate }, pod(&url))
    }

    /// Runs the importer until its journal in `directory`, whose beginning is as long as `least`, has a step
    /// more, and kills it. Later ones get what is left as fast as may be.
    fn killed(&self, pod: &Pod, directory: &Path, least: usize) {
        self.rate.dose(DOSE);
        let mut child = silent(&mut pod.command());
        let mut steps = Steps::from(least);
        eventually("a longer journal", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended: {ended:?}");
            steps.one_more(journal(directory)).then_some(())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        self.rate.dose(u64::MAX);
    }
}

#[test]
fn a_pod_in_the_place_of_one_that_was_killed_goes_on() {
    let bytes = disk(DISK, 4);
    let (source, pod) = Source::of(&bytes);
    std::fs::create_dir(pod.path("data/lost+found")).unwrap();
    let data = pod.path("data");
    source.killed(&pod, &data, 1);
    source.killed(&pod, &data, 1);
    assert!(!pod.disk().exists());
    let ended = pod.run();
    let end = ended.complete();
    let there = end.bytes_resumed.unwrap();
    assert!(there >= MIB as u64 / 4, "{there}");
    assert!(
        end.bytes_read.unwrap() <= bytes.len() as u64 - there,
        "{end:?}"
    );
    let (sent, most) = (source.server.log().sent, bytes.len() as u64 + 2 * COST);
    assert!(sent <= most, "{sent} bytes were sent, {most} at the most");
    assert!(ended.stderr.contains("going on with an earlier import"));
    let made = std::fs::read(pod.disk()).unwrap();
    assert_eq!(made.len(), 40 * MIB);
    assert!(made[..DISK] == bytes && made[DISK..].iter().all(|byte| *byte == 0));
    assert_eq!(pod.disk().metadata().unwrap().mode() & 0o7777, 0o660);
    assert_eq!(pod.volume(), ["disk.img", "lost+found"]);
}

#[test]
fn what_was_done_for_another_claim_is_not_gone_on_with() {
    let bytes = disk(DISK, 5);
    let (source, pod) = Source::of(&bytes);
    source.killed(&pod, &pod.path("data"), 1);
    let pod = pod.set("IMPORTER_CLAIM_UID", "another");
    let ended = pod.run();
    assert_eq!(ended.complete().bytes_resumed, Some(0));
    let why = "the id of the target was the-claim and is another";
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
    assert!(std::fs::read(pod.disk()).unwrap()[..DISK] == bytes);
    assert_eq!(pod.volume(), ["disk.img"]);
}

/// As when the next pod runs on another node: the same filesystem, on a device of another number.
#[test]
fn a_volume_that_is_mounted_elsewhere_is_gone_on_with() {
    if !is_root() || !have("mkfs.ext4") || !have("losetup") {
        return;
    }
    let bytes = disk(DISK, 6);
    let (source, pod) = Source::of(&bytes);
    let (image, data) = (pod.path("fs"), pod.path("data"));
    std::fs::File::create(&image)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    run(Command::new("mkfs.ext4").arg("-q").arg(&image));
    let Some(first) = Loop::over(&image) else {
        return;
    };
    let mounted = |device: &Loop| {
        let mut mount = Command::new("mount");
        let output = mount.args([device.path(), &data]).output().unwrap();
        if !output.status.success() {
            eprintln!("skipped: no mount of ext4: {}", said(&output));
        }
        output.status.success()
    };
    if !mounted(&first) {
        return;
    }
    let number = data.metadata().unwrap().dev();
    source.killed(&pod, &data, 1);
    unmount(&data);
    // The number is taken until the filesystem is mounted again.
    std::fs::write(pod.path("in the way"), vec![0; MIB]).unwrap();
    drop(first);
    let _taken = Loop::over(&pod.path("in the way"));
    let second = Loop::over(&image).unwrap();
    assert!(mounted(&second));
    let moved = data.metadata().unwrap().dev() != number;
    let ended = pod.run();
    let names = pod.volume();
    let made = std::fs::read(pod.disk()).unwrap();
    unmount(&data);
    let there = ended.complete().bytes_resumed.unwrap();
    // Others may have taken and given back loop devices meanwhile.
    eprintln!("another device: {moved}, {there} bytes were there");
    assert!(there >= MIB as u64 / 4, "{}", ended.stderr);
    assert!(made[..DISK] == bytes);
    assert_eq!(names, ["disk.img", "lost+found"]);
}

#[test]
fn a_container_that_is_started_again_goes_on_with_a_block_volume() {
    let bytes = disk(DISK, 7);
    let (source, pod) = Source::of(&bytes);
    std::fs::write(pod.path("backing"), vec![0xee; 32 * MIB]).unwrap();
    let Some(device) = Loop::over(&pod.path("backing")) else {
        return;
    };
    let journals = pod.path("journal");
    std::fs::create_dir(&journals).unwrap();
    let pod = pod
        .set("LONGSHORE_BLOCK_DEVICE", device.name())
        .set("IMPORTER_JOURNAL_DIR", journals.to_str().unwrap());
    // The first step has the first MiB of the disk with it.
    source.killed(&pod, &journals, MIB);
    let ended = pod.run();
    let end = ended.complete();
    let there = end.bytes_resumed.unwrap();
    assert!(there >= MIB as u64 / 4, "{there}");
    let (sent, most) = (source.server.log().sent, bytes.len() as u64 + COST);
    assert!(sent <= most, "{sent} bytes were sent, {most} at the most");
    assert!(std::fs::read(device.path()).unwrap()[..DISK] == bytes);
    assert_eq!(journals.read_dir().unwrap().count(), 0);
    // A pod in its place has another such directory, and starts over.
    source.killed(&pod, &journals, MIB);
    std::fs::remove_dir_all(&journals).unwrap();
    std::fs::create_dir(&journals).unwrap();
    assert_eq!(pod.run().complete().bytes_resumed, Some(0));
    assert!(std::fs::read(device.path()).unwrap()[..DISK] == bytes);
}

/// A journal is not worth an import.
#[test]
fn an_import_does_without_a_journal_that_can_not_be_written() {
    let bytes = disk(4 * MIB, 8);
    let (_server, url) = serving("/disk.raw", Page::of(bytes.clone()));
    let pod = pod(&url);
    std::fs::write(pod.path("backing"), vec![0xee; 8 * MIB]).unwrap();
    let Some(device) = Loop::over(&pod.path("backing")) else {
        return;
    };
    // Nobody can make anything in it, not even root.
    let pod = pod
        .set("LONGSHORE_BLOCK_DEVICE", device.name())
        .set("IMPORTER_JOURNAL_DIR", "/proc/self");
    let ended = pod.run();
    assert_eq!(ended.complete().bytes_resumed, Some(0));
    assert!(
        ended.stderr.contains("the journal can't be written"),
        "{}",
        ended.stderr
    );
    assert!(std::fs::read(device.path()).unwrap()[..4 * MIB] == bytes);
}
