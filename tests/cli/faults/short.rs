//! Reads and writes that do less than they were asked for, as the kernel may: a library in front of the C
//! library's calls hands on no more than a few hundred bytes at a time.

use std::path::PathBuf;
use std::process::Command;

use longshore_tests::program::{have, run, said};

use crate::rig::{MIB, Rig};

/// The library, built; None without a C compiler.
fn library(rig: &Rig) -> Option<PathBuf> {
    if !have("cc") {
        return None;
    }
    let library = rig.path("short.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/cli/faults/short.c");
    run(Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source));
    Some(library)
}

#[test]
fn short_reads_and_writes_are_carried_on() {
    let rig = Rig::new();
    let Some(library) = library(&rig) else { return };
    if !have("qemu-img") {
        return;
    }
    // To QEMU a disk ends where a sector does.
    let bytes = rig.image("in.raw", MIB + 1024);
    let convert = |words: &[&str]| {
        let mut command = rig.command(words);
        let output = command.env("LD_PRELOAD", &library).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        // The library says at the end how often it cut a call.
        let cut = std::fs::read_to_string(rig.path("short.count")).unwrap();
        let cut: u64 = cut.trim().parse().unwrap();
        assert!(cut > 500, "{words:?}: {cut} calls were cut");
    };
    for format in ["raw", "qcow2", "vmdk", "vhdx"] {
        rig.shell(&format!("qemu-img convert -O {format} in.raw in.img"));
        convert(&["convert", "--sync", "in.img", "out.raw"]);
        let disk = rig.read("out.raw");
        assert!(disk == bytes, "{format}");
    }
    convert(&[
        "convert",
        "-O",
        "qcow2",
        "--compress",
        "in.raw",
        "out.qcow2",
    ]);
    rig.ends(&["convert", "out.qcow2", "back.raw"], 0);
    assert!(rig.read("back.raw") == bytes);
}
