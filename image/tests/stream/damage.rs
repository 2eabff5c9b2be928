//! Cut and damaged streams are errors, never panics, and never wrong bytes.

use longshore_image::stream::{StreamOptions, decoder};
use longshore_image::{ErrorKind, Wrapper};

use crate::support::{ROOMY, WRAPPERS, decode, decode_in, have, noise, pipe, sample};

/// Two small members with every kind of header around: `(stream, length of the first member)`.
fn small(wrapper: Wrapper, data: &[u8]) -> (Vec<u8>, usize) {
    let (a, b) = data.split_at(data.len() / 2);
    let (first, second) = match wrapper {
        Wrapper::Gzip => ("gzip", "gzip -n -1"),
        Wrapper::Xz => ("xz -1 -T2 --block-size=200", "xz -0 --check=sha256"),
        Wrapper::Zstd => ("zstd -q -19", "zstd -q -1"),
        _ => ("bzip2 -1", "bzip2 -9"),
    };
    let first = pipe(first, a);
    ([&first[..], &pipe(second, b)].concat(), first.len())
}

#[test]
fn a_stream_cut_anywhere_is_malformed() {
    if !have(&["gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let data = sample(1500);
    for wrapper in WRAPPERS {
        let (packed, first) = small(wrapper, &data);
        for threads in [1, 3] {
            let options = StreamOptions { threads, ..ROOMY };
            for len in 0..packed.len() {
                let result = decode(wrapper, &packed[..len], options);
                if len == first {
                    assert!(
                        result.unwrap() == data[..750],
                        "{wrapper:?}: the first alone"
                    );
                    continue;
                }
                let e = result.unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Malformed, "{wrapper:?} cut at {len}");
            }
            assert!(decode(wrapper, &packed, options).unwrap() == data);
        }
    }
}

#[test]
fn a_changed_byte_is_an_error_or_does_not_matter() {
    if !have(&["gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let data = sample(1500);
    for wrapper in WRAPPERS {
        let (packed, _) = small(wrapper, &data);
        let mut errors = 0;
        for at in 0..packed.len() {
            for change in [1, 2, 0x10, 0x80, 0xff] {
                let mut damaged = packed.clone();
                damaged[at] ^= change;
                for threads in [1, 2] {
                    let options = StreamOptions { threads, ..ROOMY };
                    match decode(wrapper, &damaged, options) {
                        Ok(out) => assert!(out == data, "{wrapper:?} byte {at} ^ {change:#x}"),
                        Err(e) => {
                            assert!(
                                matches!(
                                    e.kind(),
                                    ErrorKind::Malformed
                                        | ErrorKind::Unsupported
                                        | ErrorKind::NotThisFormat
                                        | ErrorKind::LimitExceeded
                                ),
                                "{wrapper:?} byte {at}: {e:?}"
                            );
                            errors += 1;
                        }
                    }
                }
            }
        }
        assert!(
            errors > packed.len() * 8,
            "{wrapper:?} notices most: {errors}"
        );
    }
}

#[test]
fn noise_behind_any_start_of_a_stream_is_an_error() {
    if !have(&["gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let data = sample(1500);
    for wrapper in WRAPPERS {
        let (packed, first) = small(wrapper, &data);
        for len in (0..packed.len()).filter(|&len| len != first) {
            let spoilt = [&packed[..len], &noise(len as u64, 5000)].concat();
            decode(wrapper, &spoilt, ROOMY).unwrap_err();
        }
    }
}

#[test]
fn what_is_something_else_altogether_is_said_to_be() {
    for wrapper in WRAPPERS {
        for text in [&b"\0\0\0\0"[..], b"QFI\xfb", &noise(1, 5000)] {
            let e = decode_in(wrapper, text, ROOMY, || (1, 100)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NotThisFormat, "{wrapper:?} {e}");
        }
        let e = decode(wrapper, b"", ROOMY).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{wrapper:?}: empty");
    }
}

#[test]
fn an_error_is_final() {
    if !have(&["gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let data = sample(1500);
    for wrapper in WRAPPERS {
        let (packed, _) = small(wrapper, &data);
        let mut decoder = decoder(wrapper, ROOMY).unwrap();
        let mut room = vec![0; 4096];
        decoder.push(b"\x1fnonsense", &mut room).unwrap_err();
        for _ in 0..3 {
            let e = decoder.push(&packed, &mut room).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{wrapper:?}");
            decoder.finish(&mut room).unwrap_err();
        }
    }
}

#[test]
fn checks_and_filters_that_xz_does_not_know_are_unsupported() {
    if !have(&["xz"]) {
        return;
    }
    let packed = pipe("xz -0 --check=crc32", b"hello");
    for check in [2, 3, 5, 15] {
        let mut changed = packed.clone();
        changed[7] = check;
        let crc = crc32fast::hash(&changed[6..8]).to_le_bytes();
        changed[8..12].copy_from_slice(&crc);
        let e = decode(Wrapper::Xz, &changed, ROOMY).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "check {check}");
    }
    // The block header: its first filter becomes one that does not exist.
    let mut changed = packed;
    changed[14] = 0x3f;
    let crc = crc32fast::hash(&changed[12..20]).to_le_bytes();
    changed[20..24].copy_from_slice(&crc);
    let e = decode(Wrapper::Xz, &changed, ROOMY).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e:?}");
}
