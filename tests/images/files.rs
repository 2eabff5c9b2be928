//! Disks of several files, through the program: a VMDK's descriptor and its extents.

use std::os::unix::fs::FileExt as _;
use std::process::{Command, Output, Stdio};

use longshore_tests::program::{have, held, longshore, run, said};
use serde_json::{Value, json};

use crate::oracle::{Bench, Content};

/// What makes a disk of `image.vmdk`, for which extents have to be let in.
const CONVERT: &str = "convert --backing same-dir image.vmdk out.raw";

fn in_bench(bench: &Bench, words: &str) -> Output {
    longshore()
        .args(words.split(' '))
        .current_dir(bench.path("."))
        .output()
        .unwrap()
}

#[track_caller]
fn ends(bench: &Bench, words: &str, code: i32) -> Output {
    let output = in_bench(bench, words);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{words}: {}",
        said(&output)
    );
    output
}

fn info(bench: &Bench, words: &str) -> Value {
    let output = ends(bench, &format!("info --json {words}"), 0);
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
            bench.qemu_img(&format!(
                "convert -f raw -O vmdk -o subformat={subformat} disk.raw image.vmdk"
            ));
            let expected = std::fs::read(bench.expected("image.vmdk")).unwrap();
            ends(&bench, CONVERT, 0);
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
        bench.qemu_img(&format!(
            "create -q -f vmdk -o subformat={subformat} image.vmdk 5G"
        ));
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
        let info = info(&bench, "image.vmdk");
        assert_eq!(info["virtualSize"], 5_u64 << 30);
        assert_eq!(info["references"].as_array().unwrap().len(), 3);
        ends(&bench, CONVERT, 0);
        bench.qemu_img("compare -q -f raw -F vmdk out.raw image.vmdk");
        // A map of it has no offsets, for there are three files.
        let map = ends(&bench, "map --json --backing same-dir image.vmdk", 0);
        let map: Value = serde_json::from_slice(&map.stdout).unwrap();
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
    bench.qemu_img("convert -O vmdk -o subformat=monolithicFlat disk.raw image.vmdk");
    let closed = info(&bench, "image.vmdk");
    assert_eq!(closed["variant"], "monolithicFlat");
    assert_eq!(closed["virtualSize"], 1 << 20);
    assert_eq!(closed["allocatedBytes"], Value::Null);
    assert!(closed["allocatedBytesReason"].is_string());
    let reference = |opened| json!([{"kind": "extent-file", "name": "image-flat.vmdk", "format": null, "opened": opened}]);
    assert_eq!(closed["references"], reference(false));
    let open = info(&bench, "--backing same-dir image.vmdk");
    assert_eq!(open["references"], reference(true));
    assert_eq!(open["allocatedBytes"], 1 << 20);

    let refused = ends(&bench, "convert image.vmdk out.raw", 3);
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
    let missing = said(&ends(&bench, CONVERT, 1));
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
    bench.qemu_img("convert -O vmdk -o subformat=monolithicFlat disk.raw vm/base/base.vmdk");
    bench.qemu_img("create -q -f vmdk -b base/base.vmdk -F vmdk vm/top.vmdk");
    bench.qemu_io("vm/top.vmdk", &["write -q -P 3 64k 64k".to_owned()]);
    let expected = std::fs::read(bench.expected("vm/top.vmdk")).unwrap();
    ends(&bench, "convert --backing same-dir vm/top.vmdk out.raw", 0);
    crate::oracle::compare(&bench.path("out.raw"), &expected, "a parent elsewhere");
    // The same files from below: the parent lies outside then.
    let text = std::fs::read_to_string(bench.path("vm/base/base.vmdk")).unwrap();
    bench.file(
        "vm/base/bad.vmdk",
        text.replace("base-flat.vmdk", "../../disk.raw").as_bytes(),
    );
    ends(
        &bench,
        "convert --backing same-dir vm/base/bad.vmdk out2.raw",
        3,
    );
}

#[test]
fn an_extent_that_is_in_use_is_neither_read_nor_replaced() {
    if !have("qemu-io") {
        return;
    }
    let bench = Bench::new();
    bench.file("disk.raw", &Content::Compressible.bytes(1 << 20));
    bench.qemu_img("convert -O vmdk -o subformat=monolithicFlat disk.raw image.vmdk");
    // Our own copy uses it while it would be replaced.
    let replacing = "convert --backing same-dir image.vmdk image-flat.vmdk";
    let output = in_bench(&bench, replacing);
    assert!(
        !output.status.success(),
        "an extent was replaced by the disk"
    );
    // A writer holds it.
    let holder = held(&bench.path("image-flat.vmdk"));
    let text = said(&ends(&bench, CONVERT, 1));
    assert!(
        text.contains("image-flat.vmdk") && text.contains("--force-share"),
        "{text}"
    );
    drop(holder);
    ends(&bench, CONVERT, 0);
    run(Command::new("cmp")
        .current_dir(bench.path("."))
        .args(["disk.raw", "out.raw"]));
}
