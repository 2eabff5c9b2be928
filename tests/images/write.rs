//! What `convert -O qcow2` writes: `qemu-img check` has nothing to say, `qemu-img` reads the same disk,
//! and so do we, from the file and from a pipe.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use longshore_image::cluster::{ClusterCodec, Encoding};
use longshore_tests::data;
use longshore_tests::http::{Page, Server};
use longshore_tests::program::{have, longshore, said};
use longshore_transfer::{
    Cancel, Options, Progress, Qcow2Spec, TargetFormat, TargetSpec, transfer,
};

use crate::oracle::{Bench, Content};

/// Runs the program in the bench's directory, perhaps with something on its standard input.
fn convert(bench: &Bench, words: &str, input: Option<&[u8]>) -> Output {
    let mut child = longshore()
        .arg("convert")
        .args(words.split_whitespace())
        .current_dir(bench.path("."))
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(input) = input {
        // A refusal closes the pipe early; the status tells.
        let _ = child.stdin.take().unwrap().write_all(input);
    }
    child.wait_with_output().unwrap()
}

#[track_caller]
fn works(output: &Output, case: &str) {
    assert!(output.status.success(), "{case}: {}", said(output));
}

/// `out.qcow2` is sound, and the disk in it is `disk` (and zeros up to a sector).
fn check(bench: &Bench, disk: &[u8], case: &str) {
    let check = Command::new("qemu-img")
        .current_dir(bench.path("."))
        .args(["check", "out.qcow2"])
        .output()
        .unwrap();
    assert!(check.status.success(), "{case}: {}", said(&check));
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(text.contains("No errors were found"), "{case}: {text}");
    let mut padded = disk.to_vec();
    padded.resize(disk.len().next_multiple_of(512), 0);
    bench.file("model.raw", &padded);
    let words = ["compare", "-q", "-f", "raw", "model.raw", "out.qcow2"];
    let theirs = Command::new("qemu-img")
        .current_dir(bench.path("."))
        .args(words)
        .output()
        .unwrap();
    assert!(theirs.status.success(), "{case}: {}", said(&theirs));
    // Without a place to wait in, so that tables really come first.
    let image = std::fs::read(bench.path("out.qcow2")).unwrap();
    works(&convert(bench, "out.qcow2 back.raw", None), case);
    same(&bench.path("back.raw"), &padded, case);
    let piped = convert(bench, "--spill-limit 0 - back.raw", Some(&image));
    works(&piped, case);
    same(&bench.path("back.raw"), &padded, case);
}

#[track_caller]
fn same(path: &Path, expected: &[u8], case: &str) {
    assert!(std::fs::read(path).unwrap() == expected, "{case}");
}

const ENCODINGS: [&str; 3] = ["", "--compress", "-c --compression zstd"];

#[test]
fn what_is_written_is_sound_and_the_same_disk_in_every_size_codec_and_content() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    let mut encodings = ENCODINGS.into_iter().cycle();
    for cluster in ["512", "4Ki", "64Ki", "2Mi"] {
        // A few L2 tables each, but not tens of MiB of the large ones.
        let len = if cluster == "512" { 1 << 20 } else { 3 << 20 };
        for content in Content::ALL {
            let disk = content.bytes(len);
            bench.file("disk.raw", &disk);
            // Each content and each size meets every encoding, not all of them at once.
            let encoding = encodings.next().unwrap();
            let case = format!("{cluster} {content:?} {encoding}");
            let words = format!("-O qcow2 --cluster-size {cluster} {encoding} disk.raw out.qcow2");
            works(&convert(&bench, &words, None), &case);
            check(&bench, &disk, &case);
        }
    }
}

#[test]
fn tiny_and_odd_disks_come_out_whole() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    for (len, encoding) in [0, 1, 512, 65_535, 65_537, 200_001]
        .into_iter()
        .zip(ENCODINGS.into_iter().cycle())
    {
        let disk = data::disk(len, 3);
        bench.file("disk.raw", &disk);
        for (words, input) in [("disk.raw", None), ("-", Some(&disk[..]))] {
            let case = format!("{len} {encoding} {words}");
            let words = format!("--from raw -O qcow2 {encoding} {words} out.qcow2");
            works(&convert(&bench, &words, input), &case);
            check(&bench, &disk, &case);
        }
    }
}

#[test]
fn every_kind_of_source_gives_the_same_disk() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    let disk = Content::Unaligned.bytes(5 << 20);
    bench.file("disk.raw", &disk);
    for (name, options) in [
        ("small.qcow2", "-O qcow2 -o cluster_size=4k"),
        ("packed.qcow2", "-c -O qcow2 -o cluster_size=512"),
        ("large.qcow2", "-c -O qcow2 -o cluster_size=2M"),
        ("stream.vmdk", "-O vmdk -o subformat=streamOptimized"),
        ("sparse.vmdk", "-O vmdk"),
    ] {
        bench.qemu_img(&format!("convert -f raw {options} disk.raw {name}"));
        let image = std::fs::read(bench.path(name)).unwrap();
        for encoding in ["-c --cluster-size 2Mi", "--cluster-size 512"] {
            for (source, input) in [(name, None), ("-", Some(&image[..]))] {
                let case = format!("{name} {encoding} {source}");
                // Little memory: clusters do not wait long for their other parts.
                let words =
                    format!("--threads 2 --memory 100Mi -O qcow2 {encoding} {source} out.qcow2");
                works(&convert(&bench, &words, input), &case);
                check(&bench, &disk, &case);
            }
        }
    }
    let small = std::fs::read(bench.path("small.qcow2")).unwrap();
    bench.file("small.qcow2.gz", &data::packed("gzip -1", &small));
    works(
        &convert(&bench, "-c -O qcow2 small.qcow2.gz out.qcow2", None),
        "gz",
    );
    check(&bench, &disk, "gz");
}

