//! bzip2 by parts: the same bytes as by the library, and as by `bzip2 -d`, whoever decodes which part.

use std::collections::VecDeque;
use std::sync::Arc;

use longshore_image::stream::bzip2::{BlockDecoder, Line, Outcome, Part, Splitter, join};
use longshore_image::{Error, ErrorKind, Result, Wrapper};
use proptest::prelude::*;

use crate::support::{ROOMY, decode, have, noise, pipe, sample};

/// All parts are there; every `undone`-th is left to be decoded by whoever joins them.
struct Parts {
    left: VecDeque<Part>,
    undone: usize,
    count: usize,
    out: Vec<u8>,
    step: usize,
}

impl Parts {
    fn of(packed: &[u8], chunk: usize) -> Result<VecDeque<Part>> {
        let mut parts = VecDeque::new();
        let mut splitter = Splitter::default();
        for chunk in packed.chunks(chunk) {
            splitter.push(chunk, |part| {
                parts.push_back(part);
                Ok::<_, Error>(())
            })?;
        }
        parts.push_back(splitter.finish());
        Ok(parts)
    }

    fn drain(&mut self, decoder: &mut BlockDecoder) -> Result<()> {
        let mut room = vec![0; self.step];
        loop {
            let n = decoder.read(&mut room)?;
            self.out.extend_from_slice(&room[..n]);
            if n < room.len() {
                return Ok(());
            }
        }
    }
}

impl Line for Parts {
    type Work = (Arc<Part>, BlockDecoder);
    type Error = Error;

    fn next(&mut self) -> Result<Option<(Arc<Part>, Self::Work)>> {
        let part = self.left.pop_front().map(Arc::new);
        Ok(part.map(|part| (Arc::clone(&part), (part, BlockDecoder::default()))))
    }

    fn outcome(&mut self, (part, decoder): &mut Self::Work) -> Result<Outcome> {
        self.count += 1;
        if self.undone > 0 && self.count.is_multiple_of(self.undone) {
            return Ok(Outcome::Undone);
        }
        Ok(decoder.decode(part)?.map_or(Outcome::Short, Outcome::Block))
    }

    fn put(&mut self, (_, mut decoder): Self::Work) -> Result<()> {
        self.drain(&mut decoder)
    }

    fn put_own(&mut self, decoder: &mut BlockDecoder) -> Result<()> {
        self.drain(decoder)
    }
}

fn by_parts(packed: &[u8], chunk: usize, undone: usize, step: usize) -> Result<Vec<u8>> {
    let mut line = Parts {
        left: Parts::of(packed, chunk)?,
        undone,
        count: 0,
        out: Vec::new(),
        step,
    };
    join(&mut line)?;
    Ok(line.out)
}

/// Bytes of every kind that a block treats in a way of its own.
fn kinds() -> Vec<Vec<u8>> {
    let mut runs = Vec::new();
    for n in 1..600 {
        runs.resize(runs.len() + n, u8::try_from(n % 251).unwrap());
    }
    vec![
        Vec::new(),
        b"x".to_vec(),
        b"aaaa".to_vec(),
        b"aaaaa".to_vec(),
        vec![0; 3 << 20],
        runs,
        sample(1 << 20),
        noise(9, 200_000),
        (0..=255).cycle().take(1 << 20).collect(),
        [b"ab".repeat(300_000), vec![7; 300], noise(1, 99)].concat(),
    ]
}

#[test]
fn what_bzip2_and_pbzip2_write_is_read() {
    for command in ["bzip2 -1", "bzip2 -9", "pbzip2 -c -p2 -b1"] {
        if !have(&[command.split(' ').next().unwrap()]) {
            continue;
        }
        for input in kinds() {
            let packed = pipe(command, &input);
            for undone in [0, 1] {
                let out = by_parts(&packed, 100_000, undone, 77_777)
                    .unwrap_or_else(|e| panic!("{command}, {} bytes: {e:?}", input.len()));
                assert!(out == input, "{command}, {} bytes, {undone}", input.len());
            }
        }
    }
}

