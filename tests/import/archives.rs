//! Disks out of OVA and tar archives, from files and servers.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use longshore_importer::{ArchiveError, Error};
use longshore_tests::data::{disk, image, packed, qcow2};
use longshore_tests::http::{Page, Ranges};
use longshore_tests::program::{fed, have, longshore, run};
use longshore_transfer::{Algorithm, Error as TransferError, Hasher};
use tempfile::TempDir;

use super::{Import, chain, open, options, serving};

/// Where the manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manifest {
    /// Behind the descriptor, as the specification and `VMware` have it.
    Second(Algorithm),
    /// At the end, as `VirtualBox` has it.
    Last(Algorithm),
    None,
}

/// An appliance in the making: a descriptor and files.
struct Appliance {
    dir: TempDir,
    disks: String,
    references: String,
    files: Vec<String>,
}

impl Appliance {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            disks: String::new(),
            references: String::new(),
            files: Vec::new(),
        }
    }

    fn disk(mut self, id: &str, file: &str, bytes: &[u8], attributes: &str) -> Self {
        std::fs::write(self.dir.path().join(file), bytes).unwrap();
        let reference = format!(r#"<File ovf:id="{file}" ovf:href="{file}" {attributes}/>"#);
        self.references.push_str(&reference);
        let described = format!(
            r#"<Disk ovf:diskId="{id}" ovf:fileRef="{file}" ovf:capacity="3"
                ovf:capacityAllocationUnits="byte * 2^20"/>"#
        );
        self.disks.push_str(&described);
        self.files.push(file.to_owned());
        self
    }

    fn extra_disk(mut self, element: &str) -> Self {
        self.disks += element;
        self
    }

    fn pack(&self, manifest: Manifest) -> Vec<u8> {
        let descriptor = format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
            <Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
                      xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
            <References>{}</References>
            <DiskSection><Info>Virtual disks</Info>{}</DiskSection></Envelope>"#,
            self.references, self.disks
        );
        std::fs::write(self.dir.path().join("vm.ovf"), descriptor).unwrap();
        let mut members = vec!["vm.ovf".to_owned()];
        members.extend(self.files.iter().cloned());
        if let Manifest::Second(algorithm) | Manifest::Last(algorithm) = manifest {
            let lines: String = members
                .iter()
                .map(|file| digest_line(self.dir.path(), file, algorithm))
                .collect();
            std::fs::write(self.dir.path().join("vm.mf"), lines).unwrap();
            let at = match manifest {
                Manifest::Second(_) => 1,
                _ => members.len(),
            };
            members.insert(at, "vm.mf".to_owned());
        }
        tar(self.dir.path(), &members)
    }

    /// Changes a file without changing what a manifest made before says of it.
    fn damage(archive: &mut [u8], bytes: &[u8]) {
        let at = archive
            .windows(bytes.len())
            .position(|window| window == bytes)
            .unwrap();
        archive[at] ^= 1;
    }
}

fn digest_line(dir: &Path, file: &str, algorithm: Algorithm) -> String {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(&std::fs::read(dir.join(file)).unwrap());
    let name = algorithm.name().to_uppercase();
    format!("{name}({file})= {}\n", hasher.hex())
}

fn tar(dir: &Path, members: &[String]) -> Vec<u8> {
    run(Command::new("tar")
        .current_dir(dir)
        .args(["--format=ustar", "-cf", "-", "--"])
        .args(members))
}

const EVERY_MANIFEST: [Manifest; 5] = [
    Manifest::Second(Algorithm::Sha1),
    Manifest::Second(Algorithm::Sha512),
    Manifest::Last(Algorithm::Sha1),
    Manifest::Last(Algorithm::Sha256),
    Manifest::None,
];

/// Runs `check` with the archive as a file, on a server with ranges, and on one without.
fn everywhere(archive: &[u8], suffix: &str, check: impl Fn(&str)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("vm.{suffix}"));
    std::fs::write(&path, archive).unwrap();
    check(path.to_str().unwrap());
    for ranges in [Ranges::Work, Ranges::None] {
        let page = Page::of(archive.to_vec()).ranges(ranges);
        let (_server, url) = serving(&format!("/vm.{suffix}"), page);
        check(&url);
    }
}

