//! Raw disks whose guest has written another format's header into their first sector
//! (`docs/decisions/0016-forged-headers.md`).

use longshore_tests::program::{have, said};
use serde_json::Value;

use crate::rig::{MIB, Rig, error_of, json_of};

/// A disk that begins as a qcow2 image does, made by `qemu-img create` with these arguments, and goes on as
/// disks do.
fn forged(rig: &Rig, create: &str) -> Option<Vec<u8>> {
    if !have("qemu-img") {
        return None;
    }
    let mut disk = rig.image("disk", 4 * MIB);
    rig.shell(&format!("qemu-img create -q -f qcow2 {create}"));
    let header = rig.read("forged");
    disk[..header.len()].copy_from_slice(&header);
    rig.write("disk", &disk);
    std::fs::remove_file(rig.path("forged")).unwrap();
    Some(disk)
}

#[test]
fn said_to_be_raw_a_disk_with_a_forged_header_is_copied_byte_for_byte() {
    let rig = Rig::new();
    let Some(disk) = forged(&rig, "forged 1M") else {
        return;
    };
    for command in ["convert", "import"] {
        rig.ends(&[command, "--from", "raw", "disk", "out"], 0);
        assert!(rig.read("out") == disk, "{command} from a file");
        let piped = rig.fed(&[command, "--from", "raw", "-", "out"], &disk);
        assert!(piped.status.success(), "{command}: {}", said(&piped));
        assert!(rig.read("out") == disk, "{command} from a pipe");
    }
    // What was written is the same trap, and the same word gets by it.
    rig.ends(&["convert", "--from", "raw", "out", "again"], 0);
    assert!(rig.read("again") == disk, "a second time");
    let info = json_of(&rig.ends(&["info", "--json", "--from", "raw", "disk"], 0));
    assert_eq!(info["format"], "raw");
    assert_eq!(info["virtualSize"], 4 * MIB);
}

#[test]
fn a_forged_header_lets_in_no_file_of_the_host() {
    let rig = Rig::new();
    rig.write("secret", &vec![b's'; MIB]);
    if forged(&rig, "-b secret -F raw forged 1M").is_none() {
        return;
    }
    for command in ["convert", "import"] {
        let output = rig.ends(&[command, "disk", "out"], 3);
        assert!(error_of(&output).contains("secret"), "{}", said(&output));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("--from raw"),
            "the way out is named: {}",
            said(&output)
        );
        assert_eq!(rig.names(), ["disk", "secret"], "{command} leaves nothing");
    }
}

#[test]
fn without_a_word_the_content_decides_and_the_report_says_how() {
    let rig = Rig::new();
    let Some(disk) = forged(&rig, "forged 1M") else {
        return;
    };
    let output = rig.ends(&["convert", "--progress", "json", "disk", "out"], 0);
    let text = String::from_utf8_lossy(&output.stdout);
    let done: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(done["format"], "qcow2");
    assert!(rig.read("out") != disk, "it is the header's disk");
    assert_eq!(rig.read("out"), vec![0; MIB], "of its own bytes, here none");
}
