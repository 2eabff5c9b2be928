//! The directory that is unpacked to, by descriptors: whatever names lead to, nothing is reached through
//! a link, and nothing that is there is opened for writing.
//!
//! What is on disk when we die: `DIR/.longshore-unpack` with a part of the archive, or, once all is
//! durable, some of the archive's top level in `DIR` and the rest there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use longshore_transfer::{Error as TransferError, Progress};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Timespec, Timestamps,
};
use rustix::io::Errno;

use super::names::Name;
use super::{Destination, Existing};
use crate::archive::ArchiveError;

/// Where all is kept until it is whole.
pub(super) const STAGING: &str = ".longshore-unpack";
/// A filesystem's own directory at the top of a volume.
const LOST_AND_FOUND: &str = "lost+found";
/// Bytes of names of directories whose modes are set at the end.
const MOST_DIRECTORIES: usize = 16 << 20;
/// Written bytes of one file after which it is made durable, so that not all of it is left to the end.
const SYNC_EVERY: u64 = 256 << 20;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Why something could not be made.
#[derive(Debug)]
pub(super) enum Problem {
    /// The archive is to blame.
    Refused(ArchiveError),
    /// The directory is.
    Target(TransferError),
}

impl From<ArchiveError> for Problem {
    fn from(e: ArchiveError) -> Self {
        Self::Refused(e)
    }
}

impl From<TransferError> for Problem {
    fn from(e: TransferError) -> Self {
        Self::Target(e)
    }
}

type Result<T, E = Problem> = std::result::Result<T, E>;

/// What an entry says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) modified: u64,
}

impl Attributes {
    fn permissions(self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o777)
    }

    fn times(self) -> Timestamps {
        let time = Timespec {
            tv_sec: i64::try_from(self.modified).unwrap_or(0),
            tv_nsec: 0,
        };
        Timestamps {
            last_access: time,
            last_modification: time,
        }
    }
}

/// The directory being filled. Dropping it unfinished removes what was made.
pub(super) struct Tree {
    path: PathBuf,
    existing: Existing,
    directory: OwnedFd,
    /// Goes last if we fail.
    ours: Ours,
    root: OwnedFd,
    progress: Progress,
    /// Open directories from the root down, by name: entries mostly come in the order of their tree.
    open: Vec<(OsString, OwnedFd)>,
    /// Modes and times of directories, which are set when nothing is made in them any more.
    later: Vec<(Name, Attributes)>,
    later_bytes: usize,
    finished: bool,
}

