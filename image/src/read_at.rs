//! Positional reading: no cursor, no mutex.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::num::{to_u64, to_usize};
use crate::{Error, Result};

/// Bytes at offsets. Calls may run at the same time from many threads.
pub trait ReadAt: Send + Sync + Debug {
    /// Fills `buf` from `offset`, or fails. Reading past [`ReadAt::len`] is `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Length in bytes, fixed when it was opened.
    fn len(&self) -> u64;

    /// True if there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says that `range` will be read soon, for whoever can fetch it meanwhile.
    fn will_read(&self, _range: Range<u64>) {}

    /// The first range at or after `from` that may hold something other than zeros; `None` if there
    /// is none before the end. Files answer from their holes; the default knows of no holes.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        Ok((from < self.len()).then(|| from..self.len()))
    }

    /// Where the byte at `at` is in an open file, for whoever can hand bytes on without reading them.
    /// `None` if it is in no file as it is read here; the default knows of no file.
    fn in_file(&self, _at: u64) -> Option<FileRange<'_>> {
        None
    }
}

/// Bytes of a [`ReadAt`] that an open file has as they are.
#[derive(Debug, Clone, Copy)]
pub struct FileRange<'a> {
    /// The file.
    pub file: BorrowedFd<'a>,
    /// Offset of the first byte in it.
    pub at: u64,
    /// How many bytes from there on are the same in both.
    pub len: u64,
}

impl FileRange<'_> {
    /// No more than the first `len` bytes.
    #[must_use]
    pub fn up_to(mut self, len: u64) -> Self {
        self.len = self.len.min(len);
        self
    }
}

/// What is the same for every [`ReadAt`].
pub trait ReadAtExt: ReadAt {
    /// Reads `len` bytes of a structure at `offset`; past the end is [`crate::ErrorKind::Malformed`].
    /// The caller has charged `len` to the limits, or it is a small constant.
    fn read_vec_at(&self, offset: u64, len: usize, what: &'static str) -> Result<Vec<u8>> {
        check_inside(self.len(), offset, to_u64(len), what)?;
        let mut buf = vec![0; len];
        self.read_exact_at(&mut buf, offset)
            .map_err(|e| Error::io(format!("reading {what}"), e).at(offset))?;
        Ok(buf)
    }

    /// Fills `buf` from `offset`; what lies past the end reads as zeros, as QEMU reads the last,
    /// partly written cluster of an image.
    fn read_padded_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let there = to_usize(self.len().saturating_sub(offset)).min(buf.len());
        let (head, tail) = buf.split_at_mut(there);
        tail.fill(0);
        if head.is_empty() {
            return Ok(());
        }
        self.read_exact_at(head, offset)
            .map_err(|e| Error::io("reading image data", e).at(offset))
    }
}

impl<T: ReadAt + ?Sized> ReadAtExt for T {}

/// Refuses structures that reach past the end of the file.
pub(crate) fn check_inside(file: u64, offset: u64, len: u64, what: &'static str) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= file => Ok(()),
        _ => Err(Error::malformed(format!(
            "{what} of {len} bytes reaches past the end of the image ({file} bytes): it is truncated or damaged"
        ))
        .at(offset)),
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = to_usize(offset);
        let from = start
            .checked_add(buf.len())
            .and_then(|end| self.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn len(&self) -> u64 {
        to_u64(Self::len(self))
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }

    fn len(&self) -> u64 {
        (**self).len()
    }

    fn will_read(&self, range: Range<u64>) {
        (**self).will_read(range);
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        (**self).next_data(from)
    }

    fn in_file(&self, at: u64) -> Option<FileRange<'_>> {
        (**self).in_file(at)
    }
}