#[test]
fn a_disk_is_chosen_by_id_file_or_number_and_checked_wherever_the_manifest_is() {
    let (first, second) = (disk(700_001, 1), disk(1_300_000, 2));
    let appliance = Appliance::new()
        .disk("vmdisk1", "a.img", &first, "")
        .disk("vmdisk2", "b.img", &second, "");
    for manifest in EVERY_MANIFEST {
        everywhere(&appliance.pack(manifest), "ova", |place| {
            println!("{manifest:?} {place}");
            for (choice, expected) in [
                ("vmdisk1", &first),
                ("a.img", &first),
                ("vmdisk2", &second),
                ("2", &second),
            ] {
                Import::from_url(&format!("{place}#{choice}")).made(expected);
            }
        });
    }
}

#[test]
fn the_only_disk_needs_no_choosing_and_two_do() {
    let only = disk(300_000, 3);
    let appliance = Appliance::new().disk("vmdisk1", "a.img", &only, "");
    let blank = appliance.extra_disk(r#"<Disk ovf:diskId="blank" ovf:capacity="1"/>"#);
    everywhere(&blank.pack(Manifest::None), "ova", |place| {
        Import::from_url(place).made(&only);
    });
    let two = blank.disk("vmdisk2", "b.img", &only, "");
    everywhere(&two.pack(Manifest::None), "ova", |place| {
        let text = failure(place);
        assert!(
            text.contains("vmdisk1") && text.contains("vmdisk2"),
            "{text}"
        );
        let text = failure(&format!("{place}#other"));
        assert!(text.contains("no disk \"other\""), "{text}");
        let text = failure(&format!("{place}#blank"));
        assert!(text.contains("starts empty"), "{text}");
    });
}

/// What goes wrong with an import that leaves nothing behind.
fn failure(place: &str) -> String {
    let mut source = match longshore_importer::source_from(place, &options()) {
        Err(e) => return chain(&e),
        Ok(source) => source,
    };
    let import = Import::of(source.as_mut());
    let error = import.outcome.as_ref().unwrap_err();
    assert!(!import.target().exists(), "{place}");
    chain(error)
}

#[test]
fn a_disk_or_descriptor_that_is_not_what_the_manifest_says_is_refused_and_leaves_nothing() {
    let bytes = disk(400_000, 4);
    let appliance = Appliance::new().disk("vmdisk1", "a.img", &bytes, "");
    for manifest in EVERY_MANIFEST {
        if manifest == Manifest::None {
            continue;
        }
        let mut archive = appliance.pack(manifest);
        Appliance::damage(&mut archive, &bytes[1000..1100]);
        everywhere(&archive, "ova", |place| {
            let mut source = open(place, &options());
            let import = Import::of(source.as_mut());
            let error = import.outcome.as_ref().unwrap_err();
            assert!(
                matches!(error, TransferError::Checksum { .. }),
                "{manifest:?} {place}: {}",
                chain(error)
            );
            assert!(!import.target().exists());
        });
    }
    let mut archive = appliance.pack(Manifest::Second(Algorithm::Sha256));
    Appliance::damage(&mut archive, b"Virtual disks");
    everywhere(&archive, "ova", |place| {
        let text = failure(place);
        assert!(text.contains("checksum mismatch of vm.ovf"), "{text}");
    });
}

#[test]
fn an_archive_that_ends_early_is_refused_wherever_it_ends() {
    let appliance = Appliance::new().disk("vmdisk1", "a.img", &disk(60_000, 5), "");
    let whole = appliance.pack(Manifest::Second(Algorithm::Sha256));
    let descriptor = whole.windows(5).position(|w| w == b"<?xml").unwrap();
    for end in [
        0,
        100,
        512,
        descriptor + 100,
        descriptor + 2048,
        20_000,
        60_000,
    ] {
        everywhere(&whole[..end], "ova", |place| {
            let text = failure(place);
            assert!(!text.contains("panicked"), "{end} {place}: {text}");
        });
    }
}

#[test]
fn images_and_compressed_streams_inside_are_converted_on_the_way() {
    if !have("qemu-img") {
        return;
    }
    let expected = disk(3 << 20, 6);
    let stream = "qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw image";
    let (stream, qcow2) = (image(&expected, stream), qcow2(&expected));
    let packed = packed("gzip", &qcow2);
    let appliance = Appliance::new()
        .disk("so", "so.vmdk", &stream, "")
        .disk("q", "q.qcow2", &qcow2, "")
        .disk("gz", "q.gz", &packed, r#"ovf:compression="gzip""#);
    for manifest in EVERY_MANIFEST {
        everywhere(&appliance.pack(manifest), "ova", |place| {
            for choice in ["so", "q", "gz"] {
                Import::from_url(&format!("{place}#{choice}")).made(&expected);
            }
        });
    }
}

#[test]
fn a_plain_tar_gives_its_only_file_or_the_named_one() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (disk(200_000, 7), disk(100_000, 8));
    std::fs::write(dir.path().join("a.raw"), &first).unwrap();
    std::fs::write(dir.path().join("b.raw"), &second).unwrap();
    everywhere(&tar(dir.path(), &["a.raw".to_owned()]), "tar", |place| {
        Import::from_url(place).made(&first);
    });
    let both = tar(dir.path(), &["./a.raw".to_owned(), "b.raw".to_owned()]);
    everywhere(&both, "tar", |place| {
        Import::from_url(&format!("{place}#b.raw")).made(&second);
        let text = failure(place);
        assert!(text.contains("choose one"), "{place}: {text}");
    });
}

/// What GNU tar writes of files with holes, in each of its formats.
const SPARSE: [&[&str]; 4] = [
    &["--format=gnu"],
    &["--format=posix", "--sparse-version=0.0"],
    &["--format=posix", "--sparse-version=0.1"],
    &["--format=posix", "--sparse-version=1.0"],
];

/// Writes what is not zeros: tar looks for holes only where the filesystem has some.
fn write_with_holes(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (n, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, n as u64 * 4096).unwrap();
        }
    }
}