impl Tree {
    /// Opens and locks the directory, which is made if it is not there.
    pub(super) fn begin(
        destination: &Destination,
        progress: &Progress,
    ) -> Result<Self, TransferError> {
        let path = &destination.directory;
        let fail = |action: &'static str, e: Errno| target(action, path, e.into(), 0);
        let ours = match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ours(Some(path.clone())),
            Err(Errno::EXIST) => Ours(None),
            Err(e) => return Err(fail("make the directory", e)),
        };
        // The path is the caller's, and may lead through links.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| fail("open the directory", e))?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(TransferError::Locked {
                    path: path.clone(),
                    what: "another archive is being unpacked to it",
                });
            }
            // Some filesystems have no locks.
            Err(error) => tracing::warn!(%error, "the directory can't be locked"),
        }
        remove_staging(path).map_err(|e| target("clear", &path.join(STAGING), e, 0))?;
        rustix::fs::mkdirat(&directory, STAGING, Mode::from_raw_mode(0o700))
            .map_err(|e| fail("make a directory in", e))?;
        // Dropped before `ours`, which is empty only then.
        let mut staging = Ours(Some(path.join(STAGING)));
        let root = rustix::fs::openat(&directory, STAGING, DIRECTORY, Mode::empty())
            .map_err(|e| fail("open a directory in", e))?;
        staging.0 = None;
        Ok(Self {
            path: path.clone(),
            existing: destination.existing,
            directory,
            ours,
            root,
            progress: progress.clone(),
            open: Vec::new(),
            later: Vec::new(),
            later_bytes: 0,
            finished: false,
        })
    }

    /// Free bytes.
    pub(super) fn room(&self) -> Result<u64, TransferError> {
        let stat = rustix::fs::fstatvfs(&self.root)
            .map_err(|e| self.target("ask the free space of", e))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn target(&self, action: &'static str, e: impl Into<io::Error>) -> TransferError {
        target(
            action,
            &self.path,
            e.into(),
            self.progress.snapshot().written,
        )
    }

    fn make(&self, name: &Name, action: &'static str, e: Errno) -> Problem {
        match e {
            Errno::EXIST => ArchiveError::escape(name, "a name that an earlier entry has").into(),
            e => {
                let path = name
                    .parts()
                    .iter()
                    .fold(self.path.clone(), |p, part| p.join(part));
                target(action, &path, e.into(), self.progress.snapshot().written).into()
            }
        }
    }

    /// The directory that was entered last.
    fn here(&self) -> BorrowedFd<'_> {
        match self.open.last() {
            Some((_, fd)) => fd.as_fd(),
            None => self.root.as_fd(),
        }
    }

    /// Opens the directories that `parents` lead through, and makes those that are missing.
    fn enter(&mut self, name: &Name, parents: &[OsString]) -> Result<BorrowedFd<'_>> {
        let common = self.open.iter().zip(parents);
        let common = common.take_while(|((open, _), part)| open == *part).count();
        self.open.truncate(common);
        for (depth, part) in parents.iter().enumerate().skip(common) {
            let parent = self.here();
            match rustix::fs::mkdirat(parent, part, Mode::from_raw_mode(0o755)) {
                Ok(()) if depth == 0 => self.check_free(name, part)?,
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(self.make(name, "make the directory of", e)),
            }
            let parent = self.here();
            let opened = rustix::fs::openat(parent, part, DIRECTORY, Mode::empty());
            let fd = opened.map_err(|e| match e {
                Errno::NOTDIR | Errno::LOOP => {
                    let what = "a name through a link or file that an earlier entry made";
                    ArchiveError::escape(name, what).into()
                }
                e => self.make(name, "open the directory of", e),
            })?;
            self.open.push((part.clone(), fd));
        }
        Ok(self.here())
    }

    /// Something new is at the top: it will need its name in the directory.
    fn check_free(&self, name: &Name, part: &OsStr) -> Result<()> {
        if part == STAGING {
            return Err(ArchiveError::escape(name, "a name that is used for unpacking").into());
        }
        if self.existing == Existing::Replace || part == LOST_AND_FOUND {
            return Ok(());
        }
        match rustix::fs::statat(&self.directory, part, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Ok(_) => {
                let e = io::Error::from(io::ErrorKind::AlreadyExists);
                Err(target("unpack to", &self.path.join(part), e, 0).into())
            }
            Err(e) => Err(self.target("look into", e).into()),
        }
    }

    /// A directory. One that is there already, whole or on the way of others, gets these attributes.
    pub(super) fn directory(&mut self, name: &Name, attributes: Attributes) -> Result<()> {
        // The directory itself stays as it is.
        if name.parts().is_empty() {
            return Ok(());
        }
        self.enter(name, name.parts())?;
        self.later_bytes += name.weight();
        if self.later_bytes > MOST_DIRECTORIES {
            let what = "it has too many directories, or too long names for them";
            return Err(ArchiveError::malformed(what).into());
        }
        self.later.push((name.clone(), attributes));
        Ok(())
    }

    /// A new file of `size` bytes.
    pub(super) fn file(&mut self, name: &Name, size: u64) -> Result<NewFile> {
        let Some((parents, last)) = name.split() else {
            return Err(ArchiveError::escape(name, "a file without a name").into());
        };
        let parent = self.enter(name, parents)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let fd = rustix::fs::openat(parent, last, flags | OFlags::CLOEXEC, mode);
        let fd = fd.map_err(|e| self.make(name, "create", e))?;
        if parents.is_empty() {
            self.check_free(name, last)?;
        }
        let file = NewFile {
            file: File::from(fd),
            path: name
                .parts()
                .iter()
                .fold(self.path.clone(), |p, part| p.join(part)),
            progress: self.progress.clone(),
            unsynced: 0,
        };
        let sized = file.file.set_len(size);
        sized.map_err(|e| file.failed("set the size of", e))?;
        Ok(file)
    }

    /// A symbolic link, whose target was found good.
    pub(super) fn symlink(&mut self, name: &Name, link: &[u8]) -> Result<()> {
        let Some((parents, last)) = name.split() else {
            return Err(ArchiveError::escape(name, "a link without a name").into());
        };
        let parent = self.enter(name, parents)?;
        let made = rustix::fs::symlinkat(OsStr::from_bytes(link), parent, last);
        made.map_err(|e| self.make(name, "make the link", e))?;
        if parents.is_empty() {
            self.check_free(name, last)?;
        }
        Ok(())
    }

    /// One more name for a file that the archive had before.
    pub(super) fn hard_link(&mut self, name: &Name, old: &Name) -> Result<()> {
        let refused = |what| Err(ArchiveError::escape(name, what).into());
        let (Some((parents, last)), Some((old_parents, old_last))) = (name.split(), old.split())
        else {
            return refused("a link without a name");
        };
        let mut from = self.root.try_clone().map_err(|e| self.target("open", e))?;
        for part in old_parents {
            from = match rustix::fs::openat(&from, part, DIRECTORY, Mode::empty()) {
                Ok(fd) => fd,
                Err(_) => return refused("a hard link to what no earlier entry made"),
            };
        }
        // All of the tree is the archive's own, so a file here is one of its files.
        let found = rustix::fs::statat(&from, old_last, AtFlags::SYMLINK_NOFOLLOW);
        match found.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::RegularFile) => {}
            Ok(_) => return refused("a hard link to what is no file"),
            Err(_) => return refused("a hard link to what no earlier entry made"),
        }
        let to = self.enter(name, parents)?;
        let made = rustix::fs::linkat(&from, old_last, to, last, AtFlags::empty());
        made.map_err(|e| self.make(name, "make the link", e))?;
        if parents.is_empty() {
            self.check_free(name, last)?;
        }
        Ok(())
    }

    /// All is there: makes it durable and moves it to its place.
    pub(super) fn finish(mut self) -> Result<(), TransferError> {
        self.open.clear();
        let mut later = std::mem::take(&mut self.later);
        // From the deepest on: what is above may not let us in any more.
        later.sort_by_key(|(name, _)| std::cmp::Reverse(name.parts().len()));
        let top = later.partition_point(|(name, _)| name.parts().len() > 1);
        for (name, attributes) in &later[..top] {
            set_attributes(&self.root, name, *attributes)
                .map_err(|e| self.target("set the mode of a directory in", e))?;
        }
        let sync =
            |this: &Self| rustix::fs::syncfs(&this.directory).map_err(|e| this.target("fsync", e));
        sync(&self)?;
        let names = names_in(&self.path.join(STAGING)).map_err(|e| self.target("list", e))?;
        for name in &names {
            self.publish(name)
                .map_err(|e| self.target("move what was unpacked to", e))?;
        }
        for (name, attributes) in &later[top..] {
            if name
                .parts()
                .first()
                .is_some_and(|part| part != LOST_AND_FOUND)
            {
                set_attributes(&self.directory, name, *attributes)
                    .map_err(|e| self.target("set the mode of a directory in", e))?;
            }
        }
        remove_staging(&self.path).map_err(|e| self.target("clear", e))?;
        self.finished = true;
        self.ours.0 = None;
        sync(&self)
    }

    /// One name of the top level to its place. What was there goes with the rest of the staging.
    fn publish(&self, name: &OsStr) -> Result<(), Errno> {
        let there = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_there = match there {
            Ok(_) => true,
            Err(Errno::NOENT) => false,
            Err(e) => return Err(e),
        };
        if is_there && name == LOST_AND_FOUND {
            return Ok(());
        }
        let flags = if is_there && self.existing == Existing::Replace {
            RenameFlags::EXCHANGE
        } else {
            RenameFlags::NOREPLACE
        };
        match rustix::fs::renameat_with(&self.root, name, &self.directory, name, flags) {
            // Not every filesystem exchanges names, or looks whether one is free.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return done,
        }
        if flags == RenameFlags::EXCHANGE {
            let old = self.path.join(name);
            let removed = std::fs::remove_dir_all(&old).or_else(|_| std::fs::remove_file(&old));
            if let Err(error) = removed {
                tracing::warn!(path = %old.display(), %error, "what is there can't be removed");
            }
        }
        rustix::fs::renameat(&self.root, name, &self.directory, name)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.open.clear();
        if let Err(error) = remove_staging(&self.path) {
            tracing::warn!(%error, "a part of the archive stays behind");
        }
    }
}

