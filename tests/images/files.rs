//! Disks of several files, through the program: a VMDK's descriptor and its extents.

use std::os::unix::fs::FileExt as _;
use std::process::{Command, Output, Stdio};

use longshore_tests::program::{have, longshore, run, said};
use serde_json::{Value, json};

use crate::oracle::{Bench, Content};

fn in_bench(bench: &Bench, args: &[&str]) -> Output {
    longshore()
        .args(args)
        .current_dir(bench.path("."))
        .output()
        .unwrap()
}

#[track_caller]
fn ends(bench: &Bench, args: &[&str], code: i32) -> Output {
    let output = in_bench(bench, args);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}: {}",
        said(&output)
    );
    output
}

fn info(bench: &Bench, args: &[&str]) -> Value {
    let output = ends(bench, &[&["info", "--json"], args].concat(), 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_subformat_of_several_files_equals_qemu_img() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    for content in [Content::Sparse, Content::Unaligned] {
        bench.file("disk.raw", &content.bytes(5 << 20));
        for subformat in [
            "monolithicFlat",
            "twoGbMaxExtentFlat",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentSparse,zeroed_grain=on",
            "twoGbMaxExtentSparse,compat6=on",
        ] {
            let options = format!("subformat={subformat}");
            let args = [
                "convert",
                "-f",
                "raw",
                "-O",
                "vmdk",
                "-o",
                &options,
                "disk.raw",
                "image.vmdk",
            ];
            bench.qemu_img(&args);
            let expected = std::fs::read(bench.expected("image.vmdk")).unwrap();
            let args = ["convert", "--backing", "same-dir", "image.vmdk", "out.raw"];
            ends(&bench, &args, 0);
            crate::oracle::compare(&bench.path("out.raw"), &expected, subformat);
        }
    }
}

#[test]
fn extents_of_two_gibibytes_are_one_disk() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let options = format!("subformat={subformat}");
        bench.qemu_img(&[
            "create",
            "-q",
            "-f",
            "vmdk",
            "-o",
            &options,
            "image.vmdk",
            "5G",
        ]);
        let writes: Vec<_> = [
            (1, "0 1M"),
            (2, "2047M 2M"),
            (3, "4095M 3M"),
            (4, "5116M 4M"),
        ]
        .iter()
        .map(|(byte, place)| format!("write -q -P {byte} {place}"))
        .collect();
        bench.qemu_io("image.vmdk", &writes);
        let info = info(&bench, &["image.vmdk"]);
        assert_eq!(info["virtualSize"], 5_u64 << 30);
        assert_eq!(info["references"].as_array().unwrap().len(), 3);
        ends(
            &bench,
            &["convert", "--backing", "same-dir", "image.vmdk", "out.raw"],
            0,
        );
        bench.qemu_img(&[
            "compare",
            "-q",
            "-f",
            "raw",
            "-F",
            "vmdk",
            "out.raw",
            "image.vmdk",
        ]);
        // A map of it has no offsets, for there are three files.
        let args = ["map", "--json", "--backing", "same-dir", "image.vmdk"];
        let map: Value = serde_json::from_slice(&ends(&bench, &args, 0).stdout).unwrap();
        let map = map.as_array().unwrap();
        assert!(map.iter().any(|extent| extent["data"] == true));
        assert!(map.iter().all(|extent| extent["offset"] == Value::Null));
        let out = std::fs::File::open(bench.path("out.raw")).unwrap();
        let mut middle = [0; 2];
        out.read_exact_at(&mut middle, (2049 << 20) - 1).unwrap();
        assert_eq!(middle, [2, 0]);
        let blocks = std::os::unix::fs::MetadataExt::blocks(&out.metadata().unwrap());
        assert!(blocks * 512 < 20 << 20, "{blocks} blocks");
    }
}