fn sparse_tar(dir: &Path, format: &[&str], files: &[&str]) -> Vec<u8> {
    run(Command::new("tar")
        .current_dir(dir)
        .args(["--sparse", "--hole-detection=raw"])
        .args(format)
        .args(["-cf", "-", "--"])
        .args(files))
}

#[test]
fn files_that_a_tar_has_without_their_holes_are_read_with_them() {
    let dir = tempfile::tempdir().unwrap();
    // More ranges than fit into the header, and into one block behind it.
    let mut many = vec![0; 3 << 20];
    for at in (0..60).map(|n| n * 50_000) {
        many[at..at + 700].copy_from_slice(&disk(700, at as u64 + 1)[..700]);
    }
    let mut ends = vec![0; 1 << 20];
    ends[700_000..800_000].copy_from_slice(&disk(100_000, 3));
    let files = [
        ("many", many),
        ("ends", ends),
        ("empty", vec![0; 1 << 20]),
        ("full", disk(100_001, 4)),
    ];
    for (name, bytes) in &files {
        write_with_holes(&dir.path().join(name), bytes);
    }
    for format in SPARSE {
        let names = files.each_ref().map(|(name, _)| *name);
        let archive = sparse_tar(dir.path(), format, &names);
        assert!(archive.len() < 1 << 20, "{format:?}: tar found no holes");
        everywhere(&archive, "tar", |place| {
            for (name, bytes) in &files {
                Import::from_url(&format!("{place}#{name}")).made(bytes);
            }
        });
        let out = dir.path().join("out");
        let from = ["import", "--", "-#many", out.to_str().unwrap()];
        let (code, said) = piped(&from, &archive);
        assert_eq!(code, Some(0), "{format:?}: {said}");
        assert!(std::fs::read(&out).unwrap() == files[0].1, "{format:?}");
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn an_appliance_may_be_packed_without_holes_and_is_checked_with_them() {
    let mut image = vec![0; 2 << 20];
    image[900_000..1_000_000].copy_from_slice(&disk(100_000, 5));
    let appliance = Appliance::new().disk("vmdisk1", "a.img", &image, "");
    appliance.pack(Manifest::Second(Algorithm::Sha256));
    write_with_holes(&appliance.dir.path().join("a.img"), &image);
    let files = ["vm.ovf", "vm.mf", "a.img"];
    for format in SPARSE {
        let mut archive = sparse_tar(appliance.dir.path(), format, &files);
        assert!(archive.len() < 1 << 20, "{format:?}: tar found no holes");
        everywhere(&archive, "ova", |place| {
            Import::from_url(place).made(&image);
        });
        Appliance::damage(&mut archive, &image[950_000..950_100]);
        everywhere(&archive, "ova", |place| {
            let text = failure(place);
            assert!(text.contains("a.img") || text.contains("sha256"), "{text}");
        });
    }
}

#[test]
fn a_map_of_holes_that_can_not_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = vec![0; 1 << 20];
    image[500_000..600_000].fill(7);
    write_with_holes(&dir.path().join("a.raw"), &image);
    let archive = sparse_tar(
        dir.path(),
        &["--format=posix", "--sparse-version=1.0"],
        &["a.raw"],
    );
    // The map is "N, start, length, ..." in front of the data; nothing guards it.
    let map = archive
        .windows(9)
        .position(|bytes| bytes[0] == 0 && bytes[1].is_ascii_digit() && bytes[2] == b'\n')
        .unwrap();
    for (text, why) in [("9", "numbers"), ("x", "no number"), ("0", "no range")] {
        let mut archive = archive.clone();
        archive[map + 1] = text.as_bytes()[0];
        everywhere(&archive, "tar", |place| {
            let text = failure(place);
            assert!(text.contains("file with holes"), "{why}: {text}");
        });
    }
}

#[test]
fn archives_that_readers_could_take_two_ways_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.raw"), disk(50_000, 9)).unwrap();
    let once = tar(dir.path(), &["a.raw".to_owned()]);
    let mut twice = once[..512 + 50_176].to_vec();
    twice.extend_from_slice(&once);
    everywhere(&twice, "tar", |place| {
        let text = failure(&format!("{place}#b"));
        assert!(text.contains("two files are named"), "{text}");
    });
    everywhere(&disk(10_000, 10), "ova", |place| {
        let text = failure(place);
        assert!(text.contains("could not read"), "{text}");
    });
}

