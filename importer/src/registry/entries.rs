//! From one entry of a tar to the next, with bounds on everything that a hostile one could make large.
//!
//! A header's fields are the `tar` crate's business; what lies between headers is ours, because that
//! crate reads names of any length into memory.
//!
//! Sources: POSIX.1-2024 pax interchange format; GNU tar's manual, "Basic Tar Format".

use std::io::{self, Read};
use std::sync::Arc;

use longshore_image::ReadAt;
use tar::{EntryType, Header, PaxExtensions};

use crate::ArchiveError;
use crate::archive::tape::{BLOCK, BLOCK_LEN, Tape, checksum, padding};

/// Most bytes of a name, or of a set of pax records.
const MOST_EXTENSION: u64 = 1 << 20;
/// Most headers of one tar.
const MOST_ENTRIES: u64 = 4_000_000;
/// Most bytes that are skipped, once unpacked. A few compressed bytes can stand for more than anyone
/// would wait for.
const MOST_SKIPPED: u64 = 64 << 30;
/// Most blocks with which an old sparse file goes on about its holes.
const MOST_SPARSE_BLOCKS: usize = 4096;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) kind: EntryType,
    /// Where it leads, if it is a link.
    pub(super) link: Option<String>,
    /// Holes are left out of its bytes.
    pub(super) sparse: bool,
    /// Offset of its bytes in the tar.
    pub(super) at: u64,
    pub(super) size: u64,
}

/// Entries of a tar, and a reader of the one at hand.
pub(super) struct Entries {
    tape: Tape,
    /// Bytes of the entry at hand that were not read yet, and the padding behind them.
    left: u64,
    padding: u64,
    count: u64,
    skipped: u64,
}

/// What extension headers say of the next entry.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

