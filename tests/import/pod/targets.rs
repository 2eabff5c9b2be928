//! Block volumes, and archives onto filesystem volumes.

use std::fs::File;
use std::process::Command;

use longshore_tests::data::disk;
use longshore_tests::device::{Loop, is_root, unmount};
use longshore_tests::http::Page;
use longshore_tests::program::{have, importer, run, said};

use super::Pod;
use crate::serving;
use crate::unpack::{packed, tar_of};

const MIB: usize = 1 << 20;

/// A device full of old bytes; None, with the reason, where there are no loop devices.
fn old_device(pod: &Pod) -> Option<Loop> {
    std::fs::write(pod.path("backing"), vec![0xee; 8 * MIB]).unwrap();
    Loop::over(&pod.path("backing"))
}

#[test]
fn a_block_volume_gets_the_disk_and_a_wrong_one_is_wiped() {
    let bytes = disk(3_000_000, 1);
    let (_server, url) = serving("/disk.raw", Page::of(bytes.clone()));
    let pod = Pod::http(&url).set("IMPORTER_IMAGE_SIZE", "8Mi");
    let Some(device) = old_device(&pod) else {
        return;
    };
    let pod = pod.set("LONGSHORE_BLOCK_DEVICE", device.name());
    pod.run().complete();
    let made = std::fs::read(device.path()).unwrap();
    assert!(made[..bytes.len()] == bytes);
    assert!(pod.volume().is_empty());
    let pod = pod.set("IMPORTER_CHECKSUM", &format!("sha1:{}", "0".repeat(40)));
    pod.run().failed(0, "ChecksumMismatch");
    let wiped = std::fs::read(device.path()).unwrap();
    assert!(wiped.iter().all(|byte| *byte == 0));
    let large = Page::of(disk(9 * MIB, 2));
    let (_server, url) = serving("/disk.raw", large);
    let pod = pod.set("IMPORTER_ENDPOINT", &url);
    let ended = pod.run();
    let message = ended.failed(1, "TargetTooSmall");
    assert!(
        message.contains("reported available storage 8388608. A larger PVC"),
        "{message}"
    );
}

#[test]
fn a_blank_block_volume_is_left_as_it_is_unless_it_is_preallocated() {
    let pod = Pod::new("none").set("IMPORTER_IMAGE_SIZE", "8Mi");
    let Some(device) = old_device(&pod) else {
        return;
    };
    let pod = pod.set("LONGSHORE_BLOCK_DEVICE", device.name());
    let ended = pod.run();
    assert_eq!(ended.complete().bytes_written, Some(0));
    assert!(std::fs::read(device.path()).unwrap() == vec![0xee; 8 * MIB]);
    let ended = pod.set("PREALLOCATION", "true").run();
    assert_eq!(ended.complete().preallocation_applied, Some(true));
    assert!(std::fs::read(device.path()).unwrap() == vec![0; 8 * MIB]);
}

#[test]
fn an_archive_is_unpacked_into_the_volume() {
    let file = disk(500_000, 3);
    let tar = tar_of(&[("top/disk.raw", &file), ("readme", b"read me")]);
    for name in ["a.tar", "a.tar.gz"] {
        let body = packed(name, &tar);
        let (_server, url) = serving("/files", Page::of(body.clone()));
        let pod = Pod::http(&url).set("IMPORTER_CONTENTTYPE", "archive");
        std::fs::create_dir(pod.path("data/lost+found")).unwrap();
        // What an earlier attempt left.
        std::fs::create_dir_all(pod.path("data/top/old")).unwrap();
        std::fs::create_dir_all(pod.path("data/.longshore-unpack/part")).unwrap();
        let ended = pod.run();
        let end = ended.complete();
        assert_eq!(end.bytes_read, Some(body.len() as u64));
        assert_eq!(end.format.as_deref(), Some("archive"));
        assert_eq!(pod.volume(), ["lost+found", "readme", "top"]);
        assert!(std::fs::read(pod.path("data/top/disk.raw")).unwrap() == file);
        assert!(!pod.path("data/top/old").exists());
        let wrong = pod.set("IMPORTER_CHECKSUM", &format!("md5:{}", "0".repeat(32)));
        std::fs::remove_file(wrong.path("data/readme")).unwrap();
        wrong.run().failed(0, "ChecksumMismatch");
        assert_eq!(wrong.volume(), ["lost+found", "top"]);
    }
}

