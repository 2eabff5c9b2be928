//! Differencing disks: what is in the parent, sector by sector, and which parent it is.

use std::sync::Arc;

use longshore_image::{ErrorKind, Image, Limits, Result, vhdx};

use crate::builder::{Block, Builder, DATA_GUID_TEXT, HEADERS, pattern};
use crate::support::{Shelf, forward_fails, read_image, same};

fn shelf(files: &[(&str, &[u8])]) -> Shelf {
    let files = files
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), Arc::new(bytes.to_vec())));
    Shelf(files.collect())
}

fn open(bytes: &[u8], shelf: &Shelf) -> Result<Arc<dyn Image>> {
    vhdx::open(Arc::new(bytes.to_vec()), shelf, &Limits::default())
}

fn parent() -> (Vec<u8>, Vec<u8>) {
    let builder = Builder::new(4 << 20);
    let blocks: Vec<_> = [0, 1, 3]
        .map(|n| (n, Block::Data(pattern(100 + n, 1 << 20))))
        .to_vec();
    (builder.build(&blocks).bytes, builder.disk(&blocks))
}

/// Sectors here and there, whole bytes of the bitmap and parts of them.
fn some(sectors: usize) -> Vec<bool> {
    (0..sectors)
        .map(|n| n % 7 == 1 || (100..164).contains(&n) || n == sectors - 1)
        .collect()
}

#[test]
fn every_state_of_a_block_and_a_sector_is_honoured() {
    let (parent, below) = parent();
    for sector in [512, 4096] {
        let builder = Builder {
            sector,
            ..Builder::child(5 << 20, "..\\base\\parent.vhdx")
        };
        let here = some((1 << 20) / sector as usize);
        let data = pattern(7, 1 << 20);
        let blocks = [
            (1, Block::Partial(data.clone(), here.clone())),
            (0, Block::Partial(data.clone(), here.clone())),
            (3, Block::State(2)),
            (4, Block::Data(pattern(4, 1 << 20))),
        ];
        let built = builder.build(&blocks);
        let mut expected = below.clone();
        expected.resize(5 << 20, 0);
        for block in 0..2 {
            for (n, _) in here.iter().enumerate().filter(|(_, here)| **here) {
                let within = n * sector as usize..(n + 1) * sector as usize;
                let start = (block << 20) + within.start;
                expected[start..start + sector as usize].copy_from_slice(&data[within]);
            }
        }
        expected[3 << 20..4 << 20].fill(0);
        expected[4 << 20..].copy_from_slice(&pattern(4, 1 << 20));
        let image = open(&built.bytes, &shelf(&[("../base/parent.vhdx", &parent)])).unwrap();
        assert_eq!(image.info().variant, "differencing");
        same(&read_image(image).unwrap(), &expected, "a child");
    }
}

#[test]
fn bitmaps_of_later_chunks_and_large_blocks_are_found() {
    // Chunks of 4 GiB: block 17 of 256 MiB is the second of the second chunk.
    let builder = Builder {
        block: 256 << 20,
        ..Builder::child(18 * (256 << 20), "p")
    };
    let mut here = vec![false; (256 << 20) / 512];
    here[3] = true;
    *here.last_mut().unwrap() = true;
    let built = builder.build(&[(17, Block::Partial(vec![7; 2048], here))]);
    let image = open(&built.bytes, &shelf(&[("p", &parent().0)])).unwrap();
    let start = 17 * (256 << 20);
    let data: Vec<_> = image
        .extents(start..start + (256 << 20))
        .map(Result::unwrap)
        .filter(|e| e.kind != longshore_image::ExtentKind::Parent)
        .map(|e| e.guest)
        .collect();
    assert_eq!(
        data,
        [
            start + 1536..start + 2048,
            start + (256 << 20) - 512..start + (256 << 20)
        ]
    );
}

#[test]
fn the_parent_must_be_the_one_that_was() {
    let (mut parent, below) = parent();
    let child = Builder::child(4 << 20, "p").build(&[]);
    let image = open(&child.bytes, &shelf(&[("p", &parent)])).unwrap();
    same(
        &read_image(image).unwrap(),
        &below,
        "a child that holds nothing",
    );
    for at in HEADERS {
        parent[at + 32] ^= 1;
        crate::builder::seal(&mut parent[at..at + 4096]);
    }
    let e = open(&child.bytes, &shelf(&[("p", &parent)])).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed, "{e:?}");
    // Either identity will do.
    let mut second = Builder::child(4 << 20, "p");
    let other = DATA_GUID_TEXT.replace("01020304", "01020305");
    let entries = second.locator.as_mut().unwrap();
    entries.push(("parent_linkage2".to_owned(), other.to_uppercase()));
    open(&second.build(&[]).bytes, &shelf(&[("p", &parent)])).unwrap();
}

