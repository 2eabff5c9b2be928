//! The disk as a stream of all its bytes, zeros included: for digests, and for images of other formats.

use std::io::{self, Read};
use std::ops::Range;

use super::disk::{Disk, Next};

/// Reads a [`Disk`] from front to back.
pub(crate) struct Stream {
    disk: Disk,
    /// What was read so far.
    at: u64,
    size: u64,
    data: Range<u64>,
    /// Up to here there are zeros.
    zeros: u64,
}

impl Stream {
    pub(crate) fn new(disk: Disk, size: u64) -> Self {
        Self {
            disk,
            at: 0,
            size,
            data: 0..0,
            zeros: 0,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at < self.zeros {
                let n = buf
                    .len()
                    .min(usize::try_from(self.zeros - self.at).unwrap_or(buf.len()));
                buf[..n].fill(0);
                self.at += n as u64;
                return Ok(n);
            }
            if self.data.contains(&self.at) {
                let from = usize::try_from(self.at - self.data.start).unwrap_or(0);
                let there = self.disk.bytes(&self.data).get(from..).unwrap_or_default();
                let n = there.len().min(buf.len());
                buf[..n].copy_from_slice(&there[..n]);
                self.at += n as u64;
                return Ok(n);
            }
            if self.at >= self.size || buf.is_empty() {
                return Ok(0);
            }
            match self.disk.step().map_err(io::Error::other)? {
                Next::Data(range) => {
                    self.zeros = range.start;
                    self.data = range;
                }
                Next::Zeros(range) => self.zeros = range.end,
                Next::End => self.zeros = self.size,
                // The reader calls again, if it still wants to.
                Next::Waiting => return Err(io::ErrorKind::Interrupted.into()),
            }
        }
    }
}