#[test]
fn extents_are_listed_and_opened_only_when_let_in() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    bench.file("disk.raw", &Content::Compressible.bytes(1 << 20));
    let args = [
        "convert",
        "-O",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        "disk.raw",
        "image.vmdk",
    ];
    bench.qemu_img(&args);
    let closed = info(&bench, &["image.vmdk"]);
    assert_eq!(closed["variant"], "monolithicFlat");
    assert_eq!(closed["virtualSize"], 1 << 20);
    assert_eq!(closed["allocatedBytes"], Value::Null);
    assert!(closed["allocatedBytesReason"].is_string());
    let reference = |opened| json!([{"kind": "extent-file", "name": "image-flat.vmdk", "format": null, "opened": opened}]);
    assert_eq!(closed["references"], reference(false));
    let open = info(&bench, &["--backing", "same-dir", "image.vmdk"]);
    assert_eq!(open["references"], reference(true));
    assert_eq!(open["allocatedBytes"], 1 << 20);

    let refused = ends(&bench, &["convert", "image.vmdk", "out.raw"], 3);
    let text = said(&refused);
    assert!(
        text.contains("image-flat.vmdk") && text.contains("--backing same-dir"),
        "{text}"
    );
    let descriptor = std::fs::File::open(bench.path("image.vmdk")).unwrap();
    let mut piped = Command::new("cat");
    let mut piped = piped
        .stdin(descriptor)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let streamed = longshore()
        .args(["convert", "-", "out.raw"])
        .current_dir(bench.path("."))
        .stdin(piped.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(piped.wait().unwrap().success());
    assert_eq!(streamed.status.code(), Some(3));
    assert!(
        said(&streamed).contains("local file"),
        "{}",
        said(&streamed)
    );

    // What is missing is not refused, it is missing.
    std::fs::rename(bench.path("image-flat.vmdk"), bench.path("moved.vmdk")).unwrap();
    let args = ["convert", "--backing", "same-dir", "image.vmdk", "out.raw"];
    let missing = said(&ends(&bench, &args, 1));
    assert!(
        missing.contains("image-flat.vmdk") && missing.contains("not found"),
        "{missing}"
    );
    assert!(!bench.path("out.raw").exists());
}

#[test]
fn names_are_relative_to_the_file_that_has_them_and_stay_in_the_directory() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path("vm/base")).unwrap();
    bench.file("disk.raw", &Content::Unaligned.bytes(1 << 20));
    let flat = ["-O", "vmdk", "-o", "subformat=monolithicFlat"];
    bench.qemu_img(&[&["convert"], &flat[..], &["disk.raw", "vm/base/base.vmdk"]].concat());
    let args = [
        "create",
        "-q",
        "-f",
        "vmdk",
        "-b",
        "base/base.vmdk",
        "-F",
        "vmdk",
        "vm/top.vmdk",
    ];
    bench.qemu_img(&args);
    bench.qemu_io("vm/top.vmdk", &["write -q -P 3 64k 64k".to_owned()]);
    let expected = std::fs::read(bench.expected("vm/top.vmdk")).unwrap();
    let args = ["convert", "--backing", "same-dir", "vm/top.vmdk", "out.raw"];
    ends(&bench, &args, 0);
    crate::oracle::compare(&bench.path("out.raw"), &expected, "a parent elsewhere");
    // The same files from below: the parent lies outside then.
    let text = std::fs::read_to_string(bench.path("vm/base/base.vmdk")).unwrap();
    bench.file(
        "vm/base/bad.vmdk",
        text.replace("base-flat.vmdk", "../../disk.raw").as_bytes(),
    );
    let args = [
        "convert",
        "--backing",
        "same-dir",
        "vm/base/bad.vmdk",
        "out2.raw",
    ];
    ends(&bench, &args, 3);
}

#[test]
fn an_extent_that_is_in_use_is_neither_read_nor_replaced() {
    if !have("qemu-io") {
        return;
    }
    let bench = Bench::new();
    bench.file("disk.raw", &Content::Compressible.bytes(1 << 20));
    let args = [
        "convert",
        "-O",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        "disk.raw",
        "image.vmdk",
    ];
    bench.qemu_img(&args);
    // Our own copy uses it while it would be replaced.
    let args = [
        "convert",
        "--backing",
        "same-dir",
        "image.vmdk",
        "image-flat.vmdk",
    ];
    let output = in_bench(&bench, &args);
    assert!(
        !output.status.success(),
        "an extent was replaced by the disk"
    );
    // A writer holds it: the shell keeps it open until its input ends.
    let mut holder = Command::new("qemu-io");
    holder
        .args(["-f", "raw", "image-flat.vmdk"])
        .current_dir(bench.path("."));
    let mut holder = holder
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = holder.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"length\n").unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(holder.stdout.as_mut().unwrap()),
        &mut line,
    )
    .unwrap();
    let args = ["convert", "--backing", "same-dir", "image.vmdk", "out.raw"];
    let text = said(&ends(&bench, &args, 1));
    assert!(
        text.contains("image-flat.vmdk") && text.contains("--force-share"),
        "{text}"
    );
    drop(stdin);
    assert!(holder.wait().unwrap().success());
    ends(&bench, &args, 0);
    run(Command::new("cmp")
        .current_dir(bench.path("."))
        .args(["disk.raw", "out.raw"]));
}
