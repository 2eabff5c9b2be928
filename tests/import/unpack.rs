//! Archives of files: what comes out, and everything that must not.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_importer::{
    ArchiveError, Destination, Error, Existing, SourceOptions, Unpacked, source_of_files, unpack,
};
use longshore_tests::data::{self, disk, quick_dir};
use longshore_tests::program::{have, run};
use longshore_transfer::{Cancel, Error as TransferError, Options, Progress};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// A tar with these files.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The same, compressed as the end of `name` says.
pub(crate) fn packed(name: &str, bytes: &[u8]) -> Vec<u8> {
    let tool = match name.rsplit_once('.').unwrap().1 {
        "gz" => "gzip",
        "xz" => "xz",
        "zst" => "zstd",
        "bz2" => "bzip2",
        _ => return bytes.to_vec(),
    };
    data::packed(tool, bytes)
}

/// A place to unpack to, beside which something could be hit.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = quick_dir();
        std::fs::write(dir.path().join("precious"), "precious").unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn unpack(&self, tar: &[u8]) -> Result<Unpacked, Error> {
        self.unpack_as(
            tar,
            Existing::Refuse,
            &Options::default(),
            &Cancel::default(),
        )
    }

    fn put(&self, tar: &[u8]) -> PathBuf {
        std::fs::write(self.path("archive"), tar).unwrap();
        self.path("archive")
    }

    fn unpack_as(
        &self,
        tar: &[u8],
        existing: Existing,
        options: &Options,
        cancel: &Cancel,
    ) -> Result<Unpacked, Error> {
        let spec = self.put(tar);
        let mut source = source_of_files(spec.to_str().unwrap(), &SourceOptions::default())?;
        let destination = Destination {
            directory: self.path("out"),
            existing,
        };
        unpack(
            source.as_mut(),
            &destination,
            options,
            &Progress::default(),
            cancel,
        )
    }

    /// It is refused for what it would do, leaves nothing, and touches nothing.
    #[track_caller]
    fn refuses(&self, case: &str, tar: &[u8]) {
        match self.unpack(tar) {
            Err(Error::Archive {
                source: source @ (ArchiveError::Unsafe { .. } | ArchiveError::Malformed { .. }),
                ..
            }) => assert!(!source.to_string().is_empty()),
            other => panic!("{case}: {other:?}"),
        }
        assert_eq!(
            std::fs::read_to_string(self.path("precious")).unwrap(),
            "precious"
        );
        assert_eq!(self.names("."), ["archive", "precious"], "{case}");
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = self.path(directory).read_dir().unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// An entry, with a name and a link as they are.
struct Entry(Header, Vec<u8>);

fn entry(kind: EntryType, name: &str) -> Entry {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(0);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    Entry(header, Vec::new())
}

impl Entry {
    fn link(mut self, to: &str) -> Self {
        self.0.as_mut_bytes()[157..157 + to.len()].copy_from_slice(to.as_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.set_size(bytes.len() as u64);
        self.1 = bytes.to_vec();
        self
    }

    fn mode(mut self, mode: u32) -> Self {
        self.0.set_mode(mode);
        self
    }
}

/// A tar of entries, whatever they are.
fn tar(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let mut tar = Vec::new();
    for Entry(mut header, bytes) in entries {
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(&bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn file(name: &str) -> Entry {
    entry(EntryType::Regular, name).bytes(b"text")
}

fn directory(name: &str) -> Entry {
    entry(EntryType::Directory, name)
}

fn symlink(name: &str, to: &str) -> Entry {
    entry(EntryType::Symlink, name).link(to)
}

fn hard_link(name: &str, to: &str) -> Entry {
    entry(EntryType::Link, name).link(to)
}

#[test]
fn every_way_out_of_the_directory_is_closed() {
    let place = Place::new();
    let long = "d/".repeat(200);
    let cases: Vec<(&str, Vec<Entry>)> = vec![
        ("absolute", vec![file("/tmp/evil")]),
        ("absolute, twice", vec![file("//tmp/evil")]),
        ("up", vec![file("../precious")]),
        ("up, in the middle", vec![file("a/../../precious")]),
        ("up, and in again", vec![file("a/../b")]),
        ("only up", vec![directory("..")]),
        ("an absolute link", vec![symlink("l", "/etc")]),
        ("a link up", vec![symlink("l", "..")]),
        ("a link up, deeper", vec![symlink("a/l", "../../precious")]),
        ("a link with up behind a name", vec![symlink("l", "a/..")]),
        ("a link to nothing", vec![symlink("l", "")]),
        (
            "a file through a link",
            vec![directory("d"), symlink("l", "d"), file("l/x")],
        ),
        (
            "a directory through a link",
            vec![directory("d"), symlink("l", "d"), directory("l/x")],
        ),
        (
            "a link through a link",
            vec![directory("d"), symlink("l", "d"), symlink("l/x", "y")],
        ),
        (
            "a directory over a link",
            vec![directory("d"), symlink("l", "d"), directory("l")],
        ),
        (
            "a file over a link",
            vec![file("t"), symlink("l", "t"), file("l")],
        ),
        ("a file through a file", vec![file("f"), file("f/x")]),
        ("a hard link up", vec![hard_link("l", "../precious")]),
        ("an absolute hard link", vec![hard_link("l", "/etc/passwd")]),
        (
            "a hard link to nothing",
            vec![hard_link("l", "later"), file("later")],
        ),
        (
            "a hard link to a link",
            vec![symlink("s", "t"), hard_link("l", "s")],
        ),
        (
            "a hard link to a directory",
            vec![directory("d"), hard_link("l", "d")],
        ),
        (
            "a hard link through a link",
            vec![
                directory("d"),
                file("d/f"),
                symlink("s", "d"),
                hard_link("l", "s/f"),
            ],
        ),
        (
            "a file over a hard link",
            vec![file("f"), hard_link("l", "f"), file("l")],
        ),
        ("the same twice", vec![file("a"), file("./a")]),
        ("a directory over a file", vec![file("a"), directory("a")]),
        ("a device", vec![entry(EntryType::Char, "null")]),
        ("a block device", vec![entry(EntryType::Block, "sda")]),
        ("a named pipe", vec![entry(EntryType::Fifo, "pipe")]),
        (
            "an unknown kind",
            vec![entry(EntryType::new(b'V'), "volume")],
        ),
        ("a file that is the directory", vec![file("./")]),
        (
            "what is used for unpacking",
            vec![file(".longshore-unpack/x")],
        ),
        ("the same as a file", vec![file(".longshore-unpack")]),
    ];
    for (case, entries) in cases {
        // What came before is gone too.
        let before = [file("before")];
        place.refuses(case, &tar(before.into_iter().chain(entries)));
    }
    let mut deep = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(0);
    deep.append_data(&mut header, format!("{long}x"), &[][..])
        .unwrap();
    place.refuses("too deep", &deep.into_inner().unwrap());
    let mut wide = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(0);
    wide.append_data(&mut header, "n".repeat(300), &[][..])
        .unwrap();
    place.refuses("too long", &wide.into_inner().unwrap());
}

#[test]
fn what_is_no_whole_tar_is_refused() {
    let place = Place::new();
    let good = tar([file("a"), file("b")]);
    let mut flipped = good.clone();
    flipped[1024] ^= 1;
    let mut endless = Vec::new();
    for _ in 0..3000 {
        // Each says that the next entry has a long name.
        let long = entry(EntryType::new(b'g'), "pax").bytes(&[b'x'; 512]);
        endless.extend(tar([long]));
        endless.truncate(endless.len() - 1024);
    }
    let mut huge_name = entry(EntryType::GNULongName, "././@LongLink");
    huge_name.0.set_size(1 << 40);
    huge_name.0.set_cksum();
    let huge_name = [huge_name.0.as_bytes().to_vec(), vec![b'n'; 4 << 20]].concat();
    let mut bomb = entry(EntryType::Regular, "bomb");
    bomb.0.set_size(1 << 62);
    bomb.0.set_cksum();
    for (case, bytes) in [
        ("no bytes", vec![]),
        ("noise", disk(100_000, 1)),
        ("a damaged header", flipped),
        ("cut between entries", good[..1024].to_vec()),
        ("cut in a header", good[..1300].to_vec()),
        (
            "cut in a file",
            tar([file("a").bytes(&[1; 5000])])[..3000].to_vec(),
        ),
        ("no end mark", good[..2048].to_vec()),
        ("endless names", huge_name),
        ("endless headers", endless),
        ("more than any disk", bomb.0.as_bytes().to_vec()),
    ] {
        match place.unpack(&bytes) {
            Err(Error::Archive { source, .. }) => println!("{case}: {source}"),
            other => panic!("{case}: {other:?}"),
        }
        assert_eq!(place.names("."), ["archive", "precious"], "{case}");
    }
    let trailing = [good, vec![1; 70 << 20]].concat();
    let refused = place.unpack(&trailing).unwrap_err();
    assert!(
        matches!(refused, Error::Local(TransferError::Image { .. })),
        "{refused:?}"
    );
    assert_eq!(place.names("."), ["archive", "precious"]);
}

#[test]
fn files_keep_bytes_modes_and_times_but_no_privileges() {
    let place = Place::new();
    let bytes = disk(1_300_000, 2);
    let mut dated = file("dir/sub/file").bytes(&bytes).mode(0o6754);
    dated.0.set_mtime(1_000_000_000);
    let made = place.unpack(&tar([
        directory("dir/").mode(0o1550),
        directory("./"),
        dated,
        hard_link("dir/again", "dir/sub/file"),
        symlink("dir/sub/link", "../../dir/again"),
        symlink("other", "dir/nowhere/yet"),
        file("empty").bytes(b"").mode(0),
    ]));
    let made = made.unwrap();
    assert_eq!((made.entries, made.file_bytes), (7, 1_300_000));
    assert_eq!(place.names("out"), ["dir", "empty", "other"]);
    let meta = |name: &str| place.path(name).symlink_metadata().unwrap();
    let bits = |name: &str| meta(name).permissions().mode() & 0o7777;
    assert_eq!(bits("out/dir"), 0o550);
    assert_eq!(bits("out/dir/sub"), 0o755);
    assert_eq!(bits("out/dir/sub/file"), 0o754);
    assert_eq!(bits("out/empty"), 0);
    assert_eq!(meta("out/dir/sub/file").mtime(), 1_000_000_000);
    assert_eq!(meta("out/dir/sub/file").nlink(), 2);
    assert_eq!(meta("out/dir/sub/file").uid(), meta("archive").uid());
    let through = std::fs::read(place.path("out/dir/sub/link")).unwrap();
    assert!(through == bytes);
    let to = std::fs::read_link(place.path("out/other")).unwrap();
    assert_eq!(to, Path::new("dir/nowhere/yet"));
    // So that the directory can be removed by whoever is not root.
    std::fs::set_permissions(place.path("out/dir"), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn compressed_archives_are_unpacked_in_one_pass() {
    let bytes = disk(800_000, 3);
    let tar = tar_of(&[("a/b", &bytes), ("c", b"c")]);
    for name in ["x.gz", "x.xz", "x.zst", "x.bz2"] {
        let place = Place::new();
        let made = place.unpack(&packed(name, &tar)).unwrap();
        assert_eq!(made.entries, 2, "{name}");
        assert!(
            std::fs::read(place.path("out/a/b")).unwrap() == bytes,
            "{name}"
        );
        let mut cut = packed(name, &tar);
        cut.truncate(cut.len() / 2);
        let place = Place::new();
        assert!(place.unpack(&cut).is_err(), "{name}");
        assert_eq!(place.names("."), ["archive", "precious"], "{name}");
    }
}

#[test]
fn what_tar_packs_comes_out_as_it_was() {
    if !have("tar") {
        return;
    }
    let place = Place::new();
    let sparse = std::fs::File::create(place.path("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[7; 8192], 40 << 20).unwrap();
    let long = "long-".repeat(40);
    std::fs::write(place.path(&long), "long").unwrap();
    let sparse_formats = ["0.0", "0.1", "1.0"].map(|version| ("posix", Some(version)));
    let formats = [
        ("gnu", None),
        ("posix", None),
        ("ustar", None),
        ("v7", None),
        ("gnu", Some("")),
    ];
    for (format, holes) in formats.into_iter().chain(sparse_formats) {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(place.0.path());
        tar.args([&format!("--format={format}"), "-cf"]);
        tar.arg(place.path("made.tar"));
        match holes {
            None => {}
            Some("") => drop(tar.arg("--sparse")),
            Some(version) => drop(
                tar.arg(format!("--sparse-version={version}"))
                    .arg("--sparse"),
            ),
        }
        tar.args(["sparse", "precious"]);
        if format == "gnu" || format == "posix" {
            tar.arg(&long);
        }
        run(&mut tar);
        let bytes = std::fs::read(place.path("made.tar")).unwrap();
        assert_eq!(holes.is_some(), bytes.len() < 1 << 20, "{format} {holes:?}");
        let made = place.unpack(&bytes).unwrap();
        assert_eq!(
            made.bytes_written,
            if made.entries == 3 {
                8192 + 12
            } else {
                8192 + 8
            }
        );
        let meta = place.path("out/sparse").metadata().unwrap();
        assert_eq!(meta.len(), 64 << 20);
        assert!(
            meta.blocks() * 512 <= 64 << 10,
            "{format}: {}",
            meta.blocks()
        );
        let mut read = std::fs::File::open(place.path("out/sparse")).unwrap();
        let mut bytes = Vec::new();
        read.read_to_end(&mut bytes).unwrap();
        assert!(bytes == std::fs::read(place.path("sparse")).unwrap());
        std::fs::remove_dir_all(place.path("out")).unwrap();
    }
}

#[test]
fn what_is_there_is_refused_or_replaced_as_asked() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("out/a/old")).unwrap();
    std::fs::write(place.path("out/kept"), "kept").unwrap();
    let bytes = tar([file("a/new"), file("b")]);
    let refused = place.unpack(&bytes).unwrap_err();
    assert!(
        matches!(&refused, Error::Local(TransferError::Target { .. })),
        "{refused:?}"
    );
    assert_eq!(place.names("out"), ["a", "kept"]);
    assert_eq!(place.names("out/a"), ["old"]);
    let (options, cancel) = (Options::default(), Cancel::default());
    place
        .unpack_as(&bytes, Existing::Replace, &options, &cancel)
        .unwrap();
    assert_eq!(place.names("out"), ["a", "b", "kept"]);
    assert_eq!(place.names("out/a"), ["new"]);
}

#[test]
fn a_wrong_digest_and_an_interruption_leave_nothing() {
    let place = Place::new();
    let bytes = tar([file("a")]);
    let wrong = Options {
        checksum: Some(format!("md5:{}", "0".repeat(32)).parse().unwrap()),
        ..Options::default()
    };
    let refused = place.unpack_as(&bytes, Existing::Refuse, &wrong, &Cancel::default());
    assert!(
        matches!(refused, Err(Error::Local(TransferError::Checksum { .. }))),
        "{refused:?}"
    );
    let cancel = Cancel::default();
    cancel.cancel();
    let refused = place.unpack_as(&bytes, Existing::Refuse, &Options::default(), &cancel);
    assert!(
        matches!(refused, Err(Error::Local(TransferError::Interrupted))),
        "{refused:?}"
    );
    assert_eq!(place.names("."), ["archive", "precious"]);
}

/// Whatever an archive says, nothing outside the directory changes, and what is refused leaves nothing.
#[test]
fn damaged_archives_touch_nothing_else() {
    let place = Place::new();
    let good = tar([
        directory("d/"),
        file("d/f").bytes(&disk(5000, 1)),
        symlink("d/s", "../e"),
        hard_link("h", "d/f"),
        file("e"),
    ]);
    let mut state = 7u64;
    let mut dice = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % most
    };
    // What headers are made of.
    let pieces: [&[u8]; 8] = [b"../", b"/", b"\0", b"5", b"2", b"1", b"x", b"777"];
    let (mut refused, mut unpacked) = (0, 0);
    for _ in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..=dice(3) {
            let at = dice(bytes.len() / 512) * 512 + [0, 1, 100, 124, 156, 157, 257][dice(7)];
            let piece = pieces[dice(pieces.len())];
            let end = (at + piece.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&piece[..end - at]);
        }
        // Headers with a right sum get further.
        for start in (0..bytes.len()).step_by(512) {
            let header = &mut bytes[start..start + 512];
            if header[257..262] == *b"ustar" {
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        match place.unpack(&bytes) {
            Ok(_) => {
                unpacked += 1;
                assert_eq!(place.names("."), ["archive", "out", "precious"]);
                for name in place.names("out") {
                    let name = place.path("out").join(name);
                    let real = name.canonicalize();
                    assert!(real.is_err() || real.unwrap().starts_with(place.path("out")));
                }
                std::fs::remove_dir_all(place.path("out")).unwrap();
            }
            Err(e) => {
                refused += 1;
                assert_eq!(place.names("."), ["archive", "precious"], "{e}");
            }
        }
        let precious = std::fs::read_to_string(place.path("precious"));
        assert_eq!(precious.unwrap(), "precious");
    }
    assert!(refused > 20 && unpacked > 20, "{refused} {unpacked}");
}
