//! Archives of files: a tar, compressed or not, becomes a directory, in one pass over any source.
//!
//! ```text
//! source -> [hash] -> [unwrap]* -> headers (tar crate, behind a guard) -> names -> tree
//! ```
//!
//! What is made of the archive lies under `DIR/.longshore-unpack` until all of it is there and durable;
//! only then its top level is moved into `DIR`. A kill leaves that one directory, which the next attempt
//! removes.
//!
//! An archive is somebody else's: `names` decides what an entry may be called, `tree` never goes through a
//! link, and only files, directories and links are made. Modes are kept without setuid, setgid and sticky
//! bits, times are kept, and all belongs to whoever runs this. Files stay sparse: blocks of zeros are not
//! written. Memory does not grow with the archive except for modes of directories, which are bounded.

mod guard;
mod names;
mod tree;

use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;

use longshore_transfer::{Cancel, Options, Progress, Source, is_zero, unwrapped};

use self::guard::Guard;
use self::names::Name;
use self::tree::{Attributes, Tree};
use crate::archive::ArchiveError;
use crate::archive::sparse::{Cursor, Map, Next, Records};
use crate::{Error, Result};

/// Most entries of an archive.
const MOST_ENTRIES: u64 = 1_000_000;
/// Bytes that may follow an archive's end: tar fills the last record, of any size somebody chose.
const MOST_LEFT: u64 = 64 << 20;
/// Bytes of files for each free byte of the volume, and more beyond that: what is zero takes no room, so
/// only this ends an archive of nothing but zeros.
const ZEROS_FOR_ROOM: u64 = 16;
const ZEROS_AT_LEAST: u64 = 64 << 30;
/// Bytes that are looked at and written at once.
const BUFFER: usize = 256 << 10;
/// What is zero is skipped in steps of this.
const BLOCK: usize = 4096;

/// What happens to what is in the directory already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// An archive that has something of the same name (at its top level) is refused.
    Refuse,
    /// It is replaced once the archive is unpacked.
    Replace,
}

/// Where to unpack to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The directory; its parent must exist.
    pub directory: PathBuf,
    /// What happens to what is in it.
    pub existing: Existing,
}

