//! One test per rule: a valid image spoilt in one place is refused, with the right kind and place, by
//! both ways of reading.

use std::sync::Arc;

use longshore_image::chain::Chain;
use longshore_image::{DenyAll, ErrorKind, Limits, OpenGate, ReadAt, Reference, Result, qcow2};

use crate::builder::{Builder, COMPRESSED, COPIED, ZERO, deflate};
use crate::support::{Forward, kind, open, options, random, with_side};

/// A valid image of two and a bit clusters, of which the first is data.
fn valid() -> Builder {
    let mut b = Builder::new(16, (2 << 16) + 512);
    let at = b.data(7);
    b.l2_entry(0, at | COPIED);
    b
}

fn refused(b: &Builder, expected: ErrorKind) -> longshore_image::Error {
    let forward = Forward::new(with_side(&b.image)).run(&b.image);
    assert_eq!(kind(forward), expected, "forward");
    let error = open(b.image.clone())
        .and_then(|image| random(&image))
        .expect_err("it was accepted");
    assert_eq!(error.kind(), expected, "random: {error:?}");
    error
}

/// Malformed, and the blame is on offset `at`.
fn malformed_at(b: &Builder, at: u64) {
    let error = refused(b, ErrorKind::Malformed);
    assert_eq!(error.offset(), Some(at), "{error:?}");
}

fn accepted(b: &Builder) -> Vec<u8> {
    let disk = random(&open(b.image.clone()).unwrap()).unwrap();
    let seen = Forward::new(with_side(&b.image)).run(&b.image).unwrap();
    assert!(disk == seen.disk, "the two ways differ");
    disk
}

#[test]
fn the_image_that_is_spoilt_here_is_valid() {
    let disk = accepted(&valid());
    assert!(disk[..1 << 16].iter().all(|&b| b == 7));
    assert!(disk[1 << 16..].iter().all(|&b| b == 0));
    accepted(&valid().v2());
}

#[test]
fn what_does_not_begin_with_the_magic_is_not_this_format() {
    for bytes in [&b""[..], b"QFI", b"KDMV", &[0; 1000]] {
        assert_eq!(kind(open(bytes.to_vec())), ErrorKind::NotThisFormat);
    }
    let mut b = valid();
    b.put(0, b"QFI\xfa");
    refused(&b, ErrorKind::NotThisFormat);
}

#[test]
fn a_header_that_is_cut_off_is_malformed() {
    for len in 4..104 {
        let mut b = valid();
        b.image.truncate(len);
        refused(&b, ErrorKind::Malformed);
    }
}

#[test]
fn an_empty_stream_is_malformed_or_not_this_format() {
    let end = kind(Forward::new(options()).run(b""));
    assert!(matches!(
        end,
        ErrorKind::Malformed | ErrorKind::NotThisFormat
    ));
}

#[test]
fn versions_other_than_2_and_3_are_unsupported() {
    for version in [0, 1, 4, u32::MAX] {
        refused(valid().be32(4, version), ErrorKind::Unsupported);
    }
}

#[test]
fn cluster_sizes_outside_512_bytes_to_2_mib_are_malformed() {
    for bits in [0, 8, 22, 31, 63, 64, u32::MAX] {
        malformed_at(valid().be32(20, bits), 20);
    }
}

#[test]
fn header_lengths_below_104_or_past_the_cluster_are_malformed() {
    for len in [0, 72, 103, (1 << 16) + 1, u32::MAX] {
        malformed_at(valid().be32(100, len), 100);
    }
    accepted(valid().be32(100, 112));
}

#[test]
fn reference_counts_wider_than_64_bits_are_malformed() {
    for order in [7, u32::MAX] {
        malformed_at(valid().be32(96, order), 96);
    }
    accepted(valid().be32(96, 6));
}