/// A directory that we made, and that goes with us unless it is full.
struct Ours(Option<PathBuf>);

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Somebody may have put something in it.
            drop(std::fs::remove_dir(path));
        }
    }
}

/// A file being written.
pub(super) struct NewFile {
    file: File,
    path: PathBuf,
    progress: Progress,
    unsynced: u64,
}

impl NewFile {
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), TransferError> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|e| self.failed("write", e))?;
        self.progress.add_written(bytes.len() as u64);
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data().map_err(|e| self.failed("fsync", e))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    pub(super) fn finish(self, attributes: Attributes) -> Result<(), TransferError> {
        rustix::fs::fchmod(&self.file, attributes.permissions())
            .map_err(|e| self.failed("set the mode of", e.into()))?;
        rustix::fs::futimens(&self.file, &attributes.times())
            .map_err(|e| self.failed("set the time of", e.into()))
    }

    fn failed(&self, action: &'static str, e: io::Error) -> TransferError {
        target(action, &self.path, e, self.progress.snapshot().written)
    }
}

fn set_attributes(root: &OwnedFd, name: &Name, attributes: Attributes) -> Result<(), Errno> {
    let mut fd = rustix::io::dup(root)?;
    for part in name.parts() {
        fd = rustix::fs::openat(&fd, part, DIRECTORY, Mode::empty())?;
    }
    rustix::fs::fchmod(&fd, attributes.permissions())?;
    rustix::fs::futimens(&fd, &attributes.times())
}

fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

/// Removes what an attempt left. It follows no links.
fn remove_staging(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory.join(STAGING)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn target(action: &'static str, path: &Path, source: io::Error, written: u64) -> TransferError {
    let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG].map(Errno::raw_os_error);
    if source.raw_os_error().is_some_and(|e| full.contains(&e)) {
        return TransferError::NoSpace {
            path: path.to_owned(),
            written,
            source,
        };
    }
    TransferError::Target {
        action,
        path: path.to_owned(),
        source,
    }
}
