//! What servers say once the greeting is over, made sense of: simple replies, and structured ones in
//! chunks (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>, "Transmission").
//!
//! Knows of no sockets. A server may be wrong or hostile: what it announces is compared with what was
//! asked for before anything is read, and nothing is allocated from its numbers. This file depends on
//! nothing else, so that the fuzz target takes it as it is.

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;

pub(crate) const REQUEST: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
const CHUNK: u32 = 0x668e_33ef;

pub(crate) const READ: u16 = 0;
pub(crate) const DISCONNECT: u16 = 2;
pub(crate) const BLOCK_STATUS: u16 = 7;

const DONE: u16 = 1;
const IS_ERROR: u16 = 1 << 15;

/// Extents of one answer that are kept; what comes after them is asked for again.
const MOST_EXTENTS: usize = 16 << 10;
/// The largest payload that is listened to: a million extents.
const MOST_STATUS: u32 = (8 << 20) + 4;
/// Text that comes with an error is not longer.
const MOST_TEXT: u32 = 8 << 10;
/// Separate pieces that a read may be in at the same time.
const MOST_PARTS: usize = 4 << 10;

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum WireError {
    /// No more bytes.
    Io(io::Error),
    /// They are not what the protocol has.
    Protocol(String),
}

impl From<io::Error> for WireError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

type Result<T> = std::result::Result<T, WireError>;

fn wrong<T>(text: impl Into<String>) -> Result<T> {
    Err(WireError::Protocol(text.into()))
}

/// A request that is not answered yet.
#[derive(Debug)]
enum Pending {
    Read {
        at: u64,
        len: u32,
        buf: Vec<u8>,
        /// What has come of it, in order and apart from each other.
        covered: Vec<Range<u32>>,
    },
    Status {
        extents: Option<Vec<Extent>>,
    },
}

/// What a server says of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes.
    pub(crate) len: u32,
    /// They read as zeros.
    pub(crate) zero: bool,
}

/// A request that was answered.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) handle: u64,
    /// The buffer of a read, whatever came of it.
    pub(crate) buf: Option<Vec<u8>>,
    /// The error number (of Linux, as the protocol has them) if it went wrong.
    pub(crate) outcome: std::result::Result<Answer, u32>,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The bytes are in the buffer.
    Read,
    /// Extents from where the request began, not all of it perhaps.
    Status(Vec<Extent>),
}

/// What was agreed upon in the greeting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Replies to reads come in chunks.
    pub(crate) structured: bool,
    /// The number of the `base:allocation` context.
    pub(crate) context: Option<u32>,
}

/// Reads replies, and knows what they are replies to.
#[derive(Debug)]
pub(crate) struct Replies {
    terms: Terms,
    pending: HashMap<u64, (Pending, Option<u32>)>,
}

