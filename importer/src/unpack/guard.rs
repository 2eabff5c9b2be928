//! What the reader of headers may read between two entries. The tar crate keeps long names and
//! extensions in memory, of any length that an archive says.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use crate::archive::ArchiveError;

/// Bytes of headers in front of one entry: names, extensions, and the map of a sparse file.
const MOST_HEADERS: u64 = 1 << 20;

/// Shared by the guard, which the tar crate has, and whoever knows what is being read.
#[derive(Debug)]
pub(super) struct State {
    left: Cell<u64>,
    ended: Cell<bool>,
}

impl State {
    /// From here on headers are read.
    pub(super) fn headers(&self) {
        self.left.set(MOST_HEADERS);
    }

    /// From here on a file's bytes are read: their number is checked elsewhere.
    pub(super) fn data(&self) {
        self.left.set(u64::MAX);
    }

    /// The stream is at its end, which an archive never has to find.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }
}

/// A reader that stops when headers have no end.
pub(super) struct Guard<'a> {
    inner: &'a mut dyn Read,
    state: Rc<State>,
}

impl<'a> Guard<'a> {
    pub(super) fn new(inner: &'a mut dyn Read) -> Self {
        let state = State {
            left: Cell::new(MOST_HEADERS),
            ended: Cell::new(false),
        };
        Self {
            inner,
            state: Rc::new(state),
        }
    }

    pub(super) fn state(&self) -> Rc<State> {
        Rc::clone(&self.state)
    }
}

impl Read for Guard<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.state.left.get();
        if left == 0 {
            let what = format!("it has more than {MOST_HEADERS} bytes of headers for one entry");
            return Err(io::Error::other(ArchiveError::malformed(what)));
        }
        let most = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buf[..most]);
        let read = read.map_err(|source| io::Error::other(ArchiveError::Read { source }))?;
        self.state.ended.set(read == 0 && most > 0);
        if left != u64::MAX {
            self.state.left.set(left - read as u64);
        }
        Ok(read)
    }
}