#[test]
fn info_lists_the_disks_of_an_archive() {
    let appliance = Appliance::new()
        .disk("vmdisk1", "a.img", &disk(70_000, 11), "")
        .disk(
            "vmdisk2",
            "b.img",
            &disk(80_000, 12),
            r#"ovf:chunkSize="10""#,
        );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.ova");
    std::fs::write(&path, appliance.pack(Manifest::Last(Algorithm::Sha1))).unwrap();
    let json = run(longshore().args(["info", "--json"]).arg(&path));
    let shown: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(shown["format"], "ova");
    assert_eq!(shown["manifest"], true);
    assert_eq!(shown["disks"][0]["id"], "vmdisk1");
    assert_eq!(shown["disks"][0]["file"], "a.img");
    assert_eq!(shown["disks"][0]["fileSize"], 70_000);
    assert_eq!(shown["disks"][0]["virtualSize"], 3 << 20);
    assert_eq!(shown["disks"][0]["refused"], serde_json::Value::Null);
    assert_eq!(
        shown["disks"][1]["refused"],
        "its file is split into chunks"
    );
    let text = String::from_utf8(run(longshore().arg("info").arg(&path))).unwrap();
    assert!(text.contains("#vmdisk1: a.img"), "{text}");
    let chosen = run(longshore()
        .args(["info", "--json"])
        .arg(format!("{}#vmdisk1", path.display())));
    let chosen: serde_json::Value = serde_json::from_slice(&chosen).unwrap();
    assert_eq!(chosen["format"], "raw");
    assert_eq!(chosen["virtualSize"], 70_000);
}

#[test]
fn the_reason_of_a_refusal_is_the_archives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.ova");
    let appliance = Appliance::new()
        .disk("a", "a.img", &disk(1000, 1), "")
        .disk("b", "b.img", &disk(1000, 2), "");
    std::fs::write(&path, appliance.pack(Manifest::None)).unwrap();
    let Err(error) = longshore_importer::source_from(path.to_str().unwrap(), &options()) else {
        unreachable!("two disks")
    };
    assert!(matches!(
        &error,
        Error::Archive {
            source: ArchiveError::Choose { .. },
            ..
        }
    ));
    assert_eq!((error.reason(), error.exit_code()), ("DiskNotChosen", 2));
}

const PACKERS: [(&str, &str); 4] = [
    ("gzip", "gz"),
    ("xz", "xz"),
    ("zstd", "zst"),
    ("bzip2", "bz2"),
];

