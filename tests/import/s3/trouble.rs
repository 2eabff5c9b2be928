//! Stores that are slow, change under the reader, or do less than Amazon's.

use std::sync::Arc;

use longshore_importer::{Ambient, ObjectOptions, SourceOptions};
use longshore_tests::data::disk;
use longshore_tests::gate::{Asked, Gate, Passing, Reply, cutting, slow, transparent};
use longshore_tests::stores::{REGION, Versity};

use super::{Store, chain, is_signed};
use crate::qcow2::{Images, assert_same};
use crate::{Import, one_connection, open, options};

#[test]
fn a_slow_store_is_asked_for_several_parts_at_once() {
    let Some(store) = Store::with(slow(6_000_000)) else {
        return;
    };
    let expected = disk(20_000_000, 1);
    store.versity.put_bytes("/disks/disk.raw", &expected);
    let import = Import::of(open("s3://disks/disk.raw", &store.options()).as_mut());
    assert_eq!(import.made(&expected).bytes_read, 20_000_000);
    let asked = store.gate.asked();
    assert!(asked.len() >= 5, "{}", asked.len());
    for part in &asked[1..] {
        assert!(
            is_signed(part) && part.header("if-match").is_some(),
            "{part:?}"
        );
        let range = part.header("range").unwrap();
        assert!(!range.ends_with('-'), "{range}");
    }
    assert!(store.gate.sent() < 30_000_000, "{}", store.gate.sent());
}

#[test]
fn an_object_that_came_in_parts_is_resumed_like_any_other() {
    let Some(store) = Store::with(cutting(2, 2_000_000)) else {
        return;
    };
    let expected = disk(6_000_000, 2);
    store.versity.put_in_parts("/disks/disk.raw", &expected);
    Import::of(open("s3://disks/disk.raw", &store.options()).as_mut()).made(&expected);
    let asked = store.gate.asked();
    assert_eq!(asked.len(), 3);
    let tag = asked[2].header("if-match").unwrap();
    assert!(tag.ends_with("-2\""), "{tag}");
}

/// A store whose object is replaced when it is asked for the second time, which reaches it less these headers.
fn changing(without: &'static [&'static str], seed: u64) -> Option<Store> {
    let versity = Arc::new(Versity::start()?);
    let expected = disk(4_000_000, seed);
    versity.put_bytes("/public/disk.raw", &expected);
    let replaced = Arc::clone(&versity);
    let gate = Gate::listen(Some(versity.upstream()), None, move |_, number| {
        if number == 1 {
            let mut other = expected.clone();
            other[3_000_000] ^= 1;
            replaced.put_bytes("/public/disk.raw", &other);
        }
        Reply::Pass(Passing {
            cut: (number == 0).then_some(1_000_000),
            without,
            ..Passing::default()
        })
    });
    Some(Store { versity, gate })
}

#[test]
fn an_object_that_is_replaced_leaves_no_disk() {
    // The store refuses, or does not understand and gives a part of the other object.
    for (seed, without) in [(3, &[][..]), (4, &["if-match", "if-range"][..])] {
        let Some(store) = changing(without, seed) else {
            return;
        };
        let mut source = open("s3://public/disk.raw", &store.anonymous());
        Import::of(source.as_mut()).changed();
        assert!(store.gate.asked()[1].header("if-match").is_some());
    }
}

#[test]
fn a_store_with_neither_ranges_nor_names_for_states_is_read_as_one_stream() {
    let poor = |_: &Asked, number: usize| {
        Reply::Pass(Passing {
            cut: (number == 0).then_some(1_000_000),
            without: &["range", "if-range", "if-match", "if-unmodified-since"],
            hide: &[
                "etag",
                "accept-ranges",
                "last-modified",
                "x-amz-checksum-crc64nvme",
            ],
            ..Passing::default()
        })
    };
    let Some(store) = Store::with(poor) else {
        return;
    };
    let expected = disk(3_000_000, 5);
    store.versity.put_bytes("/public/disk.raw", &expected);
    let mut source = open("s3://public/disk.raw", &store.anonymous());
    assert!(source.random().is_none());
    Import::of(source.as_mut()).made(&expected);
    assert_eq!(store.gate.asked().len(), 2);
}

#[test]
fn of_an_image_only_what_is_needed_is_moved() {
    let Some(mut images) = Images::new(12_000_256) else {
        return;
    };
    let Some(store) = Store::new() else { return };
    let grown = images.grown();
    store.versity.put("/disks/disk.qcow2", &grown);
    let len = std::fs::metadata(&grown).unwrap().len();
    let mut source = open("s3://disks/disk.qcow2", &one_connection(store.options()));
    let found =
        longshore_transfer::inspect(source.as_mut(), &longshore_transfer::Options::default());
    assert_eq!(found.unwrap().info.virtual_size, 20 << 30);
    drop(source);
    let before = store.gate.sent();
    let import = Import::of(open("s3://disks/disk.qcow2", &store.options()).as_mut());
    let report = import.outcome.as_ref().unwrap();
    assert_eq!((report.passes, report.bytes_spilled), (1, 0));
    assert_same(&import.target(), &images.path("grown.raw"));
    let moved = store.gate.sent() - before;
    assert!(moved < len + len / 4, "{moved} of {len}");
    assert!(store.gate.asked().iter().all(is_signed));
}

#[test]
fn what_will_pass_is_waited_for_and_what_will_not_is_not() {
    let busy = |asked: &Asked, number: usize| match number {
        0 => Reply::say(503, "<Error><Code>SlowDown</Code></Error>"),
        1 => Reply::say(400, "<Error><Code>RequestTimeout</Code></Error>"),
        2 => Reply::say(500, "no XML at all"),
        _ => transparent(asked, number),
    };
    let Some(store) = Store::with(busy) else {
        return;
    };
    let expected = disk(100_000, 6);
    store.versity.put_bytes("/disks/disk.raw", &expected);
    Import::of(open("s3://disks/disk.raw", &store.options()).as_mut()).made(&expected);
    assert_eq!(store.gate.asked().len(), 4);
}

#[test]
fn a_store_that_says_too_much_is_cut_short_and_never_repeats_a_secret() {
    let message = format!("t0ken/+== {}", "very ".repeat(100_000));
    let body = format!("<Error><Code>Custom</Code><Message>{message}</Message></Error>");
    let gate = Gate::alone(move |_, number| {
        let short = "<Error><Code>Custom</Code><Message>t0ken/+==\n\u{7}</Message></Error>";
        let body = if number == 0 { short } else { &body };
        Reply::say(403, body)
    });
    let options = super::with_keys(
        SourceOptions {
            objects: ObjectOptions {
                endpoint: Some(gate.url("")),
                region: Some(REGION.to_owned()),
                ambient: Ambient::only::<&str, &str>([]),
                ..ObjectOptions::default()
            },
            ..options()
        },
        "AKID",
        "s3cret",
        Some("t0ken/+=="),
    );
    for _ in 0..2 {
        let error = crate::refused("s3://disks/disk.raw", &options);
        let text = format!("{} {error:?}", chain(&error));
        assert!(!text.contains("t0ken") && text.len() < 2_000, "{text}");
        assert!(!text.contains('\u{7}'), "{text}");
    }
}
