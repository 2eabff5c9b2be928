//! bzip2: streams one after another, each with blocks of at most 900 kB and a combined CRC.
//!
//! There are two ways to decode them. `Bzip2` is the library's, in order and in little memory. The
//! other is for several threads: [`Splitter`] cuts a stream into [`Part`]s, a [`BlockDecoder`] on any
//! thread decodes each, and [`join`] puts what they give into order and checks it. Both accept the same
//! streams and are compared by tests and by the fuzzer.

mod bits;
mod block;
mod huffman;
mod join;
mod random;
mod split;

pub use self::block::{Block, BlockDecoder, DECODER_BYTES};
pub use self::join::{Line, Outcome, Place, join};
pub use self::split::{MOST_PART, Part, Splitter};

use ::bzip2::{Decompress, Status};

use super::io::{Gather, Io};
use super::{Codec, StreamOptions, not_this_format, too_large};
use crate::num::to_usize;
use crate::{Error, Result, Wrapper};

/// What the library takes besides its block buffers, in bytes.
const CONTEXT: u64 = 128 << 10;

pub(super) struct Bzip2 {
    memory: u64,
    state: State,
    streams: u64,
}

enum State {
    Header(Gather<4>),
    Body(Decompress),
}

impl std::fmt::Debug for Bzip2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bzip2")
            .field("memory", &self.memory)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

impl Bzip2 {
    pub(super) fn new(options: StreamOptions) -> Self {
        Self {
            memory: options.memory,
            state: State::Header(Gather::new()),
            streams: 0,
        }
    }

    /// A decoder for blocks of `level` times 100 kB: the quick way takes four bytes for each byte of a
    /// block, the slow one two and a half.
    fn begin(&self, level: u8) -> Result<Decompress> {
        let block = u64::from(level).saturating_mul(100_000);
        let quick = block.saturating_mul(4).saturating_add(CONTEXT);
        let slow = block.saturating_mul(5).div_ceil(2).saturating_add(CONTEXT);
        if slow > self.memory {
            return Err(too_large("a bz2 stream", slow, self.memory));
        }
        Ok(Decompress::new(quick > self.memory))
    }
}

/// Decodes until the stream ends (true) or input or room ran out.
fn body(decompress: &mut Decompress, io: &mut Io<'_>) -> Result<bool> {
    while io.has_room() {
        let (input, room) = io.split();
        let before = (decompress.total_in(), decompress.total_out());
        let status = decompress
            .decompress(input, room)
            .map_err(|e| Error::malformed("the bz2 stream is damaged").with_source(e))?;
        let taken = decompress.total_in().saturating_sub(before.0);
        let given = decompress.total_out().saturating_sub(before.1);
        io.consume(to_usize(taken));
        io.produce(to_usize(given));
        match status {
            Status::StreamEnd => return Ok(true),
            Status::MemNeeded => return Err(too_large("a bz2 stream", 4_000_000, 0)),
            _ if taken == 0 && given == 0 => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

impl Codec for Bzip2 {
    fn run(&mut self, io: &mut Io<'_>) -> Result<()> {
        loop {
            match &mut self.state {
                State::Header(header) => {
                    let full = header.fill(io, 4);
                    let bytes = header.bytes();
                    let level = bytes.get(3).copied().unwrap_or(b'9');
                    if !b"BZh".starts_with(bytes.get(..3).unwrap_or(bytes))
                        || !(b'1'..=b'9').contains(&level)
                    {
                        return Err(not_this_format(Wrapper::Bzip2, self.streams));
                    }
                    if !full {
                        return Ok(());
                    }
                    let header = *header;
                    let mut decompress = self.begin(level.saturating_sub(b'0'))?;
                    // The header gives no output; whatever the library makes of it is checked below.
                    decompress
                        .decompress(header.bytes(), &mut [])
                        .map_err(|e| {
                            Error::malformed("the bz2 stream is damaged").with_source(e)
                        })?;
                    if decompress.total_in() != 4 {
                        return Err(Error::malformed("the bz2 stream has a bad header"));
                    }
                    self.state = State::Body(decompress);
                }
                State::Body(decompress) => {
                    if !body(decompress, io)? {
                        return Ok(());
                    }
                    self.streams = self.streams.saturating_add(1);
                    self.state = State::Header(Gather::new());
                }
            }
        }
    }

    fn complete(&self) -> bool {
        self.streams > 0
            && matches!(&self.state, State::Header(header) if header.bytes().is_empty())
    }
}