impl Destination {
    /// Where all is kept until it is whole.
    pub fn staging(&self) -> PathBuf {
        self.directory.join(tree::STAGING)
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of all files that the archive has.
    pub file_bytes: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
}

/// Unpacks the archive that `source` gives.
pub fn unpack(
    source: &mut dyn Source,
    destination: &Destination,
    options: &Options,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Unpacked> {
    let name = source.name();
    let mut tree = Tree::begin(destination, progress)?;
    let done = unwrapped(
        source,
        options,
        MOST_LEFT,
        progress,
        cancel,
        |archive| -> Result<Unpacked, Error> {
            let limit = tree.room()?;
            Job {
                name: &name,
                tree: &mut tree,
                limit: limit
                    .saturating_mul(ZEROS_FOR_ROOM)
                    .saturating_add(ZEROS_AT_LEAST),
                done: Unpacked::default(),
            }
            .run(archive)
        },
    )?;
    tree.finish()?;
    progress.set_done();
    Ok(Unpacked {
        bytes_written: progress.snapshot().written,
        ..done
    })
}

struct Job<'a> {
    name: &'a str,
    tree: &'a mut Tree,
    /// Most bytes of all files together.
    limit: u64,
    done: Unpacked,
}

impl Job<'_> {
    fn run(mut self, archive: &mut dyn Read) -> Result<Unpacked> {
        let guard = Guard::new(archive);
        let state = guard.state();
        let mut archive = tar::Archive::new(guard);
        let mut entries = archive.entries().map_err(|e| self.unreadable(e))?;
        loop {
            state.headers();
            let Some(entry) = entries.next() else { break };
            let mut entry = entry.map_err(|e| self.unreadable(e))?;
            if self.done.entries >= MOST_ENTRIES {
                let what = format!("it has more than {MOST_ENTRIES} entries");
                return Err(self.refused(ArchiveError::malformed(what)));
            }
            state.data();
            self.entry(&mut entry)?;
            self.done.entries += 1;
        }
        if state.ended() {
            let what = "it ends without its end mark: it is truncated, or no tar at all";
            return Err(self.refused(ArchiveError::malformed(what)));
        }
        Ok(self.done)
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let mut records = self.holes(entry)?;
        let path = match records.name.take() {
            // The entry has another for readers that know of no holes.
            Some(name) => name,
            None => entry.path_bytes().into_owned(),
        };
        let name = Name::parse(&path).map_err(|e| self.refused(e))?;
        let header = entry.header();
        let attributes = Attributes {
            mode: header.mode().map_err(|e| self.unreadable(e))?,
            modified: header.mtime().map_err(|e| self.unreadable(e))?,
        };
        if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            return self.file(&name, attributes, records, entry);
        }
        let done = if kind.is_dir() {
            self.tree.directory(&name, attributes)
        } else if kind.is_symlink() || kind.is_hard_link() {
            let link = entry.link_name_bytes().unwrap_or_default();
            if kind.is_symlink() {
                match name.symlink_target(&link) {
                    Ok(()) => self.tree.symlink(&name, &link),
                    Err(e) => Err(e.into()),
                }
            } else {
                match Name::parse(&link) {
                    Ok(target) => self.tree.hard_link(&name, &target),
                    Err(e) => Err(e.into()),
                }
            }
        } else {
            let what = if kind.is_character_special() || kind.is_block_special() {
                "a device"
            } else if kind.is_fifo() {
                "a named pipe"
            } else {
                "an entry of a kind that is not known"
            };
            Err(ArchiveError::escape(&name, what).into())
        };
        done.map_err(|e| self.explain(e))
    }

    /// What an entry says of holes that the archive does not have.
    fn holes<R: Read>(&self, entry: &mut tar::Entry<'_, R>) -> Result<Records> {
        let mut records = Records::default();
        let extensions = entry.pax_extensions().map_err(|e| self.unreadable(e))?;
        for extension in extensions.into_iter().flatten() {
            let extension = extension.map_err(|e| self.unreadable(e))?;
            records
                .take(extension.key_bytes(), extension.value_bytes())
                .map_err(|e| self.refused(e))?;
        }
        Ok(records)
    }

    fn file<R: Read>(
        &mut self,
        name: &Name,
        attributes: Attributes,
        records: Records,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<()> {
        // Holes that the archive has not cost nothing, neither time nor room.
        let stored = entry.size();
        let all = self.done.file_bytes.checked_add(stored);
        let Some(all) = all.filter(|all| *all <= self.limit) else {
            let what = format!(
                "its files have more than {} GiB together, many times the room there is",
                self.limit >> 30
            );
            return Err(self.refused(ArchiveError::malformed(what)));
        };
        self.done.file_bytes = all;
        let map = records.map(stored, &mut *entry);
        let map = map.map_err(|e| self.refused(e))?;
        let size = map.as_ref().map_or(stored, Map::size);
        let mut file = self.tree.file(name, size).map_err(|e| self.explain(e))?;
        let mut at = 0;
        let Some(map) = map else {
            self.copy(entry, &mut file, 0..size)?;
            return file.finish(attributes).map_err(|e| self.explain(e.into()));
        };
        let mut cursor = Cursor::new(map);
        loop {
            let n = match cursor.next() {
                Next::Zeros(n) => n,
                Next::Data(n) => {
                    self.copy(entry, &mut file, at..at + n)?;
                    n
                }
                Next::End => break,
            };
            cursor.advance(n);
            at += n;
        }
        file.finish(attributes).map_err(|e| self.explain(e.into()))
    }

    /// The next bytes of the entry to where they belong in the file.
    fn copy<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        file: &mut tree::NewFile,
        place: Range<u64>,
    ) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut at = place.start;
        while at < place.end {
            let left = usize::try_from(place.end - at).unwrap_or(BUFFER);
            let wanted = left.min(BUFFER);
            let mut filled = 0;
            while filled < wanted {
                match entry.read(&mut buffer[filled..wanted]) {
                    Ok(0) => {
                        let what = "a file in it is cut short";
                        return Err(self.refused(ArchiveError::malformed(what)));
                    }
                    Ok(n) => filled += n,
                    Err(e) => return Err(self.unreadable(e)),
                }
            }
            for run in runs(&buffer[..filled]) {
                let start = at + run.start as u64;
                file.write(start, &buffer[run])
                    .map_err(|e| self.explain(e.into()))?;
            }
            at += filled as u64;
        }
        Ok(())
    }

    fn unreadable(&self, source: std::io::Error) -> Error {
        let refusal = source
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<ArchiveError>);
        let source = match refusal.then(|| source.downcast::<ArchiveError>()) {
            Some(Ok(refusal)) => refusal,
            Some(Err(source)) => ArchiveError::Read { source },
            None => return self.refused(ArchiveError::malformed("it is no tar, or damaged")),
        };
        self.refused(source)
    }

    fn refused(&self, source: ArchiveError) -> Error {
        Error::Archive {
            name: self.name.to_owned(),
            source,
        }
    }

    fn explain(&self, problem: tree::Problem) -> Error {
        match problem {
            tree::Problem::Refused(source) => self.refused(source),
            tree::Problem::Target(error) => error.into(),
        }
    }
}

/// Runs of blocks that are not zero.
fn runs(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        if is_zero(block) {
            continue;
        }
        let start = number * BLOCK;
        let end = start + block.len();
        match runs.last_mut() {
            Some(run) if run.end == start => run.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}
