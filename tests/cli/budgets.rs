//! What a copy may cost, counted by the kernel and by strace: blocks of the result, bytes written, bytes read.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use longshore_tests::program::{have, longshore, said};

use crate::rig::{MIB, Rig};

/// Of the disk's 16 MiB; half of them are holes, and there are zeros between the data too.
const DISK: usize = 16 * MIB;

/// What qemu-img and the compressors make of the disk: a name, and the command, which ends with it.
const IMAGES: &[(&str, &str)] = &[
    ("raw", "qemu-img convert -f raw -O raw disk"),
    ("qcow2", "qemu-img convert -f raw -O qcow2 disk"),
    ("qcow2-zlib", "qemu-img convert -f raw -c -O qcow2 disk"),
    (
        "qcow2-zstd",
        "qemu-img convert -f raw -c -O qcow2 -o compression_type=zstd disk",
    ),
    ("qcow", "qemu-img convert -f raw -O qcow disk"),
    ("vmdk", "qemu-img convert -f raw -O vmdk disk"),
    (
        "vmdk-stream",
        "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk",
    ),
    ("vdi", "qemu-img convert -f raw -O vdi disk"),
    ("vhd", "qemu-img convert -f raw -O vpc disk"),
    (
        "vhd-fixed",
        "qemu-img convert -f raw -O vpc -o subformat=fixed disk",
    ),
    ("vhdx", "qemu-img convert -f raw -O vhdx disk"),
    ("parallels", "qemu-img convert -f raw -O parallels disk"),
    ("raw.gz", "gzip -nkc disk >"),
    ("raw.xz", "xz -2kc disk >"),
    ("raw.zst", "zstd -qkc disk >"),
    ("raw.bz2", "bzip2 -kc disk >"),
];

/// Bytes that a copy read of its source and wrote to its target, as the kernel returned them.
#[derive(Debug)]
struct Moved {
    read: u64,
    written: u64,
    report: serde_json::Value,
}

/// Converts `image`, watched.
fn watched(rig: &Rig, image: &str) -> Moved {
    let command = longshore();
    let dir = rig.dir().canonicalize().unwrap();
    let output = Command::new("strace")
        .current_dir(&dir)
        .args(["-f", "-qq", "-y", "-s0", "-o", "trace", "-e"])
        .arg(
            "trace=read,pread64,readv,preadv,preadv2,write,pwrite64,writev,pwritev,pwritev2,\
             copy_file_range,sendfile,splice,mmap",
        )
        .arg(command.get_program())
        .args(command.get_args())
        .args(["convert", "--sync", "--progress", "json", image, "out.raw"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{image}: {}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let source = format!("<{}>", dir.join(image).display());
    let target = format!("<{}>", dir.join(".out.raw.partial").display());
    let trace = String::from_utf8(rig.read("trace")).unwrap();
    let mut sums = BTreeMap::new();
    let mut begun = BTreeMap::new();
    for line in trace.lines() {
        let (thread, call) = line.trim_start().split_once(' ').unwrap();
        let call = call.trim_start();
        // A call that another thread's came between is in two parts.
        let whole = if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, first);
            continue;
        } else if let Some((_, last)) = call.split_once(" resumed>") {
            format!("{}{last}", begun.remove(thread).unwrap())
        } else {
            call.to_owned()
        };
        let Some((name, rest)) = whole.split_once('(') else {
            continue;
        };
        let (first, _) = rest.split_once(',').unwrap_or((rest, ""));
        let ours = [("source", &source), ("target", &target)];
        let Some((which, _)) = ours.iter().find(|(_, path)| first.ends_with(*path)) else {
            // What maps a file would read it uncounted.
            assert!(!(name == "mmap" && rest.contains(&source)), "{whole}");
            continue;
        };
        let (_, result) = whole.rsplit_once("= ").unwrap();
        let bytes = result.split(' ').next().unwrap().parse::<u64>();
        *sums.entry(*which).or_insert(0) += bytes.unwrap_or(0);
    }
    let sum = |which: &str| sums.get(which).copied().unwrap_or(0);
    Moved {
        read: sum("source"),
        written: sum("target"),
        report,
    }
}

/// Bytes of the 4 KiB blocks of `disk` in which something is not zero.
fn filled(disk: &[u8]) -> u64 {
    let blocks = disk
        .chunks(4096)
        .filter(|block| block.iter().any(|&b| b != 0));
    blocks.count() as u64 * 4096
}

fn disk(rig: &Rig) -> Vec<u8> {
    let mut disk = rig.image("disk", DISK);
    for half in disk.chunks_mut(4 * MIB).step_by(2) {
        half.fill(0);
    }
    rig.write("disk", &disk);
    disk
}

/// Within a hundredth of `goal`.
#[track_caller]
fn within(what: &str, found: u64, goal: u64) {
    assert!(
        found <= goal + goal / 100,
        "{what}: {found} bytes, {goal} wanted"
    );
}

#[test]
fn every_format_is_read_once_and_only_what_is_not_zero_is_written_and_takes_room() {
    if !["qemu-img", "strace", "gzip", "xz", "zstd", "bzip2"]
        .into_iter()
        .all(have)
    {
        return;
    }
    let rig = Rig::new();
    let disk = disk(&rig);
    let filled = filled(&disk);
    for (name, command) in IMAGES {
        rig.shell(&format!("{command} {name}"));
        let moved = watched(&rig, name);
        let out = rig.read("out.raw");
        assert!(out.starts_with(&disk), "{name}: the disk differs");
        let file = std::fs::metadata(rig.path(name)).unwrap().len();
        // Probing reads the first and the last sector, and readers their headers.
        within(&format!("{name}, read"), moved.read, file + 16384);
        within(&format!("{name}, written"), moved.written, filled);
        let room = std::fs::metadata(rig.path("out.raw")).unwrap().blocks() * 512;
        assert!(
            room <= filled + filled / 1000 + 4096,
            "{name}: the result takes {room} bytes, {filled} are not zero"
        );
        // What is reported is what was counted.
        assert_eq!(moved.report["written"], moved.written, "{name}: {moved:?}");
        // Headers and tables that are read at random are not in it; a VHDX has 384 KiB of them.
        let reported = moved.report["read"].as_u64().unwrap();
        assert!(
            reported <= moved.read && moved.read - reported <= 512 << 10,
            "{name}: {reported} bytes are reported as read, {moved:?}"
        );
        std::fs::remove_file(rig.path("out.raw")).unwrap();
        std::fs::remove_file(rig.path(name)).unwrap();
    }
}

#[test]
fn clusters_that_nothing_refers_to_are_not_read() {
    if !["qemu-img", "qemu-io", "strace"].into_iter().all(have) {
        return;
    }
    let rig = Rig::new();
    disk(&rig);
    rig.shell("qemu-img convert -f raw -O qcow2 disk in");
    // The snapshot keeps what is written anew.
    rig.shell("qemu-img snapshot -c before in");
    rig.shell("qemu-io -f qcow2 -c 'write -P 7 4M 4M' in");
    let file = std::fs::metadata(rig.path("in")).unwrap().len();
    let map = rig.shell("qemu-img map -f qcow2 --output json in");
    let map: serde_json::Value = serde_json::from_slice(&map).unwrap();
    let data = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|part| part["data"] == true);
    let referenced: u64 = data.map(|part| part["length"].as_u64().unwrap()).sum();
    assert!(file > referenced + 3 * MIB as u64, "{file} {referenced}");
    let moved = watched(&rig, "in");
    // Beside the data: the header, an L1 table and one L2 table of 64 KiB.
    within("read", moved.read, referenced + (96 << 10));
}
