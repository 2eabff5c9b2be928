//! From one file of a tar to the next, by header.
//!
//! Headers are the `tar` crate's business, one at a time; the position between them is ours, so that a
//! file's bytes can be read later, skipped by seeking, or handed on in a stream.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;

use longshore_image::ReadAt;

use super::sparse::{self, Cursor, Map, Next, Place, Records};
use super::tape::{BLOCK, Tape, padding};
use super::{ArchiveError, MOST_ENTRIES};

/// Most bytes of the headers of one file: long names, records, the ranges of a file with holes.
const MOST_HEADERS: usize = 4 << 20;

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) place: Place,
}

/// What the headers of a file say.
struct Head {
    is_file: bool,
    name: String,
    /// Bytes that the archive has of it.
    stored: u64,
    /// What of it that is, if its headers say so.
    map: Option<Map>,
    records: Records,
}

/// A walk over an archive, and a reader of the file it stands at.
pub(super) struct Walk {
    tape: Tape,
    /// Bytes of the file at hand that were not read yet, and the padding behind them.
    left: u64,
    padding: u64,
    /// Where it is in a file with holes.
    holes: Option<Cursor>,
    seen: HashSet<String>,
}

impl Walk {
    pub(super) fn stream(stream: Box<dyn Read + Send>) -> Self {
        Self::new(Tape::stream(stream))
    }

    pub(super) fn file(file: Arc<dyn ReadAt>) -> Self {
        Self::new(Tape::file(file))
    }

    fn new(tape: Tape) -> Self {
        Self {
            tape,
            left: 0,
            padding: 0,
            holes: None,
            seen: HashSet::new(),
        }
    }

    /// Goes on to the next regular file, past what is left of this one.
    pub(super) fn next_file(&mut self) -> Result<Option<Entry>, ArchiveError> {
        loop {
            let skip = self.left.saturating_add(self.padding);
            (self.left, self.padding) = (0, 0);
            self.tape.skip(skip, cut)?;
            self.holes = None;
            let Some(head) = self.head()? else {
                return Ok(None);
            };
            let Head { name, stored, .. } = head;
            self.left = stored;
            self.padding = padding(stored);
            if !head.is_file {
                continue;
            }
            let map = match head.map {
                Some(map) => Some(map),
                None => head.records.map(stored, &mut *self)?,
            };
            self.holes = map.clone().map(Cursor::new);
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
            let place = Place {
                at: self.tape.at(),
                size: map.as_ref().map_or(stored, Map::size),
                map,
            };
            return Ok(Some(Entry { name, place }));
        }
    }

    /// Reads the headers of the next entry.
    fn head(&mut self) -> Result<Option<Head>, ArchiveError> {
        let mut raw = Raw {
            walk: self,
            read: Vec::new(),
        };
        let mut archive = tar::Archive::new(&mut raw);
        let Some(entry) = archive.entries()?.next() else {
            return Ok(None);
        };
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let mut records = Records::default();
        if kind.is_file() {
            for record in entry.pax_extensions()?.into_iter().flatten() {
                let record = record?;
                records.take(record.key_bytes(), record.value_bytes())?;
            }
        }
        let name = match records.name.take() {
            Some(name) => String::from_utf8_lossy(&name).into_owned(),
            None => String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
        };
        let header = entry.header().clone();
        let at = entry.raw_header_position();
        let mut stored = entry.size();
        drop(entry);
        let mut map = None;
        if let Some(gnu) = header.as_gnu().filter(|_| kind.is_gnu_sparse()) {
            stored = header.entry_size()?;
            let behind = usize::try_from(at.saturating_add(BLOCK)).unwrap_or(usize::MAX);
            let behind = raw.read.get(behind..).unwrap_or_default();
            map = Some(sparse::old(gnu, behind, stored)?);
        }
        Ok(Some(Head {
            is_file: kind.is_file() || kind.is_contiguous() || map.is_some(),
            name,
            stored,
            map,
            records,
        }))
    }

    /// All of the file at hand, which must be of no more than `most` bytes.
    pub(super) fn text(&mut self, most: u64) -> Result<Vec<u8>, ArchiveError> {
        let len = self.holes.as_ref().map_or(self.left, Cursor::left);
        if len > most {
            return Err(ArchiveError::malformed(format!(
                "its descriptor or manifest has {} MiB, more than {} are allowed",
                len >> 20,
                most >> 20
            )));
        }
        let mut text = Vec::new();
        self.read_to_end(&mut text)?;
        Ok(text)
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
        let next = match &mut self.holes {
            Some(cursor) => cursor.next(),
            None => Next::Data(self.left),
        };
        let (Next::Zeros(most) | Next::Data(most)) = next else {
            return Ok(0);
        };
        let most = buf.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let mut read = most;
        if let Next::Data(_) = next {
            read = self.tape.read(&mut buf[..most])?;
            if read == 0 {
                return Err(cut());
            }
            self.left -= read as u64;
        } else {
            buf[..most].fill(0);
        }
        if let Some(cursor) = &mut self.holes {
            cursor.advance(read as u64);
        }
        Ok(read)
    }
}

/// The archive as it is, for reading the headers of one entry. The position moves with what is read and no
/// further. All of it is kept: what follows a header of a file with holes is not shown otherwise.
struct Raw<'a> {
    walk: &'a mut Walk,
    read: Vec<u8>,
}

impl Read for Raw<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = MOST_HEADERS.saturating_sub(self.read.len()).min(buf.len());
        if most == 0 && !buf.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a file has more than {} MiB of headers", MOST_HEADERS >> 20),
            ));
        }
        let read = self.walk.tape.read_patiently(&mut buf[..most])?;
        self.read.extend_from_slice(&buf[..read]);
        Ok(read)
    }
}