impl Replies {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            pending: HashMap::new(),
        }
    }

    /// `len` bytes at `at` were asked for; they go into the beginning of `buf`, which has room for them.
    pub(crate) fn expect_read(&mut self, handle: u64, at: u64, len: u32, buf: Vec<u8>) {
        let covered = Vec::new();
        let read = Pending::Read {
            at,
            len,
            buf,
            covered,
        };
        self.pending.insert(handle, (read, None));
    }

    /// Extents were asked for.
    pub(crate) fn expect_status(&mut self, handle: u64) {
        self.pending
            .insert(handle, (Pending::Status { extents: None }, None));
    }

    /// How many requests are not answered.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The connection is gone: gives the buffers back.
    pub(crate) fn abandon(&mut self) -> Vec<Vec<u8>> {
        let buffers = self.pending.drain().filter_map(|(_, p)| match p.0 {
            Pending::Read { buf, .. } => Some(buf),
            Pending::Status { .. } => None,
        });
        buffers.collect()
    }

    /// Reads one reply, or one chunk of it. `None` if more chunks follow.
    pub(crate) fn receive(&mut self, from: &mut impl Read) -> Result<Option<Finished>> {
        match u32_of(from)? {
            SIMPLE => self.simple(from).map(Some),
            CHUNK if self.terms.structured => self.chunk(from),
            CHUNK => wrong("it sent a structured reply, which nobody had asked for"),
            magic => wrong(format!("a reply begins with {magic:#010x}")),
        }
    }

    fn simple(&mut self, from: &mut impl Read) -> Result<Finished> {
        let error = u32_of(from)?;
        let handle = u64_of(from)?;
        let structured = self.terms.structured;
        let (pending, _) = self.take(handle)?;
        match pending {
            Pending::Read { mut buf, len, .. } => {
                if error == 0 {
                    if structured {
                        return wrong("it answered a read without the chunks agreed upon");
                    }
                    from.read_exact(part(&mut buf, 0, len)?)?;
                }
                Ok(Finished {
                    handle,
                    buf: Some(buf),
                    outcome: if error == 0 {
                        Ok(Answer::Read)
                    } else {
                        Err(error)
                    },
                })
            }
            Pending::Status { .. } if error != 0 => Ok(Finished {
                handle,
                buf: None,
                outcome: Err(error),
            }),
            Pending::Status { .. } => wrong("it answered a question for extents without any"),
        }
    }

    fn take(&mut self, handle: u64) -> Result<(Pending, Option<u32>)> {
        match self.pending.remove(&handle) {
            Some(pending) => Ok(pending),
            None => wrong(format!(
                "it replied to request {handle:#x}, of which there is none"
            )),
        }
    }

    fn chunk(&mut self, from: &mut impl Read) -> Result<Option<Finished>> {
        let flags = u16_of(from)?;
        let kind = u16_of(from)?;
        let handle = u64_of(from)?;
        let len = u32_of(from)?;
        let context = self.terms.context;
        let Some((pending, error)) = self.pending.get_mut(&handle) else {
            return self.take(handle).map(|_| None);
        };
        match (kind, pending) {
            // Nothing, which only makes sense as the end.
            (0, _) if len == 0 && flags & DONE != 0 => {}
            (
                1,
                Pending::Read {
                    at,
                    len: asked,
                    buf,
                    covered,
                },
            ) if len > 8 => {
                let range = cover(covered, *at, *asked, u64_of(from)?, len - 8)?;
                from.read_exact(part(buf, range.start, range.end)?)?;
            }
            (
                2,
                Pending::Read {
                    at,
                    len: asked,
                    buf,
                    covered,
                },
            ) if len == 12 => {
                let start = u64_of(from)?;
                let range = cover(covered, *at, *asked, start, u32_of(from)?)?;
                part(buf, range.start, range.end)?.fill(0);
            }
            (5, Pending::Status { extents }) if extents.is_none() => {
                let found = extents_of(from, len, context)?;
                *extents = Some(found);
            }
            (kind, _) if kind & IS_ERROR != 0 => {
                let number = error_of(from, kind, len)?;
                error.get_or_insert(number);
            }
            (kind, _) => {
                return wrong(format!(
                    "a chunk of kind {kind} with {len} bytes and flags {flags:#x} makes no sense here"
                ));
            }
        }
        if flags & DONE == 0 {
            return Ok(None);
        }
        let (pending, error) = self.take(handle)?;
        finished(handle, pending, error).map(Some)
    }
}

/// All chunks have come.
fn finished(handle: u64, pending: Pending, error: Option<u32>) -> Result<Finished> {
    let (buf, answer) = match pending {
        Pending::Read {
            len, buf, covered, ..
        } => {
            let whole = matches!(&covered[..], [all] if *all == (0..len));
            if error.is_none() && !whole {
                return wrong("it ended a read before all of it had come");
            }
            (Some(buf), Answer::Read)
        }
        Pending::Status { extents, .. } => match (extents, error) {
            (Some(extents), _) => (None, Answer::Status(extents)),
            (None, Some(_)) => (None, Answer::Status(Vec::new())),
            (None, None) => return wrong("it answered a question for extents without any"),
        },
    };
    Ok(Finished {
        handle,
        buf,
        outcome: error.map_or(Ok(answer), Err),
    })
}

