use std::{path::Path, process::Command};

use super::*;

/// The independent readers, and how to have them print a file by a kind of name.
fn tool(name: &str) -> bool {
    let found = Command::new(name).arg("-version").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed");
        eprintln!("skipped: {name} is not installed");
    }
    found
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output.stdout
}

fn isoinfo(image: &Path, args: &[&str]) -> Vec<u8> {
    output(Command::new("isoinfo").arg("-i").arg(image).args(args))
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

/// Every size around the ends of sectors, an empty file in between, and one of some MiB.
fn sample() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("meta-data", bytes(1)),
        ("user-data", bytes(2048)),
        ("empty", Vec::new()),
        ("network-config", bytes(2049)),
        ("vendor-data", bytes(2047)),
        ("grün.and a long name with several dots.yaml", bytes(4096)),
        ("large", bytes((5 << 20) + 3)),
        ("last empty", Vec::new()),
    ]
}

fn image_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<_> = files
        .iter()
        .map(|(name, bytes)| File { name, bytes })
        .collect();
    image("cidata", &files).unwrap()
}

#[test]
fn isoinfo_reads_every_file_by_its_joliet_rock_ridge_and_short_name() {
    if !tool("isoinfo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.iso");
    let files = sample();
    std::fs::write(&path, image_of(&files)).unwrap();
    let header = String::from_utf8(isoinfo(&path, &["-d"])).unwrap();
    assert!(header.contains("Volume id: cidata\n"), "{header}");
    assert!(header.contains("Joliet with UCS level 3 found"), "{header}");
    assert!(
        header.contains("Rock Ridge signatures version 1 found"),
        "{header}"
    );
    for (name, bytes) in &files {
        let wanted = format!("/{name}");
        assert!(
            isoinfo(&path, &["-R", "-x", &wanted]) == *bytes,
            "rock ridge {name}"
        );
        // isoinfo's conversion of other letters depends on the system; xorriso's does not.
        if name.is_ascii() {
            assert!(
                isoinfo(&path, &["-J", "-x", &wanted]) == *bytes,
                "joliet {name}"
            );
        }
    }
    assert_eq!(isoinfo(&path, &["-x", "/USER_DAT.;1"]), bytes(2048));
    assert_eq!(isoinfo(&path, &["-x", "/META_DAT.;1"]), bytes(1));
    let listing = String::from_utf8(isoinfo(&path, &["-R", "-l"])).unwrap();
    let line = listing
        .lines()
        .find(|line| line.ends_with("user-data "))
        .unwrap();
    assert!(
        line.starts_with("-r--r--r--") && line.contains(" 2048 "),
        "{line}"
    );
}

#[test]
fn xorriso_extracts_the_same_files_by_rock_ridge_and_by_joliet() {
    if !tool("xorriso") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.iso");
    let files = sample();
    std::fs::write(&path, image_of(&files)).unwrap();
    for tree in ["nojoliet", "norock"] {
        let out = dir.path().join(tree);
        let mut xorriso = Command::new("xorriso");
        xorriso.args([
            "-abort_on",
            "WARNING",
            "-osirrox",
            "on",
            "-in_charset",
            "UTF-8",
        ]);
        xorriso
            .args(["-local_charset", "UTF-8", "-read_fs", tree, "-indev"])
            .arg(&path);
        output(xorriso.args(["-extract", "/"]).arg(&out));
        let mut found: Vec<_> = std::fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        let mut names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(found, names, "{tree}");
        for (name, bytes) in &files {
            assert!(
                std::fs::read(out.join(name)).unwrap() == *bytes,
                "{tree} {name}"
            );
        }
    }
}

#[test]
fn a_directory_of_many_sectors_is_read_whole() {
    if !tool("isoinfo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.iso");
    let names: Vec<_> = (0..MAX_FILES)
        .map(|n| format!("a-rather-long-name-of-a-file-with-the-number-{n:03}"))
        .collect();
    let files: Vec<_> = names
        .iter()
        .map(|name| File {
            name,
            bytes: name.as_bytes(),
        })
        .collect();
    std::fs::write(&path, image("many", &files).unwrap()).unwrap();
    for kind in ["-R", "-J"] {
        let listing = String::from_utf8(isoinfo(&path, &[kind, "-f"])).unwrap();
        let mut found: Vec<_> = listing
            .lines()
            .map(|line| line.trim_start_matches('/'))
            .collect();
        found.sort_unstable();
        assert_eq!(found, names, "{kind}");
    }
    let last = names.last().unwrap();
    assert_eq!(
        isoinfo(&path, &["-R", "-x", &format!("/{last}")]),
        last.as_bytes()
    );
    assert!(matches!(
        image(
            "many",
            &vec![
                File {
                    name: "x",
                    bytes: b""
                };
                MAX_FILES + 1
            ]
        ),
        Err(IsoError::TooMany { .. })
    ));
}

#[test]
fn the_same_files_give_the_same_bytes_and_whole_sectors() {
    let one = image_of(&sample());
    assert!(one == image_of(&sample()));
    assert_eq!(one.len() % SECTOR, 0);
    // The descriptor's count of sectors is that of the image.
    let count = u32::from_le_bytes(one[16 * SECTOR + 80..][..4].try_into().unwrap());
    assert_eq!(usize::try_from(count).unwrap() * SECTOR, one.len());
    assert!(image("empty", &[]).unwrap().len() > 16 * SECTOR);
}

#[test]
fn the_smallest_image_is_long_enough_for_busybox_to_recognise() {
    assert!(image("cidata", &[]).unwrap().len() >= 0x11000);
}
