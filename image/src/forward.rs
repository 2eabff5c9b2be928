//! Reading an image forward only: bytes are pushed in as they pass by, pieces of the disk come out.
//!
//! A [`Decoder`] is sans-IO. It never decompresses clusters itself: it hands on what it found, so that
//! decoding can happen in parallel behind it. Formats whose tables say where data is (qcow2,
//! monolithicSparse) share one driver, [`Mapped`], over a small [`Layout`]; formats whose stream
//! explains itself (raw, streamOptimized) are decoders of their own.
//!
//! # Tables that come after their data
//! The driver holds back bytes whose place it does not know yet, in a [`Hold`]. When the hold is full:
//! with a side reader the missing tables are fetched; a stream that can be opened again is read on for
//! its tables only and then once more (at most [`MAX_PASSES`] in all); otherwise the image is refused
//! with [`crate::ErrorKind::TablesFollowData`].

mod mapped;
mod plan;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

pub use self::mapped::Mapped;
pub use self::plan::{Layout, Plan, Segment, SegmentKind, Table};
use crate::cluster::ClusterCodec;
use crate::{Error, Format, Info, Limits, ReadAt, Result};

/// How often a stream is read at most.
pub const MAX_PASSES: u32 = 3;

/// What the bytes of a piece are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// The guest's bytes; as many as the guest range is long.
    Plain,
    /// One compressed cluster.
    Compressed,
}

/// What is known once the header has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the guest's disk in bytes; `None` if only the end of the stream tells. What comes out may
    /// go beyond it then, and is not part of the disk there.
    pub virtual_size: Option<u64>,
    /// Most guest bytes in one compressed piece; 0 if there are none.
    pub cluster_size: u64,
    /// How compressed pieces are decoded.
    pub codec: ClusterCodec,
    /// What to show of the image.
    pub info: Info,
}

/// Takes what a [`Decoder`] finds.
pub trait Emit {
    /// Called once, before the first piece.
    fn geometry(&mut self, geometry: &Geometry) -> Result<()>;

    /// Whether a piece of this range would be of use. Nothing has to be read for one that is not.
    fn wants(&self, _guest: &Range<u64>) -> bool {
        true
    }

    /// A piece of the disk. Pieces come in any order; within honest images they do not overlap.
    /// What no piece covers is zero.
    fn piece(&mut self, guest: Range<u64>, kind: PieceKind, bytes: &[u8]) -> Result<()>;
}

/// How a pass over the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Everything came out. The disk is this many bytes.
    Done {
        /// Size of the guest's disk.
        virtual_size: u64,
    },
    /// Tables were found after their data: push the whole stream once more.
    AnotherPass,
}

/// What comes next in a stream, for a driver that can also read at random: it pushes what has to be
/// looked at, and need not touch the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upcoming {
    /// Bytes to push; this many are enough for the next step.
    Bytes(usize),
    /// Bytes that nobody looks at.
    Padding(u64),
    /// One compressed cluster, of `len` bytes in the stream.
    Compressed {
        /// Its place on the disk.
        guest: Range<u64>,
        /// Its length in the stream.
        len: u64,
    },
}

/// Turns a stream into pieces.
pub trait Decoder: Send + Debug {
    /// The next bytes of the stream, any number of them.
    fn push(&mut self, bytes: &[u8], out: &mut dyn Emit) -> Result<()>;

    /// What comes next. Decoders that know no better want to see everything.
    fn upcoming(&self) -> Upcoming {
        Upcoming::Bytes(usize::MAX)
    }

    /// Goes past `n` bytes of the stream that were not pushed: padding, as far as it goes, or a
    /// compressed cluster as a whole.
    fn pass(&mut self, _n: u64) -> Result<()> {
        Err(Error::new(
            crate::ErrorKind::Misuse,
            "this decoder has to see every byte",
        ))
    }

    /// Where the stream can be gone on with by [`Decoder::skip_to`]: everything before it was handed
    /// out, or would be found again.
    fn safe_point(&self) -> Option<u64> {
        None
    }

