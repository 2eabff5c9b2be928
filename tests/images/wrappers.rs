//! Compressed streams around images: one pass, no temporary file, at most four layers.

use std::process::{Command, Stdio};

use longshore_tests::program::{have, longshore, program, said};

use crate::oracle::{Bench, Content, compare};

const TOOLS: [(&str, &[&str]); 9] = [
    ("gz", &["gzip", "-c"]),
    ("gz", &["pigz", "-c"]),
    ("xz", &["xz", "-1", "-c"]),
    ("xz", &["xz", "-T2", "--block-size=1MiB", "-c"]),
    ("zst", &["zstd", "-q", "-c"]),
    ("zst", &["zstd", "-q", "-19", "-T2", "-c"]),
    ("bz2", &["bzip2", "-c"]),
    ("bz2", &["bzip2", "-1", "-c"]),
    ("bz2", &["pbzip2", "-p2", "-b1", "-c"]),
];

fn pack(bench: &Bench, tool: &[&str], from: &str, to: &str) {
    let out = std::fs::File::create(bench.path(to)).unwrap();
    let status = Command::new(tool[0])
        .args(&tool[1..])
        .arg(bench.path(from))
        .stdout(out)
        .status()
        .unwrap();
    assert!(status.success(), "{tool:?}");
}

#[test]
fn every_format_in_every_wrapper_from_files_and_pipes() {
    if !have("qemu-img") || !TOOLS.iter().all(|(_, tool)| have(tool[0])) {
        return;
    }
    let bench = Bench::new();
    let disk = Content::Unaligned.bytes(4 << 20);
    let expected = bench.file("disk.raw", &disk);
    bench.qemu_img("convert -O qcow2 -c disk.raw zlib.qcow2");
    bench.qemu_img("convert -O qcow2 disk.raw moved.qcow2");
    // The L1 table is behind the data now: a compressed file is read twice, a pipe spills.
    bench.qemu_img("resize -q moved.qcow2 4G");
    bench.qemu_img(&format!("resize -q --shrink moved.qcow2 {}", disk.len()));
    bench.qemu_img("convert -O vmdk -o subformat=streamOptimized disk.raw so.vmdk");
    bench.qemu_img("convert -O vhdx -o block_size=1M disk.raw d.vhdx");
    for (n, (suffix, tool)) in TOOLS.into_iter().enumerate() {
        for image in ["disk.raw", "zlib.qcow2", "moved.qcow2", "so.vmdk", "d.vhdx"] {
            if image == "d.vhdx" && n % 2 == 1 {
                continue;
            }
            let packed = format!("{image}.{suffix}");
            pack(&bench, tool, image, &packed);
            let disk = if image == "so.vmdk" {
                bench.expected("so.vmdk")
            } else {
                expected.clone()
            };
            bench.check(&packed, &disk, &format!("{packed} by {tool:?}"));
        }
    }
}

#[test]
fn vhd_and_vdi_in_every_wrapper_from_files_and_pipes() {
    if !have("qemu-img") || !TOOLS.iter().all(|(_, tool)| have(tool[0])) {
        return;
    }
    let bench = Bench::new();
    bench.file("disk.raw", &Content::Unaligned.bytes(3 << 20));
    for (image, driver, options) in [
        ("fixed.vhd", "vpc", "subformat=fixed"),
        ("dynamic.vhd", "vpc", "subformat=dynamic,force_size=on"),
        ("disk.vdi", "vdi", "static=off"),
    ] {
        bench.qemu_img(&format!(
            "convert -O {driver} -o {options} disk.raw {image}"
        ));
        let expected = bench.expected_as(driver, image);
        for (suffix, tool) in TOOLS.into_iter().step_by(2) {
            let packed = format!("{image}.{suffix}");
            pack(&bench, tool, image, &packed);
            bench.check(&packed, &expected, &format!("{packed} by {tool:?}"));
        }
    }
}

