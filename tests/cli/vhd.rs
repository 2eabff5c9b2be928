//! VHDs on the command line: which size, which end, which parent.

use longshore_tests::program::have;
use serde_json::{Value, json};

use crate::rig::{MIB, Rig, error_of, json_of};

/// Makes the checksum at `field` of the structure at `at` right.
pub(crate) fn seal(bytes: &mut [u8], at: usize, len: usize, field: usize) {
    bytes[at + field..at + field + 4].fill(0);
    let sum = bytes[at..at + len]
        .iter()
        .fold(0_u32, |sum, &byte| sum + u32::from(byte));
    bytes[at + field..at + field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fn info(rig: &Rig, words: &str) -> Value {
    let args: Vec<_> = ["info", "--json"]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    json_of(&rig.ends(&args, 0))
}

#[test]
fn a_fixed_vhd_shows_itself_in_a_file_and_is_only_suspected_in_a_stream() {
    if !have("qemu-img") {
        return;
    }
    let rig = Rig::new();
    let disk = rig.image("disk.raw", MIB);
    rig.shell("qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on disk.raw d.vhd");
    let shown = info(&rig, "d.vhd");
    assert_eq!(shown["format"], "vhd");
    assert_eq!(shown["variant"], "fixed");
    assert_eq!(shown["virtualSize"], MIB);
    assert_eq!(info(&rig, "--from raw d.vhd")["virtualSize"], MIB + 512);
    let shown = json_of(&rig.fed(&["info", "--json", "-"], &rig.read("d.vhd")));
    assert_eq!(shown["format"], "raw");
    assert!(shown["features"][0].as_str().unwrap().contains("fixed VHD"));
    assert_eq!(shown["virtualSize"], Value::Null);
    let shown = json_of(&rig.fed(
        &["info", "--json", "--from", "vhd", "-"],
        &rig.read("d.vhd"),
    ));
    assert_eq!(shown["format"], "vhd");
    assert_eq!(shown["virtualSize"], Value::Null);
    rig.ends(&["convert", "d.vhd", "out.raw"], 0);
    assert!(rig.read("out.raw") == disk);
    rig.ends(&["convert", "--from", "raw", "d.vhd", "out.raw"], 0);
    assert!(rig.read("out.raw") == rig.read("d.vhd"));
}

#[test]
fn the_size_of_a_vhd_can_be_forced() {
    if !have("qemu-img") {
        return;
    }
    let rig = Rig::new();
    rig.shell("qemu-img create -q -f vpc d.vhd 3M");
    let mut bytes = rig.read("d.vhd");
    let len = bytes.len();
    let size = u64::from_be_bytes(bytes[48..56].try_into().unwrap());
    // A cylinder less than the current size has.
    let cylinder = u64::from(bytes[58]) * u64::from(bytes[59]) * 512;
    for at in [0, len - 512] {
        bytes[at + 57] -= 1;
        seal(&mut bytes, at, 512, 64);
    }
    rig.write("d.vhd", &bytes);
    for (from, expected) in [
        ("vhd", size - cylinder),
        ("vpc", size - cylinder),
        ("vhd:chs", size - cylinder),
        ("vhd:current-size", size),
    ] {
        let shown = info(&rig, &format!("--from {from} d.vhd"));
        assert_eq!(shown["virtualSize"], expected, "{from}");
        assert_eq!(shown["format"], "vhd");
    }
    assert_eq!(info(&rig, "d.vhd")["virtualSize"], size - cylinder);
    assert_eq!(info(&rig, "d.vhd")["features"][0], "creator \"qemu\"");
}

#[test]
fn a_differencing_vhd_is_read_with_its_parent_if_that_is_let_in() {
    if !have("qemu-img") || !have("qemu-io") {
        return;
    }
    let rig = Rig::new();
    let mut disk = rig.image("disk.raw", 6 * MIB);
    rig.shell("qemu-img convert -f raw -O vpc -o force_size=on disk.raw base.vhd");
    rig.shell("qemu-img create -q -f vpc -o force_size=on child.vhd 6M");
    rig.shell("qemu-io -f vpc -c 'write -q -P 9 3M 4k' child.vhd");
    // qemu makes no such disks: here is one of a dynamic disk.
    let mut bytes = rig.read("child.vhd");
    let end = bytes.len() - 512;
    for at in [0, end] {
        bytes[at + 63] = 4;
        seal(&mut bytes, at, 512, 64);
    }
    bytes[552..568].copy_from_slice(&rig.read("base.vhd")[68..84]);
    for (n, unit) in "base.vhd".encode_utf16().enumerate() {
        bytes[576 + 2 * n..578 + 2 * n].copy_from_slice(&unit.to_be_bytes());
    }
    seal(&mut bytes, 512, 1024, 36);
    rig.write("child.vhd", &bytes);
    // Its one block is there as a whole.
    disk[2 * MIB..4 * MIB].fill(0);
    disk[3 * MIB..3 * MIB + 4096].fill(9);

    let shown = info(&rig, "child.vhd");
    assert_eq!(shown["variant"], "differencing");
    let reference =
        json!([{"kind": "backing-file", "name": "base.vhd", "format": "vhd", "opened": false}]);
    assert_eq!(shown["references"], reference);
    assert_eq!(shown["allocatedBytes"], 2 * MIB);
    let refused = rig.ends(&["convert", "child.vhd", "out.raw"], 3);
    assert!(error_of(&refused).contains("base.vhd"), "{refused:?}");
    rig.ends(
        &["convert", "--backing", "same-dir", "child.vhd", "out.raw"],
        0,
    );
    assert!(rig.read("out.raw") == disk);
    let piped = rig.fed(&["convert", "-", "piped.raw"], &bytes);
    assert_eq!(piped.status.code(), Some(3));
    assert!(error_of(&piped).contains("--backing same-dir"), "{piped:?}");
}