#[test]
fn a_compressed_tar_gives_its_only_file_or_the_named_one_in_any_wrapper() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (disk(700_000, 21), disk(300_000, 22));
    std::fs::write(dir.path().join("a.raw"), &first).unwrap();
    std::fs::write(dir.path().join("b.raw"), &second).unwrap();
    let one = tar(dir.path(), &["a.raw".to_owned()]);
    let both = tar(dir.path(), &["./a.raw".to_owned(), "b.raw".to_owned()]);
    for (tool, suffix) in PACKERS {
        if !have(tool) {
            continue;
        }
        everywhere(&packed(tool, &one), &format!("tar.{suffix}"), |place| {
            Import::from_url(place).made(&first);
        });
        everywhere(&packed(tool, &both), &format!("tar.{suffix}"), |place| {
            Import::from_url(&format!("{place}#b.raw")).made(&second);
            Import::from_url(&format!("{place}#a.raw")).made(&first);
            let text = failure(place);
            assert!(
                text.contains("choose one") && text.contains("a.raw, b.raw"),
                "{place}: {text}"
            );
            let text = failure(&format!("{place}#c.raw"));
            assert!(text.contains("c.raw"), "{place}: {text}");
        });
    }
    if have("gzip") {
        everywhere(&packed("gzip", &one), "tgz", |place| {
            Import::from_url(place).made(&first);
        });
        // A name that promises an archive, and what comes is none.
        everywhere(&packed("gzip", &first), "tar.gz", |place| {
            let text = failure(place);
            assert!(text.contains("could not read"), "{place}: {text}");
        });
    }
}

#[test]
fn a_compressed_ova_is_checked_against_its_manifest_wherever_that_is() {
    if !have("gzip") || !have("zstd") {
        return;
    }
    let (first, second) = (disk(400_000, 23), disk(500_000, 24));
    let appliance = Appliance::new()
        .disk("vmdisk1", "a.img", &first, "")
        .disk("vmdisk2", "b.img", &second, "");
    for manifest in EVERY_MANIFEST {
        let archive = appliance.pack(manifest);
        everywhere(&packed("zstd", &archive), "ova.zst", |place| {
            Import::from_url(&format!("{place}#vmdisk2")).made(&second);
            let text = failure(place);
            assert!(text.contains("vmdisk1, vmdisk2"), "{place}: {text}");
        });
        if manifest == Manifest::None {
            continue;
        }
        let mut archive = archive;
        Appliance::damage(&mut archive, &first[1000..1100]);
        everywhere(&packed("gzip", &archive), "ova.gz", |place| {
            let text = failure(&format!("{place}#vmdisk1"));
            assert!(text.contains("checksum mismatch"), "{manifest:?}: {text}");
        });
    }
}

#[test]
fn a_compressed_archive_that_is_damaged_behind_the_disk_is_refused() {
    if !have("gzip") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.raw"), disk(200_000, 25)).unwrap();
    let whole = packed("gzip", &tar(dir.path(), &["a.raw".to_owned()]));
    let mut crc = whole.clone();
    let at = crc.len() - 6;
    crc[at] ^= 1;
    let cut = whole[..whole.len() - 9].to_vec();
    let behind = [&whole[..], b"something else"].concat();
    for damaged in [crc, cut, behind] {
        everywhere(&damaged, "tar.gz", |place| {
            let text = failure(&format!("{place}#a.raw"));
            assert!(text.contains("gz"), "{place}: {text}");
        });
    }
}

#[test]
fn images_and_streams_inside_a_compressed_tar_are_converted_and_layers_are_counted() {
    if !have("qemu-img") || !PACKERS.iter().all(|(tool, _)| have(tool)) {
        return;
    }
    let expected = disk(2 << 20, 26);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // The tables go behind the data: an archive in a file is read twice.
    let script = "qemu-img convert -O qcow2 disk.raw image
        qemu-img resize -q image 4G
        qemu-img resize -q --shrink image 2M";
    let qcow2 = image(&expected, script);
    std::fs::write(at("disk.qcow2"), &qcow2).unwrap();
    std::fs::write(at("disk.qcow2.xz"), packed("xz", &qcow2)).unwrap();
    for member in ["disk.qcow2", "disk.qcow2.xz"] {
        let archive = packed("gzip", &tar(dir.path(), &[member.to_owned()]));
        let path = at("vm.tar.gz");
        std::fs::write(&path, &archive).unwrap();
        Import::from_url(path.to_str().unwrap()).made(&expected);
    }
    // gz, tar, xz and zst are four; one more is too many.
    let (four, five) = (packed("zstd", &packed("xz", &qcow2)), at("five.tar.gz"));
    std::fs::write(at("four"), &four).unwrap();
    std::fs::write(at("five"), packed("bzip2", &four)).unwrap();
    let path = at("four.tar.gz");
    std::fs::write(
        &path,
        packed("gzip", &tar(dir.path(), &["four".to_owned()])),
    )
    .unwrap();
    Import::from_url(path.to_str().unwrap()).made(&expected);
    std::fs::write(
        &five,
        packed("gzip", &tar(dir.path(), &["five".to_owned()])),
    )
    .unwrap();
    let text = failure(five.to_str().unwrap());
    assert!(text.contains("more than 4"), "{text}");
}

