//! However input and output are cut, the same comes out.

use longshore_image::Wrapper;
use longshore_image::stream::{self, StreamOptions};
use proptest::prelude::*;

use crate::support::{ROOMY, WRAPPERS, decode_in, have, noise, pipe, sample};

/// A stream of two members, and what is in it.
fn packed(wrapper: Wrapper, data: &[u8]) -> Vec<u8> {
    let command = match wrapper {
        Wrapper::Gzip => "gzip -n",
        Wrapper::Xz => "xz -1 -T2 --block-size=10000",
        Wrapper::Zstd => "zstd -q -3",
        _ => "bzip2 -1",
    };
    let (a, b) = data.split_at(data.len() / 3);
    [pipe(command, a), pipe(command, b)].concat()
}

#[test]
fn one_byte_at_a_time_gives_the_same() {
    if !have(&["gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let data = sample(60_000);
    for wrapper in WRAPPERS {
        let packed = packed(wrapper, &data);
        for threads in [1, 3] {
            let options = StreamOptions { threads, ..ROOMY };
            for sizes in [(1, 1), (1, 70_000), (100_000, 1), (100_000, 70_000)] {
                let out = decode_in(wrapper, &packed, options, || sizes).unwrap();
                assert!(out == data, "{wrapper:?} {sizes:?} {threads}");
            }
        }
    }
}

#[test]
fn any_chunks_give_the_same() {
    if !have(&["gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let mut data = sample(150_000);
    data.extend(noise(77, 30_000));
    let streams = WRAPPERS.map(|wrapper| (wrapper, packed(wrapper, &data)));
    let size = || prop_oneof![1..20usize, 1..5000usize, 1..200_000usize];
    let sizes = proptest::collection::vec((size(), size()), 1..8);
    let config = ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(sizes in sizes, threads in 1..4usize)| {
        // Only a few tiny pieces in a row, or this takes minutes.
        prop_assume!(sizes.iter().map(|s| s.0.min(s.1)).sum::<usize>() > 200);
        for (wrapper, packed) in &streams {
            let mut next = sizes.iter().copied().cycle();
            let options = StreamOptions { threads, ..ROOMY };
            let out = decode_in(*wrapper, packed, options, || next.next().unwrap()).unwrap();
            prop_assert!(out == data, "{wrapper:?}");
        }
    });
}

#[test]
fn pushing_nothing_does_nothing_however_often() {
    if !have(&["gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let data = sample(50_000);
    for wrapper in WRAPPERS {
        let packed = packed(wrapper, &data);
        let mut decoder = longshore_image::stream::decoder(wrapper, ROOMY).unwrap();
        let mut out = Vec::new();
        let mut room = vec![0; 100_000];
        for piece in packed.chunks(1000) {
            for _ in 0..40 {
                let did = decoder.push(&[], &mut room).unwrap();
                assert_eq!((did.consumed, did.produced), (0, 0), "{wrapper:?}");
                let did = decoder.push(piece, &mut []).unwrap();
                assert_eq!((did.consumed, did.produced), (0, 0), "{wrapper:?}");
            }
            let did = decoder.push(piece, &mut room).unwrap();
            assert_eq!(did.consumed, piece.len(), "{wrapper:?}: room is plenty");
            out.extend_from_slice(&room[..did.produced]);
        }
        assert_eq!(decoder.finish(&mut room).unwrap(), None, "{wrapper:?}");
        assert!(out == data, "{wrapper:?}");
    }
}

#[test]
fn the_beginning_of_a_stream_shows_what_is_in_it_or_nothing() {
    if !have(&["gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let mut data = noise(5, 4000);
    data.extend(sample(60_000));
    for wrapper in WRAPPERS {
        let packed = packed(wrapper, &data);
        let shown = |head: &[u8], memory| stream::beginning(wrapper, head, 512, memory);
        assert_eq!(
            shown(&packed, 64 << 20).as_deref(),
            data.get(..512),
            "{wrapper:?}"
        );
        assert_eq!(shown(&packed[..40], 64 << 20), None, "{wrapper:?}");
        let mut damaged = packed.clone();
        damaged[..200].fill(0x55);
        assert_eq!(shown(&damaged, 64 << 20), None, "{wrapper:?}");
    }
    let packed = packed(Wrapper::Xz, &data);
    assert_eq!(stream::beginning(Wrapper::Xz, &packed, 512, 1000), None);
}
