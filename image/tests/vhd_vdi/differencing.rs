//! Differencing disks: their parents come through the gate or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use longshore_image::ErrorKind::{self, Denied, Malformed};
use longshore_image::vhd::SizeRule;
use longshore_image::{
    Error, Format, Image, Limits, OpenGate, ReadAt, Reference, ReferenceKind, Result,
};

use crate::support::{VHD, both_fail, open, pattern, read_chain, same};
use crate::vhd_builder::{Builder, Footer, fixed, put};

const MIB: usize = 1 << 20;

/// Files by name, and which were asked for.
#[derive(Debug, Clone, Default)]
struct Files {
    files: Arc<BTreeMap<String, Vec<u8>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Files {
    fn of(files: &[(&str, Vec<u8>)]) -> Self {
        let files = files
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
        Self {
            files: Arc::new(files.collect()),
            asked: Arc::default(),
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl OpenGate for Files {
    fn open(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        assert_eq!(reference.kind, ReferenceKind::Backing);
        assert_eq!(reference.format.as_deref(), Some("vhd"));
        if let Ok(mut asked) = self.asked.lock() {
            asked.push(reference.name.clone());
        }
        match self.files.get(&reference.name) {
            Some(bytes) => Ok(Arc::new(bytes.clone())),
            None => Err(Error::new(Denied, format!("no {}", reference.name))),
        }
    }

    fn nested(&self, _: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(self.clone())
    }
}

fn le16(name: &str) -> Vec<u8> {
    name.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A differencing disk of 5 MiB and blocks of 2 MiB over the image with `parent_id`.
fn child(id: u8, parent_id: u8) -> Builder {
    let base = Builder::new(5 << 20, 2 << 20);
    Builder {
        footer: Footer {
            id: [id; 16],
            ..Footer::new(4, 5 << 20)
        },
        parent_id: [parent_id; 16],
        parent_name: "base.vhd".to_owned(),
        ..base
    }
}

fn base() -> Builder {
    Builder::new(5 << 20, 2 << 20)
        .block(2, pattern(1, 2 * MIB))
        .block(0, pattern(2, 2 * MIB))
}

fn open_with(bytes: &[u8], gate: &Files) -> Result<Arc<dyn Image>> {
    longshore_image::open(VHD, Arc::new(bytes.to_vec()), gate, &Limits::default())
}

/// Which sectors of a block are there: every kind of run.
fn sectors(seed: usize) -> Vec<bool> {
    (0..4096)
        .map(|n| match n / 512 {
            0 => n % 2 == 0,
            1 => true,
            2 => false,
            3 => n % 8 == 7,
            4 => n % 8 == 0,
            5 => (n + seed).is_multiple_of(3),
            _ => n % 100 < 40 + seed,
        })
        .collect()
}

#[test]
fn sectors_come_from_the_child_or_its_parents_as_the_bitmaps_say() {
    let bottom = base();
    let mut middle = child(8, 7).block(0, pattern(3, 2 * MIB));
    middle.blocks[0].2 = sectors(1);
    let mut top = child(9, 8)
        .block(1, pattern(4, 2 * MIB))
        .block(0, pattern(5, 2 * MIB));
    top.parent_name = "middle.vhd".to_owned();
    top.blocks[0].2 = sectors(2);
    top.blocks[1].2 = sectors(5);
    let gate = Files::of(&[
        ("base.vhd", bottom.build().0),
        ("middle.vhd", middle.build().0),
    ]);
    let image = open_with(&top.build().0, &gate).unwrap();
    let info = image.info();
    assert_eq!(info.variant, "differencing");
    assert_eq!(info.references[0].name, "middle.vhd");
    let expected = top.disk(&middle.disk(&bottom.disk(&[])));
    same(&read_chain(image).unwrap(), &expected, "the chain");
    assert_eq!(gate.asked(), ["middle.vhd", "base.vhd"]);
}

#[test]
fn windows_of_a_differencing_disk_show_what_the_whole_shows() {
    let mut top = child(9, 7).block(1, pattern(4, 2 * MIB));
    top.blocks[0].2 = sectors(2);
    let gate = Files::of(&[("base.vhd", base().build().0)]);
    let image = open_with(&top.build().0, &gate).unwrap();
    let whole = longshore_image::all_extents(image.as_ref()).unwrap();
    for (from, to) in [
        (0, 1),
        (2 << 20, 3 << 20),
        ((2 << 20) + 700, (4 << 20) - 3),
        (1, 5 << 20),
    ] {
        let window: Vec<_> = image.extents(from..to).map(Result::unwrap).collect();
        let cut = whole.iter().filter_map(|e| e.clip(&(from..to)));
        assert_eq!(window, cut.collect::<Vec<_>>());
    }
}

#[test]
fn a_parent_may_be_fixed_and_ends_where_its_current_size_says() {
    let disk = pattern(6, 5 * MIB);
    // By its geometry it would end after a sector, and the child's disk be zeros from there on.
    let footer = Footer {
        creator: *b"vpc ",
        ..Footer::new(2, 5 << 20)
    };
    let mut top = child(9, 7).block(1, pattern(4, 2 * MIB));
    top.blocks[0].2 = sectors(2);
    let gate = Files::of(&[("base.vhd", fixed(&disk, &footer))]);
    let image = open_with(&top.build().0, &gate).unwrap();
    same(&read_chain(image).unwrap(), &top.disk(&disk), "the chain");
}

#[test]
fn a_parent_that_ends_early_leaves_zeros() {
    let small = Builder::new(3 << 20, 2 << 20).block(1, pattern(1, 2 * MIB));
    let gate = Files::of(&[("base.vhd", small.build().0)]);
    let top = child(9, 7);
    let image = open_with(&top.build().0, &gate).unwrap();
    same(
        &read_chain(image).unwrap(),
        &top.disk(&small.disk(&[])),
        "the chain",
    );
}

#[test]
fn parents_are_looked_for_by_relative_name_then_by_the_names_of_their_files() {
    let mut top = child(9, 7);
    top.parent_name = r"D:\vms\plain.vhd".to_owned();
    top.locators = vec![
        (*b"W2ku", le16(r"C:\disks\absolute.vhd")),
        (*b"W2ru", le16(r".\sub dir\größe.vhd")),
        (*b"MacX", b"file://./mac.vhd\0".to_vec()),
        (*b"Wi2r", b"obsolete.vhd".to_vec()),
        (*b"\0\0\0\0", Vec::new()),
    ];
    let image = top.build().0;
    let nothing = Files::default();
    assert_eq!(open_with(&image, &nothing).unwrap_err().kind(), Denied);
    assert_eq!(
        nothing.asked(),
        [
            "sub dir/größe.vhd",
            "mac.vhd",
            "größe.vhd",
            "plain.vhd",
            "absolute.vhd"
        ]
    );
    for name in nothing.asked() {
        let gate = Files::of(&[(name.as_str(), base().build().0)]);
        let chain = open_with(&image, &gate).unwrap();
        same(&read_chain(chain).unwrap(), &base().disk(&[]), &name);
    }
}

#[test]
fn locators_that_point_nowhere_are_passed_over() {
    let mut top = child(9, 7);
    top.locators = vec![(*b"W2ru", le16("other.vhd"))];
    let (mut image, _) = top.build();
    for (at, value) in [
        (16, &u64::MAX.to_be_bytes()[..]),
        (8, &u32::MAX.to_be_bytes()),
    ] {
        put(&mut image, 512 + 576 + at, value);
        crate::vhd_builder::seal_header(&mut image);
        let gate = Files::of(&[("base.vhd", base().build().0)]);
        open_with(&image, &gate).unwrap();
        assert_eq!(gate.asked(), ["base.vhd"]);
    }
}

#[test]
fn a_child_that_names_no_parent_is_an_error() {
    let mut top = child(9, 7);
    top.parent_name.clear();
    let e = open(VHD, &top.build().0).unwrap_err();
    assert_eq!(e.kind(), Malformed);
}

#[test]
fn parents_are_denied_unless_the_gate_lets_them_in_and_streams_have_none() {
    let mut top = child(9, 7);
    top.parent_name = "../../etc/passwd".to_owned();
    both_fail(VHD, &top.build().0, Denied);
    let e = open(VHD, &top.build().0).unwrap_err();
    assert!(e.to_string().contains("passwd"), "{e}");
    let e = crate::support::stream(VHD, &top.build().0, 999, false).unwrap_err();
    assert!(e.to_string().contains("--backing same-dir"), "{e}");
    // Its copy of the footer is damaged: the end says the same.
    let (mut image, _) = top.build();
    image[90] ^= 1;
    crate::support::stream_fails(VHD, &image, Denied);
}

#[test]
fn a_parent_with_another_id_or_of_another_kind_is_an_error() {
    let top = child(9, 7).build().0;
    let mut other = base();
    other.footer.id = [6; 16];
    for (parent, kind) in [
        (other.build().0, Malformed),
        (pattern(1, 5 * MIB), ErrorKind::NotThisFormat),
    ] {
        let gate = Files::of(&[("base.vhd", parent)]);
        assert_eq!(open_with(&top, &gate).unwrap_err().kind(), kind);
    }
}

#[test]
fn a_chain_without_an_end_is_an_error() {
    let mut top = child(7, 7);
    top.parent_name = "self.vhd".to_owned();
    let image = top.build().0;
    let gate = Files::of(&[("self.vhd", image.clone())]);
    assert_eq!(open_with(&image, &gate).unwrap_err().kind(), Malformed);
    assert!(gate.asked().len() <= 32);
}

#[test]
fn whoever_only_looks_does_without_the_parent() {
    #[derive(Debug)]
    struct Onlooker;
    impl OpenGate for Onlooker {
        fn open(&self, _: &Reference) -> Result<Arc<dyn ReadAt>> {
            Err(Error::new(Denied, "nothing opens"))
        }
        fn nested(&self, _: &Reference) -> Arc<dyn OpenGate> {
            Arc::new(Self)
        }
        fn leaves_out(&self, _: &Reference) -> bool {
            true
        }
    }
    let mut top = child(9, 7).block(1, pattern(4, 2 * MIB));
    top.blocks[0].2 = sectors(2);
    let file = Arc::new(top.build().0);
    let image = longshore_image::open(VHD, file, &Onlooker, &Limits::default()).unwrap();
    same(&read_chain(image).unwrap(), &top.disk(&[]), "the top alone");
}

/// Forcing a size is about the image itself.
#[test]
fn a_forced_size_is_the_childs() {
    let mut top = child(9, 7);
    top.footer.geometry = (2, 2, 2);
    let gate = Files::of(&[("base.vhd", base().build().0)]);
    let file = Arc::new(top.build().0);
    let format = Format::Vhd(SizeRule::Geometry);
    let image = longshore_image::open(format, file, &gate, &Limits::default()).unwrap();
    same(
        &read_chain(image).unwrap(),
        &base().disk(&[])[..8 * 512],
        "cut",
    );
}

#[test]
fn bitmaps_are_charged() {
    let large = Builder::new(1 << 30, 1 << 30);
    let bitmap = large.bitmap_len();
    assert_eq!(bitmap, 256 << 10);
    // The block is there, but for most of it as a hole.
    let mut top = child(9, 7).block(0, Vec::new());
    top.footer.current_size = 1 << 30;
    let (mut image, places) = top.build();
    put(&mut image, 512 + 32, &(1_u32 << 30).to_be_bytes());
    crate::vhd_builder::seal_header(&mut image);
    let len = (places[&0] + bitmap + (1 << 30)) as u64;
    let file = Arc::new(Padded { image, len });
    let gate = Files::of(&[("base.vhd", base().build().0)]);
    let extents = |bytes| {
        let limits = Limits::with_table_bytes(bytes);
        let image = longshore_image::open(VHD, file.clone(), &gate, &limits)?;
        longshore_image::all_extents(image.as_ref())
    };
    assert_eq!(
        extents(200 << 10).unwrap_err().kind(),
        ErrorKind::LimitExceeded
    );
    extents(400 << 10).unwrap();
}

/// A file with zeros at its end.
#[derive(Debug)]
struct Padded {
    image: Vec<u8>,
    len: u64,
}

impl ReadAt for Padded {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        buf.fill(0);
        let from = (offset as usize).min(self.image.len());
        let n = buf.len().min(self.image.len() - from);
        buf[..n].copy_from_slice(&self.image[from..from + n]);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }
}
