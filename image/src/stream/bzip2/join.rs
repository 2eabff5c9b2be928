//! From parts in their order back to one stream: each must begin where the one before ended, and the
//! CRCs of all blocks make that of their stream.
//!
//! A mark within a block's bits (by chance once in 2^48 bits, or by somebody's wish) cuts the block in
//! two. The first half then ends too early, which its decoder notices, and is joined with what follows.

use std::collections::VecDeque;
use std::sync::Arc;

use super::block::{Block, BlockDecoder};
use super::split::{BLOCK, END, MARK, MOST_PART, Part};
use crate::stream::not_this_format;
use crate::{Error, Result, Wrapper};

/// Bits of a stream's header.
const HEADER: u64 = 32;
/// Bits of a stream's end: its mark and its CRC.
const TRAILER: u64 = 80;
/// Bytes of a block for each level.
const PER_LEVEL: usize = 100_000;

/// What became of a part that was given to be decoded elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet: it is to be decoded here.
    Undone,
    /// It needs more bits than there are.
    Short,
    /// It begins with this block, whose bytes can be had.
    Block(Block),
}

/// A part, and who decodes it.
pub type Place<W> = (Arc<Part>, W);

/// Parts in their order, and a place for the bytes that come of them.
pub trait Line {
    /// Who decodes a part. Dropping it is to want nothing more of it.
    type Work;
    /// Why it can't go on.
    type Error: From<Error>;

    /// The next part; `None` at the end.
    fn next(&mut self) -> Result<Option<Place<Self::Work>>, Self::Error>;

    /// What became of the part, whose mark is that of a block.
    fn outcome(&mut self, work: &mut Self::Work) -> Result<Outcome, Self::Error>;

    /// Puts out all that is in the block of [`Outcome::Block`].
    fn put(&mut self, work: Self::Work) -> Result<(), Self::Error>;

    /// Puts out all that `decoder` has.
    fn put_own(&mut self, decoder: &mut BlockDecoder) -> Result<(), Self::Error>;
}

/// Joins what `line` has. It was complete and right if there is no error.
pub fn join<L: Line>(line: &mut L) -> Result<(), L::Error> {
    let mut joining = Joining {
        line,
        again: VecDeque::new(),
        decoder: BlockDecoder::default(),
        level: 0,
        combined: 0,
    };
    let first = joining.next()?.map(|(part, _)| part).unwrap_or_default();
    joining.level = level(&first, 0, 0)?;
    if first.len > HEADER {
        return Err(Error::malformed("the bz2 stream has a bad header").into());
    }
    loop {
        let (mut part, mut work) = joining.next()?.ok_or_else(cut)?;
        while part.len < u64::from(MARK) {
            work = None;
            joining.lengthen(&mut part)?;
        }
        let done = match part.mark() {
            BLOCK => joining.block(&part, work)?,
            END => joining.end(part)?,
            _ => {
                return Err(
                    damaged("neither a block nor an end where one should be", &part).into(),
                );
            }
        };
        if done {
            return Ok(());
        }
    }
}

/// A part, and who decodes it unless that is us.
type Next<L> = Option<Place<Option<<L as Line>::Work>>>;

struct Joining<'a, L: Line> {
    line: &'a mut L,
    /// Parts that were joined to one that did not need them.
    again: VecDeque<Arc<Part>>,
    decoder: BlockDecoder,
    /// Of the present stream.
    level: usize,
    combined: u32,
}

