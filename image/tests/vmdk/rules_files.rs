//! Disks of several files and ESX extents: one test per rule.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use longshore_image::ErrorKind::{self, Denied, Io, LimitExceeded, Malformed, Unsupported};
use longshore_image::chain::Chain;
use longshore_image::{DenyAll, Error, Image, Limits, OpenGate, ReadAt, Reference, Result, vmdk};

use crate::builder::{Builder, SECTOR, pattern, put32, put64};
use crate::esx_builder::{Extent, SE_GRAIN, Se, cowd, data_entry, sesparse};
use crate::files::descriptor;
use crate::support::{both_fail, read_chain, same};

/// Files by name, and how often each was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    files: HashMap<String, Arc<Vec<u8>>>,
    asked: Arc<Mutex<Vec<Reference>>>,
}

impl Files {
    pub(crate) fn with(mut self, name: &str, bytes: &[u8]) -> Self {
        self.files.insert(name.to_owned(), Arc::new(bytes.to_vec()));
        self
    }

    pub(crate) fn open(&self, text: &str) -> Result<Arc<dyn Image>> {
        let file = Arc::new(text.as_bytes().to_vec());
        vmdk::open(file, self, &Limits::default())
    }

    #[track_caller]
    fn fails(&self, text: &str, kind: ErrorKind) -> Error {
        let e = self.open(text).and_then(read_chain).expect_err(text);
        assert_eq!(e.kind(), kind, "{text}: {e:?}");
        e
    }
}

impl OpenGate for Files {
    fn open(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        self.asked.lock().unwrap().push(reference.clone());
        match self.files.get(&reference.name) {
            Some(file) => Ok(file.clone()),
            None => Err(Error::io("opening", std::io::ErrorKind::NotFound.into())),
        }
    }

    fn nested(&self, _: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(self.clone())
    }
}

fn flat(line: &str) -> String {
    descriptor("monolithicFlat", &[line])
}

#[test]
fn extents_are_denied_unless_the_gate_lets_them_in() {
    let text = flat("RW 1 FLAT \"../../etc/passwd\" 0");
    let file = Arc::new(text.as_bytes().to_vec());
    let e = vmdk::open(file, &DenyAll, &Limits::default()).unwrap_err();
    assert_eq!(e.kind(), Denied);
    assert!(e.to_string().contains("../../etc/passwd"), "{e}");
    // The gate's own words, whatever it says.
    let e = Files::default().fails(&text, Io);
    assert_eq!(e.to_string(), "opening");
}

#[test]
fn extents_past_the_end_of_their_file_are_truncated() {
    let files = Files::default().with("f", &pattern(1, 10 * SECTOR));
    for line in [
        "RW 11 FLAT \"f\" 0",
        "RW 10 FLAT \"f\" 1",
        "RW 1 FLAT \"f\" 10",
        "RW 11 VMFS \"f\"",
    ] {
        files.fails(&flat(line), Malformed);
    }
    // Its last sector may be cut: what is not there is zeros.
    let files = Files::default().with("f", &pattern(1, 10 * SECTOR - 500));
    let text = descriptor("custom", &["RW 8 FLAT \"f\" 2", "RW 1 FLAT \"f\" 0"]);
    let mut disk = pattern(1, 10 * SECTOR - 500)[2 * SECTOR..].to_vec();
    disk.resize(8 * SECTOR, 0);
    disk.extend(&pattern(1, SECTOR));
    same(
        &read_chain(files.open(&text).unwrap()).unwrap(),
        &disk,
        "cut",
    );
}

#[test]
fn sizes_and_places_that_overflow_are_errors() {
    let files = Files::default().with("f", &[1; 4096]);
    let max = u64::MAX;
    let half = (1_u64 << 52) - 1;
    for lines in [
        vec![format!("RW {max} FLAT \"f\" 0")],
        vec![format!("RW 1 FLAT \"f\" {max}")],
        vec![format!("RW {max} ZERO")],
        vec![format!("RW {half} ZERO"); 3],
        vec![format!("RW {} ZERO", 1_u64 << 53)],
        vec![format!("RW {half} FLAT \"f\" {half}")],
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        files.fails(&descriptor("custom", &lines), Malformed);
    }
    files.fails(&flat("RW 99999999999999999999 FLAT \"f\" 0"), Malformed);
}

