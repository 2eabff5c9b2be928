//! Block volumes, and archives onto filesystem volumes.

use longshore_tests::data::disk;
use longshore_tests::device::Loop;
use longshore_tests::http::Page;

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
