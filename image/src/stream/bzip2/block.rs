//! One block: codes, then move-to-front, then the Burrows-Wheeler transform, then runs; all backwards.
//!
//! A block is decoded from its own bits alone, so that several can be at once. It knows where it ends
//! only by decoding: [`BlockDecoder::decode`] says so, or that it would need more bits.
//!
//! Four fifths of the time would go into following the transform from byte to byte through megabytes, each
//! step waiting for memory. So it is followed from both ends at once, with a table for either way, and
//! the two waits become one. What a block holds
//! comes out of [`BlockDecoder::read`] piece by piece, since a block of 900 kB can stand for 45 MB of
//! zeros, and its CRC is verified with the last piece.

use super::bits::Bits;
use super::huffman::{LONGEST, SYMBOLS, Table};
use super::random::Random;
use super::split::{BLOCK, Part};
use crate::num::to_usize;
use crate::{Error, Result};

/// Most bytes of a block before runs become long.
pub(super) const MOST_BLOCK: usize = 900_000;
/// Symbols that are decoded with one table before the next is chosen.
const GROUP: usize = 50;
/// More choices of tables than a block of 900,000 symbols has use for; what goes beyond is passed over,
/// since some writers round up.
const MOST_CHOICES: usize = 18_002;
/// Bytes whose CRC is computed at once.
const STEP: usize = 4096;

/// Memory of a [`BlockDecoder`], in bytes: two tables, the bytes, and codes.
pub const DECODER_BYTES: u64 = 8_200_000;

/// What decoding told of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its CRC, as stored.
    pub(super) crc: u32,
    /// Bytes before runs become long.
    pub(super) len: usize,
    /// Where it ends, in bits from the start of the file.
    pub(super) end: u64,
}

/// Decodes one block after another.
#[derive(Debug)]
pub struct BlockDecoder {
    /// For each byte of the block as the transform left them: the byte, and 256 times the place of the one
    /// that follows.
    chain: Vec<u32>,
    /// The same for the other direction: the byte, and 256 times the place of the one before it.
    back: Vec<u32>,
    /// The bytes in their order.
    bytes: Vec<u8>,
    /// How many of them were written out.
    used: usize,
    tables: [Table; 6],
    choices: Vec<u8>,
    at: u64,
    stored: u32,
    crc: crc32fast::Hasher,
    random: bool,
    /// The last byte, how often in a row it came (up to 4), and how often it is still to be written.
    last: u8,
    run: u8,
    repeat: u8,
}

impl Default for BlockDecoder {
    fn default() -> Self {
        Self {
            chain: Vec::new(),
            back: Vec::new(),
            bytes: Vec::new(),
            used: 0,
            tables: Default::default(),
            choices: Vec::new(),
            at: 0,
            stored: 0,
            crc: crc32fast::Hasher::new(),
            random: false,
            last: 0,
            run: 0,
            repeat: 0,
        }
    }
}

impl BlockDecoder {
    /// Takes in the block that `part` begins with. `None`: it does not end within the part. Either way
    /// nothing is left of the block before.
    pub fn decode(&mut self, part: &Part) -> Result<Option<Block>> {
        self.bytes.clear();
        self.used = 0;
        self.repeat = 0;
        self.run = 0;
        let mut bits = part.bits();
        self.at = part.from / 8;
        let decoded = self.symbols(&mut bits);
        if bits.overrun() {
            return Ok(None);
        }
        let (start, counts) = decoded.ok_or_else(|| self.bad("a block has a wrong code"))?;
        let len = self.chain.len();
        if start >= len {
            return Err(self.bad("a block begins outside of itself"));
        }
        self.turn_round(&counts);
        self.follow(start);
        if self.random {
            let mut random = Random::default();
            for byte in &mut self.bytes {
                *byte ^= random.mask();
            }
        }
        self.crc = crc32fast::Hasher::new();
        let read = bits.position().saturating_sub(u64::from(part.skip));
        Ok(Some(Block {
            crc: self.stored,
            len,
            end: part.from.saturating_add(read),
        }))
    }

    fn bad(&self, what: &str) -> Error {
        Error::malformed(format!("the bz2 stream is damaged: {what}")).at(self.at)
    }

