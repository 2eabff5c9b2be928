//! How much memory a block of an xz stream takes.
//!
//! liblzma refuses a block by its header and the threaded decoder does not say what would have been
//! enough. So the bytes it took last are kept: they end with that header. A decoder without threads
//! that is given this header, and no memory, can be asked.

use liblzma::stream::{Action, Error as LzmaError, Stream};

/// Longest block header, in bytes.
const BLOCK_HEADER_MAX: usize = 1024;
/// The header of a stream without integrity checks.
const STREAM_HEADER: [u8; 12] = *b"\xfd7zXZ\0\0\0\xff\x12\xd9\x41";

/// The bytes that were taken last, as many as the longest block header has.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    /// `taken` was taken.
    pub(super) fn keep(&mut self, taken: &[u8]) {
        let start = taken.len().saturating_sub(BLOCK_HEADER_MAX);
        let taken = taken.get(start..).unwrap_or_default();
        let old = BLOCK_HEADER_MAX
            .saturating_sub(taken.len())
            .min(self.0.len());
        self.0.drain(..self.0.len().saturating_sub(old));
        self.0.extend_from_slice(taken);
    }

    /// Bytes of memory that one thread takes for the block whose header was taken last.
    pub(super) fn memory(&self) -> Option<u64> {
        // The first byte of a header says its length in words, less one; its last word is a CRC.
        (8..=BLOCK_HEADER_MAX).step_by(4).find_map(|len| {
            let header = self.0.get(self.0.len().checked_sub(len)?..)?;
            let words = usize::from(*header.first()?).checked_add(1)?;
            (words.checked_mul(4)? == len).then_some(())?;
            let (fields, crc) = header.split_at_checked(len.checked_sub(4)?)?;
            let crc = u32::from_le_bytes(crc.try_into().ok()?);
            (crc32fast::hash(fields) == crc).then_some(())?;
            memory_for(header)
        })
    }
}

/// What the block with this header takes: asks liblzma, by giving it no memory at all and then trying
/// limits.
pub(super) fn memory_for(header: &[u8]) -> Option<u64> {
    let mut stream = Stream::new_stream_decoder(1, 0).ok()?;
    stream.process(&STREAM_HEADER, &mut [], Action::Run).ok()?;
    match stream.process(header, &mut [], Action::Run) {
        Err(LzmaError::MemLimit) => {}
        _ => return None,
    }
    // The least limit that it accepts is what it needs. Nothing is allocated on the way.
    let (mut low, mut high) = (1u64, 1u64 << 40);
    stream.set_memlimit(high).ok()?;
    while low < high {
        let middle = low.midpoint(high);
        match stream.set_memlimit(middle) {
            Ok(()) => high = middle,
            Err(_) => low = middle.saturating_add(1),
        }
    }
    Some(high)
}