#[test]
fn streams_one_after_another_are_one_by_parts_too() {
    if !have(&["bzip2"]) {
        return;
    }
    let (a, b) = (sample(300_000), noise(5, 10_000));
    let both = [&a[..], &b].concat();
    for (one, other) in [("bzip2 -1", "bzip2 -9"), ("bzip2 -9", "bzip2 -1")] {
        let packed = [
            pipe(one, &a),
            pipe(other, b""),
            pipe(one, b""),
            pipe(other, &b),
        ]
        .concat();
        assert!(by_parts(&packed, 1000, 0, 1000).unwrap() == both);
        for garbage in [
            &b"and a half"[..],
            b"\0",
            b"BZh",
            b"BZh9",
            b"BZh91AY&SY",
            b"BX",
        ] {
            let e = by_parts(&[&packed, garbage].concat(), 1000, 0, 1000).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{garbage:?}");
        }
    }
}

#[test]
fn a_block_beyond_the_level_of_its_stream_is_malformed() {
    if !have(&["bzip2"]) {
        return;
    }
    let mut packed = pipe("bzip2 -2", &noise(3, 190_000));
    assert!(decode(Wrapper::Bzip2, &packed, ROOMY).is_ok());
    packed[3] = b'1';
    for result in [
        by_parts(&packed, 1000, 0, 1000),
        decode(Wrapper::Bzip2, &packed, ROOMY),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Malformed);
    }
}

#[test]
fn a_cut_anywhere_and_a_changed_byte_end_as_with_the_library() {
    if !have(&["bzip2"]) {
        return;
    }
    let data = sample(1500);
    let packed = [pipe("bzip2 -1", &data[..700]), pipe("bzip2", &data[700..])].concat();
    for len in (0..packed.len()).step_by(3) {
        let cut = &packed[..len];
        let one = by_parts(cut, 64, len % 3, 100).map_err(|e| e.kind());
        let other = decode(Wrapper::Bzip2, cut, ROOMY).map_err(|e| e.kind());
        assert_eq!(one, other, "cut at {len}");
    }
    for at in 0..packed.len() {
        for change in [1, 0x10] {
            let mut damaged = packed.clone();
            damaged[at] ^= change;
            let one = by_parts(&damaged, 64, at % 3, 100).map_err(|e| e.kind());
            let other = decode(Wrapper::Bzip2, &damaged, ROOMY).map_err(|e| e.kind());
            assert_eq!(one, other, "byte {at} ^ {change:#x}");
        }
    }
}

/// Appends the lowest `n` bits of `value`.
fn put_bits(bits: &mut Vec<bool>, value: u64, n: u32) {
    bits.extend((0..n).rev().map(|at| value >> at & 1 == 1));
}

fn to_bytes(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8)
        .map(|byte| {
            (0..8).fold(0, |all, at| {
                all << 1 | u8::from(byte.get(at) == Some(&true))
            })
        })
        .collect()
}

/// The CRC of bzip2.
fn crc(data: &[u8]) -> u32 {
    let turned: Vec<u8> = data.iter().map(|byte| byte.reverse_bits()).collect();
    crc32fast::hash(&turned).reverse_bits()
}

/// A stream with one block whose bits hold so many marks: almost every symbol has a code of eight bits,
/// which is its number, so that any bytes can be written.
fn with_marks_inside(marks: usize, random: bool) -> Vec<u8> {
    let mut bits = Vec::new();
    for byte in b"BZh9" {
        put_bits(&mut bits, u64::from(*byte), 8);
    }
    put_bits(&mut bits, 0x3141_5926_5359, 48);
    let crc_at = bits.len();
    put_bits(&mut bits, 0, 32);
    put_bits(&mut bits, u64::from(random), 1);
    put_bits(&mut bits, 3, 24);
    put_bits(&mut bits, 0xffff, 16);
    for row in 0..16 {
        put_bits(&mut bits, if row == 15 { 0xfffe } else { 0xffff }, 16);
    }
    put_bits(&mut bits, 2, 3);
    let symbols = marks * 20 + 1000;
    let groups = symbols.div_ceil(50) + 1;
    put_bits(&mut bits, groups as u64, 15);
    for _ in 0..groups {
        put_bits(&mut bits, 0, 1);
    }
    for _ in 0..2 {
        // 8 for the first 255 symbols, 9 for the last two.
        put_bits(&mut bits, 8, 5);
        for symbol in 0..257 {
            if symbol == 255 {
                put_bits(&mut bits, 0b10, 2);
            }
            put_bits(&mut bits, 0, 1);
        }
    }
    let mut written = 0;
    let byte = |bits: &mut Vec<bool>, value: u8, written: &mut usize| {
        assert!(value != 255);
        put_bits(bits, u64::from(value), 8);
        *written += 1;
    };
    for n in 0..1000usize {
        byte(
            &mut bits,
            u8::try_from(2 + n * 7 % 250).unwrap(),
            &mut written,
        );
    }
    for n in 0..marks {
        let mark = if n % 3 == 2 {
            0x1772_4538_5090u64
        } else {
            0x3141_5926_5359
        };
        for value in &mark.to_be_bytes()[2..] {
            byte(&mut bits, *value, &mut written);
        }
        for at in 0..14 {
            byte(
                &mut bits,
                u8::try_from(3 + (n + at) % 200).unwrap(),
                &mut written,
            );
        }
    }
    assert_eq!(written, symbols);
    // The end of the block is the last symbol, all ones.
    put_bits(&mut bits, 0x1ff, 9);
    put_bits(&mut bits, 0x1772_4538_5090, 48);
    put_bits(&mut bits, 0, 32);
    let content = without_crc(&to_bytes(&bits));
    let mut right = Vec::new();
    put_bits(&mut right, u64::from(crc(&content)), 32);
    bits.splice(crc_at..crc_at + 32, right.iter().copied());
    let end = bits.len() - 32;
    bits.splice(end.., right);
    to_bytes(&bits)
}

