//! Ended at any moment, nothing is left that looks complete.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use longshore_tests::eventually;
use longshore_tests::http::{Fault, Page, Server};
use longshore_tests::program::{said, signal, silent};

use crate::rig::{MIB, Rig};

#[test]
fn a_kill_at_any_moment_leaves_the_whole_disk_or_none() {
    let rig = Rig::new();
    let bytes = rig.image("in.raw", 96 * MIB);
    let started = Instant::now();
    rig.ends(&["import", "in.raw", "out.raw"], 0);
    let whole = started.elapsed();
    std::fs::remove_file(rig.path("out.raw")).unwrap();
    let (mut killed, mut finished) = (0, 0);
    for step in 0..20_u32 {
        let mut child = silent(&mut rig.command(&["import", "in.raw", "out.raw"]));
        // Not a wait for anything: the moments are spread over the run's length.
        std::thread::sleep(whole * step / 18);
        let _ = child.kill();
        if child.wait().unwrap().success() {
            finished += 1;
        } else {
            killed += 1;
        }
        if rig.path("out.raw").exists() {
            assert!(rig.read("out.raw") == bytes, "killed in step {step}");
            std::fs::remove_file(rig.path("out.raw")).unwrap();
        }
    }
    eprintln!("{killed} killed, {finished} finished, {whole:?} for a whole run");
    assert!(killed > 0, "no run was killed");
    // What a kill left behind is in nobody's way.
    rig.ends(&["import", "in.raw", "out.raw"], 0);
    assert!(rig.read("out.raw") == bytes);
    assert_eq!(rig.names(), ["in.raw", "out.raw"]);
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_qcow2_image_or_none() {
    let rig = Rig::new();
    let bytes = rig.image("in.raw", 64 * MIB);
    let words = [
        "convert",
        "-O",
        "qcow2",
        "--compress",
        "in.raw",
        "out.qcow2",
    ];
    let started = Instant::now();
    rig.ends(&words, 0);
    let whole = started.elapsed();
    std::fs::remove_file(rig.path("out.qcow2")).unwrap();
    let mut killed = 0;
    for step in 0..12_u32 {
        let mut child = silent(&mut rig.command(&words));
        // Not a wait for anything: the moments are spread over the run's length.
        std::thread::sleep(whole * step / 10);
        let _ = child.kill();
        killed += u32::from(!child.wait().unwrap().success());
        // What is partial is not taken for an image: its header comes last.
        if let Ok(partial) = std::fs::read(rig.path(".out.qcow2.partial")) {
            assert!(!partial.starts_with(b"QFI") || !rig.path("out.qcow2").exists());
        }
        if rig.path("out.qcow2").exists() {
            rig.ends(&["convert", "out.qcow2", "back.raw"], 0);
            assert!(rig.read("back.raw") == bytes, "killed in step {step}");
            std::fs::remove_file(rig.path("out.qcow2")).unwrap();
        }
    }
    assert!(killed > 0, "no run was killed");
    rig.ends(&words, 0);
    rig.ends(&["convert", "out.qcow2", "back.raw"], 0);
    assert!(rig.read("back.raw") == bytes);
    assert_eq!(rig.names(), ["back.raw", "in.raw", "out.qcow2"]);
}

#[test]
fn signals_end_a_copy_that_waits_and_clean_up() {
    let rig = Rig::new();
    for name in ["INT", "TERM", "HUP"] {
        let mut child = rig
            .command(&["convert", "-", "out.raw"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&vec![1; MIB]).unwrap();
        eventually("the partial file", || {
            rig.path(".out.raw.partial").exists().then_some(())
        });
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        // The pipe was open all the time: nothing but the signal ended it.
        drop(stdin);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
        assert!(
            said(&output).contains("interrupted"),
            "{name}: {}",
            said(&output)
        );
        assert_eq!(rig.names(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_signal_ends_an_import_whose_server_is_silent() {
    let rig = Rig::quick();
    let page = Page::of(vec![1; 4 * MIB]).fault(Fault::Stall(MIB as u64));
    let server = Server::start([("/disk", page)]);
    let child = rig
        .command(&["import", &server.url("/disk"), "out.raw"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.wait_until(|log| log.sent >= MIB as u64);
    // What was sent may still be on its way: without a byte written nothing is left to go on with.
    eventually("bytes in the partial file", || {
        let partial = rig.path(".out.raw.partial").metadata().ok()?;
        (partial.blocks() > 0).then_some(())
    });
    let started = Instant::now();
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        started.elapsed() < Duration::from_mins(1),
        "{:?}",
        started.elapsed()
    );
    // What it is gone on with from: see `resume`.
    let left = [".out.raw.longshore-journal", ".out.raw.partial"];
    assert_eq!(rig.names(), left);
}

#[test]
fn a_signal_ends_a_copy_that_is_at_work() {
    let rig = Rig::new();
    let file = std::fs::File::create(rig.path("in.raw")).unwrap();
    // An hour of reading, were it not interrupted; through a pipe its holes are bytes.
    file.set_len(1 << 42).unwrap();
    let mut cat = std::process::Command::new("cat")
        .arg(rig.path("in.raw"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let child = rig
        .command(&["convert", "-", "out.raw"])
        .stdin(Stdio::from(cat.stdout.take().unwrap()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the partial file", || {
        rig.path(".out.raw.partial").exists().then_some(())
    });
    std::thread::sleep(Duration::from_millis(50));
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let _ = cat.kill();
    cat.wait().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(rig.names(), ["in.raw"]);
}
