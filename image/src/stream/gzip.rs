//! gzip (RFC 1952): members one after another, each with its CRC and length, then zeros at most.

mod header;

use flate2::{Decompress, FlushDecompress, Status};

use self::header::Header;
use super::io::{Gather, Io};
use super::{Codec, StreamOptions, not_this_format, too_large};
use crate::num::to_usize;
use crate::{Error, Result, Wrapper};

/// More than inflate takes, in bytes: a window of 32 KiB and its tables.
const NEEDS: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Gzip {
    state: State,
    members: u64,
    inflate: Decompress,
    crc: crc32fast::Hasher,
    /// Bytes that this member gave.
    size: u64,
}

#[derive(Debug)]
enum State {
    Header(Header),
    Body,
    Trailer(Gather<8>),
    Between,
    Padding,
}

impl Gzip {
    pub(super) fn new(options: StreamOptions) -> Result<Self> {
        if options.memory < NEEDS {
            return Err(too_large("a gz stream", NEEDS, options.memory));
        }
        Ok(Self {
            state: State::Header(Header::new()),
            members: 0,
            inflate: Decompress::new(false),
            crc: crc32fast::Hasher::new(),
            size: 0,
        })
    }

    /// Inflates until the member ends (true) or input or room ran out.
    fn body(&mut self, io: &mut Io<'_>) -> Result<bool> {
        while io.has_room() {
            let (input, room) = io.split();
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, room, FlushDecompress::None)
                .map_err(|e| Error::malformed("the gz stream does not inflate").with_source(e))?;
            let taken = self.inflate.total_in().saturating_sub(before.0);
            let given = self.inflate.total_out().saturating_sub(before.1);
            io.consume(to_usize(taken));
            self.crc.update(io.produce(to_usize(given)));
            self.size = self.size.saturating_add(given);
            if status == Status::StreamEnd {
                return Ok(true);
            }
            if taken == 0 && given == 0 {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn check_trailer(&self, trailer: [u8; 8]) -> Result<()> {
        let [c0, c1, c2, c3, s0, s1, s2, s3] = trailer;
        let (stored, found) = (
            u32::from_le_bytes([c0, c1, c2, c3]),
            self.crc.clone().finalize(),
        );
        if stored != found {
            return Err(Error::malformed(format!(
                "the gz stream is damaged: its CRC is {found:08x}, {stored:08x} was expected"
            )));
        }
        let stored = u32::from_le_bytes([s0, s1, s2, s3]);
        if u64::from(stored) != self.size & u64::from(u32::MAX) {
            return Err(Error::malformed(format!(
                "the gz stream is damaged: it gave {} bytes, {stored} (modulo 2^32) were expected",
                self.size
            )));
        }
        Ok(())
    }
}

impl Codec for Gzip {
    fn run(&mut self, io: &mut Io<'_>) -> Result<()> {
        loop {
            match &mut self.state {
                State::Header(header) => {
                    if !header.feed(io, self.members)? {
                        return Ok(());
                    }
                    self.inflate.reset(false);
                    self.crc = crc32fast::Hasher::new();
                    self.size = 0;
                    self.state = State::Body;
                }
                State::Body => {
                    if !self.body(io)? {
                        return Ok(());
                    }
                    self.state = State::Trailer(Gather::new());
                }
                State::Trailer(trailer) => {
                    if !trailer.fill(io, 8) {
                        return Ok(());
                    }
                    let trailer = trailer.array();
                    self.check_trailer(trailer)?;
                    self.members = self.members.saturating_add(1);
                    self.state = State::Between;
                }
                State::Between => match io.input().first() {
                    None => return Ok(()),
                    Some(0) => self.state = State::Padding,
                    Some(_) => self.state = State::Header(Header::new()),
                },
                State::Padding => {
                    let input = io.input();
                    if input.iter().any(|&byte| byte != 0) {
                        return Err(not_this_format(Wrapper::Gzip, self.members));
                    }
                    io.consume(input.len());
                    return Ok(());
                }
            }
        }
    }

    fn complete(&self) -> bool {
        matches!(self.state, State::Between | State::Padding)
    }
}
