//! The header of a gzip member. Its name, comment and extra field may be of any length and are passed
//! over as they come; nothing is kept of them.

use super::super::io::{Gather, Io};
use super::super::not_this_format;
use crate::num::{to_u64, to_usize};
use crate::{Error, Result, Wrapper};

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
/// Must be zero: bit 5 once meant encryption.
const RESERVED: u8 = 0xe0;

#[derive(Debug)]
pub(super) struct Header {
    stage: Stage,
    flags: u8,
    crc: crc32fast::Hasher,
}

#[derive(Debug)]
enum Stage {
    Fixed(Gather<10>),
    ExtraLen(Gather<2>),
    /// So many bytes of the extra field are left.
    Extra(u64),
    Name,
    Comment,
    Crc(Gather<2>),
    End,
}

impl Header {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Fixed(Gather::new()),
            flags: 0,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// Takes input up to the end of the header; true when it is there.
    pub(super) fn feed(&mut self, io: &mut Io<'_>, members: u64) -> Result<bool> {
        while let Some(next) = self.stage(io, members)? {
            if matches!(next, Stage::End) {
                return Ok(true);
            }
            self.stage = next;
        }
        Ok(false)
    }

    /// Goes on within the present stage. Returns the one that follows; `None` is to wait for input.
    fn stage(&mut self, io: &mut Io<'_>, members: u64) -> Result<Option<Stage>> {
        let has = |flag| self.flags & flag != 0;
        let next = match &mut self.stage {
            Stage::Fixed(fixed) => {
                let full = fixed.fill(io, 10);
                let bytes = fixed.bytes();
                if !b"\x1f\x8b".starts_with(bytes.get(..2).unwrap_or(bytes)) {
                    return Err(not_this_format(Wrapper::Gzip, members));
                }
                if !full {
                    return Ok(None);
                }
                self.flags = flags_of(fixed.array())?;
                self.crc.update(fixed.bytes());
                Stage::ExtraLen(Gather::new())
            }
            Stage::ExtraLen(_) if !has(FEXTRA) => Stage::Name,
            Stage::ExtraLen(len) => {
                if !len.fill(io, 2) {
                    return Ok(None);
                }
                self.crc.update(len.bytes());
                Stage::Extra(u64::from(u16::from_le_bytes(len.array())))
            }
            Stage::Extra(left) => {
                let n = io.input().len().min(to_usize(*left));
                skip(io, &mut self.crc, n);
                *left = left.saturating_sub(to_u64(n));
                if *left > 0 {
                    return Ok(None);
                }
                Stage::Name
            }
            Stage::Name => {
                if has(FNAME) && !skip_text(io, &mut self.crc) {
                    return Ok(None);
                }
                Stage::Comment
            }
            Stage::Comment => {
                if has(FCOMMENT) && !skip_text(io, &mut self.crc) {
                    return Ok(None);
                }
                Stage::Crc(Gather::new())
            }
            Stage::Crc(_) if !has(FHCRC) => Stage::End,
            Stage::Crc(stored) => {
                if !stored.fill(io, 2) {
                    return Ok(None);
                }
                let found = self.crc.clone().finalize() & 0xffff;
                if found != u32::from(u16::from_le_bytes(stored.array())) {
                    return Err(Error::malformed(
                        "the header of the gz stream does not match its CRC",
                    ));
                }
                Stage::End
            }
            Stage::End => Stage::End,
        };
        Ok(Some(next))
    }
}

fn flags_of([_, _, method, flags, ..]: [u8; 10]) -> Result<u8> {
    if method != 8 {
        return Err(Error::malformed(format!(
            "the gz stream uses compression method {method}, there is only 8"
        )));
    }
    if flags & RESERVED != 0 {
        return Err(Error::malformed(format!(
            "the gz stream sets reserved flags ({flags:#04x})"
        )));
    }
    Ok(flags)
}

/// Takes `n` bytes of input.
fn skip(io: &mut Io<'_>, crc: &mut crc32fast::Hasher, n: usize) {
    let skipped = io.input().get(..n).unwrap_or_default();
    crc.update(skipped);
    io.consume(skipped.len());
}

/// Takes input through the next zero byte; true when it was there.
fn skip_text(io: &mut Io<'_>, crc: &mut crc32fast::Hasher) -> bool {
    let input = io.input();
    let end = input.iter().position(|&byte| byte == 0);
    skip(io, crc, end.map_or(input.len(), |at| at.saturating_add(1)));
    end.is_some()
}
