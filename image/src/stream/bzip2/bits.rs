//! Bits of a part, most significant first, from any bit on.

/// Reads bits. Behind the end there are zeros, and [`Bits::overrun`] tells.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte to take in.
    at: usize,
    /// Bits that were taken in and not yet read, from the top down; zeros below them.
    ahead: u64,
    /// How many.
    count: u32,
    /// Where the part ends, in bits from the first byte.
    end: u64,
}

impl<'a> Bits<'a> {
    /// `len` bits of `bytes`, after the first `skip`, which are fewer than 8.
    pub(super) fn new(bytes: &'a [u8], skip: u32, len: u64) -> Self {
        let mut this = Self {
            bytes,
            at: 0,
            ahead: 0,
            count: 0,
            end: len.saturating_add(u64::from(skip)),
        };
        this.refill();
        this.drop_bits(skip.min(7));
        this
    }

    /// Takes bytes in until 32 bits are ahead at the least.
    #[inline]
    pub(super) fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        let next = self.bytes.get(self.at..self.at.wrapping_add(4));
        let word = if let Some(bytes) = next.and_then(|bytes| bytes.first_chunk::<4>()) {
            u32::from_be_bytes(*bytes)
        } else {
            let mut bytes = [0; 4];
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            for (to, from) in bytes.iter_mut().zip(rest) {
                *to = *from;
            }
            u32::from_be_bytes(bytes)
        };
        // At most 31 bits are ahead, so that all 32 fit below them.
        self.ahead |= u64::from(word) << 32u32.wrapping_sub(self.count);
        self.count = self.count.wrapping_add(32);
        self.at = self.at.wrapping_add(4);
    }

    /// The next `n` bits, at most 32, without reading them.
    #[inline]
    pub(super) fn peek(&self, n: u32) -> u64 {
        self.ahead >> 32 >> 32u32.wrapping_sub(n)
    }

    /// Reads past `n` bits, of which [`Bits::refill`] was asked for before.
    #[inline]
    pub(super) fn drop_bits(&mut self, n: u32) {
        self.ahead <<= n;
        self.count = self.count.wrapping_sub(n);
    }

    /// The next `n` bits, at most 32.
    #[inline]
    pub(super) fn take(&mut self, n: u32) -> u64 {
        self.refill();
        let bits = self.peek(n);
        self.drop_bits(n);
        bits
    }

    /// How many bits were read, the skipped ones too.
    pub(super) fn position(&self) -> u64 {
        crate::num::to_u64(self.at)
            .saturating_mul(8)
            .saturating_sub(u64::from(self.count))
    }

    /// More was read than there is.
    pub(super) fn overrun(&self) -> bool {
        self.position() > self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_in_order_and_then_zeros() {
        let bytes = [0b1010_0101, 0xff, 0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc];
        let mut bits = Bits::new(&bytes, 3, 8 * 9 - 3);
        assert_eq!(bits.take(5), 0b00101);
        assert_eq!(bits.take(1), 1);
        assert_eq!(bits.take(32), 0xfe00_2468);
        assert_eq!(bits.take(31), 0x5678_9abc);
        assert_eq!(bits.position(), 72);
        assert!(!bits.overrun());
        assert_eq!(bits.take(20), 0);
        assert!(bits.overrun());
    }
}
