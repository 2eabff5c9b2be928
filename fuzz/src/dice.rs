//! Decisions that the same input always makes the same way.

/// A generator seeded by the input's checksum.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(data: &[u8]) -> Self {
        Self(u64::from(crc32fast::hash(data)) << 1 | 1)
    }

    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % sides
    }

    /// A length of a chunk: often tiny, at times large, never zero.
    pub(super) fn len(&mut self) -> usize {
        let most = [3, 100, 5000, 300_000][self.roll(4)];
        1 + self.roll(most)
    }
}
