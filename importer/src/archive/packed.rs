//! An archive that can only be taken as it passes: a compressed one, or one on standard input.
//!
//! Compression is the engine's to take off, within its budget and on its threads; it then asks what is
//! inside, and the disk is searched for in one pass. Only what a name says or, on standard input, a
//! header with a right checksum, is taken for an archive; `--from` without a chosen disk turns the
//! latter off.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use longshore_image::{Probe, ReadAt, probe};
use longshore_transfer::{
    Allowance, Exchange, Finder, Fingerprint, Inside, Options, Source, inspect,
};

use super::member::{Reading, Wanted, refusal};
use super::tape::{BLOCK_LEN, checksum};
use super::walk::Walk;
use super::{ArchiveError, Contents, list};

/// A source of which one disk is wanted, if it is an archive.
pub(super) struct Packed {
    inner: Box<dyn Source>,
    wanted: Wanted,
    /// It is one: its name or the user says so.
    named: bool,
}

impl Packed {
    pub(super) fn new(inner: Box<dyn Source>, wanted: Wanted, named: bool) -> Self {
        Self {
            inner,
            wanted,
            named,
        }
    }
}

impl Source for Packed {
    fn name(&self) -> String {
        self.wanted.of(&self.inner.name())
    }

    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        if self.named {
            return None;
        }
        self.inner.random()
    }

    fn prefers_random(&self) -> bool {
        self.inner.prefers_random()
    }

    fn reopenable(&self) -> bool {
        self.inner.reopenable()
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        self.inner.stream()
    }

    fn buffers(&mut self) -> longshore_transfer::Result<Option<Box<dyn Exchange>>> {
        self.inner.buffers()
    }

    fn inside(&self, head: &[u8], decided: bool) -> Inside {
        if self.named {
            return match probe(head) {
                Probe::Wrapper(wrapper) => Inside::Wrapped(wrapper),
                _ => Inside::Archive(Box::new(self.search())),
            };
        }
        if !decided && is_tar(head) {
            return Inside::Archive(Box::new(self.search()));
        }
        Inside::Image
    }

    fn identity(&self) -> Option<(u64, u64)> {
        self.inner.identity()
    }

    fn allowance(&self) -> Option<Allowance> {
        self.inner.allowance()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let archive = self.inner.fingerprint()?;
        Some(Fingerprint {
            place: self.wanted.of(&archive.place),
            ..archive
        })
    }

    fn lasts(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        self.inner.lasts(error)
    }
}

impl Packed {
    fn search(&self) -> Search {
        Search {
            name: self.name(),
            wanted: self.wanted.clone(),
        }
    }
}

/// Finds the disk.
#[derive(Debug)]
struct Search {
    name: String,
    wanted: Wanted,
}

impl Finder for Search {
    fn find(self: Box<Self>, archive: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        Box::new(Reading::forward(
            self.name,
            Walk::stream(archive),
            self.wanted,
        ))
    }
}

/// `head` is a tar header (POSIX 1003.1, ustar, or GNU's), and its checksum is right.
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..BLOCK_LEN) else {
        return false;
    };
    if !header[257..].starts_with(b"ustar") {
        return false;
    }
    let stored = std::str::from_utf8(&header[148..156])
        .ok()
        .map(|text| text.trim_matches([' ', '\0']))
        .and_then(|text| u32::from_str_radix(text, 8).ok());
    stored == Some(checksum(header))
}

/// Lists a compressed archive: its descriptor, or all of its files.
pub(super) fn contents(inner: Box<dyn Source>, options: &Options) -> crate::Result<Contents> {
    let name = inner.name();
    let found = Found::default();
    let mut listing = Listing {
        packed: Packed::new(inner, Wanted::new(None), true),
        found: Arc::clone(&found),
    };
    let looked = inspect(&mut listing, options);
    let found = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (found, looked) {
        (Some(listed), _) => listed.map_err(|source| crate::Error::Archive { name, source }),
        (None, Err(e)) => Err(e.into()),
        (None, Ok(_)) => Err(crate::Error::Archive {
            name,
            source: ArchiveError::malformed("it is empty"),
        }),
    }
}

type Found = Arc<Mutex<Option<Result<Contents, ArchiveError>>>>;

/// A source in which a list is found instead of a disk.
struct Listing {
    packed: Packed,
    found: Found,
}

impl Source for Listing {
    fn name(&self) -> String {
        self.packed.name()
    }

    fn len(&self) -> Option<u64> {
        self.packed.len()
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        None
    }

    fn reopenable(&self) -> bool {
        false
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        self.packed.stream()
    }

    fn inside(&self, head: &[u8], decided: bool) -> Inside {
        match self.packed.inside(head, decided) {
            Inside::Archive(_) => Inside::Archive(Box::new(Lister {
                found: Arc::clone(&self.found),
            })),
            other => other,
        }
    }
}

#[derive(Debug)]
struct Lister {
    found: Found,
}

impl Finder for Lister {
    fn find(self: Box<Self>, archive: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        Box::new(Once {
            found: self.found,
            walk: Some(Walk::stream(archive)),
        })
    }
}

/// Lists when it is read, and then wants nothing more.
struct Once {
    found: Found,
    walk: Option<Walk>,
}

impl Read for Once {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let Some(walk) = self.walk.take() else {
            return Ok(0);
        };
        let listed = list(walk, false);
        // A stream that broke off has its own story, which the engine tells.
        if let Err(ArchiveError::Read { source }) = listed {
            return Err(refusal("", ArchiveError::Read { source }));
        }
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(listed);
        Err(io::Error::other("only the list was wanted"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_header_with_its_checksum_is_a_tar() {
        let mut header = tar::Header::new_ustar();
        header.set_path("disk.raw").unwrap();
        header.set_size(5);
        header.set_cksum();
        let mut head = header.as_bytes().to_vec();
        assert!(is_tar(&head));
        assert!(!is_tar(&head[..511]));
        head[0] ^= 1;
        assert!(!is_tar(&head));
        assert!(!is_tar(&[0; 1024]));
    }
}
