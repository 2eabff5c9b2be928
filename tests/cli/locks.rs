//! Images that a running QEMU holds.

use std::io::Write as _;
use std::process::Stdio;

use longshore_tests::eventually;
use longshore_tests::program::{have, held, silent};

use crate::rig::{MIB, Rig, error_of};

#[test]
fn an_image_that_qemu_writes_is_not_read_unless_forced() {
    let rig = Rig::new();
    if !have("qemu-io") {
        return;
    }
    let bytes = rig.image("in.raw", MIB);
    let holder = held(&rig.path("in.raw"));
    for args in [&["convert", "in.raw", "out.raw"][..], &["info", "in.raw"]] {
        let output = rig.ends(args, 1);
        assert!(
            error_of(&output).contains("--force-share"),
            "{}",
            error_of(&output)
        );
    }
    assert_eq!(rig.names(), ["in.raw"]);
    rig.ends(&["convert", "--force-share", "in.raw", "out.raw"], 0);
    assert!(rig.read("out.raw") == bytes);
    drop(holder);
    rig.ends(&["convert", "in.raw", "out.raw"], 0);
}

#[test]
fn a_target_that_qemu_uses_is_not_replaced() {
    let rig = Rig::new();
    if !have("qemu-io") {
        return;
    }
    rig.image("in.raw", MIB);
    let bytes = vec![9; MIB];
    rig.write("out.raw", &bytes);
    let _holder = held(&rig.path("out.raw"));
    rig.ends(&["convert", "in.raw", "out.raw"], 1);
    assert!(rig.read("out.raw") == bytes);
    assert_eq!(rig.names(), ["in.raw", "out.raw"]);
}

#[test]
fn two_copies_to_one_target_do_not_mix() {
    let rig = Rig::new();
    let bytes = rig.image("in.raw", MIB);
    let mut first = rig.command(&["convert", "-", "out.raw"]);
    let mut first = silent(first.stdin(Stdio::piped()));
    let mut stdin = first.stdin.take().unwrap();
    eventually("the first copy", || {
        rig.path(".out.raw.partial").exists().then_some(())
    });
    // The first one's name is there before its lock.
    eventually("the refusal of the second", || {
        let output = rig.longshore(&["convert", "in.raw", "out.raw"]);
        (output.status.code() == Some(1)).then_some(())
    });
    stdin.write_all(&bytes).unwrap();
    drop(stdin);
    assert!(first.wait().unwrap().success());
    assert!(rig.read("out.raw") == bytes);
}
