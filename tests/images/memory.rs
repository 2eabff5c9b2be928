//! One memory budget: the peak of a process stays under 128 MiB whatever the image asks for. Each case
//! runs in a process of its own, measured by the kernel.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use longshore_tests::program::{have, program, said};

use crate::oracle::{Bench, Content};

const MIB: u64 = 1 << 20;
/// More than anybody should need, however many threads there are.
const PEAK: u64 = 128 * MIB;

/// Runs `longshore ARGS` with `stdin`, and gives its peak resident memory in bytes.
fn measured(bench: &Bench, args: &[&str], stdin: Option<&Path>) -> (u64, Output) {
    let report = bench.path("peak");
    let mut time = Command::new("time");
    time.args(["--quiet", "--format", "%M", "--output"])
        .arg(&report)
        .arg(program())
        .args(args);
    time.current_dir(bench.path(""));
    // Through a pipe: a redirected file would be read at random.
    let mut cat = stdin.map(|path| {
        Command::new("cat")
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let pipe = cat.as_mut().and_then(|cat| cat.stdout.take());
    time.stdin(pipe.map_or_else(Stdio::null, Stdio::from));
    let output = time.output().unwrap();
    // Our end of the pipe goes first: after a refusal `cat` would wait for ever.
    drop(time);
    if let Some(mut cat) = cat {
        cat.wait().unwrap();
    }
    let text = std::fs::read_to_string(&report).unwrap();
    let kib: u64 = text.lines().last().unwrap().trim().parse().unwrap();
    (kib * 1024, output)
}

fn stays_small(bench: &Bench, image: &str, case: &str) {
    for (args, stdin) in [
        (["convert", "--threads", "16", image, "out.raw"], None),
        (
            ["convert", "--threads", "16", "-", "out.raw"],
            Some(bench.path(image)),
        ),
    ] {
        let (peak, output) = measured(bench, &args, stdin.as_deref());
        assert!(
            output.status.success(),
            "{case} {args:?}: {}",
            said(&output)
        );
        assert!(peak < PEAK, "{case} {args:?}: a peak of {} MiB", peak / MIB);
        eprintln!("{case} {args:?}: a peak of {} MiB", peak / MIB);
    }
}

#[test]
fn large_clusters_on_many_threads_stay_within_the_budget() {
    if !have("qemu-img") || !have("time") {
        return;
    }
    let bench = Bench::new();
    bench.file("disk.raw", &Content::Unaligned.bytes(96 << 20));
    for codec in ["zlib", "zstd"] {
        let options = format!("cluster_size=2M,compression_type={codec}");
        bench.qemu_img(&format!(
            "convert -c -O qcow2 -o {options} disk.raw i.qcow2"
        ));
        stays_small(&bench, "i.qcow2", codec);
    }
}

#[test]
fn small_clusters_and_their_many_tables_stay_within_the_budget() {
    if !have("qemu-img") || !have("time") {
        return;
    }
    let bench = Bench::new();
    bench.file("disk.raw", &Content::Incompressible.bytes(96 << 20));
    bench.qemu_img("convert -O qcow2 -o cluster_size=512 disk.raw i.qcow2");
    stays_small(&bench, "i.qcow2", "clusters of 512 bytes");
}

#[test]
fn huge_empty_disks_take_neither_memory_nor_space() {
    if !have("qemu-img") || !have("time") {
        return;
    }
    let bench = Bench::new();
    bench.qemu_img("create -q -f qcow2 i.qcow2 8T");
    stays_small(&bench, "i.qcow2", "an empty qcow2 of 8 TiB");
    bench.qemu_img("create -q -f vmdk -o subformat=monolithicSparse i.vmdk 1T");
    stays_small(&bench, "i.vmdk", "an empty VMDK of 1 TiB");
    // A table of 32 MiB, in front of what explains it.
    bench.qemu_img("create -q -f vhdx -o block_size=1M i.vhdx 4T");
    stays_small(
        &bench,
        "i.vhdx",
        "an empty VHDX of 4 TiB in blocks of 1 MiB",
    );
}

#[test]
fn xz_with_its_largest_usual_dictionary_fits() {
    if !have("qemu-img") || !have("time") || !have("xz") {
        return;
    }
    let bench = Bench::new();
    bench.file("disk.raw", &Content::Unaligned.bytes(96 << 20));
    for flags in [["-9", "-T1"], ["-9", "-T2"], ["-6", "-T4"]] {
        let packed = std::fs::File::create(bench.path("disk.raw.xz")).unwrap();
        let mut xz = Command::new("xz");
        xz.args(flags)
            .arg("-c")
            .arg(bench.path("disk.raw"))
            .stdout(packed);
        assert!(xz.status().unwrap().success());
        stays_small(&bench, "disk.raw.xz", &format!("xz {flags:?}"));
    }
}

#[test]
fn a_window_beyond_the_budget_is_refused_with_the_amount_that_does() {
    if !have("qemu-img") || !have("time") || !have("zstd") {
        return;
    }
    let bench = Bench::new();
    bench.file("disk.raw", &Content::Unaligned.bytes(160 << 20));
    let packed = std::fs::File::create(bench.path("disk.raw.zst")).unwrap();
    let mut zstd = Command::new("zstd");
    zstd.args(["-q", "-3", "--long=27", "-c"])
        .arg(bench.path("disk.raw"))
        .stdout(packed);
    assert!(zstd.status().unwrap().success());
    let (peak, output) = measured(&bench, &["convert", "disk.raw.zst", "out.raw"], None);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(peak < PEAK, "a peak of {} MiB", peak / MIB);
    assert!(!bench.path("out.raw").exists());
    // The message names the flag and the amount; that amount is enough.
    let text = String::from_utf8(output.stderr).unwrap();
    let amount = text
        .split("--memory ")
        .nth(1)
        .and_then(|rest| rest.split([' ', '\n']).next());
    let amount = amount
        .unwrap_or_else(|| panic!("no amount in {text:?}"))
        .to_owned();
    let args = ["convert", "--memory", &amount, "disk.raw.zst", "out.raw"];
    let (_, output) = measured(&bench, &args, None);
    assert!(output.status.success(), "{amount}: {}", said(&output));
    let same = std::fs::read(bench.path("out.raw")).unwrap()
        == std::fs::read(bench.path("disk.raw")).unwrap();
    assert!(same);
}