impl<L: Line> Joining<'_, L> {
    fn next(&mut self) -> Result<Next<L>, L::Error> {
        if let Some(part) = self.again.pop_front() {
            return Ok(Some((part, None)));
        }
        let next = self.line.next()?;
        Ok(next.map(|(part, work)| (part, Some(work))))
    }

    /// Joins the next part to `part`; `None` if there is none, or it would be too long.
    fn more(&mut self, part: &mut Arc<Part>) -> Result<Option<Arc<Part>>, L::Error> {
        let Some((next, work)) = self.next()? else {
            return Ok(None);
        };
        drop(work);
        if part.size().saturating_add(next.size()) > MOST_PART {
            self.again.push_front(next);
            return Ok(None);
        }
        Arc::make_mut(part).join(&next);
        Ok(Some(next))
    }

    /// The same where there must be one.
    fn lengthen(&mut self, part: &mut Arc<Part>) -> Result<Arc<Part>, L::Error> {
        match self.more(part)? {
            Some(next) => Ok(next),
            None if self.again.is_empty() => Err(cut().into()),
            None => Err(damaged("a block does not end", part).into()),
        }
    }

    /// A block, which never is the last of anything.
    fn block(&mut self, part: &Arc<Part>, work: Option<L::Work>) -> Result<bool, L::Error> {
        if let Some(mut work) = work {
            match self.line.outcome(&mut work)? {
                Outcome::Block(block) => {
                    if block.end != part.end() {
                        return Err(damaged("something else follows a block", part).into());
                    }
                    self.check(&block, part)?;
                    self.line.put(work)?;
                    return Ok(false);
                }
                Outcome::Undone => drop(work),
                Outcome::Short => {
                    drop(work);
                    return self.longer(part);
                }
            }
        }
        match self.decoder.decode(part)? {
            Some(block) if block.end == part.end() => {
                self.check(&block, part)?;
                self.line.put_own(&mut self.decoder)?;
                Ok(false)
            }
            Some(_) => Err(damaged("something else follows a block", part).into()),
            None => self.longer(part),
        }
    }

    /// The block does not end within its part. Twice as many parts with each attempt, so that marks
    /// without number cost no more than a few attempts.
    fn longer(&mut self, part: &Arc<Part>) -> Result<bool, L::Error> {
        let mut whole = Arc::clone(part);
        let mut joined = Vec::new();
        let block = loop {
            joined.push(self.lengthen(&mut whole)?);
            for _ in 1..joined.len() {
                match self.more(&mut whole)? {
                    Some(part) => joined.push(part),
                    None => break,
                }
            }
            if let Some(block) = self.decoder.decode(&whole)? {
                break block;
            }
        };
        while joined.last().is_some_and(|last| last.from >= block.end) {
            self.again.extend(joined.pop());
            self.again.rotate_right(1);
        }
        let end = self
            .again
            .front()
            .map_or_else(|| whole.end(), |next| next.from);
        if block.end != end {
            return Err(damaged("something else follows a block", part).into());
        }
        self.check(&block, part)?;
        self.line.put_own(&mut self.decoder)?;
        Ok(false)
    }

    /// Counts a block in.
    fn check(&mut self, block: &Block, part: &Part) -> Result<()> {
        if block.len > self.level.saturating_mul(PER_LEVEL) {
            return Err(damaged("a block is larger than its stream allows", part));
        }
        self.combined = self.combined.rotate_left(1) ^ block.crc;
        Ok(())
    }

    /// The end of a stream: true if it is that of the file, false if another one begins.
    fn end(&mut self, mut part: Arc<Part>) -> Result<bool, L::Error> {
        while part.len < TRAILER {
            self.lengthen(&mut part)?;
        }
        let mut bits = part.bits();
        bits.take(16);
        bits.take(32);
        let stored = bits.take(32);
        if stored != u64::from(self.combined) {
            let text = format!(
                "the CRC of the stream is {:08x}, {stored:08x} was expected",
                self.combined
            );
            return Err(damaged(&text, &part).into());
        }
        // What is left of the byte means nothing.
        let behind = part.from.saturating_add(TRAILER).next_multiple_of(8);
        let next = behind.saturating_sub(part.from);
        if part.len <= next {
            return match self.next()? {
                None => Ok(true),
                Some((next, _)) => {
                    Err(damaged("a block follows the end of a stream", &next).into())
                }
            };
        }
        while part.len < next.saturating_add(HEADER) {
            match self.next()? {
                Some((more, _)) => Arc::make_mut(&mut part).join(&more),
                None => break,
            }
        }
        self.level = level(&part, next, 1)?;
        self.combined = 0;
        if part.len != next.saturating_add(HEADER) {
            return Err(damaged("a stream does not begin with a block", &part).into());
        }
        Ok(false)
    }
}

/// The level of the stream whose header is `at` bits into `part`, after so many streams.
fn level(part: &Part, at: u64, streams: u64) -> Result<usize> {
    let mut bits = part.bits();
    let mut left = at;
    while left > 0 {
        let n = left.min(32);
        bits.take(u32::try_from(n).unwrap_or(32));
        left = left.saturating_sub(n);
    }
    let there = part.len.saturating_sub(at) / 8;
    let mut level = 9u64;
    for (n, expected) in (0u64..).zip(b"BZh9") {
        if n >= there {
            return Err(cut());
        }
        let byte = bits.take(8);
        if n == 3 {
            level = byte.wrapping_sub(u64::from(b'0'));
        } else if byte != u64::from(*expected) {
            return Err(not_this_format(Wrapper::Bzip2, streams));
        }
    }
    if !(1..=9).contains(&level) {
        return Err(not_this_format(Wrapper::Bzip2, streams));
    }
    Ok(crate::num::to_usize(level))
}

fn cut() -> Error {
    Error::malformed("the bz2 stream is cut: it ends before its end mark")
}

fn damaged(what: &str, part: &Part) -> Error {
    Error::malformed(format!("the bz2 stream is damaged: {what}")).at(part.from / 8)
}