    /// Goes on at `at`, a [`Decoder::safe_point`] of an earlier decoder that saw the same stream. What is
    /// missing of the bytes before, tables and whatever [`Emit::wants`] of the disk, is read from the side.
    /// False if more of the stream's beginning has to be pushed first.
    fn skip_to(&mut self, _at: u64, _out: &mut dyn Emit) -> Result<bool> {
        Ok(false)
    }

    /// The stream ended.
    fn finish(&mut self, out: &mut dyn Emit) -> Result<Finish>;

    /// After the end: what the image turned out to be, where that shows at its end only.
    fn found(&self) -> Option<Info> {
        None
    }
}

/// Keeps bytes of the stream that can't be placed yet, by their offset in the image.
pub trait Hold: Send + Debug {
    /// Keeps `bytes` of offset `at`; false, and nothing kept, if that would be too much.
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<bool>;

    /// Gives bytes back and forgets them; false if not all of `buf` is kept here (nothing is
    /// forgotten then).
    fn take(&mut self, at: u64, buf: &mut [u8]) -> Result<bool>;

    /// Forgets everything.
    fn clear(&mut self);
}

/// How a forward decoder may help itself.
#[derive(Debug)]
pub struct Options {
    /// Memory for tables.
    pub limits: Limits,
    /// Where bytes wait for their table.
    pub hold: Box<dyn Hold>,
    /// The same image at random, if the source can do that: for tables and strays only.
    pub side: Option<Arc<dyn ReadAt>>,
    /// The stream can be opened again from its start.
    pub reopenable: bool,
    /// Length of the stream, if known. A raw disk is that long.
    pub stream_len: Option<u64>,
}

impl Options {
    /// Options for tests and small streams: a few MiB of hold, no side reads, one pass.
    pub fn one_pass(limits: Limits) -> Self {
        Self {
            limits,
            hold: Box::new(MemoryHold::new(8 << 20)),
            side: None,
            reopenable: false,
            stream_len: None,
        }
    }
}

/// A decoder for a stream of `format`.
pub fn decoder(format: Format, options: Options) -> Result<Box<dyn Decoder>> {
    match format {
        Format::Raw => Ok(Box::new(crate::raw::RawDecoder::new(options.stream_len))),
        Format::Qcow2 => crate::qcow2::decoder(options),
        Format::Qcow => crate::qcow2::decoder_version1(options),
        Format::Vmdk => crate::vmdk::decoder(options),
        Format::Vhd(rule) => crate::vhd::decoder(options, rule),
        Format::Vdi => crate::vdi::decoder(options),
        Format::Parallels => crate::parallels::decoder(options),
        Format::Vhdx => crate::vhdx::decoder(options),
    }
}

/// A [`Hold`] in memory.
#[derive(Debug)]
pub struct MemoryHold {
    kept: std::collections::BTreeMap<u64, Vec<u8>>,
    bytes: u64,
    most: u64,
}

impl MemoryHold {
    /// Keeps up to `most` bytes.
    pub fn new(most: u64) -> Self {
        Self {
            kept: std::collections::BTreeMap::new(),
            bytes: 0,
            most,
        }
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes out everything, by offset: for a hold that moves on to a file.
    pub fn drain(&mut self) -> std::collections::BTreeMap<u64, Vec<u8>> {
        self.bytes = 0;
        std::mem::take(&mut self.kept)
    }

    /// The bytes cover `at..at+len` without a gap.
    fn covers(&self, at: u64, len: u64) -> bool {
        let Some(end) = at.checked_add(len) else {
            return false;
        };
        let mut next = at;
        let first = self.kept.range(..=at).next_back().map(|(&start, _)| start);
        for (&start, bytes) in self.kept.range(first.unwrap_or(at)..) {
            if start > next || next >= end {
                break;
            }
            next = next.max(start.saturating_add(crate::num::to_u64(bytes.len())));
        }
        next >= end
    }
}

/// Chunks of a [`MemoryHold`] do not grow beyond this, so that taking from one copies little.
const HOLD_CHUNK: usize = 256 << 10;

impl Hold for MemoryHold {
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<bool> {
        use crate::num::to_u64;
        // A map entry and a vector cost something too.
        let len = to_u64(bytes.len());
        let cost = len.saturating_add(64);
        if self.bytes.saturating_add(cost) > self.most {
            return Ok(false);
        }
        if let Some((&start, last)) = self.kept.range_mut(..=at).next_back() {
            let continues = start.checked_add(to_u64(last.len())) == Some(at);
            if continues && last.len().saturating_add(bytes.len()) <= HOLD_CHUNK {
                last.extend_from_slice(bytes);
                self.bytes = self.bytes.saturating_add(len);
                return Ok(true);
            }
        }
        self.bytes = self.bytes.saturating_add(cost);
        self.kept.insert(at, bytes.to_vec());
        Ok(true)
    }

