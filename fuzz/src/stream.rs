//! Compressed streams.

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
    match (&one, &other) {
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
