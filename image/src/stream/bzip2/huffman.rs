//! The codes of a block: up to six tables of up to 258 symbols, 1 to 20 bits each.

use super::bits::Bits;
use crate::num::to_usize;

/// Most symbols: 256 bytes, two for runs, one for the end, less the byte that needs none.
pub(super) const SYMBOLS: usize = 258;
/// Longest code, in bits.
pub(super) const LONGEST: u8 = 20;
/// Codes up to this many bits are looked up at once.
const QUICK: u32 = 10;
const QUICK_CODES: usize = 1 << 10;

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    /// For each `QUICK` bits: the symbol, times 32, plus the length of its code; 0 for longer codes.
    quick: Box<[u16; QUICK_CODES]>,
    /// Symbols, by length of their code and then by number.
    symbols: [u16; SYMBOLS],
    /// For each length from 0: the code behind the last of that length, and what to add to a code to
    /// have its place in `symbols`.
    lengths: [(u32, u32); 21],
}

impl Default for Table {
    fn default() -> Self {
        Self {
            quick: Box::new([0; QUICK_CODES]),
            symbols: [0; SYMBOLS],
            lengths: [(0, 0); 21],
        }
    }
}

impl Table {
    /// Makes the table of codes with these lengths, symbol by symbol. Codes of one length count up in
    /// the order of their symbols, and shorter ones come first. Lengths that leave codes unused, or ask
    /// for more than there are, make a table too, as they do for bzip2: what is wrong with it shows when
    /// such a code is met, or never.
    pub(super) fn build(&mut self, lengths: &[u8]) {
        self.quick.fill(0);
        let (mut code, mut place) = (0u32, 0usize);
        for (len, of_len) in (0u32..).zip(self.lengths.iter_mut()) {
            let first = code;
            let add = u32::try_from(place).unwrap_or(0).wrapping_sub(first);
            for (symbol, _) in (0u16..)
                .zip(lengths)
                .filter(|(_, wanted)| u32::from(**wanted) == len)
            {
                if let Some(to) = self.symbols.get_mut(place) {
                    *to = symbol;
                }
                if len > 0 && len <= QUICK {
                    let spare = QUICK.wrapping_sub(len);
                    let from = to_usize(u64::from(code) << spare);
                    let to = from.saturating_add(1 << spare);
                    if let Some(codes) = self.quick.get_mut(from..to) {
                        codes.fill(symbol << 5 | u16::try_from(len).unwrap_or(0));
                    }
                }
                place = place.saturating_add(1);
                code = code.wrapping_add(1);
            }
            *of_len = (code, add);
            code = code.wrapping_shl(1);
        }
    }

    /// The next symbol; `None` if there is no such code.
    #[inline]
    pub(super) fn symbol(&self, bits: &mut Bits<'_>) -> Option<u16> {
        bits.refill();
        let quick = self.quick.get(to_usize(bits.peek(QUICK)))?;
        if *quick != 0 {
            bits.drop_bits(u32::from(quick & 31));
            return Some(quick >> 5);
        }
        self.long(bits)
    }

    #[cold]
    #[inline(never)]
    fn long(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let ahead = u32::try_from(bits.peek(u32::from(LONGEST))).ok()?;
        let lengths = (0..=u32::from(LONGEST)).zip(&self.lengths).skip(1);
        for (len, (behind, add)) in lengths {
            let code = ahead >> u32::from(LONGEST).wrapping_sub(len);
            if code < *behind {
                bits.drop_bits(len);
                let place = to_usize(u64::from(code.wrapping_add(*add)));
                return self.symbols.get(place).copied();
            }
        }
        None
    }
}
