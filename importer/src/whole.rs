//! A disk that a server hands out, as a stream of all its bytes, zeros included: for digests, and for
//! images of other formats on it.

use std::io::{self, Read};

use longshore_transfer::{Piece, Served};

/// Reads a [`Served`] from front to back.
pub(crate) struct Whole {
    disk: Box<dyn Served>,
    /// What was read so far.
    at: u64,
    /// Up to here there are zeros, and then `data`.
    zeros: u64,
    data: Vec<u8>,
    /// What of `data` was read.
    read: usize,
}

impl Whole {
    pub(crate) fn new(disk: Box<dyn Served>) -> Self {
        Self {
            disk,
            at: 0,
            zeros: 0,
            data: Vec::new(),
            read: 0,
        }
    }
}

impl Read for Whole {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at < self.zeros {
                let there = usize::try_from(self.zeros - self.at).unwrap_or(buf.len());
                let n = buf.len().min(there);
                buf[..n].fill(0);
                self.at += n as u64;
                return Ok(n);
            }
            let there = self.data.get(self.read..).unwrap_or_default();
            if !there.is_empty() {
                let n = there.len().min(buf.len());
                buf[..n].copy_from_slice(&there[..n]);
                self.read += n;
                self.at += n as u64;
                return Ok(n);
            }
            let size = self.disk.size();
            if self.at >= size || buf.is_empty() {
                return Ok(0);
            }
            match self.disk.next().map_err(io::Error::other)? {
                Piece::Data(at, bytes) => {
                    self.zeros = at;
                    self.read = 0;
                    self.data.clear();
                    self.data.extend_from_slice(bytes);
                }
                Piece::Zeros(range) => self.zeros = range.end,
                Piece::End => self.zeros = size,
                // The reader calls again, if it still wants to.
                Piece::Waiting => return Err(io::ErrorKind::Interrupted.into()),
            }
        }
    }
}
