//! Exit codes, usage, standard input, and what is left after a failure.

use std::process::Stdio;

use longshore_tests::http::{Page, Server};
use longshore_tests::program::said;

use crate::rig::{MIB, Rig, error_of};

#[test]
fn wrong_usage_is_2_and_says_what_would_be_right() {
    let rig = Rig::new();
    rig.image("in.raw", MIB);
    for args in [
        &[][..],
        &["unheard-of"],
        &["convert", "in.raw"],
        &["convert", "in.raw", "-"],
        &["convert", "in.raw", "http://host/out"],
        &["convert", "in.raw", "out.raw", "--from", "floppy"],
        &["convert", "in.raw", "out.raw", "--memory", "plenty"],
        &["convert", "in.raw", "out.raw", "--memory", "0"],
        &["convert", "in.raw", "out.raw", "--threads", "0"],
        &["convert", "in.raw", "out.raw", "--cache", "magic"],
        &["convert", "in.raw", "out.raw", "--spill-limit=-1"],
        &["convert", "in.raw", "out.raw", "-O", "vmdk"],
        &["convert", "in.raw", "out.raw", "--compress"],
        &["convert", "in.raw", "out.raw", "--cluster-size", "64Ki"],
        &[
            "convert",
            "in.raw",
            "out.raw",
            "-O",
            "qcow2",
            "--cluster-size",
            "65000",
        ],
        &[
            "convert",
            "in.raw",
            "out.raw",
            "-O",
            "qcow2",
            "--compression",
            "zstd",
        ],
        &[
            "convert", "in.raw", "out.raw", "-O", "qcow2", "-c", "--level", "10",
        ],
        &[
            "convert",
            "in.raw",
            "out.raw",
            "-O",
            "qcow2",
            "--preallocate",
            "full",
        ],
        &["import", "in.raw", "out.raw", "-O", "qcow2"],
        &["convert", "-", "out.raw", "--backing", "same-dir"],
        &["convert", "http://localhost/x", "out.raw"],
        &["import", "in.raw", "out.raw", "--size", "0"],
        &["import", "in.raw", "out.raw", "--checksum", "sha256:12"],
        &["import", "in.raw", "out.raw", "--header", "nonsense"],
        &["import", "in.raw", "out.raw", "--user", "ann"],
        &["run"],
        &["run", "-f", "vm.yaml", "--set", "nonsense"],
        &["run", "-f", "vm.yaml", "--accel", "xen"],
        &["completions", "tcsh"],
    ] {
        let output = rig.ends(args, 2);
        assert!(!output.stderr.is_empty(), "{args:?} says nothing");
        assert!(output.stdout.is_empty(), "{args:?}: usage is talk");
    }
    assert_eq!(rig.names(), ["in.raw"], "nothing was begun");
}

#[test]
fn help_and_version_are_data_and_succeed() {
    let rig = Rig::new();
    let version = rig.ends(&["--version"], 0).stdout;
    assert!(version.starts_with(b"longshore "));
    for command in [
        "info",
        "map",
        "convert",
        "import",
        "run",
        "purge",
        "completions",
    ] {
        let help = rig.ends(&[command, "--help"], 0).stdout;
        let help = String::from_utf8(help).unwrap();
        assert!(help.contains("Examples:"), "{command} teaches nothing");
        assert!(help.contains(&format!("longshore {command}")), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = rig.ends(&["completions", shell], 0).stdout;
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("spill-limit"), "{shell}");
    }
}

#[test]
fn a_source_that_cannot_be_read_is_1_and_names_the_cause() {
    let rig = Rig::new();
    let output = rig.ends(&["convert", "missing.raw", "out.raw"], 1);
    let error = error_of(&output);
    assert!(
        error.contains("missing.raw") && error.contains("No such file"),
        "{error}"
    );
    rig.ends(&["info", "missing.raw"], 1);
    rig.ends(&["import", "s3://bucket/key", "out.raw"], 1);
    let server = Server::start([("/gone", Page::status(404))]);
    let output = rig.ends(&["import", &server.url("/gone"), "out.raw"], 1);
    assert!(error_of(&output).contains("404"));
    assert_eq!(rig.names(), Vec::<String>::new());
}

#[test]
fn source_and_target_must_differ_however_they_are_named() {
    let rig = Rig::new();
    let bytes = rig.image("in.raw", MIB);
    std::fs::hard_link(rig.path("in.raw"), rig.path("hard.raw")).unwrap();
    std::os::unix::fs::symlink("in.raw", rig.path("soft.raw")).unwrap();
    for target in ["in.raw", "./in.raw", "hard.raw", "soft.raw"] {
        rig.ends(&["convert", "in.raw", target], 1);
        assert_eq!(rig.read("in.raw"), bytes, "{target}");
    }
    assert_eq!(rig.names(), ["hard.raw", "in.raw", "soft.raw"]);
}

