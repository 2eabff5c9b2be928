//! What the command line tools write is read.

use longshore_image::stream::StreamOptions;
use longshore_image::{ErrorKind, Wrapper};

use crate::support::{ROOMY, decode, have, noise, pipe, sample};

/// Every command compresses its input; every stream is read back with one and with four threads.
fn reads_what_is_written_by(wrapper: Wrapper, commands: &[&str]) {
    let inputs = [
        Vec::new(),
        b"x".to_vec(),
        sample(3 << 20),
        noise(9, 400_000),
        vec![0; 5 << 20],
    ];
    for command in commands {
        if !have(&[command.split(' ').next().unwrap()]) {
            continue;
        }
        for input in &inputs {
            let packed = pipe(command, input);
            for threads in [1, 4] {
                let options = StreamOptions { threads, ..ROOMY };
                let out = decode(wrapper, &packed, options)
                    .unwrap_or_else(|e| panic!("{command}, {} bytes: {e:?}", input.len()));
                assert!(out == *input, "{command}, {} bytes", input.len());
            }
        }
    }
}

#[test]
fn gzip_and_pigz_streams_are_read() {
    reads_what_is_written_by(
        Wrapper::Gzip,
        &[
            "gzip -1",
            "gzip -9",
            "pigz -p 4 -b 128",
            "pigz -11 -I 2",
            "pigz -i",
        ],
    );
}

#[test]
fn xz_streams_of_every_level_and_block_size_are_read() {
    reads_what_is_written_by(
        Wrapper::Xz,
        &[
            "xz -0",
            "xz -6 -T1",
            "xz -9",
            "xz -1 -T2 --block-size=300000",
            "xz -1 -T1 --block-size=300000",
            "xz -1 --check=none",
            "xz -1 --check=crc32",
            "xz -1 --check=sha256 -T2 --block-size=1000000",
            "xz --x86 --lzma2=preset=1",
            "xz --delta=dist=4 --lzma2=dict=4096,lc=0,lp=4",
        ],
    );
}

#[test]
fn zstd_streams_of_every_level_and_window_are_read() {
    reads_what_is_written_by(
        Wrapper::Zstd,
        &[
            "zstd -q -1",
            "zstd -q -19",
            "zstd -q -3 --long=27",
            "zstd -q -1 --no-check",
            "zstd -q -3 -T2 -B512K",
            "zstd -q --fast=5",
            "pzstd -q -3 -p 2",
        ],
    );
}

#[test]
fn bzip2_streams_of_every_level_are_read() {
    reads_what_is_written_by(Wrapper::Bzip2, &["bzip2 -1", "bzip2 -9"]);
}

#[test]
fn streams_one_after_another_are_one_stream() {
    let (a, b) = (sample(300_000), noise(5, 10_000));
    for (wrapper, one, other, tool) in [
        (Wrapper::Gzip, "gzip -1", "gzip -9", "gzip"),
        (Wrapper::Xz, "xz -0", "xz -T2 --block-size=4096", "xz"),
        (Wrapper::Zstd, "zstd -q -1", "zstd -q -9", "zstd"),
        (Wrapper::Bzip2, "bzip2 -1", "bzip2 -9", "bzip2"),
    ] {
        if !have(&[tool]) {
            continue;
        }
        let mut packed = pipe(one, &a);
        packed.extend(pipe(other, b""));
        packed.extend(pipe(other, &b));
        let both = [&a[..], &b[..]].concat();
        let out = decode(wrapper, &packed, ROOMY).unwrap();
        assert!(out == both, "{wrapper:?}");
        assert!(
            pipe(&format!("{tool} -dc"), &packed) == both,
            "{tool} agrees"
        );

        packed.extend_from_slice(b"and a half");
        let e = decode(wrapper, &packed, ROOMY).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{wrapper:?}: garbage");
    }
}

#[test]
fn skippable_zstd_frames_are_passed_over_wherever_they_are() {
    if !have(&["zstd"]) {
        return;
    }
    let data = sample(50_000);
    let frame = pipe("zstd -q", &data);
    let mut skippable = vec![0x5a, 0x2a, 0x4d, 0x18, 0x10, 0x27, 0, 0];
    skippable.resize(8 + 10_000, 0x28);
    let empty = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
    let packed = [&skippable[..], &empty, &frame, &skippable, &frame, &empty].concat();
    let out = decode(Wrapper::Zstd, &packed, ROOMY).unwrap();
    assert!(out == [&data[..], &data].concat());
    let out = decode(Wrapper::Zstd, &skippable, ROOMY).unwrap();
    assert!(out.is_empty(), "nothing but skippable frames is no data");
}

