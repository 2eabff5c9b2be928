//! The disk that is converted: the same bytes on every machine, and of all kinds.

const BLOCK: usize = 64 << 10;
/// Enough for every table to be used, and little enough for a processor that is emulated.
const BLOCKS: usize = 192;
const WORDS: &[&str] = &[
    "disk", "image", "the", "of", "cluster", "and", "table", "entry", "in", "a", "guest", "offset",
    "to", "is", "zero", "host", "block", "reads", "writes", "file",
];

/// Half zeros, a quarter text, an eighth records, an eighth noise.
pub(super) fn make() -> Vec<u8> {
    let mut random = SplitMix(0x6c6f_6e67);
    let mut disk = Vec::with_capacity(BLOCK * BLOCKS);
    for _ in 0..BLOCKS {
        let end = disk.len() + BLOCK;
        match random.next() % 8 {
            0 | 1 => {
                while disk.len() < end {
                    let word = usize::try_from(random.next() % WORDS.len() as u64).unwrap_or(0);
                    disk.extend_from_slice(WORDS.get(word).copied().unwrap_or("").as_bytes());
                    disk.push(b' ');
                }
            }
            2 => {
                let mut count = random.next() % 1000;
                while disk.len() < end {
                    count += random.next() % 4;
                    disk.extend_from_slice(&count.to_le_bytes());
                    disk.extend_from_slice(&[0, 0, 1, 0, 0xff, 0xff, 0, 0]);
                }
            }
            3 => {
                while disk.len() < end {
                    disk.extend_from_slice(&random.next().to_le_bytes());
                }
            }
            _ => {}
        }
        disk.resize(end, 0);
    }
    disk
}

/// `SplitMix64`, as its author published it.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_has_zeros_and_data_and_is_the_same_every_time() {
        let disk = make();
        assert_eq!(disk.len(), BLOCK * BLOCKS);
        assert!(disk == make());
        let zero = disk
            .chunks(BLOCK)
            .filter(|block| block.iter().all(|byte| *byte == 0))
            .count();
        assert!((BLOCKS / 3..BLOCKS * 2 / 3).contains(&zero), "{zero}");
    }
}
