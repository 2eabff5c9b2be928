//! xz: streams one after another with padding between them, each of blocks, in parallel over blocks
//! that say how long they are.
//!
//! liblzma counts its own memory: what several threads would take beyond the budget makes it use fewer
//! of them, and the dictionary of a single thread beyond the budget is refused.

mod needs;

use liblzma::stream::{Action, Error as LzmaError, MtStreamBuilder, Status, Stream};

use self::needs::Tail;
use super::io::{Gather, Io};
use super::{Codec, StreamOptions, not_this_format, too_large};
use crate::num::to_usize;
use crate::{Error, Result, Wrapper};

const MAGIC: [u8; 6] = *b"\xfd7zXZ\0";
/// Length of a stream header, in bytes.
const HEADER: usize = 12;
/// More threads than this help nobody, and each has a stack.
const MAX_THREADS: usize = 64;

/// Memory for the first block of a stream that begins with `head`.
pub(super) fn memory_for(head: &[u8]) -> Option<u64> {
    let block = head.get(HEADER..)?;
    let words = usize::from(*block.first()?).checked_add(1)?;
    needs::memory_for(block.get(..words.checked_mul(4)?)?)
}

pub(super) struct Xz {
    options: StreamOptions,
    state: State,
    streams: u64,
}

enum State {
    /// So many zeros passed since the last stream.
    Padding(u64),
    Header(Gather<HEADER>),
    Body(Stream, Tail),
}

impl std::fmt::Debug for Xz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Xz")
            .field("options", &self.options)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

fn bad(error: LzmaError) -> Error {
    match error {
        LzmaError::Options => {
            Error::unsupported("the xz stream uses filters or options that are not known here")
        }
        _ => Error::malformed("the xz stream is damaged").with_source(error),
    }
}

impl Xz {
    pub(super) fn new(options: StreamOptions) -> Self {
        Self {
            options,
            state: State::Header(Gather::new()),
            streams: 0,
        }
    }

    /// A decoder for the stream with this header, which it has seen.
    fn begin(&self, header: [u8; HEADER]) -> Result<Stream> {
        // liblzma passes over checks that it does not know: CRC32, CRC64 and SHA-256 are all there are.
        let [.., check, _, _, _, _] = header;
        if !matches!(check, 0 | 1 | 4 | 10) {
            return Err(Error::unsupported(format!(
                "the xz stream has integrity checks of kind {check}, which can't be verified"
            )));
        }
        let memory = self.options.memory;
        let threads = self.options.threads.clamp(1, MAX_THREADS);
        let mut stream = match u32::try_from(threads) {
            Ok(threads) if threads > 1 => MtStreamBuilder::new()
                .threads(threads)
                .memlimit_threading(memory)
                .memlimit_stop(memory)
                .decoder(),
            _ => Stream::new_stream_decoder(memory, 0),
        }
        .map_err(bad)?;
        stream.process(&header, &mut [], Action::Run).map_err(bad)?;
        if stream.total_in() != 12 {
            return Err(Error::malformed("the xz stream has a bad header"));
        }
        Ok(stream)
    }

    /// Decodes until the stream ends (true) or input or room ran out.
    fn body(&mut self, io: &mut Io<'_>, action: Action) -> Result<bool> {
        let State::Body(stream, tail) = &mut self.state else {
            return Ok(false);
        };
        let mut idle = false;
        while io.has_room() {
            let (input, room) = io.split();
            let before = (stream.total_in(), stream.total_out());
            let result = stream.process(input, room, action);
            let taken = to_usize(stream.total_in().saturating_sub(before.0));
            let given = to_usize(stream.total_out().saturating_sub(before.1));
            tail.keep(input.get(..taken).unwrap_or(input));
            io.consume(taken);
            io.produce(given);
            match result {
                Ok(Status::StreamEnd) => return Ok(true),
                Ok(Status::MemNeeded) => return Ok(false),
                // Called without input, liblzma waits for the threads inside until they have used up
                // all they were given, and only one of them has anything to do then. So it is called
                // without input only to empty it after output had no room, which does not wait.
                Ok(_) if io.input().is_empty() && matches!(action, Action::Run) => {
                    return Ok(false);
                }
                // The first call without headway says nothing yet; the second one does.
                Ok(_) if taken == 0 && given == 0 => {
                    if idle {
                        return Ok(false);
                    }
                    idle = true;
                }
                Ok(_) => idle = false,
                Err(LzmaError::MemLimit) => {
                    let needed = tail.memory().unwrap_or(u64::MAX);
                    return Err(too_large(
                        "an xz stream with such a dictionary",
                        needed,
                        self.options.memory,
                    ));
                }
                Err(e) => return Err(bad(e)),
            }
        }
        Ok(false)
    }

    fn advance(&mut self, io: &mut Io<'_>, action: Action) -> Result<()> {
        loop {
            match &mut self.state {
                State::Padding(zeros) => match io.input().first() {
                    None => return Ok(()),
                    Some(0) => {
                        io.consume(1);
                        *zeros = zeros.wrapping_add(1);
                    }
                    Some(_) if *zeros % 4 == 0 => self.state = State::Header(Gather::new()),
                    Some(_) => return Err(not_this_format(Wrapper::Xz, self.streams)),
                },
                State::Header(header) => {
                    let full = header.fill(io, HEADER);
                    let bytes = header.bytes();
                    if !MAGIC.starts_with(bytes.get(..6).unwrap_or(bytes)) {
                        return Err(not_this_format(Wrapper::Xz, self.streams));
                    }
                    if !full {
                        return Ok(());
                    }
                    let header = header.array();
                    self.state = State::Body(self.begin(header)?, Tail::default());
                }
                State::Body(..) => {
                    if !self.body(io, action)? {
                        return Ok(());
                    }
                    self.streams = self.streams.saturating_add(1);
                    self.state = State::Padding(0);
                }
            }
        }
    }
}

impl Codec for Xz {
    fn run(&mut self, io: &mut Io<'_>) -> Result<()> {
        self.advance(io, Action::Run)
    }

    fn drain(&mut self, io: &mut Io<'_>) -> Result<()> {
        self.advance(io, Action::Finish)
    }

    fn complete(&self) -> bool {
        matches!(self.state, State::Padding(zeros) if zeros % 4 == 0)
    }
}
