//! The bytes of a tar and the place in them: a stream that passes once, or something that is read at
//! random. What the bytes mean is the business of whoever reads.

use std::io::{self, Read};
use std::sync::Arc;

use longshore_image::ReadAt;

/// Bytes of a block: of a header, and what files are filled up to.
pub(crate) const BLOCK_LEN: usize = 512;
/// The same for sums.
pub(crate) const BLOCK: u64 = BLOCK_LEN as u64;

enum Input {
    Stream(Box<dyn Read + Send>),
    File(Arc<dyn ReadAt>),
}

/// A tar at a place. Reading gives 0 at its end, and [`io::ErrorKind::Interrupted`] where the stream does.
pub(crate) struct Tape {
    input: Input,
    at: u64,
}

impl Tape {
    pub(crate) fn stream(stream: Box<dyn Read + Send>) -> Self {
        Self {
            input: Input::Stream(stream),
            at: 0,
        }
    }

    pub(crate) fn file(file: Arc<dyn ReadAt>) -> Self {
        Self {
            input: Input::File(file),
            at: 0,
        }
    }

    /// Offset of the next byte.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Skipping costs nothing.
    pub(crate) fn is_random(&self) -> bool {
        matches!(self.input, Input::File(_))
    }

    /// Goes on by `n` bytes. A stream that ends before them fails with `cut`.
    pub(crate) fn skip(&mut self, mut n: u64, cut: fn() -> io::Error) -> io::Result<()> {
        if let Input::File(file) = &self.input {
            // The end itself is checked by whoever reads there.
            self.at = self.at.saturating_add(n).min(file.len());
            return Ok(());
        }
        let mut waste = vec![0; 64 << 10];
        while n > 0 {
            let most = waste.len().min(usize::try_from(n).unwrap_or(usize::MAX));
            match self.read_patiently(&mut waste[..most])? {
                0 => return Err(cut()),
                read => n -= read as u64,
            }
        }
        Ok(())
    }

    /// Fills `buf`, as far as there are bytes. How many there were.
    pub(crate) fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read_patiently(&mut buf[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    /// A server's reader returns now and then to let its caller look around. In the middle of a header
    /// there is nothing to look at; the source's own cancellation ends the wait.
    pub(crate) fn read_patiently(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Read for Tape {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.input {
            Input::Stream(stream) => stream.read(buf)?,
            Input::File(file) => {
                let there = file.len().saturating_sub(self.at);
                let most = buf.len().min(usize::try_from(there).unwrap_or(usize::MAX));
                file.read_exact_at(&mut buf[..most], self.at)?;
                most
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

/// What fills a file of `len` bytes up to whole blocks.
pub(crate) fn padding(len: u64) -> u64 {
    (BLOCK - len % BLOCK) % BLOCK
}

/// The sum that a header carries: of its bytes, those of the sum itself taken for blanks (POSIX
/// 1003.1, ustar, `chksum`).
pub(crate) fn checksum(header: &[u8]) -> u32 {
    let bytes = header.iter().enumerate().map(|(at, byte)| match at {
        148..156 => u32::from(b' '),
        _ => u32::from(*byte),
    });
    bytes.sum()
}