/// What is in the one block of a stream, whatever its CRC. The library is asked later, with the CRC of
/// these bytes.
fn without_crc(packed: &[u8]) -> Vec<u8> {
    let mut parts = Parts::of(packed, packed.len()).unwrap();
    let mut whole = parts.remove(1).unwrap();
    let mut decoder = BlockDecoder::default();
    for part in parts.range(1..parts.len() - 1) {
        whole.join(part);
    }
    decoder.decode(&whole).unwrap().unwrap();
    let mut out = Vec::new();
    let mut room = [0];
    // The error comes when all bytes are out.
    while let Ok(n) = decoder.read(&mut room) {
        assert_eq!(n, 1, "the CRC is wrong");
        out.extend_from_slice(&room);
    }
    out
}

#[test]
fn marks_inside_a_block_are_no_borders() {
    for marks in [0, 1, 2, 3, 7, 100, 5000] {
        let one = with_marks_inside(marks, false);
        let expected = decode(Wrapper::Bzip2, &one, ROOMY).unwrap();
        assert!(expected.len() >= 1000);
        let parts = Parts::of(&one, 1000).unwrap().len();
        assert_eq!(parts, 3 + marks, "all of them are cut at");
        let packed = [&one[..], &one].concat();
        let both = [&expected[..], &expected].concat();
        for undone in [0, 1, 2] {
            let out = by_parts(&packed, 777, undone, 5000).unwrap();
            assert!(out == both, "{marks} marks, {undone}");
        }
        if have(&["bzip2"]) {
            assert!(pipe("bzip2 -dc", &packed) == both, "bzip2 agrees");
        }
        for cut in 0..one.len().min(2000) {
            let e = by_parts(&one[..one.len() - 1 - cut], 777, 0, 5000).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed);
            if marks > 100 {
                break;
            }
        }
    }
}

#[test]
fn randomised_blocks_are_read_as_the_library_reads_them() {
    for marks in [0, 3, 4000] {
        let packed = with_marks_inside(marks, true);
        let expected = decode(Wrapper::Bzip2, &packed, ROOMY).unwrap();
        assert!(
            expected != decode(Wrapper::Bzip2, &with_marks_inside(marks, false), ROOMY).unwrap()
        );
        assert!(by_parts(&packed, 777, 0, 5000).unwrap() == expected);
    }
}

#[test]
fn any_chunks_and_any_damage_end_as_with_the_library() {
    if !have(&["bzip2"]) {
        return;
    }
    let mut data = sample(150_000);
    data.extend(noise(77, 30_000));
    let packed = [pipe("bzip2 -1", &data), pipe("bzip2 -2", &data[..70_000])].concat();
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let damage = proptest::option::of((0..packed.len(), 1..=255u8));
    let strategy = (1..200_000usize, 0..4usize, 1..200_000usize, damage);
    proptest!(config, |((chunk, undone, step, damage) in strategy)| {
        let mut packed = packed.clone();
        if let Some((at, change)) = damage {
            packed[at] ^= change;
        }
        let one = by_parts(&packed, chunk, undone, step.max(100)).map_err(|e| e.kind());
        let other = decode(Wrapper::Bzip2, &packed, ROOMY).map_err(|e| e.kind());
        prop_assert!(one == other, "{:?}", damage);
    });
}
