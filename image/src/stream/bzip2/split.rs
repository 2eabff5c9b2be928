//! Where blocks may begin: every place in the bits that looks like the start of a block or like the end
//! of a stream.
//!
//! A place that only looks so by chance (or by somebody's wish) is cut at too; whoever decodes finds
//! that out, see [`super::chain`]. Nothing is missed, since every block and every end has its mark.

use super::bits::Bits;
use crate::num::{to_u64, to_usize};
use crate::{Error, Result};

/// How a block begins: the digits of pi.
pub(super) const BLOCK: u64 = 0x3141_5926_5359;
/// How the end of a stream begins: the digits of its square root.
pub(super) const END: u64 = 0x1772_4538_5090;
/// Bits of either.
pub(super) const MARK: u32 = 48;

/// Longer than any block by a sane writer, in bytes: 900,000 symbols of 20 bits, and tables.
pub const MOST_PART: usize = 5 << 19;

/// A stretch of bits from one mark to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// The bytes that hold it.
    pub(super) bytes: Vec<u8>,
    /// Bits of the first byte that are not of it.
    pub(super) skip: u32,
    /// Its bits.
    pub(super) len: u64,
    /// Where it begins, in bits from the start of the file.
    pub(super) from: u64,
}

impl Part {
    /// Where it ends, in bits from the start of the file.
    pub(super) fn end(&self) -> u64 {
        self.from.saturating_add(self.len)
    }

    /// Bytes of memory that it takes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn bits(&self) -> Bits<'_> {
        Bits::new(&self.bytes, self.skip, self.len)
    }

    /// The mark it begins with, if it is as long as that.
    pub(super) fn mark(&self) -> u64 {
        let mut bits = self.bits();
        let high = bits.take(16) << 32;
        high | bits.take(32)
    }

    /// Puts `next` behind this, which ends where that begins.
    pub fn join(&mut self, next: &Self) {
        // Unless the border is between two bytes, both have the byte that it is in.
        let shared = usize::from(next.skip > 0);
        self.bytes
            .extend_from_slice(next.bytes.get(shared..).unwrap_or_default());
        self.len = self.len.saturating_add(next.len);
    }
}

/// Cuts a stream into parts.
#[derive(Debug)]
pub struct Splitter {
    /// The part at hand, as far as it came.
    part: Part,
    /// The last eight bytes.
    window: u64,
    /// For each byte that may be the last but one which a mark touches: where the mark would end, one
    /// bit for each number of bits behind it.
    hints: [u8; 256],
}

impl Default for Splitter {
    fn default() -> Self {
        let mut hints = [0u8; 256];
        for mark in [BLOCK, END] {
            for shift in 0..8u32 {
                let byte = to_usize((mark >> 8u32.wrapping_sub(shift)) & 0xff);
                if let Some(hint) = hints.get_mut(byte) {
                    *hint |= 1 << shift;
                }
            }
        }
        Self {
            part: Part::default(),
            window: 0,
            hints,
        }
    }
}

impl Splitter {
    /// Takes all of `input`; what became complete is given to `found`.
    pub fn push<E: From<Error>>(
        &mut self,
        input: &[u8],
        mut found: impl FnMut(Part) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut taken = 0;
        for (at, &byte) in input.iter().enumerate() {
            self.window = self.window << 8 | u64::from(byte);
            let whole = usize::from(self.window.to_le_bytes()[1]);
            let hint = self.hints.get(whole).copied().unwrap_or(0);
            if hint == 0 {
                continue;
            }
            for shift in (0..8u32).rev().filter(|shift| hint & (1 << shift) != 0) {
                let bits = (self.window >> shift) & ((1 << MARK) - 1);
                if bits != BLOCK && bits != END {
                    continue;
                }
                let next = at.saturating_add(1);
                let new = input.get(taken..next).unwrap_or_default();
                taken = next;
                self.part.bytes.extend_from_slice(new);
                if let Some(part) = self.cut(shift) {
                    found(part)?;
                }
            }
        }
        let rest = input.get(taken..).unwrap_or_default();
        self.part.bytes.extend_from_slice(rest);
        if self.part.bytes.len() > MOST_PART {
            return Err(
                Error::malformed("the bz2 stream is damaged: a block in it does not end")
                    .at(self.part.from / 8)
                    .into(),
            );
        }
        Ok(())
    }