#[test]
fn info_lists_a_compressed_archive() {
    if !have("gzip") {
        return;
    }
    let appliance = Appliance::new()
        .disk("vmdisk1", "a.img", &disk(70_000, 27), "")
        .disk("vmdisk2", "b.img", &disk(80_000, 28), "");
    let dir = tempfile::tempdir().unwrap();
    let ova = dir.path().join("vm.ova.gz");
    let archive = packed("gzip", &appliance.pack(Manifest::Second(Algorithm::Sha1)));
    std::fs::write(&ova, archive).unwrap();
    let shown: serde_json::Value =
        serde_json::from_slice(&run(longshore().args(["info", "--json"]).arg(&ova))).unwrap();
    assert_eq!(shown["format"], "ova");
    assert_eq!(shown["disks"][1]["id"], "vmdisk2");
    std::fs::write(dir.path().join("a.raw"), disk(5000, 1)).unwrap();
    std::fs::write(dir.path().join("b.raw"), disk(6000, 2)).unwrap();
    let files = ["a.raw".to_owned(), "b.raw".to_owned()];
    let path = dir.path().join("vm.tgz");
    std::fs::write(&path, packed("gzip", &tar(dir.path(), &files))).unwrap();
    let shown: serde_json::Value =
        serde_json::from_slice(&run(longshore().args(["info", "--json"]).arg(&path))).unwrap();
    assert_eq!(shown["format"], "tar");
    assert_eq!(shown["disks"][0]["id"], "a.raw");
    assert_eq!(shown["disks"][1]["fileSize"], 6000);
    let chosen = run(longshore()
        .args(["info", "--json"])
        .arg(format!("{}#b.raw", path.display())));
    let chosen: serde_json::Value = serde_json::from_slice(&chosen).unwrap();
    assert_eq!(chosen["format"], "raw");
    // What is no archive is refused, not listed as empty.
    std::fs::write(&path, packed("gzip", &disk(9000, 3))).unwrap();
    let refused = longshore().arg("info").arg(&path).output().unwrap();
    assert!(!refused.status.success());
}

/// What `longshore` does with `args` and `input`, given through a pipe: its exit code and what it said.
fn piped(args: &[&str], input: &[u8]) -> (Option<i32>, String) {
    let output = fed(longshore().args(args), input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn archives_on_standard_input_give_their_disk_in_one_pass() {
    if !have("gzip") {
        return;
    }
    let (first, second) = (disk(400_000, 29), disk(500_000, 30));
    let appliance = Appliance::new()
        .disk("vmdisk1", "a.img", &first, "")
        .disk("vmdisk2", "b.img", &second, "");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.raw");
    let out = out.to_str().unwrap();
    for manifest in EVERY_MANIFEST {
        let plain = appliance.pack(manifest);
        for archive in [packed("gzip", &plain), plain] {
            let (code, said) = piped(&["import", "--", "-#vmdisk2", out], &archive);
            assert_eq!(code, Some(0), "{manifest:?}: {said}");
            assert!(std::fs::read(out).unwrap() == second);
            std::fs::remove_file(out).unwrap();
            let (code, said) = piped(&["import", "-", out], &archive);
            assert_eq!(code, Some(3), "{said}");
            assert!(said.contains("vmdisk1, vmdisk2"), "{said}");
            assert!(!Path::new(out).exists());
        }
    }
    std::fs::write(dir.path().join("a.raw"), &first).unwrap();
    let one = tar(dir.path(), &["a.raw".to_owned()]);
    let (code, said) = piped(&["import", "-", out], &packed("gzip", &one));
    assert_eq!(code, Some(0), "{said}");
    assert!(std::fs::read(out).unwrap() == first);
    // Whoever says that the disk is raw has it raw, tar or not.
    let (code, said) = piped(&["convert", "--from", "raw", "-", out], &one);
    assert_eq!(code, Some(0), "{said}");
    assert!(std::fs::read(out).unwrap() == one);
    // A file behind standard input is read at random otherwise.
    let path = dir.path().join("x");
    std::fs::write(&path, &one).unwrap();
    run(longshore()
        .args(["convert", "-", out])
        .stdin(std::fs::File::open(&path).unwrap()));
    assert!(std::fs::read(out).unwrap() == first);
}