/// Where in the buffer `len` bytes from `start` on go, which have not come before.
fn cover(
    covered: &mut Vec<Range<u32>>,
    at: u64,
    asked: u32,
    start: u64,
    len: u32,
) -> Result<Range<u32>> {
    let from = start.checked_sub(at).and_then(|n| u32::try_from(n).ok());
    let to = from.and_then(|from| from.checked_add(len));
    let (Some(from), Some(to)) = (from, to) else {
        return wrong(format!("{len} bytes from {start} on were not asked for"));
    };
    if to > asked || len == 0 {
        return wrong(format!("{len} bytes from {start} on were not asked for"));
    }
    let place = covered.partition_point(|range| range.start < from);
    let before = place.checked_sub(1).and_then(|i| covered.get(i)).cloned();
    let after = covered.get(place).cloned();
    let overlaps = before.as_ref().is_some_and(|b| b.end > from)
        || after.as_ref().is_some_and(|a| a.start < to);
    if overlaps {
        return wrong(format!("bytes from {start} on came twice"));
    }
    let joins_before = before.is_some_and(|b| b.end == from);
    let joins_after = after.is_some_and(|a| a.start == to);
    match (joins_before, joins_after) {
        (true, true) => {
            let after = covered.remove(place);
            covered[place - 1].end = after.end;
        }
        (true, false) => covered[place - 1].end = to,
        (false, true) => covered[place].start = from,
        (false, false) if covered.len() < MOST_PARTS => covered.insert(place, from..to),
        (false, false) => return wrong("a read came in too many pieces"),
    }
    Ok(from..to)
}

/// A part of a buffer that was given with room for it.
fn part(buf: &mut [u8], from: u32, to: u32) -> Result<&mut [u8]> {
    match buf.get_mut(from as usize..to as usize) {
        Some(part) => Ok(part),
        None => wrong("a buffer of ours is too small"),
    }
}

/// Extents, joined. The last may reach further than was asked, and is cut by whoever asked.
fn extents_of(from: &mut impl Read, len: u32, context: Option<u32>) -> Result<Vec<Extent>> {
    if len < 12 || len % 8 != 4 || len > MOST_STATUS {
        return wrong(format!("{len} bytes are no list of extents"));
    }
    let found = u32_of(from)?;
    if context != Some(found) {
        return wrong(format!(
            "it tells of context {found}, which nobody had asked for"
        ));
    }
    let mut extents: Vec<Extent> = Vec::new();
    for _ in 0..(len - 4) / 8 {
        let len = u32_of(from)?;
        // Bit 0 is "hole", which says nothing of what is read; bit 1 is "reads as zeros".
        let zero = u32_of(from)? & 2 != 0;
        if len == 0 {
            return wrong("an extent is empty");
        }
        let room = extents.len() < MOST_EXTENTS;
        match extents.last_mut() {
            Some(last) if last.zero == zero && room && last.len.checked_add(len).is_some() => {
                last.len += len;
            }
            _ if room => extents.push(Extent { len, zero }),
            // The rest is asked for another time.
            _ => {}
        }
    }
    Ok(extents)
}

fn error_of(from: &mut impl Read, kind: u16, len: u32) -> Result<u32> {
    if !(6..=MOST_TEXT).contains(&len) {
        return wrong(format!("an error of {len} bytes"));
    }
    let number = u32_of(from)?;
    // The text is not shown: it is whatever a server wants it to be. What is left is an offset, or of a
    // kind that is not known.
    let _ = kind;
    let mut rest = len - 4;
    let mut bytes = [0; 256];
    while rest > 0 {
        let n = rest.min(256);
        from.read_exact(part(&mut bytes, 0, n)?)?;
        rest -= n;
    }
    // An error that is none would be taken for success.
    Ok(if number == 0 { 5 } else { number })
}

