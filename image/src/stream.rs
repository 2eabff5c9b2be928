//! Compressed streams around images: gzip, xz, zstd, bzip2, as push decoders.
//!
//! A decoder is sans-IO: bytes in, bytes out, no threads of its own unless the codec has them inside
//! (xz over blocks). Concatenated members are one stream, as every command line tool reads them.

use std::fmt::Debug;

use crate::{Error, Result, Wrapper};

/// What one [`StreamDecoder::push`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that were used.
    pub consumed: usize,
    /// Bytes of the output that were written.
    pub produced: usize,
}

/// What a decoder may use.
#[derive(Debug, Clone, Copy)]
pub struct StreamOptions {
    /// Memory for windows, dictionaries and block buffers, in bytes. More threads or blocks are used
    /// only as far as this goes; a stream that needs more with one thread is refused with the amount.
    pub memory: u64,
    /// Most threads to decode with.
    pub threads: usize,
}

/// Decodes one compressed stream.
pub trait StreamDecoder: Send + Debug {
    /// Takes some of `input` and fills some of `output`. Makes headway on at least one of the two
    /// unless both are empty.
    fn push(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress>;

    /// The input has ended: writes what is left to `output`. `None` when all is out and the stream was
    /// complete; an error if it was cut.
    fn finish(&mut self, output: &mut [u8]) -> Result<Option<usize>>;
}

/// A decoder for `wrapper`.
pub fn decoder(wrapper: Wrapper, _options: StreamOptions) -> Result<Box<dyn StreamDecoder>> {
    Err(Error::unsupported(format!(
        "{} is being written",
        wrapper.name()
    )))
}