#[test]
fn a_zstd_stream_that_wants_a_dictionary_is_unsupported() {
    // A frame header with a one-byte dictionary id.
    let packed = [0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x58, 0x2a, 1, 0, 0];
    let e = decode(Wrapper::Zstd, &packed, ROOMY).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
}

#[test]
fn zeros_after_gzip_and_words_of_them_after_xz_are_padding() {
    if !have(&["gzip", "xz", "bzip2", "zstd"]) {
        return;
    }
    let data = sample(10_000);
    for (wrapper, command, accepted) in [
        (Wrapper::Gzip, "gzip", &[1, 7, 5000][..]),
        (Wrapper::Xz, "xz -0", &[4, 8, 5000]),
        (Wrapper::Zstd, "zstd -q", &[]),
        (Wrapper::Bzip2, "bzip2", &[]),
    ] {
        let packed = pipe(command, &data);
        for zeros in [1, 3, 4, 7, 8, 5000] {
            let mut padded = packed.clone();
            padded.resize(packed.len() + zeros, 0);
            let result = decode(wrapper, &padded, ROOMY);
            if accepted.contains(&zeros) || wrapper == Wrapper::Gzip {
                assert!(result.unwrap() == data, "{wrapper:?} and {zeros} zeros");
                padded.push(1);
            }
            let e = decode(wrapper, &padded, ROOMY).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{wrapper:?} {zeros}");
        }
    }
    let packed = pipe("xz -0", &data);
    let twice = [&packed[..], &[0; 12], &packed, &[0; 4]].concat();
    let out = decode(Wrapper::Xz, &twice, ROOMY).unwrap();
    assert!(
        out == [&data[..], &data].concat(),
        "padding between streams"
    );
}

#[test]
fn gzip_headers_with_every_field_are_passed_over() {
    let data = sample(20_000);
    let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut raw, &data).unwrap();
    let body = raw.finish().unwrap();
    let member = |flags: u8, hcrc: u16| {
        let mut header = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3];
        if flags & 4 != 0 {
            header.extend_from_slice(&u16::MAX.to_le_bytes());
            header.resize(header.len() + usize::from(u16::MAX), 0x1f);
        }
        if flags & 8 != 0 {
            header.extend_from_slice(&vec![b'n'; 200_000]);
            header.push(0);
        }
        if flags & 16 != 0 {
            header.extend_from_slice("Prüfsumme\0".as_bytes());
        }
        if flags & 2 != 0 {
            let crc = crc32fast::hash(&header).to_le_bytes();
            let crc = u16::from_le_bytes([crc[0], crc[1]]) ^ hcrc;
            header.extend_from_slice(&crc.to_le_bytes());
        }
        header.extend_from_slice(&body);
        header.extend_from_slice(&crc32fast::hash(&data).to_le_bytes());
        header.extend_from_slice(&20_000u32.to_le_bytes());
        header
    };
    for flags in 0..32 {
        let out = decode(Wrapper::Gzip, &member(flags, 0), ROOMY).unwrap();
        assert!(out == data, "flags {flags:#x}");
    }
    for (what, packed) in [
        ("a header CRC that is wrong", member(0x1e, 0x100)),
        ("a reserved flag", member(0x20, 0)),
    ] {
        let e = decode(Wrapper::Gzip, &packed, ROOMY).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{what}");
    }
    let mut wrong = member(0, 0);
    let len = wrong.len();
    for (what, at) in [("CRC", len - 8), ("length", len - 1)] {
        wrong[at] ^= 1;
        let e = decode(Wrapper::Gzip, &wrong, ROOMY).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{what} is wrong");
        wrong[at] ^= 1;
    }
}

#[test]
fn a_gzip_member_beyond_4_gib_is_checked_modulo_2_to_the_32() {
    if !have(&["gzip"]) {
        return;
    }
    let packed = pipe("head -c 4296015872 /dev/zero | gzip -1", b"");
    let mut decoder = longshore_image::stream::decoder(Wrapper::Gzip, ROOMY).unwrap();
    let mut room = vec![0; 1 << 20];
    let (mut at, mut total) = (0, 0u64);
    while at < packed.len() {
        let did = decoder.push(&packed[at..], &mut room).unwrap();
        at += did.consumed;
        total += u64::try_from(did.produced).unwrap();
    }
    assert_eq!(decoder.finish(&mut room).unwrap(), None);
    assert_eq!(total, 4_296_015_872);
}