#[test]
fn encrypted_images_are_unsupported_by_name() {
    for (method, name) in [(1, "AES"), (2, "LUKS"), (3, "3")] {
        let error = refused(valid().be32(32, method), ErrorKind::Unsupported);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn the_corrupt_bit_is_unsupported_by_name() {
    let error = refused(valid().be64(72, 2), ErrorKind::Unsupported);
    assert!(error.to_string().contains("corrupt"), "{error}");
}

#[test]
fn unknown_features_are_unsupported_by_the_name_the_image_gives_them() {
    let mut b = valid();
    b.be64(72, 1 << 63 | 1 << 40 | 1 << 5);
    let mut names = Vec::new();
    for (kind, bit, name) in [
        (1, 40, "not this one"),
        (0, 40, "time\x1b[2Jtravel"),
        (0, 63, "a name that fills the field without an end....."),
    ] {
        names.extend([kind, bit]);
        let mut field = [0; 46];
        field[..name.len().min(46)].copy_from_slice(&name.as_bytes()[..name.len().min(46)]);
        names.extend(field);
    }
    b.extension(104, 0x6803_f857, &names);
    let error = refused(&b, ErrorKind::Unsupported).to_string();
    assert!(error.contains("bit 5,"), "{error}");
    assert!(error.contains(r#"bit 40 "time\u{1b}[2Jtravel""#), "{error}");
    assert!(error.contains("bit 63 \"a name that"), "{error}");
    // A damaged table of names does not hide the refusal.
    b.be32(108, u32::MAX);
    refused(&b, ErrorKind::Unsupported);
}

#[test]
fn compression_types_must_be_known_and_agree_with_their_bit() {
    let with = |bit: u64, kind: u8| {
        let mut b = valid();
        b.be64(72, bit).be32(100, 112).put(104, &[kind]);
        b
    };
    accepted(&with(0, 0));
    accepted(&with(8, 1));
    refused(&with(8, 2), ErrorKind::Unsupported);
    refused(&with(0, 2), ErrorKind::Unsupported);
    malformed_at(&with(0, 1), 104);
    malformed_at(&with(8, 0), 104);
    // The field is not there if the header ends before it.
    let mut b = with(0, 1);
    b.be32(100, 104).be64(104, 0);
    accepted(&b);
}

#[test]
fn subclusters_need_clusters_of_16_kib() {
    let mut b = Builder::new(13, 1 << 16);
    b.be64(72, 1 << 4);
    malformed_at(&b, 20);
    accepted(&Builder::extended(14, 1 << 16));
}

#[test]
fn sizes_that_no_disk_has_are_malformed() {
    for size in [u64::MAX, 1 << 63, 1 << 62] {
        refused(valid().be64(24, size), ErrorKind::Malformed);
    }
}

#[test]
fn an_l1_too_small_for_the_disk_is_malformed() {
    malformed_at(valid().be32(36, 0), 36);
    malformed_at(valid().be64(24, (512 << 20) + 1), 36);
}

#[test]
fn an_l1_of_more_than_32_mib_is_malformed() {
    malformed_at(valid().be32(36, (4 << 20) + 1), 36);
    malformed_at(valid().be32(36, u32::MAX), 36);
    let error = refused(valid().be32(36, u32::MAX), ErrorKind::Malformed);
    assert!(
        error.to_string().starts_with("L1 size too big: "),
        "{error}"
    );
}

#[test]
fn an_l1_that_is_unaligned_or_over_the_header_is_malformed() {
    malformed_at(valid().be64(40, (1 << 16) + 512), 40);
    malformed_at(valid().be64(40, 8), 40);
    malformed_at(valid().be64(40, 0), 40);
    malformed_at(valid().be64(40, u64::MAX << 16), 40);
    malformed_at(valid().be64(40, 1 << 63), 40);
}

#[test]
fn an_l1_past_the_end_of_the_file_is_malformed() {
    malformed_at(valid().be64(40, 1 << 30), 1 << 30);
    let b = valid();
    let mut cut = b.clone();
    cut.image.truncate(usize::try_from(b.l1).unwrap() + 7);
    malformed_at(&cut, b.l1);
}

#[test]
fn l1_entries_with_reserved_bits_are_malformed() {
    for bit in (0..9).chain(56..63) {
        let mut b = valid();
        b.l1_entry(0, b.l2 | COPIED | 1 << bit);
        malformed_at(&b, b.l1);
    }
}

#[test]
fn l2_tables_that_are_unaligned_are_malformed() {
    let mut b = valid();
    b.l1_entry(0, b.l2 + 512);
    malformed_at(&b, b.l1);
}

#[test]
fn l2_tables_past_the_end_of_the_file_are_malformed() {
    let mut b = valid();
    b.l1_entry(0, 1 << 40);
    malformed_at(&b, b.l1);
    let mut b = Builder::new(16, 1 << 29);
    b.image.pop();
    malformed_at(&b, b.l1);
}

#[test]
fn l2_entries_with_reserved_bits_are_malformed() {
    for bit in (1..9).chain(56..62) {
        let mut b = valid();
        let at = b.data(1);
        b.l2_entry(1, at | 1 << bit);
        malformed_at(&b, b.l2_at(1));
    }
    let mut b = Builder::extended(16, 1 << 20);
    let at = b.data(1);
    b.l2_entry(1, at | 1).bitmap(1, 1);
    malformed_at(&b, b.l2_at(1));
}

#[test]
fn clusters_that_are_unaligned_are_malformed_zero_ones_too() {
    for flag in [0, ZERO] {
        let mut b = valid();
        let at = b.data(1);
        b.l2_entry(1, (at + 512) | flag);
        malformed_at(&b, b.l2_at(1));
    }
}

#[test]
fn clusters_that_start_at_the_end_of_the_file_are_malformed_and_shorter_ones_end_in_zeros() {
    let mut b = valid();
    let end = b.data(9);
    b.l2_entry(1, end);
    b.image.truncate(usize::try_from(end).unwrap() + 1);
    let disk = accepted(&b);
    assert_eq!(disk[1 << 16], 9);
    assert!(disk[(1 << 16) + 1..].iter().all(|&b| b == 0));
    b.image.pop();
    malformed_at(&b, b.l2_at(1));
    // Also if it follows another on the disk and in the file, and if the disk ends in it.
    let mut b = valid();
    let first = b.data(9);
    let second = b.data(8);
    b.l2_entry(1, first).l2_entry(2, second);
    accepted(&b);
    b.image.truncate(usize::try_from(second).unwrap());
    malformed_at(&b, b.l2_at(2));
    let mut b = valid();
    b.l2_entry(1, 1 << 40);
    malformed_at(&b, b.l2_at(1));
}

#[test]
fn zero_clusters_are_corruption_in_version_2_and_zeros_in_3() {
    let mut b = valid();
    let at = b.data(1);
    b.l2_entry(1, at | ZERO).l2_entry(2, ZERO);
    let disk = accepted(&b);
    assert!(disk[1 << 16..].iter().all(|&b| b == 0));
    let b = b.v2();
    malformed_at(&b, b.l2_at(1));
}

#[test]
fn a_zero_cluster_may_keep_a_place_behind_the_end_of_the_file() {
    let mut b = valid();
    b.l2_entry(1, 1 << 40 | ZERO);
    accepted(&b);
}

#[test]
fn subclusters_are_data_zeros_or_nothing() {
    let mut b = Builder::extended(16, (1 << 18) + 512);
    let at = b.data(9);
    // Subclusters of 2 KiB: 0 and 31 are data, 1 is zero, the rest is nothing.
    b.l2_entry(0, at).bitmap(0, 2 << 32 | 1 << 31 | 1);
    // Zeros without a place.
    b.bitmap(1, u64::from(u32::MAX) << 32);
    let disk = accepted(&b);
    assert!(disk[..2048].iter().all(|&b| b == 9));
    assert!(disk[2048..62 << 10].iter().all(|&b| b == 0));
    assert!(disk[62 << 10..64 << 10].iter().all(|&b| b == 9));
    // The file may end inside the cluster, even before its last subcluster.
    b.image.truncate(usize::try_from(at).unwrap() + 1024);
    let disk = accepted(&b);
    assert!(disk[..1024].iter().all(|&b| b == 9));
    assert!(disk[1024..].iter().all(|&b| b == 0));
}

#[test]
fn subclusters_both_allocated_and_zero_are_malformed() {
    for bit in [0, 13, 31] {
        let mut b = Builder::extended(16, 1 << 20);
        let at = b.data(1);
        b.l2_entry(1, at).bitmap(1, 1 << bit | 1 << (bit + 32));
        malformed_at(&b, b.l2_at(1));
    }
}

#[test]
fn subclusters_allocated_nowhere_are_malformed() {
    let mut b = Builder::extended(16, 1 << 20);
    b.bitmap(1, 4);
    malformed_at(&b, b.l2_at(1));
}

#[test]
fn compressed_clusters_have_no_subclusters() {
    let mut b = Builder::extended(16, 1 << 20);
    let at = b.append(&deflate(&vec![1; 1 << 16]));
    let entry = b.compressed(at, 512);
    b.l2_entry(1, entry);
    accepted(&b);
    b.bitmap(1, 1);
    malformed_at(&b, b.l2_at(1));
}

#[test]
fn compressed_clusters_over_the_header_are_malformed() {
    for at in [0, 104, (1 << 16) - 1] {
        let mut b = valid();
        b.l2_entry(1, COMPRESSED | at);
        malformed_at(&b, b.l2_at(1));
    }
}

#[test]
fn compressed_clusters_that_start_at_the_end_of_the_file_are_malformed() {
    let mut b = valid();
    let entry = b.compressed(b.len(), 512);
    b.l2_entry(1, entry);
    malformed_at(&b, b.l2_at(1));
}

#[test]
fn compressed_clusters_whose_last_sector_is_not_all_there_are_read() {
    let mut b = valid();
    b.append(&[0; 300]);
    let packed = deflate(&vec![6; 1 << 16]);
    let at = b.append(&packed);
    let entry = b.compressed(at, packed.len() as u64);
    b.l2_entry(2, entry);
    let disk = accepted(&b);
    assert!(disk[2 << 16..].iter().all(|&b| b == 6));
    assert_eq!(disk.len(), (2 << 16) + 512);
}

#[test]
fn compressed_clusters_that_are_garbage_or_short_are_malformed_and_long_ones_are_not() {
    let fill = |packed: &[u8]| {
        let mut b = valid();
        let at = b.append(packed);
        let entry = b.compressed(at, packed.len() as u64);
        b.l2_entry(1, entry);
        b
    };
    refused(&fill(&[0xff; 600]), ErrorKind::Malformed);
    refused(&fill(&deflate(&[6; 1000])), ErrorKind::Malformed);
    let packed = deflate(&vec![6; 1 << 16]);
    refused(&fill(&packed[..packed.len() - 8]), ErrorKind::Malformed);
    let disk = accepted(&fill(&deflate(&vec![6; 2 << 16])));
    assert!(disk[1 << 16..2 << 16].iter().all(|&b| b == 6));
}

#[test]
fn names_of_backing_files_outside_the_header_cluster_are_malformed() {
    malformed_at(valid().be64(8, 103).be32(16, 4), 8);
    malformed_at(valid().backing((1 << 16) - 3, b"base"), 8);
    malformed_at(valid().be64(8, u64::MAX).be32(16, 4), 8);
    malformed_at(valid().backing(200, &[b'x'; 1024]), 16);
    malformed_at(valid().be64(8, 200).be32(16, u32::MAX), 8);
}

#[test]
fn names_that_are_not_text_are_unsupported() {
    refused(valid().backing(200, b"\xff\xfe"), ErrorKind::Unsupported);
}

#[test]
fn header_extensions_past_the_header_are_malformed() {
    let mut b = valid();
    b.be32(104, 0x1234).be32(108, u32::MAX);
    malformed_at(&b, 104);
    // The name of the backing file is where they end.
    let mut b = valid();
    b.extension(104, 0x1234, &[0; 32]);
    b.backing(136, b"base");
    malformed_at(&b, 104);
    let mut b = valid();
    b.extension(104, 0xe279_2aca, &[b'x'; 16]);
    malformed_at(&b, 112);
    let mut b = valid();
    b.extension(104, 0x4441_5441, &[b'x'; 1024]);
    malformed_at(&b, 112);
}

#[test]
fn unknown_extensions_are_skipped() {
    let mut b = valid();
    let next = b.extension(104, 0x1234, &[1; 33]);
    b.extension(next, 0x4321, &[]);
    accepted(&b);
}

#[test]
fn other_files_are_denied_by_name() {
    let mut b = valid();
    let next = b.extension(104, 0xe279_2aca, b"qcow2");
    b.backing(next + 8, b"/etc/shadow");
    let error = refused(&b, ErrorKind::Denied);
    assert!(error.to_string().contains("/etc/shadow"), "{error}");
    let mut b = valid();
    b.be64(72, 4);
    b.extension(104, 0x4441_5441, b"\x1b[2J/dev/sda");
    let error = refused(&b, ErrorKind::Denied);
    assert!(error.to_string().contains("\\u{1b}[2J/dev/sda"), "{error}");
}

#[test]
fn an_external_data_file_without_a_name_is_unsupported() {
    refused(valid().be64(72, 4), ErrorKind::Unsupported);
}

/// Opens the same bytes whatever is asked for.
#[derive(Debug, Clone)]
struct Always(Vec<u8>);

impl OpenGate for Always {
    fn open(&self, _: &Reference) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(self.0.clone()))
    }

    fn nested(&self, _: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(self.clone())
    }
}

fn open_with(b: &Builder, other: Vec<u8>) -> Result<Vec<u8>> {
    let file = Arc::new(b.image.clone());
    random(&qcow2::open(file, &Always(other), &Limits::default())?)
}

#[test]
fn an_image_that_is_its_own_backing_file_is_malformed() {
    let mut b = valid();
    let next = b.extension(104, 0xe279_2aca, b"qcow2");
    b.backing(next + 8, b"myself");
    assert_eq!(kind(open_with(&b, b.image.clone())), ErrorKind::Malformed);
}

#[test]
fn backing_formats_that_are_not_read_here_are_unsupported() {
    let mut b = valid();
    let next = b.extension(104, 0xe279_2aca, b"qed");
    b.backing(next + 8, b"base");
    assert_eq!(kind(open_with(&b, vec![0; 512])), ErrorKind::Unsupported);
    let mut b = valid();
    b.backing(200, b"base");
    assert_eq!(
        kind(open_with(&b, b"QED\0".to_vec())),
        ErrorKind::Unsupported
    );
    open_with(&b, vec![1; 512]).unwrap();
}

#[test]
fn clusters_of_an_external_data_file_are_plain_and_where_the_guest_has_them() {
    let mut b = Builder::new(16, 3 << 16);
    b.be64(72, 4);
    b.extension(104, 0x4441_5441, b"data");
    b.l2_entry(0, COPIED).l2_entry(1, 1 << 16 | COPIED);
    let data = vec![5; 3 << 16];
    let disk = open_with(&b, data.clone()).unwrap();
    assert!(disk[..2 << 16].iter().all(|&b| b == 5), "offset 0 is valid");
    assert!(disk[2 << 16..].iter().all(|&b| b == 0));
    assert_eq!(
        kind(open_with(&b, vec![5; 1 << 16])),
        ErrorKind::Malformed,
        "the data file is too short"
    );
    let mut moved = b.clone();
    moved.l2_entry(2, 1 << 16 | COPIED);
    assert_eq!(kind(open_with(&moved, data.clone())), ErrorKind::Malformed);
    b.l2_entry(2, COMPRESSED | 1 << 16);
    assert_eq!(kind(open_with(&b, data)), ErrorKind::Malformed);
}

#[test]
fn snapshots_and_refcounts_of_nonsense_do_not_matter() {
    let mut b = valid();
    b.be64(48, u64::MAX).be32(56, u32::MAX);
    b.be32(60, u32::MAX).be64(64, u64::MAX);
    accepted(&b);
}

#[test]
fn tables_that_are_named_over_and_over_are_refused_before_they_burn_hours() {
    // Four million entries, all of them of one empty table: 2 PiB of disk.
    let mut b = Builder::new(16, (1 << 22) * (1 << 29));
    for index in 0..1 << 22 {
        let entry = b.l2 | COPIED;
        b.l1_entry(index, entry);
    }
    let image = open(b.image.clone()).unwrap();
    let last = Chain::new(image).unwrap().extents().last().unwrap();
    assert_eq!(kind(last), ErrorKind::LimitExceeded);
    assert_eq!(
        kind(Forward::bare(options()).run(&b.image)),
        ErrorKind::LimitExceeded
    );
}

#[test]
fn clusters_that_are_named_over_and_over_are_refused_before_they_become_terabytes() {
    let mut b = Builder::new(16, 1 << 29);
    let at = b.data(1);
    for index in 0..1 << 13 {
        b.l2_entry(index, at);
    }
    let image = open(b.image.clone()).unwrap();
    let last = Chain::new(image).unwrap().extents().last().unwrap();
    assert_eq!(kind(last), ErrorKind::LimitExceeded);
    assert_eq!(
        kind(Forward::bare(options()).run(&b.image)),
        ErrorKind::LimitExceeded
    );
}

#[test]
fn tables_are_charged_and_given_back() {
    let b = valid();
    let file: Arc<dyn ReadAt> = Arc::new(b.image.clone());
    let small = Limits::with_table_bytes(64 << 10);
    let image = qcow2::open(Arc::clone(&file), &DenyAll, &small).unwrap();
    assert_eq!(kind(random(&image)), ErrorKind::LimitExceeded);
    let enough = Limits::with_table_bytes(128 << 10);
    let image = qcow2::open(file, &DenyAll, &enough).unwrap();
    random(&image).unwrap();
    random(&image).unwrap();
}

#[test]
fn a_table_of_tables_that_does_not_fit_is_refused_with_the_amount() {
    let mut b = Builder::new(9, 1 << 30);
    for index in 0..1 << 15 {
        let entry = (b.l2 + (index % 8) * 512) | COPIED;
        b.l1_entry(index, entry);
    }
    b.append(&[0; 8 << 9]);
    let mut options = options();
    options.limits = Limits::with_table_bytes(1 << 20);
    let Err(error) = Forward::bare(options).run(&b.image) else {
        panic!("it was accepted");
    };
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.needed() > Some(1 << 20), "{error:?}");
}

#[test]
fn images_cut_anywhere_are_refused_or_end_in_zeros_and_both_ways_agree() {
    let mut b = Builder::new(9, 40 << 9);
    for index in 0..20 {
        let at = b.data(index + 1);
        b.l2_entry(u64::from(index) * 2, at | COPIED);
    }
    let packed = deflate(&[42; 512]);
    let at = b.append(&packed);
    let entry = b.compressed(at, packed.len() as u64);
    b.l2_entry(39, entry);
    for len in (4..b.image.len()).rev() {
        let mut cut = b.clone();
        cut.image.truncate(len);
        let at_random = open(cut.image.clone()).and_then(|image| random(&image));
        let forward = Forward::new(with_side(&cut.image)).run(&cut.image);
        match (at_random, forward) {
            (Ok(a), Ok(b)) => assert!(a == b.disk, "cut to {len}: the two ways differ"),
            (Err(a), Err(b)) => assert_eq!(a.kind(), b.kind(), "cut to {len}: {a:?}, {b:?}"),
            (a, b) => panic!("cut to {len}: {:?}, {:?}", a.err(), b.err()),
        }
    }
}
