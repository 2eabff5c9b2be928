//! Compressed streams around images: gzip, xz, zstd, bzip2, as push decoders.
//!
//! A decoder is sans-IO: bytes in, bytes out, no threads of its own unless the codec has them inside
//! (xz over blocks). Concatenated members are one stream, as every command line tool reads them.
//! Checksums are verified. What follows the last member is an error, except the padding that the
//! format knows: zeros after gzip (tapes and pipes leave them), multiples of four zeros after xz.
//!
//! Inside, each format is a `Codec`, a state machine over one call's `Io`; `Guard` makes a
//! [`StreamDecoder`] of it and holds what they share: an error is final, a cut stream is an error.

pub mod bzip2;
mod gzip;
mod io;
mod xz;
mod zstd;

use std::fmt::Debug;

use self::io::Io;
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
    /// Takes some of `input` and fills some of `output`. Makes headway on at least one of the two if
    /// neither is empty. Output can be left inside after all input was taken: it is all out when
    /// `output` was not filled. Nothing happens if `output` is empty. An error is final.
    fn push(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress>;

    /// The input has ended: writes what is left to `output`, which must not be empty. `None` when all
    /// is out and the stream was complete; an error if it was cut.
    fn finish(&mut self, output: &mut [u8]) -> Result<Option<usize>>;
}

/// Bytes of memory that the least decoder takes for the first part of a stream which begins with
/// `head`, as far as that shows; later parts may take more.
pub fn memory_for(wrapper: Wrapper, head: &[u8]) -> Option<u64> {
    match wrapper {
        Wrapper::Xz => xz::memory_for(head),
        Wrapper::Zstd => zstd::memory_for(head),
        Wrapper::Gzip | Wrapper::Bzip2 => None,
    }
}

/// The first `n` bytes in a stream that begins with `head`; `None` if that does not show as many, or is
/// damaged, or would take more than `memory` bytes, of which few are touched.
pub fn beginning(wrapper: Wrapper, head: &[u8], n: usize, memory: u64) -> Option<Vec<u8>> {
    let options = StreamOptions { memory, threads: 1 };
    let mut decoder = decoder(wrapper, options).ok()?;
    let mut out = vec![0; n];
    let (mut taken, mut filled) = (0_usize, 0_usize);
    while filled < n {
        let progress = decoder
            .push(head.get(taken..)?, out.get_mut(filled..)?)
            .ok()?;
        if progress.consumed == 0 && progress.produced == 0 {
            return None;
        }
        taken = taken.saturating_add(progress.consumed);
        filled = filled.saturating_add(progress.produced);
    }
    Some(out)
}

/// A decoder for `wrapper`.
pub fn decoder(wrapper: Wrapper, options: StreamOptions) -> Result<Box<dyn StreamDecoder>> {
    Ok(match wrapper {
        Wrapper::Gzip => Guard::boxed(wrapper, gzip::Gzip::new(options)?),
        Wrapper::Xz => Guard::boxed(wrapper, xz::Xz::new(options)),
        Wrapper::Zstd => Guard::boxed(wrapper, zstd::Zstd::new(options)),
        Wrapper::Bzip2 => Guard::boxed(wrapper, bzip2::Bzip2::new(options)),
    })
}

/// The state machine of one format.
trait Codec: Send + Debug {
    /// Goes on until input or room ran out. With no input: writes what is inside.
    fn run(&mut self, io: &mut Io<'_>) -> Result<()>;

    /// As [`Codec::run`], knowing that no more input comes.
    fn drain(&mut self, io: &mut Io<'_>) -> Result<()> {
        self.run(io)
    }

    /// The input may end here.
    fn complete(&self) -> bool;
}

/// A [`Codec`] as a [`StreamDecoder`].
#[derive(Debug)]
struct Guard<C> {
    wrapper: Wrapper,
    codec: C,
    failed: bool,
}

impl<C: Codec + 'static> Guard<C> {
    fn boxed(wrapper: Wrapper, codec: C) -> Box<dyn StreamDecoder> {
        Box::new(Self {
            wrapper,
            codec,
            failed: false,
        })
    }

    /// What libraries do after an error of theirs is not worth relying on.
    fn check(&self) -> Result<()> {
        if self.failed {
            let name = self.wrapper.name();
            return Err(Error::malformed(format!(
                "the {name} stream was damaged further ahead"
            )));
        }
        Ok(())
    }
}

impl<C: Codec + 'static> StreamDecoder for Guard<C> {
    fn push(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress> {
        self.check()?;
        let mut io = Io::new(input, output);
        if io.has_room() {
            self.codec
                .run(&mut io)
                .inspect_err(|_| self.failed = true)?;
        }
        Ok(io.progress())
    }

    fn finish(&mut self, output: &mut [u8]) -> Result<Option<usize>> {
        self.check()?;
        let mut io = Io::new(&[], output);
        if !io.has_room() {
            return Err(Error::new(
                crate::ErrorKind::Misuse,
                "finishing a stream needs room for output",
            ));
        }
        self.codec
            .drain(&mut io)
            .inspect_err(|_| self.failed = true)?;
        match io.progress().produced {
            0 if self.codec.complete() => Ok(None),
            0 => {
                self.failed = true;
                Err(Error::malformed(format!(
                    "the {} stream is cut: it ends before its end mark",
                    self.wrapper.name()
                )))
            }
            produced => Ok(Some(produced)),
        }
    }
}

/// The refusal of a stream that does not fit the budget.
fn too_large(what: &str, needed: u64, allowed: u64) -> Error {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Error::limit(
        format!(
            "{what} needs {} MiB of memory to decompress, {} MiB are allowed",
            mib(needed),
            allowed >> 20
        ),
        needed,
    )
}

fn not_this_format(wrapper: Wrapper, members: u64) -> Error {
    let name = wrapper.name();
    if members == 0 {
        Error::new(
            crate::ErrorKind::NotThisFormat,
            format!("this is not a {name} stream: its first bytes are of something else"),
        )
    } else {
        Error::malformed(format!(
            "bytes that are not {name} follow the {name} stream"
        ))
    }
}