/// From a fake that looks at no signature: what a store says of those is tested elsewhere.
#[test]
fn an_archive_may_be_an_object() {
    let tar = tar_of(&[("dir/file", b"file")]);
    let (server, url) = serving("/disks/files.tar", Page::of(tar));
    let pod = Pod::new("s3")
        .set("IMPORTER_ENDPOINT", &url)
        .set("IMPORTER_CONTENTTYPE", "archive")
        .set("IMPORTER_ACCESS_KEY_ID", "key")
        .set("IMPORTER_SECRET_KEY", "hush");
    let ended = pod.run();
    let source = ended.complete().source.as_ref().unwrap();
    assert_eq!(source.name, "s3://disks/files.tar");
    let request = &server.log().requests[0];
    assert!(
        request
            .header("authorization")
            .unwrap()
            .starts_with("AWS4-HMAC-SHA256 ")
    );
    assert_eq!(std::fs::read(pod.path("data/dir/file")).unwrap(), b"file");
}

#[test]
fn an_archive_replaces_what_is_there_where_names_cannot_be_exchanged() {
    if !have("strace") {
        return;
    }
    let (_server, url) = serving(
        "/files",
        Page::of(tar_of(&[("top/new", b"new"), ("f", b"f")])),
    );
    let pod = Pod::http(&url).set("IMPORTER_CONTENTTYPE", "archive");
    std::fs::create_dir_all(pod.path("data/top/old")).unwrap();
    std::fs::write(pod.path("data/f"), "old").unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=renameat2", "-o"]);
    strace.arg(pod.path("trace"));
    strace.args(["-e", "inject=renameat2:error=EINVAL"]);
    strace.arg(importer()).env_clear().envs(pod.vars());
    pod.ended(&strace.output().unwrap()).complete();
    let trace = std::fs::read_to_string(pod.path("trace")).unwrap();
    assert_eq!(trace.matches("(INJECTED)").count(), 2, "{trace}");
    assert_eq!(pod.volume(), ["f", "top"]);
    assert_eq!(std::fs::read(pod.path("data/f")).unwrap(), b"f");
    assert_eq!(std::fs::read(pod.path("data/top/new")).unwrap(), b"new");
    assert!(!pod.path("data/top/old").exists());
}

#[test]
fn a_volume_that_is_full_is_said_to_be() {
    if !is_root() || !have("mkfs.ext4") {
        return;
    }
    let pod = Pod::http("http://127.0.0.1:1/").set("IMPORTER_IMAGE_SIZE", "8Mi");
    let small = File::create(pod.path("small")).unwrap();
    small.set_len(16 << 20).unwrap();
    run(Command::new("mkfs.ext4").arg("-q").arg(pod.path("small")));
    let data = pod.path("data");
    let mounted = Command::new("mount")
        .args(["-o", "loop"])
        .arg(pod.path("small"))
        .arg(&data)
        .output()
        .unwrap();
    if !mounted.status.success() {
        eprintln!("skipped: no loop mount: {}", said(&mounted));
        return;
    }
    // Room that is there when it is asked for, and gone when it is used.
    let (_server, url) = serving("/files.tar", Page::of(tar_of(&[("f", &disk(30 * MIB, 4))])));
    let pod = pod
        .set("IMPORTER_ENDPOINT", &url)
        .set("IMPORTER_CONTENTTYPE", "archive");
    let ended = pod.run();
    let left = pod.volume();
    unmount(&data);
    let message = ended.failed(1, "NoSpace");
    assert!(message.contains("No space left on device"), "{message}");
    assert_eq!(left, ["lost+found"]);
}

#[test]
fn memory_stays_bounded_with_an_image_that_takes_much() {
    if !have("time") || !have("xz") {
        return;
    }
    let body = packed("disk.raw.xz", &disk(48 * MIB, 5));
    let (_server, url) = serving("/disk.raw.xz", Page::of(body));
    let pod = Pod::http(&url).set("IMPORTER_IMAGE_SIZE", "64Mi");
    let mut time = Command::new("time");
    time.args(["--quiet", "--format", "%M", "--output"]);
    time.arg(pod.path("peak")).arg(importer());
    time.env_clear().envs(pod.vars());
    pod.ended(&time.output().unwrap()).complete();
    let peak = std::fs::read_to_string(pod.path("peak")).unwrap();
    let peak: usize = peak.trim().parse().unwrap();
    assert!(peak * 1024 < 128 * MIB, "{} MiB", peak >> 10);
}

#[test]
fn an_archive_that_reaches_beyond_the_volume_is_refused() {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.as_mut_bytes()[..9].copy_from_slice(b"../beyond");
    header.set_cksum();
    let tar = [header.as_bytes().to_vec(), vec![0; 1024]].concat();
    let (_server, url) = serving("/files.tar", Page::of(tar));
    let pod = Pod::http(&url).set("IMPORTER_CONTENTTYPE", "archive");
    let ended = pod.run();
    let message = ended.failed(1, "ArchiveUnsafe");
    assert!(message.starts_with("Unable to process data: "), "{message}");
    assert!(message.contains("../beyond"), "{message}");
    assert!(pod.volume().is_empty() && !pod.path("beyond").exists());
}
