//! From one file of a tar to the next, by header.
//!
//! Headers are the `tar` crate's business, one at a time; the position between them is ours, so that a
//! file's bytes can be read later, skipped by seeking, or handed on in a stream.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;

use longshore_image::ReadAt;

use super::{ArchiveError, MOST_ENTRIES};

const BLOCK: u64 = 512;

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Offset of its bytes in the archive.
    pub(super) at: u64,
    pub(super) size: u64,
}

/// The bytes of an archive.
enum Input {
    Stream(Box<dyn Read + Send>),
    File(Arc<dyn ReadAt>),
}

/// A walk over an archive, and a reader of the file it stands at.
pub(super) struct Walk {
    input: Input,
    at: u64,
    /// Bytes of the file at hand that were not read yet, and the padding behind them.
    left: u64,
    padding: u64,
    seen: HashSet<String>,
}

impl Walk {
    pub(super) fn stream(stream: Box<dyn Read + Send>) -> Self {
        Self::new(Input::Stream(stream))
    }

    pub(super) fn file(file: Arc<dyn ReadAt>) -> Self {
        Self::new(Input::File(file))
    }

    fn new(input: Input) -> Self {
        Self {
            input,
            at: 0,
            left: 0,
            padding: 0,
            seen: HashSet::new(),
        }
    }

    /// Goes on to the next regular file, past what is left of this one.
    pub(super) fn next_file(&mut self) -> Result<Option<Entry>, ArchiveError> {
        loop {
            let skip = self.left.saturating_add(self.padding);
            (self.left, self.padding) = (0, 0);
            self.skip(skip)?;
            let mut raw = Raw { walk: self };
            let mut archive = tar::Archive::new(&mut raw);
            let Some(entry) = archive.entries()?.next() else {
                return Ok(None);
            };
            let entry = entry?;
            let (kind, size) = (entry.header().entry_type(), entry.size());
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            drop(entry);
            self.left = size;
            self.padding = (BLOCK - size % BLOCK) % BLOCK;
            if kind.is_gnu_sparse() {
                return Err(ArchiveError::Unsupported {
                    what: format!("the sparse file {name:?} in the archive"),
                    next: "pack it again with tar without --sparse",
                });
            }
            if !kind.is_file() && !kind.is_contiguous() {
                continue;
            }
            let name = name.trim_start_matches("./").to_owned();
            if self.seen.len() >= MOST_ENTRIES {
                return Err(ArchiveError::malformed(format!(
                    "it has more than {MOST_ENTRIES} files"
                )));
            }
            // Two files of one name: readers disagree which one counts.
            if !self.seen.insert(name.clone()) {
                return Err(ArchiveError::malformed(format!(
                    "two files are named {name:?}"
                )));
            }
            return Ok(Some(Entry {
                name,
                at: self.at,
                size,
            }));
        }
    }

    /// All of the file at hand, which must be of no more than `most` bytes.
    pub(super) fn text(&mut self, most: u64) -> Result<Vec<u8>, ArchiveError> {
        if self.left > most {
            return Err(ArchiveError::malformed(format!(
                "its descriptor or manifest has {} MiB, more than {} are allowed",
                self.left >> 20,
                most >> 20
            )));
        }
        let mut text = Vec::new();
        self.read_to_end(&mut text)?;
        Ok(text)
    }

    fn skip(&mut self, mut n: u64) -> io::Result<()> {
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

    /// A server's reader returns now and then to let its caller look around. In the middle of a header
    /// there is nothing to look at; the source's own cancellation ends the wait.
    fn read_patiently(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_raw(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn read_raw(&mut self, buf: &mut [u8]) -> io::Result<usize> {
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

fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the archive ends in the middle of a file: it is truncated",
    )
}

/// Reads the file at hand.
impl Read for Walk {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = buf
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.read_raw(&mut buf[..most])?;
        if read == 0 {
            return Err(cut());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// The archive as it is, for reading one header. The position moves with what is read and no further.
struct Raw<'a> {
    walk: &'a mut Walk,
}

impl Read for Raw<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.walk.read_patiently(buf)
    }
}