    /// Everything up to the end mark of the block: fills `chain` with its bytes as the transform left
    /// them. Gives the place of the first one, and how often each byte occurs. `None` if something in it
    /// can't be (which may be so because the bits ended).
    fn symbols(&mut self, bits: &mut Bits<'_>) -> Option<(usize, [u32; 256])> {
        let mark = bits.take(16) << 32 | bits.take(32);
        if mark != BLOCK {
            return None;
        }
        self.stored = u32::try_from(bits.take(32)).ok()?;
        self.random = bits.take(1) == 1;
        let start = to_usize(bits.take(24));
        let mut front = [0u8; 256];
        let used = used_bytes(bits, &mut front);
        let end = u16::try_from(used.checked_add(1)?).ok()?;
        self.read_tables(bits, used.checked_add(2)?)?;
        if used == 0 || bits.overrun() {
            return None;
        }
        self.chain.clear();
        self.chain.reserve_exact(MOST_BLOCK);
        let mut counts = [0u32; 256];
        // A run is a number in digits of 1 and 2, the lowest first.
        let (mut run, mut digit) = (0usize, 1usize);
        for choice in &self.choices {
            let table = self.tables.get(usize::from(*choice))?;
            for _ in 0..GROUP {
                let symbol = table.symbol(bits)?;
                if symbol < 2 {
                    run = run.wrapping_add(digit << symbol);
                    digit <<= 1;
                    if run > MOST_BLOCK {
                        return None;
                    }
                    continue;
                }
                if run > 0 {
                    put_run(&mut self.chain, &mut counts, front[0], run)?;
                    (run, digit) = (0, 1);
                }
                if symbol == end {
                    return Some((start, counts));
                }
                let byte = to_front(&mut front, usize::from(symbol.wrapping_sub(1)))?;
                if self.chain.len() >= MOST_BLOCK {
                    return None;
                }
                self.chain.push(u32::from(byte));
                let count = counts.get_mut(usize::from(byte))?;
                *count = count.wrapping_add(1);
            }
            if bits.overrun() {
                return None;
            }
        }
        None
    }

    /// Which table each group uses, and the tables.
    fn read_tables(&mut self, bits: &mut Bits<'_>, symbols: usize) -> Option<()> {
        let tables = to_usize(bits.take(3));
        let choices = to_usize(bits.take(15));
        if !(2..=6).contains(&tables) || choices == 0 {
            return None;
        }
        self.choices.clear();
        let mut order = [0u8, 1, 2, 3, 4, 5];
        for n in 0..choices {
            let mut place = 0usize;
            while bits.take(1) == 1 {
                place = place.wrapping_add(1);
                if place >= tables {
                    return None;
                }
            }
            let choice = to_front_of(order.get_mut(..=place)?)?;
            if n < MOST_CHOICES {
                self.choices.push(choice);
            }
        }
        for table in self.tables.iter_mut().take(tables) {
            let mut lengths = [0u8; SYMBOLS];
            let lengths = lengths.get_mut(..symbols)?;
            let mut len = u8::try_from(bits.take(5)).ok()?;
            for symbol in lengths.iter_mut() {
                loop {
                    if !(1..=LONGEST).contains(&len) {
                        return None;
                    }
                    if bits.take(1) == 0 {
                        break;
                    }
                    // Up or down, without an end: what runs beyond the bits is noticed here.
                    len = match bits.take(1) {
                        0 => len.wrapping_add(1),
                        _ => len.wrapping_sub(1),
                    };
                }
                *symbol = len;
            }
            if bits.overrun() {
                return None;
            }
            table.build(lengths);
        }
        Some(())
    }

    /// From the last column of the sorted rotations to a chain through the bytes in their order.
    fn turn_round(&mut self, counts: &[u32; 256]) {
        let mut places = [0u32; 256];
        let mut sum = 0u32;
        for (place, count) in places.iter_mut().zip(counts) {
            *place = sum;
            sum = sum.wrapping_add(*count);
        }
        self.back.clear();
        self.back.reserve_exact(MOST_BLOCK);
        for at in 0..self.chain.len() {
            let Some([byte, ..]) = self.chain.get(at).map(|entry| entry.to_le_bytes()) else {
                return;
            };
            let Some(place) = places.get_mut(usize::from(byte)) else {
                return;
            };
            let entry = self.chain.get_mut(to_usize(u64::from(*place)));
            if let (Some(entry), Ok(at)) = (entry, u32::try_from(at)) {
                *entry |= at << 8;
            }
            self.back.push(*place << 8 | u32::from(byte));
            *place = place.wrapping_add(1);
        }
    }

    /// Puts the bytes into their order. The last one is at place `start`.
    fn follow(&mut self, start: usize) {
        let Self {
            chain, back, bytes, ..
        } = self;
        let at = |table: &[u32], place: u32| {
            let entry = table.get(to_usize(u64::from(place))).copied().unwrap_or(0);
            let [byte, ..] = entry.to_le_bytes();
            (byte, entry >> 8)
        };
        let start = u32::try_from(start).unwrap_or(0);
        bytes.reserve_exact(MOST_BLOCK);
        bytes.resize(chain.len(), 0);
        let (front, rear) = bytes.split_at_mut(chain.len() / 2);
        let ((_, mut next), mut last) = (at(chain, start), start);
        // One byte more from the rear if their number is odd.
        let odd = rear.len() > front.len();
        let mut rears = rear.iter_mut().rev();
        for (to, to_rear) in front.iter_mut().zip(rears.by_ref()) {
            (*to, next) = at(chain, next);
            (*to_rear, last) = at(back, last);
        }
        if let (true, Some(to)) = (odd, rears.next()) {
            (*to, last) = at(back, last);
        }
        // The byte before the first of the rear is the last of the front, unless the block is not one
        // chain. Then it is what comes from the front, as it is for bzip2.
        if at(chain, last).1 != next {
            for to in rear {
                (*to, next) = at(chain, next);
            }
        }
    }

