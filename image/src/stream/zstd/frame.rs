//! The header of a zstd frame (RFC 8878 section 3.1.1.1), and what it takes to decode the frame.

use super::super::not_this_format;
use crate::{Error, Result, Wrapper};

/// Longest frame header: magic, descriptor, window, dictionary id, content size.
pub(super) const HEADER_MAX: usize = 18;

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
/// Largest block, in bytes.
const BLOCK_MAX: u64 = 128 << 10;
/// More than the library's context takes with its entropy tables, in bytes: measured 96 KiB.
const CONTEXT: u64 = 128 << 10;

/// What the first bytes of a frame say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Too few bytes to say; `want` of them will say more.
    Partial { want: usize },
    /// Bytes for others: `len` of them follow.
    Skippable { len: u32 },
    /// Compressed data follows.
    Frame(Frame),
}

/// A frame header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// How far back the data refers, in bytes.
    pub(super) window: u64,
    /// Bytes that come out, if the header says.
    pub(super) content: Option<u64>,
    /// The dictionary it was made with; 0 is none.
    pub(super) dictionary: u32,
}

impl Frame {
    /// Memory that the library takes to decode this, in bytes: the window with a block on either side
    /// or all of the content if that is less, and one block of input.
    pub(super) fn memory(&self) -> u64 {
        let block = self.window.min(BLOCK_MAX);
        let ring = self
            .window
            .saturating_add(block.saturating_mul(2))
            .saturating_add(64);
        ring.min(self.content.unwrap_or(u64::MAX))
            .saturating_add(block)
            .saturating_add(CONTEXT)
    }
}

/// Reads `head`, the first bytes after `frames` complete frames.
pub(super) fn parse(head: &[u8], frames: u64) -> Result<Head> {
    let magic = u32::from_le_bytes(read(head, 0));
    let is_frame = MAGIC.to_le_bytes().starts_with(first4(head));
    // The low half of the first byte is free in a skippable frame.
    let is_skippable = match first4(head) {
        [] => true,
        [first, rest @ ..] => {
            first & 0xf0 == 0x50
                && SKIPPABLE
                    .to_le_bytes()
                    .get(1..)
                    .is_some_and(|m| m.starts_with(rest))
        }
    };
    if !is_frame && !is_skippable {
        return Err(not_this_format(Wrapper::Zstd, frames));
    }
    if head.len() < 4 {
        return Ok(Head::Partial { want: 4 });
    }
    if magic != MAGIC {
        return Ok(match head.len() {
            0..8 => Head::Partial { want: 8 },
            _ => Head::Skippable {
                len: u32::from_le_bytes(read(head, 4)),
            },
        });
    }
    let Some(&descriptor) = head.get(4) else {
        return Ok(Head::Partial { want: 5 });
    };
    let single = descriptor & 0x20 != 0;
    if descriptor & 0x08 != 0 {
        return Err(Error::unsupported(
            "the zst stream sets a reserved bit of its frame header",
        ));
    }
    let dictionary_len: usize = match descriptor & 3 {
        0 => 0,
        1 => 1,
        2 => 2,
        _ => 4,
    };
    let content_len: usize = match descriptor >> 6 {
        0 => usize::from(single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let dictionary_at = 5usize.saturating_add(usize::from(!single));
    let content_at = dictionary_at.saturating_add(dictionary_len);
    let want = content_at.saturating_add(content_len);
    if head.len() < want {
        return Ok(Head::Partial { want });
    }
    let content = number(head, content_at, content_len);
    let content = match content_len {
        0 => None,
        // Two bytes count from 256 on: below, one byte is enough.
        2 => Some(content.saturating_add(256)),
        _ => Some(content),
    };
    let window = if single {
        content.unwrap_or(0)
    } else {
        let [code] = read::<1>(head, 5);
        let base = 1u64 << (code >> 3).saturating_add(10);
        base.saturating_add((base >> 3).saturating_mul(u64::from(code & 7)))
    };
    let dictionary = number(head, dictionary_at, dictionary_len);
    Ok(Head::Frame(Frame {
        window,
        content,
        dictionary: u32::try_from(dictionary).unwrap_or(u32::MAX),
    }))
}

fn first4(head: &[u8]) -> &[u8] {
    head.get(..4).unwrap_or(head)
}

/// `N` bytes at `at`, zeros where there are none.
fn read<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(head.get(at..).unwrap_or_default()) {
        *to = *from;
    }
    bytes
}

/// The little-endian number in `len` bytes (at most 8) at `at`.
fn number(head: &[u8], at: usize, len: usize) -> u64 {
    let end = at.saturating_add(len.min(8));
    head.get(at..end)
        .unwrap_or_default()
        .iter()
        .rev()
        .fold(0, |number, &byte| (number << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_window_is_read_to_the_byte() {
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0, (27 - 10) << 3 | 1];
        let Head::Frame(frame) = parse(&head, 0).unwrap() else {
            panic!("six bytes are this header");
        };
        assert_eq!(frame.window, (128 << 20) + (16 << 20));
        assert_eq!((frame.content, frame.dictionary), (None, 0));
    }

    #[test]
    fn a_small_content_takes_less_than_its_window() {
        let frame = Frame {
            window: 128 << 20,
            content: Some(1000),
            dictionary: 0,
        };
        assert!(frame.memory() < 1 << 20);
    }

    #[test]
    fn every_prefix_of_a_header_asks_for_more_and_then_is_read() {
        // Not single, dictionary of 4 bytes, content size of 8.
        let mut head = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc3, 0x58, 1, 2, 3, 4];
        head.extend_from_slice(&(5u64 << 32).to_le_bytes());
        for len in 0..head.len() {
            let Head::Partial { want } = parse(&head[..len], 0).unwrap() else {
                panic!("{len} bytes are not enough");
            };
            assert!(len < want && want <= head.len(), "{len} {want}");
        }
        assert_eq!(
            parse(&head, 0).unwrap(),
            Head::Frame(Frame {
                window: 2 << 20,
                content: Some(5 << 32),
                dictionary: 0x0403_0201
            })
        );
    }

    #[test]
    fn what_is_neither_frame_nor_skippable_is_refused_at_its_first_wrong_byte() {
        for head in [&b"\x29"[..], b"\x28\xb4", b"\x50\x2a\x4d\x17", b"\x60"] {
            let kind = parse(head, 0).unwrap_err().kind();
            assert_eq!(kind, ErrorKind::NotThisFormat, "{head:?}");
            let kind = parse(head, 1).unwrap_err().kind();
            assert_eq!(kind, ErrorKind::Malformed, "{head:?}");
        }
        for first in 0x50..=0x5f {
            let head = [first, 0x2a, 0x4d, 0x18, 7, 0, 0, 0];
            assert_eq!(parse(&head, 0).unwrap(), Head::Skippable { len: 7 });
        }
    }
}