#[test]
fn lists_of_extents_are_bounded_in_number_and_memory() {
    let line = "RW 1 ZERO";
    let text = descriptor("custom", &vec![line; 8193]);
    Files::default().fails(&text, Malformed);
    let text = descriptor("custom", &vec![line; 8192]);
    let image = Files::default().open(&text).unwrap();
    assert_eq!(image.virtual_size(), 8192 * 512);
    assert_eq!(image.extents(0..u64::MAX).count(), 1);
    let limits = Limits::with_table_bytes(1 << 20);
    let file = Arc::new(text.into_bytes());
    let e = vmdk::open(file, &DenyAll, &limits).unwrap_err();
    assert_eq!(e.kind(), LimitExceeded);
    // A descriptor without an end.
    let text = flat("RW 1 ZERO") + &" ".repeat(2 << 20);
    Files::default().fails(&text, Malformed);
    let text = flat("RW 1 ZERO") + "\0" + &" ".repeat(2 << 20);
    assert!(Files::default().open(&text).is_ok());
}

#[test]
fn a_file_that_is_used_twice_is_opened_once() {
    let bytes = pattern(1, 9 * SECTOR);
    let files = Files::default().with("f", &bytes);
    let lines = [
        "RW 4 FLAT \"f\" 5",
        "RW 5 FLAT \"f\" 0",
        "RW 9 FLAT \"f\" 0",
    ];
    let image = files.open(&descriptor("custom", &lines)).unwrap();
    assert_eq!(files.asked.lock().unwrap().len(), 1);
    assert_eq!(image.data().len(), bytes.len() as u64);
    let mut disk = bytes[5 * SECTOR..].to_vec();
    disk.extend(&bytes[..5 * SECTOR]);
    disk.extend(&bytes);
    same(&read_chain(image).unwrap(), &disk, "twice");
    // Not thousands of times: 1 MiB would be 8 GiB.
    let files = Files::default().with("f", &pattern(1, 1 << 20));
    let text = descriptor("custom", &vec!["RW 2048 FLAT \"f\" 0"; 8192]);
    let chain = Chain::new(files.open(&text).unwrap()).unwrap();
    let e = chain.extents().find_map(Result::err).unwrap();
    assert_eq!(e.kind(), LimitExceeded);
}

#[test]
fn a_descriptor_is_no_extent_of_itself() {
    for (line, kind) in [
        ("RW 8 SPARSE \"me\"", Malformed),
        ("RW 8 VMFSSPARSE \"me\"", Malformed),
        ("RW 8 SESPARSE \"me\"", Malformed),
        ("RW 8 FLAT \"me\" 0", Malformed),
    ] {
        let text = flat(line);
        Files::default()
            .with("me", text.as_bytes())
            .fails(&text, kind);
    }
    // As a flat extent it is bytes like any other, if it is long enough.
    let text = flat("RW 1 FLAT \"me\" 0");
    let files = Files::default().with("me", text.as_bytes());
    assert!(files.open(&text).is_ok());
}

#[test]
fn parents_without_an_end_are_an_error() {
    let text = flat("RW 1 ZERO").replace(
        "parentCID=ffffffff",
        "parentCID=12345678\nparentFileNameHint=\"me\"",
    );
    let files = Files::default().with("me", text.as_bytes());
    files.fails(&text, Malformed);
    assert!(files.asked.lock().unwrap().len() < 40);
}

#[test]
fn devices_and_unknown_types_are_refused_by_name() {
    for kind in [
        "fullDevice",
        "partitionedDevice",
        "vmfsRaw",
        "vmfsRDM",
        "vmfsRDMP",
        "vmfsRawDeviceMap",
        "vmfsPassthroughRawDeviceMap",
        "vmfsNotYet",
    ] {
        let text = descriptor(kind, &["RW 1 FLAT \"/dev/sda\" 0"]);
        let files = Files::default();
        let e = files.fails(&text, Unsupported);
        assert!(e.to_string().contains(kind), "{e}");
        both_fail(text.as_bytes(), Unsupported);
        assert!(files.asked.lock().unwrap().is_empty(), "nothing is opened");
    }
    for kind in ["VMFSRDM", "VMFSRAW", "NOTYET"] {
        let e = Files::default().fails(&flat(&format!("RW 1 {kind} \"x\"")), Unsupported);
        assert!(format!("{e:?}").contains(kind), "{e:?}");
    }
}