    /// Fills `out` as far as the block goes; less is its end. An error if its CRC is wrong.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let filled = self.expand(out)?;
        let mut turned = [0u8; STEP];
        for step in out.get(..filled).unwrap_or_default().chunks(STEP) {
            // The CRC of bzip2 is the ordinary one with the bits of each byte in the other order.
            for (to, from) in turned.iter_mut().zip(step) {
                *to = from.reverse_bits();
            }
            self.crc
                .update(turned.get(..step.len()).unwrap_or_default());
        }
        if filled < out.len() {
            let crc = self.crc.clone().finalize().reverse_bits();
            if crc != self.stored {
                return Err(self.bad(&format!(
                    "the CRC of a block is {crc:08x}, {:08x} was expected",
                    self.stored
                )));
            }
        }
        Ok(filled)
    }

    fn expand(&mut self, out: &mut [u8]) -> Result<usize> {
        let mut filled = 0usize;
        while filled < out.len() {
            if self.repeat > 0 {
                let n = usize::from(self.repeat).min(out.len().saturating_sub(filled));
                let end = filled.saturating_add(n);
                if let Some(room) = out.get_mut(filled..end) {
                    room.fill(self.last);
                }
                filled = end;
                self.repeat = self.repeat.wrapping_sub(u8::try_from(n).unwrap_or(0));
                continue;
            }
            if self.used == self.bytes.len() {
                if self.run == 4 {
                    return Err(self.bad("a block ends within a run"));
                }
                break;
            }
            filled = self.copy(out, filled);
        }
        Ok(filled)
    }

    /// Writes bytes from place `filled` of `out` on, until it is full, the block ends or a byte repeats.
    fn copy(&mut self, out: &mut [u8], filled: usize) -> usize {
        let room = out.get_mut(filled..).unwrap_or_default();
        let bytes = self.bytes.get(self.used..).unwrap_or_default();
        let (mut last, mut run) = (self.last, self.run);
        let (mut done, mut used) = (0usize, 0usize);
        for byte in bytes {
            let Some(to) = room.get_mut(done) else { break };
            used = used.wrapping_add(1);
            if run == 4 {
                run = 0;
                self.repeat = *byte;
                if *byte > 0 {
                    break;
                }
                continue;
            }
            run = if run > 0 && *byte == last {
                run.wrapping_add(1)
            } else {
                1
            };
            last = *byte;
            *to = *byte;
            done = done.wrapping_add(1);
        }
        self.used = self.used.saturating_add(used);
        (self.last, self.run) = (last, run);
        filled.saturating_add(done)
    }
}

/// The bytes that occur in the block, in order; gives how many.
fn used_bytes(bits: &mut Bits<'_>, front: &mut [u8; 256]) -> usize {
    let sixteens = bits.take(16);
    let mut used = 0usize;
    for high in 0..16u8 {
        if sixteens & (0x8000 >> high) == 0 {
            continue;
        }
        let these = bits.take(16);
        for low in 0..16u8 {
            if these & (0x8000 >> low) == 0 {
                continue;
            }
            if let Some(place) = front.get_mut(used) {
                *place = high << 4 | low;
                used = used.wrapping_add(1);
            }
        }
    }
    used
}

/// Moves the byte at `place` to the front, and gives it.
#[inline]
fn to_front(front: &mut [u8; 256], place: usize) -> Option<u8> {
    to_front_of(front.get_mut(..=place)?)
}

#[inline]
fn to_front_of(front: &mut [u8]) -> Option<u8> {
    if front.len() > 16 {
        let byte = *front.last()?;
        let len = front.len();
        front.copy_within(..len.wrapping_sub(1), 1);
        *front.first_mut()? = byte;
        return Some(byte);
    }
    let mut carried = *front.last()?;
    let byte = carried;
    for place in front {
        std::mem::swap(place, &mut carried);
    }
    Some(byte)
}

fn put_run(chain: &mut Vec<u32>, counts: &mut [u32; 256], byte: u8, run: usize) -> Option<()> {
    let len = chain.len().checked_add(run)?;
    if len > MOST_BLOCK {
        return None;
    }
    chain.resize(len, u32::from(byte));
    let count = counts.get_mut(usize::from(byte))?;
    *count = count.wrapping_add(u32::try_from(run).ok()?);
    Some(())
}
