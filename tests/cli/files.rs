//! `import --content-type archive`, and `import blank:`.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use longshore_tests::device::Loop;
use longshore_tests::eventually;
use longshore_tests::http::{Fault, Page, Server};
use longshore_tests::program::{have, program, run, said, signal};

use crate::mount::Mount;
use crate::rig::{MIB, Rig, error_of, json_of};

/// `files.tar` with a directory of two files in it.
fn packed(rig: &Rig) -> Vec<u8> {
    std::fs::create_dir(rig.path("src")).unwrap();
    let bytes = rig.image("src/a", 3 * MIB);
    rig.write("src/b", b"b");
    rig.shell("tar -cf files.tar src");
    std::fs::remove_dir_all(rig.path("src")).unwrap();
    bytes
}

#[test]
fn an_archive_becomes_a_directory_from_a_file_and_from_a_pipe() {
    if !have("tar") {
        return;
    }
    let rig = Rig::quick();
    let bytes = packed(&rig);
    let archive = ["--content-type", "archive", "--progress", "json"];
    let output = rig.ends(&[&["import", "files.tar", "out"], &archive[..]].concat(), 0);
    let last = String::from_utf8(output.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["event"], &last["format"]),
        (&"done".into(), &"archive".into())
    );
    assert!(rig.read("out/src/a") == bytes);
    let tar = rig.read("files.tar");
    let output = rig.fed(&["import", "-", "piped", "--content-type", "archive"], &tar);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("3 files and directories"),
        "{}",
        said(&output)
    );
    assert!(rig.read("piped/src/a") == bytes);
    // What is there stays.
    let output = rig.ends(
        &["import", "files.tar", "out", "--content-type", "archive"],
        1,
    );
    assert!(error_of(&output).contains("out/src"), "{}", said(&output));
    assert_eq!(rig.names(), ["files.tar", "out", "piped"]);
}

#[test]
fn an_archive_that_does_not_fit_is_4_and_leaves_nothing() {
    let rig = Rig::quick();
    let Some(mount) = Mount::of(&rig, "ext4", 16 << 20) else {
        return;
    };
    if !have("tar") {
        return;
    }
    std::fs::write(rig.path("large"), vec![7; 40 * MIB]).unwrap();
    rig.shell("tar -cf large.tar large");
    let output = rig.ends(
        &[
            "import",
            "large.tar",
            "mnt/out",
            "--content-type",
            "archive",
        ],
        4,
    );
    assert!(
        error_of(&output).contains("no space left"),
        "{}",
        said(&output)
    );
    assert!(mount.names().is_empty(), "{:?}", mount.names());
}

#[test]
fn memory_stays_bounded_whatever_an_archive_holds() {
    if !have("time") || !have("xz") {
        return;
    }
    let rig = Rig::quick();
    // Many small files, a large one, and a block of xz that takes all the memory it may.
    std::fs::create_dir(rig.path("src")).unwrap();
    for n in 0..2000 {
        rig.write(&format!("src/{n:0>200}"), b"x");
    }
    rig.image("src/large", 40 * MIB);
    rig.shell("tar -c -I 'xz -1 -T0' -f files.tar.xz src");
    let mut time = Command::new("time");
    time.args(["--quiet", "--format", "%M", "--output", "peak"]);
    time.arg(program()).args(["import", "files.tar.xz", "out"]);
    time.args(["--content-type", "archive"])
        .current_dir(rig.dir());
    run(&mut time);
    let peak = String::from_utf8(rig.read("peak")).unwrap();
    let peak: usize = peak.trim().parse().unwrap();
    assert!(peak * 1024 < 128 * MIB, "{} MiB", peak >> 10);
}

#[test]
fn a_blank_disk_is_made_of_its_size_alone() {
    let rig = Rig::quick();
    let args = [
        "import",
        "blank:",
        "disk.raw",
        "--size",
        "6Mi",
        "--progress",
        "json",
    ];
    let output = rig.ends(&args, 0);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("\"format\":\"blank\""), "{text}");
    let meta = rig.path("disk.raw").metadata().unwrap();
    assert_eq!((meta.len(), meta.blocks()), (6 << 20, 0));
    rig.ends(
        &[
            "import",
            "blank:",
            "full.raw",
            "--size",
            "6Mi",
            "--preallocate",
            "full",
        ],
        0,
    );
    let meta = rig.path("full.raw").metadata().unwrap();
    assert!(meta.blocks() * 512 >= 6 << 20);
    let output = rig.ends(&["info", "--json", "disk.raw"], 0);
    assert_eq!(json_of(&output)["virtualSize"], 6 << 20);
    // Without a size there is nothing to make.
    let output = rig.ends(&["import", "blank:", "sizeless.raw"], 1);
    assert!(error_of(&output).contains("how large"), "{}", said(&output));
    rig.ends(
        &["import", "blank:", "disk.raw", "--content-type", "archive"],
        2,
    );
    assert_eq!(rig.names(), ["disk.raw", "full.raw"]);
}