impl Entries {
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
            count: 0,
            skipped: 0,
        }
    }

    /// Goes on to the next entry, past what is left of this one; `None` at the end of the tar.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut extended = Extended::default();
        loop {
            let skip = self.left.saturating_add(self.padding);
            (self.left, self.padding) = (0, 0);
            self.skip(skip)?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.entry_size().map_err(|_| self.bad("size"))?;
            match header.entry_type() {
                EntryType::GNULongName => extended.path = Some(self.name(size)?),
                EntryType::GNULongLink => extended.link = Some(self.name(size)?),
                EntryType::XHeader => self.records(size, &mut extended)?,
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                kind => return self.entry(&header, kind, size, extended).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        extended: Extended,
    ) -> Result<Entry, ArchiveError> {
        let mut sparse = extended.sparse;
        if kind.is_gnu_sparse() {
            sparse = true;
            self.sparse_blocks(header)?;
        }
        // Nothing follows these, whatever they say: Go's reader, which registries and runtimes use, has
        // it so.
        let bare = kind.is_dir()
            || kind.is_symlink()
            || kind.is_hard_link()
            || kind.is_character_special()
            || kind.is_block_special()
            || kind.is_fifo();
        let size = if bare {
            0
        } else {
            extended.size.unwrap_or(size)
        };
        self.left = size;
        self.padding = padding(size);
        if self.tape.at().checked_add(size).is_none() {
            return Err(self.bad("size"));
        }
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let link = extended
            .link
            .or_else(|| header.link_name_bytes().map(|link| lossy(&link)));
        Ok(Entry {
            path: extended.path.unwrap_or_else(|| lossy(&header.path_bytes())),
            kind,
            link: link.filter(|link| !link.is_empty()),
            sparse,
            at: self.tape.at(),
            size,
        })
    }

    /// The next header, checked; `None` at the end, with or without the blocks that mark it.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        match self.tape.fill(block)? {
            0 => return Ok(None),
            BLOCK_LEN => {}
            _ => return Err(cut().into()),
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.count += 1;
        if self.count > MOST_ENTRIES {
            return Err(ArchiveError::malformed(format!(
                "it has more than {MOST_ENTRIES} entries"
            )));
        }
        let sum = checksum(block);
        if header.cksum().ok() != Some(sum) {
            return Err(ArchiveError::malformed(format!(
                "there is no header of a tar at byte {}",
                self.tape.at().saturating_sub(BLOCK)
            )));
        }
        Ok(Some(header))
    }

    /// The bytes of an extension, and its padding with them.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MOST_EXTENSION {
            return Err(ArchiveError::malformed(format!(
                "a name or its like has {size} bytes, more than {MOST_EXTENSION}"
            )));
        }
        (self.left, self.padding) = (size, padding(size));
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn name(&mut self, size: u64) -> Result<String, ArchiveError> {
        let bytes = self.extension(size)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn records(&mut self, size: u64, extended: &mut Extended) -> Result<(), ArchiveError> {
        let bytes = self.extension(size)?;
        for record in PaxExtensions::new(&bytes) {
            let record = record?;
            let value = || String::from_utf8_lossy(record.value_bytes()).into_owned();
            match record.key_bytes() {
                b"path" => extended.path = Some(value()),
                b"linkpath" => extended.link = Some(value()),
                b"size" => {
                    let size = value().parse().map_err(|_| self.bad("size"))?;
                    extended.size = Some(size);
                }
                b"GNU.sparse.name" => {
                    extended.path = Some(value());
                    extended.sparse = true;
                }
                key if key.starts_with(b"GNU.sparse.") => extended.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Blocks that lie between an old sparse header and its bytes.
    fn sparse_blocks(&mut self, header: &Header) -> Result<(), ArchiveError> {
        let mut more = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
        for _ in 0..MOST_SPARSE_BLOCKS {
            if !more {
                return Ok(());
            }
            let mut block = [0; BLOCK_LEN];
            if self.tape.fill(&mut block)? < block.len() {
                return Err(cut().into());
            }
            more = block[504] != 0;
        }
        Err(ArchiveError::malformed(
            "a sparse file goes on about its holes",
        ))
    }

    fn skip(&mut self, n: u64) -> Result<(), ArchiveError> {
        self.skipped = self.skipped.saturating_add(n);
        if self.skipped > MOST_SKIPPED && !self.tape.is_random() {
            return Err(ArchiveError::malformed(format!(
                "it has more than {} GiB that are no disk",
                MOST_SKIPPED >> 30
            )));
        }
        Ok(self.tape.skip(n, cut)?)
    }

    fn bad(&self, what: &str) -> ArchiveError {
        ArchiveError::malformed(format!(
            "the {what} of an entry makes no sense (before byte {})",
            self.tape.at()
        ))
    }
}

fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "it ends in the middle of an entry: it is truncated",
    )
}

/// Reads the entry at hand.
impl Read for Entries {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = buf.len().min(left);
        if most == 0 {
            return Ok(0);
        }
        let read = self.tape.read(&mut buf[..most])?;
        if read == 0 {
            return Err(cut());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(path: &str, kind: EntryType, size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn pax(records: &[(&str, &str)]) -> Vec<u8> {
        let mut body = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut len = rest.len() + 1;
            while len != rest.len() + len.to_string().len() {
                len = rest.len() + len.to_string().len();
            }
            body += &[len.to_string(), rest].concat();
        }
        let mut all = header("pax", EntryType::XHeader, body.len() as u64);
        all.extend(body.into_bytes());
        padded(all)
    }

    fn both(bytes: &[u8], check: impl Fn(Entries)) {
        check(Entries::stream(Box::new(io::Cursor::new(bytes.to_vec()))));
        check(Entries::file(Arc::new(bytes.to_vec())));
    }

    #[test]
    fn entries_come_with_long_names_and_sizes_of_pax() {
        let long = "a/".repeat(300) + "b";
        let mut tar = header("x", EntryType::GNULongName, long.len() as u64 + 1);
        tar.extend(padded([long.as_bytes(), b"\0"].concat()));
        tar.extend(header("short", EntryType::Regular, 3));
        tar.extend(padded(b"abc".to_vec()));
        tar.extend(pax(&[("path", "disk/d"), ("size", "5"), ("other", "x")]));
        tar.extend(header("y", EntryType::Regular, 0));
        tar.extend(padded(b"12345".to_vec()));
        tar.extend(header("l", EntryType::Link, 7));
        tar.extend([0; 1024]);
        both(&tar, |mut entries| {
            let first = entries.next().unwrap().unwrap();
            assert_eq!((first.path.as_str(), first.size), (long.as_str(), 3));
            let second = entries.next().unwrap().unwrap();
            assert_eq!((second.path.as_str(), second.size), ("disk/d", 5));
            let mut read = String::new();
            entries.read_to_string(&mut read).unwrap();
            assert_eq!(read, "12345");
            let link = entries.next().unwrap().unwrap();
            assert_eq!((link.kind, link.size), (EntryType::Link, 0));
            assert_eq!(entries.next().unwrap(), None);
        });
    }

    #[test]
    fn sparse_files_are_told_and_skipped_over() {
        let mut sparse = Header::new_gnu();
        sparse.set_path("s").unwrap();
        sparse.set_entry_type(EntryType::GNUSparse);
        sparse.set_size(4);
        sparse.as_gnu_mut().unwrap().set_is_extended(true);
        sparse.set_cksum();
        let mut tar = sparse.as_bytes().to_vec();
        tar.extend([0; 512]);
        tar.extend(padded(b"data".to_vec()));
        tar.extend(pax(&[
            ("GNU.sparse.name", "disk/d"),
            ("GNU.sparse.major", "1"),
        ]));
        tar.extend(header("GNUSparseFile.0/d", EntryType::Regular, 0));
        both(&tar, |mut entries| {
            let old = entries.next().unwrap().unwrap();
            assert!(old.sparse && old.path == "s");
            let new = entries.next().unwrap().unwrap();
            assert!(new.sparse && new.path == "disk/d");
            assert_eq!(entries.next().unwrap(), None);
        });
    }

    #[test]
    fn what_is_no_tar_and_what_is_too_much_is_refused() {
        let mut huge_size = Header::new_gnu();
        huge_size.set_path("x").unwrap();
        huge_size.set_size(u64::MAX - 5);
        huge_size.set_cksum();
        let mut endless = header("a", EntryType::Regular, 1 << 40);
        endless.extend([0; 1024]);
        for tar in [
            b"this is not a tar".repeat(100),
            header("x", EntryType::GNULongName, 1 << 40),
            header("x", EntryType::XHeader, 1 << 40),
            huge_size.as_bytes().to_vec(),
            header("x", EntryType::Regular, 5)[..300].to_vec(),
            pax(&[("size", "-5")]),
            endless,
        ] {
            let mut entries = Entries::stream(Box::new(io::Cursor::new(tar)));
            let outcome = (0..3).find_map(|_| entries.next().err());
            assert!(outcome.is_some());
        }
    }

    #[test]
    fn skipping_has_an_end_though_the_tar_has_none() {
        let entry = header("zeros", EntryType::Regular, 65 << 30);
        let tar = io::Cursor::new(entry).chain(io::repeat(0));
        let mut entries = Entries::stream(Box::new(tar));
        assert!(entries.next().unwrap().is_some());
        assert!(matches!(
            entries.next(),
            Err(ArchiveError::Malformed { .. })
        ));
    }
}