    /// What is behind the last mark. The input has ended.
    pub fn finish(mut self) -> Part {
        self.part.len = bits_of(&self.part);
        self.part
    }

    /// A mark ends `shift` bits before the end of what there is. Gives what is before it; `None` for a
    /// mark that begins in front of the part, which can't be one.
    fn cut(&mut self, shift: u32) -> Option<Part> {
        let behind = u64::from(shift).saturating_add(u64::from(MARK));
        let len = bits_of(&self.part).checked_sub(behind)?;
        let border = len.saturating_add(u64::from(self.part.skip));
        let mut part = std::mem::take(&mut self.part);
        part.len = len;
        let first = to_usize(border / 8);
        self.part = Part {
            bytes: part.bytes.get(first..).unwrap_or_default().to_vec(),
            skip: u32::try_from(border % 8).unwrap_or(0),
            len: 0,
            from: part.end(),
        };
        part.bytes.truncate(to_usize(border.div_ceil(8)));
        Some(part)
    }
}

/// Bits of `part` as far as it came.
fn bits_of(part: &Part) -> u64 {
    to_u64(part.bytes.len())
        .saturating_mul(8)
        .saturating_sub(u64::from(part.skip))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits as text, for building.
    fn bytes(bits: &str) -> Vec<u8> {
        let mut bits: Vec<u8> = bits.bytes().map(|b| b - b'0').collect();
        bits.resize(bits.len().next_multiple_of(8), 0);
        bits.chunks(8)
            .map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit))
            .collect()
    }

    #[test]
    fn marks_at_every_bit_are_cut_at_however_the_input_comes() {
        let (block, end) = (format!("{BLOCK:048b}"), format!("{END:048b}"));
        for first in 0..9 {
            for second in 0..9 {
                let text = [
                    &"1".repeat(32 + first),
                    &block,
                    &"0".repeat(second),
                    &block,
                    "01",
                    &end,
                    "1",
                ]
                .concat();
                let input = bytes(&text);
                for size in [1, 3, input.len()] {
                    let mut parts = Vec::new();
                    let mut splitter = Splitter::default();
                    for chunk in input.chunks(size) {
                        let push = splitter.push(chunk, |part| {
                            parts.push(part);
                            Ok::<_, Error>(())
                        });
                        push.unwrap();
                    }
                    parts.push(splitter.finish());
                    let lens: Vec<u64> = parts.iter().map(|part| part.len).collect();
                    let marked = 48 + second as u64;
                    let all = input.len() as u64 * 8;
                    let rest = all - (32 + first as u64 + marked + 50);
                    assert_eq!(lens, [32 + first as u64, marked, 50, rest]);
                    let marks: Vec<u64> = parts[1..].iter().map(Part::mark).collect();
                    assert_eq!(marks, [BLOCK, BLOCK, END]);
                    let mut joined = parts[0].clone();
                    for part in &parts[1..] {
                        assert_eq!(joined.end(), part.from);
                        joined.join(part);
                    }
                    assert_eq!((joined.bytes, joined.len), (input.clone(), all));
                }
            }
        }
    }

    #[test]
    fn a_part_without_end_is_refused() {
        let mut splitter = Splitter::default();
        let mut push = |len| splitter.push(&vec![0; len], |_| Ok::<_, Error>(()));
        push(MOST_PART).unwrap();
        assert_eq!(push(1).unwrap_err().kind(), crate::ErrorKind::Malformed);
    }
}