#[test]
fn an_image_over_http_becomes_an_image() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    let disk = Content::Unaligned.bytes(5 << 20);
    let raw = bench.file("disk.raw", &disk);
    let server = Server::start([("/disk.raw", Page::file(&raw))]);
    let options = longshore_importer::SourceOptions::default();
    let mut source = longshore_importer::source_from(&server.url("/disk.raw"), &options).unwrap();
    let target = TargetSpec {
        path: bench.path("out.qcow2"),
        format: TargetFormat::Qcow2(Qcow2Spec {
            compression: Some(Encoding::new(ClusterCodec::Zstd, None).unwrap()),
            ..Qcow2Spec::default()
        }),
        ..TargetSpec::default()
    };
    let (progress, cancel) = (Progress::default(), Cancel::default());
    transfer(
        source.as_mut(),
        &target,
        &Options::default(),
        &progress,
        &cancel,
    )
    .unwrap();
    check(&bench, &disk, "http");
}

#[test]
fn compressed_images_are_no_larger_than_those_of_qemu_img() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    // The test itself: machine code, tables, text.
    let mut disk = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    disk.truncate(12 << 20);
    disk.resize(disk.len().next_multiple_of(512) + (3 << 20), 0);
    bench.file("disk.raw", &disk);
    for (codec, cluster) in [
        ("zlib", "65536"),
        ("zstd", "65536"),
        ("zlib", "4096"),
        ("zstd", "2097152"),
    ] {
        let options = format!("compression_type={codec},cluster_size={cluster}");
        let words = format!("convert -f raw -c -O qcow2 -o {options} disk.raw theirs.qcow2");
        bench.qemu_img(&words);
        let case = format!("{codec} {cluster}");
        let words = format!(
            "-O qcow2 -c --compression {codec} --cluster-size {cluster} disk.raw out.qcow2"
        );
        works(&convert(&bench, &words, None), &case);
        let len = |name: &str| std::fs::metadata(bench.path(name)).unwrap().len();
        let (ours, theirs) = (len("out.qcow2"), len("theirs.qcow2"));
        eprintln!("{case}: {ours} bytes, qemu-img {theirs}");
        assert!(ours <= theirs + theirs / 50, "{case}: {ours} {theirs}");
        check(&bench, &disk, &case);
    }
}

#[test]
fn clusters_whose_parts_come_scattered_are_whole_in_the_end() {
    if !have("qemu-img") || !have("qemu-io") {
        return;
    }
    let bench = Bench::new();
    bench.qemu_img("create -q -f qcow2 -o cluster_size=4k in.qcow2 40M");
    // First the even blocks from front to back, then the odd ones from back to front: no cluster of
    // the target is complete before the others have been begun.
    let blocks = (40 << 20) / 65536;
    let mut commands = Vec::new();
    for n in 0..blocks {
        commands.push(format!("write -q -P {} {} 4k", n % 250 + 1, n * 65536));
    }
    for n in (0..blocks).rev() {
        commands.push(format!(
            "write -q -P {} {} 8k",
            n % 240 + 2,
            n * 65536 + 20_480
        ));
    }
    bench.qemu_io("in.qcow2", &commands);
    let disk = std::fs::read(bench.expected("in.qcow2")).unwrap();
    let image = std::fs::read(bench.path("in.qcow2")).unwrap();
    for encoding in [
        "--memory 64Mi -c",
        "--memory 96Mi -c --compression zstd --cluster-size 2Mi",
    ] {
        for (source, input) in [("in.qcow2", None), ("-", Some(&image[..]))] {
            let words = format!("--threads 2 -O qcow2 {encoding} {source} out.qcow2");
            works(&convert(&bench, &words, input), &words);
            check(&bench, &disk, &words);
        }
    }
}

#[test]
fn size_makes_the_disk_larger_and_must_not_make_it_smaller() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    let mut disk = data::disk(1 << 20, 3);
    bench.file("disk.raw", &disk);
    works(
        &convert(&bench, "-O qcow2 -c --size 3Mi disk.raw out.qcow2", None),
        "larger",
    );
    let small = convert(&bench, "-O qcow2 --size 512Ki disk.raw small.qcow2", None);
    assert_eq!(small.status.code(), Some(4), "{}", said(&small));
    let small = convert(&bench, "-O qcow2 --size 512Ki - small.qcow2", Some(&disk));
    assert_eq!(small.status.code(), Some(4), "{}", said(&small));
    assert!(!bench.path("small.qcow2").exists());
    disk.resize(3 << 20, 0);
    check(&bench, &disk, "larger");
}

#[test]
fn an_empty_disk_of_8_tib_takes_a_few_kib() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    bench.qemu_img("create -q -f qcow2 in.qcow2 8T");
    works(
        &convert(&bench, "-O qcow2 -c in.qcow2 out.qcow2", None),
        "8T",
    );
    assert!(std::fs::metadata(bench.path("out.qcow2")).unwrap().len() < 1 << 20);
    bench.qemu_img("check -q out.qcow2");
    bench.qemu_img("compare -q in.qcow2 out.qcow2");
}
