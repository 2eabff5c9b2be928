//! Compressed streams.

use std::collections::VecDeque;
use std::sync::Arc;

use longshore_image::stream::bzip2::{BlockDecoder, Line, Outcome, Part, Place, Splitter, join};
use longshore_image::stream::{StreamOptions, decoder, memory_for};
use longshore_image::{Error, ErrorKind, Probe, Wrapper, probe};

use super::dice::Dice;

/// Bytes of output that are looked at.
const MOST: usize = 256 << 10;

/// How a decoder ended.
#[derive(Debug)]
enum End {
    Whole,
    Enough,
    Failed(Error),
}

/// Each codec, chunked in two ways: both end the same way and with the same bytes.
pub fn stream(data: &[u8]) {
    let mut dice = Dice::new(data);
    let Probe::Wrapper(wrapper) = probe(data) else {
        return;
    };
    let options = StreamOptions {
        memory: [60 << 10, 1 << 20, 4 << 20, 20 << 20][dice.roll(4)],
        // Threads take long to start: now and then is enough.
        threads: if dice.roll(8) == 0 { 3 } else { 1 },
    };
    // What the head says is what the refusal of the first part says, or the first part was not refused.
    let head = memory_for(wrapper, data);
    let (first, one) = decode(wrapper, data, options, &mut dice);
    let (second, other) = decode(wrapper, data, options, &mut dice);
    if let (Some(head), End::Failed(e), true) = (head, &one, first.is_empty())
        && let Some(needed) = e.needed()
    {
        assert!(needed >= head || head <= options.memory, "{needed}, {head}");
    }
    if wrapper == Wrapper::Bzip2 {
        // The library refuses by memory what parts have room for.
        if !matches!(&one, End::Failed(e) if e.kind() == ErrorKind::LimitExceeded) {
            let (third, parts) = by_parts(data, &mut dice);
            same((&first[..], &one), (&third[..], &parts));
        }
    }
    same((&first[..], &one), (&second[..], &other));
}

/// Both ended the same way with the same bytes.
fn same((first, one): (&[u8], &End), (second, other): (&[u8], &End)) {
    match (one, other) {
        (End::Whole, End::Whole) => assert!(first == second, "outputs differ"),
        // Chunks decide how far beyond the limit each looks; what both saw is the same.
        (End::Enough, _) | (_, End::Enough) => {
            let both = first.len().min(second.len());
            assert!(first[..both] == second[..both], "outputs differ");
        }
        (End::Failed(one), End::Failed(other)) => {
            let refused = [one, other].map(|e| e.kind() == ErrorKind::LimitExceeded);
            assert!(refused[0] == refused[1], "{one:?}, {other:?}");
        }
        _ => panic!("chunks decide: {one:?}, {other:?}"),
    }
}

/// A bzip2 stream as several threads decode it, on one.
struct Parts {
    left: VecDeque<Part>,
    out: Vec<u8>,
    step: usize,
    undone: u64,
    count: u64,
}

impl Parts {
    fn drain(&mut self, decoder: &mut BlockDecoder) -> Result<(), End> {
        let mut room = vec![0; self.step];
        loop {
            let n = decoder.read(&mut room)?;
            self.out.extend_from_slice(&room[..n]);
            if self.out.len() > MOST {
                return Err(End::Enough);
            }
            if n < room.len() {
                return Ok(());
            }
        }
    }
}

impl From<Error> for End {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

impl Line for Parts {
    type Work = (Arc<Part>, Box<BlockDecoder>);
    type Error = End;

    fn next(&mut self) -> Result<Option<Place<Self::Work>>, End> {
        let part = self.left.pop_front().map(Arc::new);
        Ok(part.map(|part| (Arc::clone(&part), (part, Box::default()))))
    }

    fn outcome(&mut self, (part, decoder): &mut Self::Work) -> Result<Outcome, End> {
        self.count += 1;
        if self.undone & 1 << (self.count % 64) != 0 {
            return Ok(Outcome::Undone);
        }
        Ok(decoder.decode(part)?.map_or(Outcome::Short, Outcome::Block))
    }

    fn put(&mut self, (_, mut decoder): Self::Work) -> Result<(), End> {
        self.drain(&mut decoder)
    }

    fn put_own(&mut self, decoder: &mut BlockDecoder) -> Result<(), End> {
        self.drain(decoder)
    }
}

fn by_parts(data: &[u8], dice: &mut Dice) -> (Vec<u8>, End) {
    let mut parts = Parts {
        left: VecDeque::new(),
        out: Vec::new(),
        step: dice.len().max(64),
        undone: dice.roll(1 << 20) as u64,
        count: 0,
    };
    let mut splitter = Splitter::default();
    let mut rest = data;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(dice.len().clamp(1, rest.len()));
        let cut = splitter.push(now, |part| {
            parts.left.push_back(part);
            Ok::<_, Error>(())
        });
        if let Err(e) = cut {
            return (Vec::new(), End::Failed(e));
        }
        rest = later;
    }
    parts.left.push_back(splitter.finish());
    let end = match join(&mut parts) {
        Ok(()) => End::Whole,
        Err(end) => end,
    };
    (parts.out, end)
}

fn decode(
    wrapper: Wrapper,
    data: &[u8],
    options: StreamOptions,
    dice: &mut Dice,
) -> (Vec<u8>, End) {
    let mut out = Vec::new();
    let end = run(wrapper, data, options, dice, &mut out).unwrap_or_else(End::Failed);
    (out, end)
}

fn run(
    wrapper: Wrapper,
    data: &[u8],
    options: StreamOptions,
    dice: &mut Dice,
    out: &mut Vec<u8>,
) -> Result<End, Error> {
    let mut decoder = decoder(wrapper, options)?;
    let mut room = vec![0; dice.len().max(dice.len())];
    let mut rest = data;
    loop {
        let input = &rest[..dice.len().min(rest.len())];
        let len = 1 + dice.roll(room.len());
        let did = decoder.push(input, &mut room[..len])?;
        assert!(did.consumed <= input.len() && did.produced <= len);
        assert!(
            input.is_empty() || did.consumed > 0 || did.produced > 0,
            "no headway"
        );
        out.extend_from_slice(&room[..did.produced]);
        rest = &rest[did.consumed..];
        if out.len() > MOST {
            return Ok(End::Enough);
        }
        if rest.is_empty() && did.produced < len {
            break;
        }
    }
    while let Some(n) = decoder.finish(&mut room)? {
        assert!(n > 0, "no headway at the end");
        out.extend_from_slice(&room[..n]);
        if out.len() > MOST {
            return Ok(End::Enough);
        }
    }
    Ok(End::Whole)
}