pub(crate) fn u16_of(from: &mut impl Read) -> io::Result<u16> {
    let mut bytes = [0; 2];
    from.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

pub(crate) fn u32_of(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

pub(crate) fn u64_of(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

/// A request, as it is sent.
pub(crate) fn request(command: u16, handle: u64, at: u64, len: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    let fields: [&[u8]; 6] = [
        &REQUEST.to_be_bytes(),
        &0u16.to_be_bytes(),
        &command.to_be_bytes(),
        &handle.to_be_bytes(),
        &at.to_be_bytes(),
        &len.to_be_bytes(),
    ];
    let mut to = 0;
    for field in fields {
        bytes[to..to + field.len()].copy_from_slice(field);
        to += field.len();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: u32 = 9;

    fn replies() -> Replies {
        let mut replies = Replies::new(Terms {
            structured: true,
            context: Some(CONTEXT),
        });
        replies.expect_read(1, 1000, 100, vec![0xee; 128]);
        replies.expect_status(2);
        replies
    }

    fn chunk(flags: u16, kind: u16, handle: u64, data: &[u8]) -> Vec<u8> {
        let mut bytes = CHUNK.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(handle.to_be_bytes());
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn data(at: u64, len: usize, byte: u8) -> Vec<u8> {
        let mut bytes = at.to_be_bytes().to_vec();
        bytes.resize(8 + len, byte);
        bytes
    }

    fn hole(at: u64, len: u32) -> Vec<u8> {
        let mut bytes = at.to_be_bytes().to_vec();
        bytes.extend(len.to_be_bytes());
        bytes
    }

    fn status(context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
        let mut bytes = context.to_be_bytes().to_vec();
        for (len, flags) in extents {
            bytes.extend(len.to_be_bytes());
            bytes.extend(flags.to_be_bytes());
        }
        bytes
    }

    fn simple(error: u32, handle: u64, data: &[u8]) -> Vec<u8> {
        let mut bytes = SIMPLE.to_be_bytes().to_vec();
        bytes.extend(error.to_be_bytes());
        bytes.extend(handle.to_be_bytes());
        bytes.extend(data);
        bytes
    }

    /// What comes of these bytes: the first finished request, or the first error.
    fn received(replies: &mut Replies, bytes: &[Vec<u8>]) -> Result<Finished> {
        let mut from = io::Cursor::new(bytes.concat());
        loop {
            if let Some(finished) = replies.receive(&mut from)? {
                return Ok(finished);
            }
        }
    }

    fn is_wrong(bytes: &[Vec<u8>]) {
        let outcome = received(&mut replies(), bytes);
        assert!(
            matches!(outcome, Err(WireError::Protocol(_))),
            "{outcome:?}"
        );
    }

    #[test]
    fn a_read_in_chunks_of_any_order_is_put_together() {
        let chunks = [
            chunk(0, 1, 1, &data(1060, 40, 3)),
            chunk(0, 2, 1, &hole(1010, 20)),
            chunk(0, 1, 1, &data(1000, 10, 1)),
            chunk(0, 1, 1, &data(1030, 30, 2)),
            chunk(DONE, 0, 1, &[]),
        ];
        let finished = received(&mut replies(), &chunks).unwrap();
        assert_eq!(finished.outcome, Ok(Answer::Read));
        let buf = finished.buf.unwrap();
        let expected = [
            vec![1; 10],
            vec![0; 20],
            vec![2; 30],
            vec![3; 40],
            vec![0xee; 28],
        ];
        assert_eq!(buf, expected.concat());
    }

    #[test]
    fn an_error_in_the_middle_of_a_read_is_its_outcome() {
        let mut error = 5u32.to_be_bytes().to_vec();
        error.extend([0, 3]);
        error.extend(b"bad");
        error.extend(1010u64.to_be_bytes());
        let chunks = [
            chunk(0, 1, 1, &data(1000, 10, 1)),
            chunk(0, IS_ERROR + 2, 1, &error),
            chunk(DONE, 0, 1, &[]),
        ];
        let finished = received(&mut replies(), &chunks).unwrap();
        assert_eq!(finished.outcome, Err(5));
        assert!(finished.buf.is_some());
        // One that says it is none is one.
        let chunks = [chunk(DONE, IS_ERROR + 1, 1, &[0; 6])];
        let finished = received(&mut replies(), &chunks).unwrap();
        assert_eq!(finished.outcome, Err(5));
    }

    #[test]
    fn extents_are_joined_and_their_number_is_bounded() {
        let told = status(CONTEXT, &[(4096, 0), (4096, 1), (512, 3), (512, 2), (1, 0)]);
        let finished = received(&mut replies(), &[chunk(DONE, 5, 2, &told)]).unwrap();
        let extent = |len, zero| Extent { len, zero };
        let expected = vec![extent(8192, false), extent(1024, true), extent(1, false)];
        assert_eq!(finished.outcome, Ok(Answer::Status(expected)));
        let many: Vec<_> = (0..500_000).map(|n| (512, (n % 2) * 3)).collect();
        let finished = received(
            &mut replies(),
            &[chunk(DONE, 5, 2, &status(CONTEXT, &many))],
        )
        .unwrap();
        let Ok(Answer::Status(extents)) = finished.outcome else {
            unreachable!("it has extents")
        };
        assert_eq!(extents.len(), MOST_EXTENTS);
        // A prefix, so that the next question goes on after it.
        assert!(extents.iter().all(|extent| extent.len == 512));
    }

    #[test]
    fn simple_replies_are_for_those_who_did_not_ask_for_others() {
        let mut plain = Replies::new(Terms::default());
        plain.expect_read(1, 0, 3, vec![0; 3]);
        plain.expect_read(2, 0, 3, vec![0; 3]);
        let finished = received(&mut plain, &[simple(0, 2, b"abc")]).unwrap();
        assert_eq!(finished.buf.unwrap(), b"abc");
        let finished = received(&mut plain, &[simple(5, 1, b"")]).unwrap();
        assert_eq!(finished.outcome, Err(5));
        assert_eq!(plain.pending(), 0);
        plain.expect_read(3, 0, 3, vec![0; 3]);
        let refused = received(&mut plain, &[chunk(DONE, 1, 3, &data(0, 3, 1))]);
        assert!(matches!(refused, Err(WireError::Protocol(_))));
        // Errors may be simple in any case.
        let finished = received(&mut replies(), &[simple(22, 2, b"")]).unwrap();
        assert_eq!(finished.outcome, Err(22));
        is_wrong(&[simple(0, 1, &[0; 100])]);
        is_wrong(&[simple(0, 2, &[])]);
    }

    #[test]
    fn what_nobody_asked_for_is_refused_before_it_is_read() {
        is_wrong(&[vec![1, 2, 3, 4]]);
        is_wrong(&[chunk(DONE, 1, 3, &data(1000, 100, 1))]);
        is_wrong(&[simple(0, 3, &[])]);
        // Other bytes than those asked for.
        for bytes in [
            data(999, 10, 1),
            data(1090, 11, 1),
            data(u64::MAX, 10, 1),
            data(1000, 0, 1),
            vec![0; 4],
        ] {
            is_wrong(&[chunk(0, 1, 1, &bytes)]);
        }
        for bytes in [
            hole(1000, 101),
            hole(1000, 0),
            hole(0, u32::MAX),
            vec![0; 13],
        ] {
            is_wrong(&[chunk(0, 2, 1, &bytes)]);
        }
        // The same bytes twice, and too few of them.
        let once = chunk(0, 1, 1, &data(1010, 10, 1));
        is_wrong(&[once.clone(), chunk(0, 2, 1, &hole(1019, 1))]);
        is_wrong(&[once.clone(), chunk(0, 2, 1, &hole(1000, 11))]);
        is_wrong(&[once, chunk(DONE, 0, 1, &[])]);
        // Kinds that do not fit, or that there are none of.
        is_wrong(&[chunk(0, 5, 1, &status(CONTEXT, &[(1, 0)]))]);
        is_wrong(&[chunk(0, 1, 2, &data(1000, 10, 1))]);
        is_wrong(&[chunk(0, 77, 1, &[])]);
        is_wrong(&[chunk(0, 0, 1, &[])]);
        is_wrong(&[chunk(DONE, 0, 2, &[])]);
        is_wrong(&[chunk(DONE, IS_ERROR + 1, 1, &[0; 5])]);
        is_wrong(&[chunk(DONE, IS_ERROR + 1, 1, &vec![0; 9 << 10])]);
        // Extents of another context, of no bytes, cut, and again.
        is_wrong(&[chunk(DONE, 5, 2, &status(CONTEXT + 1, &[(1, 0)]))]);
        is_wrong(&[chunk(DONE, 5, 2, &status(CONTEXT, &[]))]);
        is_wrong(&[chunk(DONE, 5, 2, &status(CONTEXT, &[(0, 0)]))]);
        is_wrong(&[chunk(DONE, 5, 2, &[0; 13])]);
        let told = chunk(0, 5, 2, &status(CONTEXT, &[(1, 0)]));
        is_wrong(&[told.clone(), told]);
    }

    #[test]
    fn lengths_that_lie_allocate_nothing() {
        let mut bytes = chunk(0, 1, 1, &data(1000, 10, 1));
        bytes[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        is_wrong(&[bytes]);
        let mut bytes = chunk(0, 5, 2, &status(CONTEXT, &[(1, 0)]));
        bytes[16..20].copy_from_slice(&(u32::MAX - 3).to_be_bytes());
        is_wrong(&[bytes]);
    }

    #[test]
    fn crumbs_of_a_read_end() {
        let mut replies = Replies::new(Terms {
            structured: true,
            context: None,
        });
        replies.expect_read(1, 0, 1 << 20, vec![0; 1 << 20]);
        let crumbs: Vec<_> = (0..1 << 18)
            .map(|n| chunk(0, 2, 1, &hole(n * 2, 1)))
            .collect();
        let outcome = received(&mut replies, &crumbs);
        assert!(matches!(outcome, Err(WireError::Protocol(_))));
    }
}
