//! zstd (RFC 8878): frames one after another, skippable ones among them.
//!
//! Frame headers are read here before the library sees them, so that a window is refused with the
//! amount it takes, to the byte; the library itself only knows limits that are powers of two.

mod frame;

use ::zstd::zstd_safe::{
    DCtx, DParameter, ErrorCode, InBuffer, OutBuffer, ResetDirective, get_error_name,
};

use self::frame::{Frame, HEADER_MAX, Head};
use super::io::{Gather, Io};
use super::{Codec, StreamOptions, too_large};
use crate::num::to_u64;
use crate::{Error, Result};

/// Memory for the first frame of a stream that begins with `head`.
pub(super) fn memory_for(head: &[u8]) -> Option<u64> {
    match frame::parse(head, 0) {
        Ok(Head::Frame(frame)) => Some(frame.memory()),
        _ => None,
    }
}

pub(super) struct Zstd {
    memory: u64,
    state: State,
    /// Frames that were complete, skippable ones too.
    frames: u64,
    ctx: Option<DCtx<'static>>,
    /// Output may wait inside: the last call filled all room.
    filled: bool,
}

#[derive(Debug)]
enum State {
    Header(Gather<HEADER_MAX>),
    Body,
    /// So many bytes of a skippable frame are left.
    Skip(u64),
}

impl std::fmt::Debug for Zstd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zstd")
            .field("memory", &self.memory)
            .field("state", &self.state)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

fn bad(code: ErrorCode) -> Error {
    Error::malformed(format!(
        "the zst stream is damaged: {}",
        get_error_name(code)
    ))
}

impl Zstd {
    pub(super) fn new(options: StreamOptions) -> Self {
        Self {
            memory: options.memory,
            state: State::Header(Gather::new()),
            frames: 0,
            ctx: None,
            filled: false,
        }
    }

    /// Begins a frame whose header is `header`.
    fn begin(&mut self, frame: &Frame, header: &[u8], io: &mut Io<'_>) -> Result<()> {
        if frame.dictionary != 0 {
            return Err(Error::unsupported(format!(
                "the zst stream was made with dictionary {:#x}, which is not part of it",
                frame.dictionary
            )));
        }
        let needed = frame.memory();
        if needed > self.memory {
            let what = format!("a zst stream with a window of {} MiB", frame.window >> 20);
            return Err(too_large(&what, needed, self.memory));
        }
        let ctx = match &mut self.ctx {
            Some(ctx) => ctx,
            empty => {
                let ctx = DCtx::try_create().ok_or_else(|| too_large("a zst stream", needed, 0))?;
                empty.insert(ctx)
            }
        };
        ctx.reset(ResetDirective::SessionOnly).map_err(bad)?;
        // The exact check was above; this is the nearest that the library can double-check.
        let log = self.memory.next_power_of_two().ilog2().clamp(10, 31);
        ctx.set_parameter(DParameter::WindowLogMax(log))
            .map_err(bad)?;
        self.filled = false;
        let mut from = InBuffer::around(header);
        let (_, room) = io.split();
        let mut to = OutBuffer::around(room);
        ctx.decompress_stream(&mut to, &mut from).map_err(bad)?;
        let (taken, given) = (from.pos(), to.pos());
        io.produce(given);
        if taken != header.len() {
            return Err(Error::malformed("the zst stream has a bad frame header"));
        }
        Ok(())
    }

    /// Decodes until the frame ends (true) or input or room ran out.
    fn body(&mut self, io: &mut Io<'_>) -> Result<bool> {
        let Some(ctx) = &mut self.ctx else {
            return Err(Error::malformed("a zst frame has no header"));
        };
        // Calls that can't make headway count as an error in the library, if there are many.
        while io.has_room() && (self.filled || !io.input().is_empty()) {
            let (input, room) = io.split();
            let mut from = InBuffer::around(input);
            let len = room.len();
            let mut to = OutBuffer::around(room);
            let left = ctx.decompress_stream(&mut to, &mut from).map_err(bad)?;
            let (taken, given) = (from.pos(), to.pos());
            self.filled = given == len;
            io.consume(taken);
            io.produce(given);
            if left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Codec for Zstd {
    fn run(&mut self, io: &mut Io<'_>) -> Result<()> {
        loop {
            match &mut self.state {
                State::Header(header) => match frame::parse(header.bytes(), self.frames)? {
                    Head::Partial { want } => {
                        if !header.fill(io, want) {
                            return Ok(());
                        }
                    }
                    Head::Skippable { len } => self.state = State::Skip(u64::from(len)),
                    Head::Frame(frame) => {
                        let header = *header;
                        self.state = State::Body;
                        self.begin(&frame, header.bytes(), io)?;
                    }
                },
                State::Body => {
                    if !self.body(io)? {
                        return Ok(());
                    }
                    self.frames = self.frames.saturating_add(1);
                    self.state = State::Header(Gather::new());
                }
                State::Skip(0) => {
                    self.frames = self.frames.saturating_add(1);
                    self.state = State::Header(Gather::new());
                }
                State::Skip(left) => {
                    let n = io.input().len().min(crate::num::to_usize(*left));
                    if n == 0 {
                        return Ok(());
                    }
                    io.consume(n);
                    *left = left.saturating_sub(to_u64(n));
                }
            }
        }
    }

    fn complete(&self) -> bool {
        self.frames > 0 && matches!(&self.state, State::Header(header) if header.bytes().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::StreamDecoder;
    use super::*;

    /// Decodes a frame with this window; gives what the library holds and what we said it would.
    fn held_and_said(window_log: u32, content: bool) -> (u64, u64) {
        let data = vec![7; 1 << 20];
        let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        if content {
            let len = data.len().try_into().unwrap();
            encoder.set_pledged_src_size(Some(len)).unwrap();
        }
        std::io::Write::write_all(&mut encoder, &data).unwrap();
        let packed = encoder.finish().unwrap();
        let Head::Frame(frame) = frame::parse(&packed[..HEADER_MAX], 0).unwrap() else {
            panic!("a frame begins with its header");
        };
        let options = StreamOptions {
            memory: frame.memory(),
            threads: 1,
        };
        let mut guard = super::super::Guard {
            wrapper: crate::Wrapper::Zstd,
            codec: Zstd::new(options),
            failed: false,
        };
        // Byte by byte, so that nothing is decoded straight into our buffer.
        let mut room = vec![0; 100];
        let mut rest = &packed[..];
        let mut total = 0;
        while total < data.len() {
            let did = guard.push(&rest[..rest.len().min(1)], &mut room).unwrap();
            rest = &rest[did.consumed..];
            total += did.produced;
        }
        let held = guard.codec.ctx.unwrap().sizeof();
        (to_u64(held), frame.memory())
    }

    #[test]
    fn the_library_holds_no_more_than_was_said_and_not_much_less() {
        for window_log in [10, 17, 20, 23, 27] {
            for content in [false, true] {
                let (held, said) = held_and_said(window_log, content);
                println!("window 2^{window_log}, content {content}: {held} held, {said} said");
                assert!(held <= said && said - held < 64 << 10);
            }
        }
    }
}