#[test]
fn a_blank_device_keeps_what_it_holds_and_says_so_unless_told_to_zero_it() {
    let rig = Rig::quick();
    rig.write("backing", &vec![0xee; 8 * MIB]);
    let Some(device) = Loop::over(&rig.path("backing")) else {
        return;
    };
    let output = rig.ends(&["import", "blank:", device.name()], 0);
    assert!(
        said(&output).contains("keeps what it holds"),
        "{}",
        said(&output)
    );
    assert!(std::fs::read(device.path()).unwrap() == vec![0xee; 8 * MIB]);
    rig.ends(&["import", "blank:", device.name(), "--size", "9Mi"], 4);
    rig.ends(
        &["import", "blank:", device.name(), "--preallocate", "full"],
        0,
    );
    assert!(std::fs::read(device.path()).unwrap() == vec![0; 8 * MIB]);
}

/// Every call on the directory fails, one by one: all of the archive is there, or nothing and a reason.
#[test]
fn a_call_that_fails_leaves_nothing_and_is_told() {
    if !have("strace") || !have("tar") {
        return;
    }
    let rig = Rig::quick();
    let bytes = packed(&rig);
    let calls = "mkdirat,openat,ftruncate,pwrite64,fchmod,utimensat,syncfs,renameat2,fchmodat";
    for call in calls.split(',') {
        for when in 1..=2 {
            let mut strace = Command::new("strace");
            strace.current_dir(rig.dir());
            // Only what is done in the directory, or below it.
            strace.args(["-f", "-qq", "-o", "trace", "-P"]);
            strace
                .arg(rig.path("out"))
                .arg("-P")
                .arg(rig.path("out/.longshore-unpack"));
            strace.arg("-P").arg(rig.path("out/.longshore-unpack/src"));
            strace
                .arg("-P")
                .arg(rig.path("out/.longshore-unpack/src/a"));
            strace.args(["-e", &format!("trace={call}")]);
            strace.args(["-e", &format!("inject={call}:error=EIO:when={when}")]);
            strace.arg(program()).args(["import", "files.tar", "out"]);
            strace.args(["--content-type", "archive"]);
            let output = strace.output().unwrap();
            let trace = String::from_utf8(rig.read("trace")).unwrap();
            let hit = trace.contains("(INJECTED)");
            if output.status.success() {
                assert!(!hit || call == "openat", "{call} {when}: {trace}");
                assert!(rig.read("out/src/a") == bytes, "{call} {when}");
                std::fs::remove_dir_all(rig.path("out")).unwrap();
                continue;
            }
            assert!(hit, "{call} {when}: {}", said(&output));
            let text = error_of(&output);
            assert!(text.contains("Input/output error"), "{call} {when}: {text}");
            // Where it was moved to its place it is whole.
            if rig.path("out/src").exists() {
                assert!(rig.read("out/src/a") == bytes, "{call} {when}");
                std::fs::remove_dir_all(rig.path("out")).unwrap();
            }
            let left = rig.names();
            assert!(
                !left.contains(&"out".to_owned()),
                "{call} {when}: {left:?}: {text}"
            );
        }
    }
}

/// As on a filesystem without locks, and one that neither exchanges names nor looks whether one is free.
#[test]
fn a_filesystem_without_locks_and_exchanges_will_do() {
    if !have("strace") || !have("tar") {
        return;
    }
    let rig = Rig::quick();
    let bytes = packed(&rig);
    let mut strace = Command::new("strace");
    strace
        .current_dir(rig.dir())
        .args(["-f", "-qq", "-o", "trace"]);
    strace.args(["-e", "trace=flock,renameat2"]);
    strace.args(["-e", "inject=flock:error=ENOLCK"]);
    strace.args(["-e", "inject=renameat2:error=EINVAL:when=1"]);
    strace.arg(program()).args(["import", "files.tar", "out"]);
    let output = strace.args(["--content-type", "archive"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let trace = String::from_utf8(rig.read("trace")).unwrap();
    assert_eq!(trace.matches("(INJECTED)").count(), 2, "{trace}");
    assert!(rig.read("out/src/a") == bytes);
    assert!(!rig.path("out/.longshore-unpack").exists());
}

#[test]
fn a_signal_ends_the_wait_for_an_archive_and_leaves_nothing() {
    let rig = Rig::quick();
    let page = Page::of(vec![0; MIB]).faults(&Fault::Stall(1000), 20);
    let server = Server::start([("/files.tar", page)]);
    let mut command = rig.command(&["import", &server.url("/files.tar"), "out"]);
    command.args(["--content-type", "archive"]);
    command.stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    server.wait_until(|log| log.sent >= 1000);
    eventually("it unpacks", || {
        rig.path("out/.longshore-unpack").exists().then_some(())
    });
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        error_of(&output).contains("interrupted"),
        "{}",
        said(&output)
    );
    assert!(!rig.path("out/.longshore-unpack").exists());
}
