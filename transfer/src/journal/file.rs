//! The journal as a file: read, begun, appended to, removed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::Facts;
use super::record::{Chain, Contents, Image, Parsed, Step, is_of_another_version, parse};
use crate::checksum::hex;
use crate::sys;

/// A longer file is none of ours.
const MOST_BYTES: u64 = 8 << 20;
/// A journal that has grown to this is written anew, with what it says in one step.
const COMPACT_AT: u64 = 4 << 20;

/// Where a journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
}

impl Place {
    /// Of a file: beside it.
    pub(crate) fn beside(target: &Path) -> Option<Self> {
        let mut name = OsString::from(".");
        name.push(target.file_name()?);
        name.push(".longshore-journal");
        Some(Self {
            path: target.with_file_name(name),
        })
    }

    /// Of a device: by the name and the path of its node.
    pub(super) fn in_directory(directory: &Path, target: &Path) -> Self {
        let whole = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
        let digest = sha2::Sha256::digest(whole.as_os_str().as_bytes());
        let mut name = OsString::from(target.file_name().unwrap_or_default());
        let mark = hex(&digest[..6]);
        name.push(format!("-{mark}.longshore-journal"));
        Self {
            path: directory.join(name),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn new_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".new");
        path.into()
    }

    fn directory(&self) -> &Path {
        let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        parent.unwrap_or_else(|| Path::new("."))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.directory())?.sync_all()
    }
}

/// What was found where a journal would be.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// It can't be used, and this is why.
    Useless(String),
    /// It fits.
    Fits(Box<Parsed>),
}

/// Reads the journal of an import that `facts` must be true of.
pub(crate) fn look(place: &Place, facts: &Facts) -> Found {
    let bytes = match read(place.path()) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Found::Nothing,
        Err(e) => return Found::Useless(format!("it can't be read: {e}")),
    };
    let Some(parsed) = parse(&bytes) else {
        let why = if is_of_another_version(&bytes) {
            "it was written by another version of longshore"
        } else {
            "it is damaged, or was written by something else"
        };
        return Found::Useless(why.to_owned());
    };
    if parsed.contents.believed().is_empty() {
        return Found::Nothing;
    }
    if let Some(difference) = parsed.contents.facts.difference(facts) {
        return Found::Useless(difference.to_string());
    }
    Found::Fits(Box::new(parsed))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > MOST_BYTES {
        let text = "it is no file that longshore wrote";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes sure that there is none, durably if one was there: from here on what it said is not true.
pub(crate) fn discard(place: &Place) -> io::Result<()> {
    drop(std::fs::remove_file(place.new_path()));
    match sys::again(|| std::fs::remove_file(&place.path)) {
        Ok(()) => place.sync_directory(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // A filesystem that can't be written to says so before it looks.
        Err(_) if matches!(place.path.symlink_metadata(), Err(e) if e.kind() == io::ErrorKind::NotFound) => {
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    place: Place,
    file: File,
    len: u64,
    chain: Chain,
    contents: Contents,
}

impl Writing {
    /// Begins a new one. Directories of its own are made.
    pub(super) fn begin(place: Place, facts: Facts, image: Image) -> io::Result<Self> {
        std::fs::create_dir_all(place.directory())?;
        let contents = Contents {
            facts,
            image: Some(image),
            ..Contents::default()
        };
        Self::written_anew(place, contents)
    }

    /// Goes on with one that was read.
    pub(super) fn resume(place: Place, parsed: Parsed) -> io::Result<Self> {
        let file = File::options()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&place.path)?;
        Ok(Self {
            place,
            file,
            len: parsed.len,
            chain: parsed.chain,
            contents: parsed.contents,
        })
    }

    /// All of `contents` in a new file, which then takes the name.
    fn written_anew(place: Place, contents: Contents) -> io::Result<Self> {
        let path = place.new_path();
        drop(std::fs::remove_file(&path));
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let mut chain = Chain::default();
        let image = contents.image.clone().ok_or(io::ErrorKind::InvalidInput)?;
        let mut bytes = chain.begin(&contents.facts, &image);
        let head = Some(contents.head.as_slice()).filter(|head| !head.is_empty());
        if !contents.done.is_empty() || head.is_some() {
            bytes.extend(chain.step(&contents.as_step(), head));
        }
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        std::fs::rename(&path, &place.path)?;
        place.sync_directory()?;
        Ok(Self {
            place,
            file,
            len: bytes.len() as u64,
            chain,
            contents,
        })
    }

    /// Adds a step, and gives the number of bytes that took. Durable when it returns.
    pub(super) fn append(&mut self, step: Step, head: Option<Vec<u8>>) -> io::Result<u64> {
        let mut chain = self.chain;
        let bytes = chain.step(&step, head.as_deref());
        self.contents.apply(step);
        if let Some(head) = head {
            self.contents.head = head;
        }
        if self.len + bytes.len() as u64 > COMPACT_AT {
            let contents = std::mem::take(&mut self.contents);
            *self = Self::written_anew(self.place.clone(), contents)?;
            return Ok(self.len);
        }
        self.file.write_all_at(&bytes, self.len)?;
        self.file.sync_data()?;
        self.chain = chain;
        self.len += bytes.len() as u64;
        Ok(bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests;