#[test]
fn an_image_that_is_refused_is_3_and_leaves_nothing() {
    let rig = Rig::new();
    rig.write("bad.qcow2", b"QFI\xfb\0\0\0\x09 no such version");
    rig.write("disk.vhdx", b"vhdxfile and more");
    for image in ["bad.qcow2", "disk.vhdx"] {
        for args in [
            &["convert", image, "out.raw"],
            &["import", image, "out.raw"],
        ] {
            rig.ends(args, 3);
        }
        rig.ends(&["info", image], 3);
        rig.ends(&["map", image], 3);
    }
    rig.image("in.raw", MIB);
    rig.ends(
        &["import", "in.raw", "out.raw", "--content-type", "archive"],
        3,
    );
    assert_eq!(rig.names(), ["bad.qcow2", "disk.vhdx", "in.raw"]);
    // A person who knows better gets the bytes.
    rig.ends(&["convert", "--from", "raw", "disk.vhdx", "out.raw"], 0);
    assert_eq!(rig.read("out.raw"), b"vhdxfile and more");
}

#[test]
fn a_disk_larger_than_the_size_asked_for_is_4() {
    let rig = Rig::new();
    let bytes = rig.image("in.raw", 3 * MIB);
    let output = rig.ends(&["import", "in.raw", "out.raw", "--size", "2Mi"], 4);
    assert!(error_of(&output).contains("3145728"), "{}", said(&output));
    // Through a pipe the size shows only at the boundary.
    let output = rig.fed(&["import", "-", "out.raw", "--size", "2Mi"], &bytes);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert_eq!(rig.names(), ["in.raw"]);
    rig.ends(&["import", "in.raw", "out.raw", "--size", "4M"], 0);
    let disk = rig.read("out.raw");
    assert_eq!(disk.len(), 4_000_000);
    assert!(disk[..bytes.len()] == bytes && disk[bytes.len()..].iter().all(|b| *b == 0));
}

#[test]
fn a_failure_leaves_an_existing_target_as_it_was() {
    let rig = Rig::new();
    rig.image("in.raw", MIB);
    rig.write("out.raw", b"precious");
    rig.write("bad.qcow2", b"QFI\xfb\0\0\0\x09 no such version");
    rig.ends(&["convert", "bad.qcow2", "out.raw"], 3);
    rig.ends(&["import", "in.raw", "out.raw", "--size", "4Ki"], 4);
    let wrong = format!("sha256:{}", "0".repeat(64));
    rig.ends(&["import", "in.raw", "out.raw", "--checksum", &wrong], 1);
    assert_eq!(rig.read("out.raw"), b"precious");
    assert_eq!(rig.names(), ["bad.qcow2", "in.raw", "out.raw"]);
}

#[test]
fn standard_input_is_a_source_whether_pipe_or_file() {
    let rig = Rig::new();
    let bytes = rig.image("in.raw", 5 * MIB + 77);
    for command in ["convert", "import"] {
        let output = rig.fed(&[command, "-", "out.raw"], &bytes);
        assert!(output.status.success(), "{}", said(&output));
        assert!(rig.read("out.raw") == bytes, "{command} from a pipe");
        let file = std::fs::File::open(rig.path("in.raw")).unwrap();
        let output = rig
            .command(&[command, "-", "again.raw"])
            .stdin(Stdio::from(file))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(rig.read("again.raw") == bytes, "{command} from a file");
    }
}

#[test]
fn an_import_sends_what_it_is_told_and_shows_no_secrets() {
    let rig = Rig::new();
    let bytes = rig.image("in.raw", MIB);
    let page = Page::of(bytes.clone());
    let server = Server::start([("/disk", page)]);
    let url = format!("http://localhost:{}/disk?sig=hush", server.address().port());
    server.set("/disk?sig=hush", Page::of(bytes.clone()));
    let output = rig
        .command(&[
            "import",
            &url,
            "out.raw",
            "--user",
            "ann",
            "--header",
            "X-Token: hush",
        ])
        .env("LONGSHORE_PASSWORD", "hush")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(rig.read("out.raw") == bytes);
    let log = server.log();
    let request = log.requests.last().unwrap();
    assert_eq!(request.header("authorization"), Some("Basic YW5uOmh1c2g="));
    assert_eq!(request.header("x-token"), Some("hush"));
    assert!(!said(&output).contains("hush"), "{}", said(&output));
    let output = rig.ends(&["info", "--json", &url], 0);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hush"));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let rig = Rig::new();
    // 20,000 extents are more than any pipe holds.
    let mut bytes = vec![0; 160 * MIB];
    for at in (0..bytes.len()).step_by(8192) {
        bytes[at] = 1;
    }
    rig.write("in.raw", b"");
    write_sparse(&rig, &bytes);
    for args in [
        &["map", "in.raw"][..],
        &["map", "--json", "in.raw"],
        &["info", "in.raw"],
        &["completions", "zsh"],
        &["--help"],
    ] {
        let mut child = rig
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
        assert!(output.stderr.is_empty(), "{args:?}: {}", said(&output));
    }
}

/// Every second block is a hole.
fn write_sparse(rig: &Rig, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::create(rig.path("in.raw")).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for at in (0..bytes.len()).step_by(8192) {
        file.write_all_at(&bytes[at..at + 4096], at as u64).unwrap();
    }
}