#[test]
fn paths_are_tried_in_the_order_of_the_specification() {
    let (parent, _) = parent();
    let mut builder = Builder::child(4 << 20, ".\\gone.vhdx");
    let entries = builder.locator.as_mut().unwrap();
    entries.push((
        "absolute_win32_path".to_owned(),
        "\\\\?\\d:\\images\\last.vhdx".to_owned(),
    ));
    entries.push((
        "volume_path".to_owned(),
        "\\\\?\\Volume{26A21BDA}\\x\\second.vhdx".to_owned(),
    ));
    entries.push(("something".to_owned(), "else".to_owned()));
    let child = builder.build(&[]).bytes;
    let broken = [1; 5];
    for (present, works) in [
        (
            vec![("./gone.vhdx", parent.as_slice()), ("second.vhdx", &broken)],
            true,
        ),
        (vec![("second.vhdx", &parent), ("last.vhdx", &broken)], true),
        (vec![("last.vhdx", &parent)], true),
        (vec![("/images/last.vhdx", &parent)], false),
    ] {
        match open(&child, &shelf(&present)) {
            Ok(_) => assert!(works, "{present:?}"),
            Err(e) => {
                assert!(!works, "{e:?}");
                assert_eq!(e.kind(), ErrorKind::Denied);
                assert!(e.to_string().contains("gone"), "the first is named: {e}");
            }
        }
    }
    forward_fails(&child, ErrorKind::Denied);
}

#[test]
fn a_parent_may_have_a_parent_but_not_for_ever() {
    let (base, below) = parent();
    let middle = Builder::child(4 << 20, "base").build(&[(2, Block::Data(pattern(2, 1 << 20)))]);
    let top = Builder::child(4 << 20, "middle").build(&[]);
    let files = shelf(&[("base", &base), ("middle", &middle.bytes)]);
    let mut expected = below;
    expected[2 << 20..3 << 20].copy_from_slice(&pattern(2, 1 << 20));
    same(
        &read_image(open(&top.bytes, &files).unwrap()).unwrap(),
        &expected,
        "three layers",
    );
    let mirror = Builder::child(4 << 20, "self").build(&[]);
    let e = open(&mirror.bytes, &shelf(&[("self", &mirror.bytes)])).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed);
}

#[test]
fn locators_that_say_too_little_are_refused() {
    let with = |entries: &[(&str, &str)]| {
        let entries = entries
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let builder = Builder {
            locator: Some(entries.collect()),
            ..Builder::child(4 << 20, "")
        };
        builder.build(&[])
    };
    let files = shelf(&[("p", &parent().0)]);
    let kind = |bytes: &[u8]| open(bytes, &files).unwrap_err().kind();
    let id = ("parent_linkage", DATA_GUID_TEXT);
    for entries in [
        &[id][..],
        &[("relative_path", "p")],
        &[("parent_linkage", "{nothing}"), ("relative_path", "p")],
        &[id, ("relative_path", "")],
    ] {
        assert_eq!(
            kind(&with(entries).bytes),
            ErrorKind::Malformed,
            "{entries:?}"
        );
    }
    let good = with(&[id, ("relative_path", "p")]);
    open(&good.bytes, &files).unwrap();
    let at = good.metadata_at + (64 << 10) + 40;
    let mut bytes = good.bytes.clone();
    bytes[at] ^= 1;
    assert_eq!(
        kind(&bytes),
        ErrorKind::Unsupported,
        "another type of locator"
    );
    for (offset, what) in [(20, "key"), (24, "value")] {
        let mut bytes = good.bytes.clone();
        bytes[at + offset + 2] = 9;
        assert_eq!(kind(&bytes), ErrorKind::Malformed, "{what} elsewhere");
    }
    let mut bytes = good.bytes.clone();
    bytes[at + 28] -= 1;
    assert_eq!(kind(&bytes), ErrorKind::Malformed, "half a character");
    let orphan = Builder {
        locator: None,
        ..Builder::child(4 << 20, "p")
    };
    assert_eq!(kind(&orphan.build(&[]).bytes), ErrorKind::Malformed);
}

#[test]
fn a_partial_block_needs_its_bitmap() {
    let builder = Builder::child(4 << 20, "p");
    let files = shelf(&[("p", &parent().0)]);
    let good = builder.build(&[(1, Block::Partial(vec![1; 512], vec![true]))]);
    let entry = good.bat_at + builder.ratio() as usize * 8;
    let raw = u64::from_le_bytes(good.bytes[entry..entry + 8].try_into().unwrap());
    for wrong in [0, raw & !7, raw | 7, 6, good.log_at as u64 | 6, 1 << 50 | 6] {
        let mut bytes = good.bytes.clone();
        bytes[entry..entry + 8].copy_from_slice(&wrong.to_le_bytes());
        let e = read_image(open(&bytes, &files).unwrap()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{wrong:#x}: {e:?}");
    }
    read_image(open(&good.bytes, &files).unwrap()).unwrap();
}