#[test]
fn four_layers_are_taken_off_and_a_fifth_is_refused() {
    if !have("qemu-img") || !TOOLS.iter().all(|(_, tool)| have(tool[0])) {
        return;
    }
    let bench = Bench::new();
    let disk = Content::Sparse.bytes(1 << 20);
    bench.file("disk.raw", &disk);
    bench.qemu_img("convert -O qcow2 disk.raw d.qcow2");
    pack(&bench, &["gzip", "-c"], "d.qcow2", "1.gz");
    pack(&bench, &["xz", "-1", "-c"], "1.gz", "2.xz");
    pack(&bench, &["zstd", "-q", "-c"], "2.xz", "3.zst");
    pack(&bench, &["bzip2", "-c"], "3.zst", "4.bz2");
    pack(&bench, &["gzip", "-c"], "4.bz2", "5.gz");
    bench.check("4.bz2", &bench.path("disk.raw"), "four layers");
    let out = bench.path("out.raw");
    let refused = longshore()
        .arg("convert")
        .arg(bench.path("5.gz"))
        .arg(&out)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(!out.exists());
}

#[test]
fn nothing_but_the_result_is_written_beside_it() {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    bench.file("disk.raw", &Content::Compressible.bytes(6 << 20));
    bench.qemu_img("convert -O qcow2 disk.raw d.qcow2");
    pack(&bench, &["gzip", "-c"], "d.qcow2", "d.qcow2.gz");
    std::fs::create_dir(bench.path("empty")).unwrap();
    // strace names every file that is created: the partial file and nothing else.
    if !have("strace") {
        return;
    }
    let output = Command::new("strace")
        .args(["-f", "-e", "trace=openat,open,creat,mknod,mknodat", "-o"])
        .arg(bench.path("trace"))
        .arg(program())
        .arg("convert")
        .arg(bench.path("d.qcow2.gz"))
        .arg(bench.path("empty/out.raw"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let trace = std::fs::read_to_string(bench.path("trace")).unwrap();
    let created: Vec<_> = trace
        .lines()
        .filter(|line| line.contains("O_CREAT"))
        .collect();
    assert_eq!(created.len(), 1, "{created:?}");
    assert!(created[0].contains(".out.raw.partial"), "{created:?}");
    let disk = std::fs::read(bench.path("disk.raw")).unwrap();
    compare(&bench.path("empty/out.raw"), &disk, "gz");
}

#[test]
fn bz2_is_the_same_with_any_number_of_threads_and_in_little_memory() {
    if !have("bzip2") || !have("pbzip2") {
        return;
    }
    let bench = Bench::new();
    let mut disk = Content::Unaligned.bytes(6 << 20);
    disk.extend(std::iter::repeat_n(0, 50 << 20));
    disk.extend(Content::Compressible.bytes(3 << 20));
    bench.file("disk.raw", &disk);
    pack(&bench, &["bzip2", "-c"], "disk.raw", "one.bz2");
    pack(
        &bench,
        &["pbzip2", "-p2", "-b1", "-c"],
        "disk.raw",
        "many.bz2",
    );
    for packed in ["one.bz2", "many.bz2"] {
        for (threads, memory) in [
            ("1", "112Mi"),
            ("2", "112Mi"),
            ("7", "60Mi"),
            ("16", "400Mi"),
        ] {
            let out = bench.path("out.raw");
            let done = longshore()
                .args([
                    "convert",
                    "--from",
                    "raw",
                    "--threads",
                    threads,
                    "--memory",
                    memory,
                ])
                .args([&bench.path(packed), &out])
                .output()
                .unwrap();
            assert!(done.status.success(), "{packed} {threads}: {}", said(&done));
            compare(&out, &disk, packed);
        }
    }
    let whole = std::fs::read(bench.path("one.bz2")).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let mut behind = whole.clone();
    behind.extend_from_slice(b"something else");
    let cut = whole[..whole.len() - 3].to_vec();
    let mut crc = whole.clone();
    let last = crc.len() - 2;
    crc[last] ^= 0x10;
    for (what, bytes) in [
        ("damage", damaged),
        ("rest", behind),
        ("cut", cut),
        ("crc", crc),
    ] {
        bench.file("bad.bz2", &bytes);
        for threads in ["1", "3"] {
            let out = bench.path("bad.raw");
            let refused = longshore()
                .args(["convert", "--from", "raw", "--threads", threads])
                .args([&bench.path("bad.bz2"), &out])
                .output()
                .unwrap();
            let said = said(&refused);
            assert_eq!(refused.status.code(), Some(3), "{what} {threads}: {said}");
            assert!(said.contains("bz2"), "{what} {threads}: {said}");
            assert!(!out.exists());
        }
    }
}