    fn take(&mut self, at: u64, buf: &mut [u8]) -> Result<bool> {
        use crate::num::{to_u64, to_usize};
        let len = to_u64(buf.len());
        if !self.covers(at, len) {
            return Ok(false);
        }
        let end = at.saturating_add(len);
        let first = self
            .kept
            .range(..=at)
            .next_back()
            .map_or(at, |(&start, _)| start);
        let touched: Vec<u64> = self
            .kept
            .range(first..end)
            .map(|(&start, _)| start)
            .collect();
        for start in touched {
            let Some(chunk) = self.kept.remove(&start) else {
                continue;
            };
            self.bytes = self
                .bytes
                .saturating_sub(to_u64(chunk.len()).saturating_add(64));
            let chunk_end = start.saturating_add(to_u64(chunk.len()));
            let from = start.max(at);
            let to = chunk_end.min(end);
            if from < to {
                let source =
                    to_usize(from.saturating_sub(start))..to_usize(to.saturating_sub(start));
                let dest = to_usize(from.saturating_sub(at))..to_usize(to.saturating_sub(at));
                if let (Some(source), Some(dest)) = (chunk.get(source), buf.get_mut(dest)) {
                    dest.copy_from_slice(source);
                }
            }
            // What was not asked for stays.
            for (rest_at, rest) in [
                (start, start..from.min(chunk_end)),
                (to.max(start), to.max(start)..chunk_end),
            ] {
                let inside = to_usize(rest.start.saturating_sub(start))
                    ..to_usize(rest.end.saturating_sub(start));
                if let Some(bytes) = chunk.get(inside).filter(|bytes| !bytes.is_empty()) {
                    self.bytes = self
                        .bytes
                        .saturating_add(to_u64(bytes.len()).saturating_add(64));
                    self.kept.insert(rest_at, bytes.to_vec());
                }
            }
        }
        Ok(true)
    }

    fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }
}

/// The refusal for a one-shot stream whose tables come too late.
pub(crate) fn tables_follow_data(format: Format) -> Error {
    Error::new(
        crate::ErrorKind::TablesFollowData,
        format!(
            "tables follow data in this {0} image and the stream can't be read twice: give it as a \
             file or URL, raise --spill-limit, or rewrite it with `qemu-img convert -O {0} IN OUT`",
            format.qemu_name()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_gives_back_exactly_what_it_was_given_and_only_once() {
        let mut hold = MemoryHold::new(1 << 20);
        assert!(hold.put(100, &[1; 50]).unwrap());
        assert!(hold.put(150, &[2; 50]).unwrap());
        assert!(hold.put(300, &[3; 10]).unwrap());
        let mut buf = [0; 60];
        assert!(hold.take(120, &mut buf).unwrap());
        assert_eq!((buf[29], buf[30], buf[59]), (1, 2, 2));
        assert!(
            !hold.take(120, &mut [0; 1]).unwrap(),
            "taken bytes are gone"
        );
        assert!(
            hold.take(100, &mut [0; 20]).unwrap(),
            "what was left of them is there"
        );
        assert!(hold.take(180, &mut [0; 20]).unwrap());
        assert!(
            !hold.take(290, &mut [0; 15]).unwrap(),
            "a gap is not covered"
        );
        assert!(hold.take(300, &mut [0; 10]).unwrap());
        assert_eq!(hold.bytes(), 0);
    }

    #[test]
    fn a_full_hold_says_so_and_keeps_what_it_has() {
        let mut hold = MemoryHold::new(1000);
        assert!(hold.put(0, &[7; 800]).unwrap());
        assert!(!hold.put(800, &[7; 800]).unwrap());
        assert!(hold.take(0, &mut [0; 800]).unwrap());
    }
}