#[test]
fn descriptors_that_say_too_little_or_nonsense_are_errors() {
    let good = flat("RW 1 ZERO");
    assert!(Files::default().open(&good).is_ok());
    for text in [
        good.replace("RW 1 ZERO", ""),
        good.replace("RW 1 ZERO", "RW 0 ZERO"),
        good.replace("RW 1 ZERO", "NOACCESS 1 ZERO"),
        good.replace("RW 1 ZERO", "RW one ZERO"),
        good.replace("RW 1 ZERO", "RW 1 FLAT"),
        good.replace("RW 1 ZERO", "RW 1 FLAT \"open 0"),
        good.replace("RW 1 ZERO", "RW 1 FLAT \"x\" -1"),
        good.replace("createType", "type"),
        good.replace("parentCID=ffffffff", "parentCID=1"),
    ] {
        Files::default().fails(&text, Malformed);
    }
    let text = good.replace("version=1", "version=1\nencryption.keySafe = \"x\"");
    Files::default().fails(&text, Unsupported);
}

#[test]
fn sparse_extents_of_another_size_do_not_belong_to_the_disk() {
    let bytes = Builder::sparse(20 * 16).build(&[]).bytes;
    let files = Files::default().with("s", &bytes);
    let line = |sectors| {
        descriptor(
            "twoGbMaxExtentSparse",
            &[&format!("RW {sectors} SPARSE \"s\"")],
        )
    };
    for sectors in [320, 305] {
        // QEMU and we take the extent's own size, which may be rounded up to its last grain.
        assert_eq!(
            files.open(&line(sectors)).unwrap().virtual_size(),
            320 * 512
        );
    }
    for sectors in [304, 321, 1, 1_u64 << 40] {
        files.fails(&line(sectors), Malformed);
    }
    let files = files.with("s", b"KDMV");
    files.fails(&line(320), Malformed);
    let files = files.with("s", &[]);
    files.fails(&line(320), Malformed);
}

#[test]
fn zero_grains_of_one_extent_are_not_the_next_extents_bytes() {
    // A grain that is cut by the end of its file, with another file behind it.
    let grain = 16 * SECTOR;
    let mut first = Builder::sparse(16).build(&[(0, pattern(1, grain))]).bytes;
    first.truncate(first.len() - 10 * SECTOR);
    let files = Files::default()
        .with("a", &first)
        .with("b", &pattern(2, grain));
    let lines = ["RW 16 SPARSE \"a\"", "RW 16 FLAT \"b\" 0"];
    let image = files.open(&descriptor("custom", &lines)).unwrap();
    let mut disk = pattern(1, grain);
    disk[6 * SECTOR..].fill(0);
    disk.extend(&pattern(2, grain));
    same(&read_chain(image).unwrap(), &disk, "cut");
}

#[test]
fn an_empty_header_around_a_descriptor_of_other_files_is_that_descriptor() {
    let line = "RW 4 FLAT \"f\" 0";
    let built = Builder {
        descriptor: descriptor("monolithicFlat", &[line]),
        ..Builder::sparse(0)
    }
    .build(&[]);
    let files = Files::default().with("f", &pattern(3, 4 * SECTOR));
    let image = vmdk::open(Arc::new(built.bytes.clone()), &files, &Limits::default()).unwrap();
    same(
        &read_chain(image).unwrap(),
        &pattern(3, 4 * SECTOR),
        "embedded",
    );
    crate::support::forward_fails(&built.bytes, Unsupported);
}

