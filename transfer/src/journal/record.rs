//! The bytes of a journal.
//!
//! ```text
//! magic (8) | record | record | ...
//! record: kind (1) | length of the payload (4, little endian) | payload | check (16)
//! ```
//!
//! The check is the first half of a SHA-256 over the check before it, kind, length and payload: records
//! count only in the order they were written in, and only up to the first that is not whole. Kinds:
//! 1 [`Facts`] and 2 [`Image`] as JSON, in this order at the beginning; 3 a [`Step`]; 4 the first bytes of
//! a device, which are written to it last. A step is LEB128 numbers: the offset in the stream plus one
//! or 0, the offset of the digest plus one or 0, (if not 0: the length of its state, the state), how many
//! ranges, and for each the distance from the end of the one before and its length.

use std::ops::Range;

use longshore_image::vhd::SizeRule;
use longshore_image::{Format, Wrapper};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::Facts;
use crate::written::Written;

/// What a journal begins with; the digit is the version.
pub(super) const MAGIC: [u8; 8] = *b"lsjrnl1\n";
/// Of any version: what follows it is for that one to read.
const ANY_MAGIC: &[u8] = b"lsjrnl";
/// Kind, length and check of a record.
const FRAME: usize = 1 + 4 + CHECK;
const CHECK: usize = 16;
/// Most separate ranges remembered. Those that come when there are as many count as not done.
pub(super) const MOST_RANGES: usize = 32 << 10;
/// The states of all digests are smaller.
const MOST_STATE: u64 = 1024;

const FACTS: u8 = 1;
const IMAGE: u8 = 2;
const STEP: u8 = 3;
const HEAD: u8 = 4;

/// What was found around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Around {
    /// A compressed stream.
    Wrapper(Wrapper),
    /// An archive.
    Archive,
}

/// What an image was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) format: Format,
    /// Outermost first.
    pub(crate) around: Vec<Around>,
    /// Bytes of the disk, if that was known at its beginning.
    pub(crate) virtual_size: Option<u64>,
}

/// Where in the source an import can go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Point {
    /// Everything that the bytes before this offset say of the disk is done.
    pub(crate) stream: Option<u64>,
    /// The digest of the bytes before this offset. What is done was told by these bytes.
    pub(crate) hash: Option<HashMark>,
}

/// A digest half-way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HashMark {
    pub(crate) at: u64,
    pub(crate) state: Vec<u8>,
}

/// What became durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) point: Point,
    /// Of the disk, in order.
    pub(crate) ranges: Vec<Range<u64>>,
}

/// All that a journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) facts: Facts,
    pub(crate) image: Option<Image>,
    pub(crate) done: Written,
    pub(crate) point: Point,
    /// The first bytes of a device.
    pub(crate) head: Vec<u8>,
}

/// A journal that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) contents: Contents,
    /// Bytes of it that are whole.
    pub(super) len: u64,
    pub(super) chain: Chain,
}

/// The check of the last record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Chain([u8; CHECK]);

impl Chain {
    fn next(self, kind: u8, payload: &[u8]) -> Self {
        let mut hasher = sha2::Sha256::new();
        hasher.update(self.0);
        hasher.update([kind]);
        hasher.update((payload.len() as u32).to_le_bytes());
        hasher.update(payload);
        let digest = hasher.finalize();
        let mut check = [0; CHECK];
        check.copy_from_slice(&digest[..CHECK]);
        Self(check)
    }

    fn frame(&mut self, kind: u8, payload: &[u8], out: &mut Vec<u8>) {
        *self = self.next(kind, payload);
        out.push(kind);
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(&self.0);
    }

    /// The beginning of a journal.
    pub(super) fn begin(&mut self, facts: &Facts, image: &Image) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        *self = Self::default();
        self.frame(FACTS, &json(facts), &mut out);
        self.frame(IMAGE, &json(&ImageText::from(image)), &mut out);
        out
    }

    /// A step, with the head of a device if that has changed.
    pub(super) fn step(&mut self, step: &Step, head: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(head) = head {
            self.frame(HEAD, head, &mut out);
        }
        self.frame(STEP, &encode(step), &mut out);
        out
    }
}

/// Strings and numbers always become JSON.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageText {
    format: String,
    around: Vec<String>,
    virtual_size: Option<u64>,
}

const ARCHIVE: &str = "archive";
const WRAPPERS: [Wrapper; 4] = [Wrapper::Gzip, Wrapper::Xz, Wrapper::Zstd, Wrapper::Bzip2];
const FORMATS: [Format; 10] = [
    Format::Raw,
    Format::Qcow2,
    Format::Qcow,
    Format::Vmdk,
    Format::Vhd(SizeRule::Creator),
    Format::Vhd(SizeRule::Geometry),
    Format::Vhd(SizeRule::CurrentSize),
    Format::Vdi,
    Format::Parallels,
    Format::Vhdx,
];

/// As the command line spells it.
pub(super) fn format_name(format: Format) -> &'static str {
    match format {
        Format::Vhd(SizeRule::Geometry) => "vhd:chs",
        Format::Vhd(SizeRule::CurrentSize) => "vhd:current-size",
        other => other.name(),
    }
}

impl From<&Image> for ImageText {
    fn from(image: &Image) -> Self {
        let around = image.around.iter().map(|around| match around {
            Around::Wrapper(wrapper) => wrapper.name().to_owned(),
            Around::Archive => ARCHIVE.to_owned(),
        });
        Self {
            format: format_name(image.format).to_owned(),
            around: around.collect(),
            virtual_size: image.virtual_size,
        }
    }
}

impl ImageText {
    fn read(&self) -> Option<Image> {
        let around = |text: &String| {
            if text == ARCHIVE {
                return Some(Around::Archive);
            }
            let wrapper = WRAPPERS.into_iter().find(|w| w.name() == text)?;
            Some(Around::Wrapper(wrapper))
        };
        Some(Image {
            format: FORMATS
                .into_iter()
                .find(|format| format_name(*format) == self.format)?,
            around: self.around.iter().map(around).collect::<Option<_>>()?,
            virtual_size: self.virtual_size,
        })
    }
}

fn encode(step: &Step) -> Vec<u8> {
    let mut out = Vec::new();
    let Point { stream, hash } = &step.point;
    put(stream.map_or(0, |at| at + 1), &mut out);
    match hash {
        None => put(0, &mut out),
        Some(mark) => {
            put(mark.at + 1, &mut out);
            put(mark.state.len() as u64, &mut out);
            out.extend_from_slice(&mark.state);
        }
    }
    put(step.ranges.len() as u64, &mut out);
    let mut last = 0;
    for range in &step.ranges {
        put(range.start - last, &mut out);
        put(range.end - range.start, &mut out);
        last = range.end;
    }
    out
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn decode(mut bytes: &[u8]) -> Option<Step> {
    let bytes = &mut bytes;
    let stream = take(bytes)?.checked_sub(1);
    let hash = match take(bytes)?.checked_sub(1) {
        None => None,
        Some(at) => {
            let len = take(bytes)?;
            if len > MOST_STATE {
                return None;
            }
            let (state, rest) = bytes.split_at_checked(len as usize)?;
            *bytes = rest;
            Some(HashMark {
                at,
                state: state.to_vec(),
            })
        }
    };
    let count = take(bytes)?;
    // Two bytes for each at least.
    if count > bytes.len() as u64 / 2 {
        return None;
    }
    let mut ranges = Vec::with_capacity(count as usize);
    let mut last = 0u64;
    for _ in 0..count {
        let start = last.checked_add(take(bytes)?)?;
        last = start.checked_add(take(bytes)?)?;
        ranges.push(start..last);
    }
    bytes.is_empty().then_some(Step {
        point: Point { stream, hash },
        ranges,
    })
}

impl Contents {
    /// Takes a step in.
    pub(super) fn apply(&mut self, step: Step) {
        for range in step.ranges {
            remember(&mut self.done, range);
        }
        let Point { stream, hash } = step.point;
        self.point.stream = stream.or(self.point.stream);
        self.point.hash = hash.or_else(|| self.point.hash.take());
    }

    /// What of the disk is done, as far as the source need not be asked. Where a digest is gone on with
    /// from, everything beyond is to be what it is the digest of.
    pub(crate) fn believed(&self) -> Written {
        let mut done = self.done.clone();
        if let (Some(at), Some(_)) = (self.point.stream, &self.point.hash) {
            done.cut(at);
        }
        done
    }

    /// All of it as one step.
    pub(super) fn as_step(&self) -> Step {
        Step {
            point: self.point.clone(),
            ranges: self.done.iter().collect(),
        }
    }
}

/// Adds to `done` what there is room for. Less than all of it is right too.
fn remember(done: &mut Written, range: Range<u64>) {
    let full = done.len() >= MOST_RANGES;
    if !full || done.touches(&range) {
        done.add(range);
    }
}

/// It is a journal, in a form that is none of ours.
pub(super) fn is_of_another_version(bytes: &[u8]) -> bool {
    bytes.starts_with(ANY_MAGIC) && !bytes.starts_with(&MAGIC)
}

/// Reads a journal, up to its first record that is not whole. `None` if it does not begin as one.
pub(super) fn parse(bytes: &[u8]) -> Option<Parsed> {
    let mut rest = bytes.strip_prefix(&MAGIC)?;
    let mut chain = Chain::default();
    let mut contents = Contents::default();
    let mut begun = false;
    while let Some((kind, payload, after)) = frame(rest, &mut chain) {
        match kind {
            FACTS if !begun => {
                contents.facts = serde_json::from_slice(payload).ok()?;
                begun = true;
            }
            IMAGE if begun && contents.image.is_none() => {
                let text: ImageText = serde_json::from_slice(payload).ok()?;
                contents.image = Some(text.read()?);
            }
            STEP if contents.image.is_some() => contents.apply(decode(payload)?),
            HEAD if contents.image.is_some() => contents.head = payload.to_vec(),
            _ => return None,
        }
        rest = after;
    }
    begun.then(|| Parsed {
        contents,
        len: (bytes.len() - rest.len()) as u64,
        chain,
    })
}

/// The next whole record: its kind, its payload, and what follows.
fn frame<'a>(bytes: &'a [u8], chain: &mut Chain) -> Option<(u8, &'a [u8], &'a [u8])> {
    if bytes.len() < FRAME {
        return None;
    }
    let (&kind, rest) = bytes.split_first()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let (payload, rest) = rest.split_at_checked(len)?;
    let (check, rest) = rest.split_first_chunk::<CHECK>()?;
    let next = chain.next(kind, payload);
    if next.0 != *check {
        return None;
    }
    *chain = next;
    Some((kind, payload, rest))
}

#[cfg(test)]
mod tests;