#[test]
fn cowd_headers_and_tables_that_can_not_be_are_errors() {
    let built = cowd(5000, 1, &[(0, pattern(1, 512)), (4999, pattern(2, 512))]);
    let sectors = (built.bytes.len() / SECTOR) as u32;
    for (at, words) in [
        // Grain size, directory, its length.
        (16, [0, 3, u32::MAX].as_slice()),
        (20, &[0, sectors, u32::MAX]),
        (24, &[0, 1]),
        (built.directory, &[sectors, u32::MAX]),
        (built.tables[0], &[sectors, u32::MAX]),
    ] {
        for &word in words {
            let mut bytes = built.bytes.clone();
            put32(&mut bytes, at, word);
            both_fail(&bytes, Malformed);
        }
    }
    for cut in [
        4,
        511,
        512,
        4 * SECTOR,
        built.tables[0],
        built.tables[1] + 1,
    ] {
        both_fail(&built.bytes[..cut], Malformed);
    }
    // ESX 2 linked it to a parent.
    let mut bytes = built.bytes.clone();
    put32(&mut bytes, 8, 2);
    both_fail(&bytes, Unsupported);
}

#[test]
fn a_directory_beyond_qemus_limit_is_refused_in_qemus_words() {
    let mut bytes = cowd(5000, 1, &[]).bytes;
    put32(&mut bytes, 24, 32 << 20);
    crate::support::random(&bytes).unwrap();
    put32(&mut bytes, 24, (32 << 20) + 1);
    both_fail(&bytes, Malformed);
    let error = crate::support::random(&bytes).unwrap_err();
    assert!(
        error.to_string().starts_with("L1 size too big: "),
        "{error}"
    );
}

fn se_disk(extent: &Extent) -> Files {
    Files::default().with("s", &extent.bytes)
}

const SE: &str = "RW 65536 SESPARSE \"s\"";

#[test]
fn sesparse_headers_that_are_not_known_are_refused() {
    let good = sesparse(
        65536,
        &[(0, Se::Zero), (5000, Se::Data(pattern(1, SE_GRAIN)))],
    );
    let text = descriptor("seSparse", &[SE]);
    se_disk(&good).open(&text).and_then(read_chain).unwrap();
    both_fail(&good.bytes, Unsupported);
    for (at, word, kind) in [
        (0, 0xcafe_babf, Malformed),
        (8, 0x2_0000_0002, Unsupported),
        (16, 65537, Malformed),
        (16, u64::MAX, Malformed),
        (24, 16, Unsupported),
        (32, 32, Unsupported),
        (40, 1, Unsupported),
        (72, 1, Unsupported),
        (80, 1 << 40, Malformed),
        (80, u64::MAX, Malformed),
        (128, 1 << 40, Malformed),
        (128, u64::MAX, Malformed),
        (136, 0, Malformed),
        (144, u64::MAX, Malformed),
        (192, u64::MAX, Malformed),
        (504, 1, Unsupported),
        (SECTOR, 0, Malformed),
        (SECTOR + 24, 1, Unsupported),
        (SECTOR + 504, 1, Unsupported),
    ] {
        let mut bad = good.clone();
        put64(&mut bad.bytes, at, word);
        let e = se_disk(&bad).fails(&text, kind);
        assert!(e.to_string().contains("\"s\""), "{at}: {e}");
    }
}

#[test]
fn sesparse_entries_that_can_not_be_are_errors() {
    let good = sesparse(65536, &[(5000, Se::Data(pattern(1, SE_GRAIN)))]);
    let text = descriptor("seSparse", &[SE]);
    let table = good.tables[1];
    for (at, entry) in [
        (good.directory, 1),
        (good.directory, 0x2000_0000_0000_0000),
        (good.directory, 0x1000_0001_0000_0000),
        (good.directory, 0x1000_0000_0000_0001),
        (good.directory, 0x1000_0000_ffff_ffff),
        (table, 1),
        (table, 0x4000_0000_0000_0000),
        (table, data_entry(1)),
        (table, 0x3fff_ffff_ffff_ffff),
    ] {
        let mut bad = good.clone();
        put64(&mut bad.bytes, at, entry);
        let e = se_disk(&bad).fails(&text, Malformed);
        assert!(e.to_string().contains("\"s\""), "{at}: {e}");
    }
    for cut in [100, 600, good.directory + 8, table + 100] {
        let mut bad = good.clone();
        bad.bytes.truncate(cut);
        se_disk(&bad).fails(&text, Malformed);
    }
}
