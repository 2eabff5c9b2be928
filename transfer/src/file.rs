//! Local files and block devices as something to read at random.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_image::{FileRange, OpenGate, ReadAt, Reference, ReferenceKind};
use rustix::fs::{SeekFrom, seek};

use crate::lock::{self, Role};
use crate::{Error, Result, sys};

/// A regular file or block device, read by `pread`. Never mapped: a file that shrinks under us is an
/// error then, not a SIGBUS.
#[derive(Debug)]
pub struct LocalFile {
    file: File,
    len: u64,
    seekable_holes: bool,
    identity: (u64, u64),
}

impl LocalFile {
    /// Opens `path`, which must be a regular file or block device, and takes QEMU's reader locks on it
    /// unless `force_share`.
    pub fn open(path: &Path, force_share: bool) -> Result<Self> {
        let file = File::open(path).map_err(|e| unreadable(path, e))?;
        Self::from_file(file, path, force_share)
    }

    pub(crate) fn from_file(file: File, path: &Path, force_share: bool) -> Result<Self> {
        let meta = sys::again(|| file.metadata()).map_err(|e| unreadable(path, e))?;
        let kind = meta.file_type();
        let (len, seekable_holes) = if kind.is_file() {
            (meta.len(), true)
        } else if kind.is_block_device() {
            (
                sys::again(|| sys::device_size(file.as_fd())).map_err(|e| unreadable(path, e))?,
                false,
            )
        } else {
            let e = io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file or block device",
            );
            return Err(unreadable(path, e));
        };
        if !force_share {
            lock::take(file.as_fd(), path, Role::Reader)?;
        }
        let identity = identity(&meta);
        Ok(Self {
            file,
            len,
            seekable_holes,
            identity,
        })
    }

    /// What tells this file or device from all others.
    pub(crate) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// What the filesystem says of it now.
    pub(crate) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        sys::again(|| self.file.metadata())
    }

    /// Tells the kernel that it will be read from front to back.
    pub(crate) fn advise_sequential(&self) {
        // Only advice: a filesystem that does not take it reads as before.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::Sequential);
    }
}

/// Device and inode of a file; the device it stands for, of a block special file.
pub(crate) fn identity(meta: &std::fs::Metadata) -> (u64, u64) {
    if meta.file_type().is_block_device() {
        (u64::MAX, meta.rdev())
    } else {
        (meta.dev(), meta.ino())
    }
}

fn unreadable(path: &Path, e: io::Error) -> Error {
    Error::Source {
        name: path.display().to_string(),
        source: Box::new(e),
    }
}

impl ReadAt for LocalFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn will_read(&self, range: Range<u64>) {
        let len = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        // Only advice, as above.
        if len.is_some() {
            let _ = rustix::fs::fadvise(&self.file, range.start, len, rustix::fs::Advice::WillNeed);
        }
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        if from >= self.len {
            return Ok(None);
        }
        if !self.seekable_holes {
            return Ok(Some(from..self.len));
        }
        let start = match sys::again(|| seek(&self.file, SeekFrom::Data(from))) {
            Ok(start) => start,
            Err(e) => {
                return match e.raw_os_error() {
                    Some(libc::ENXIO) => Ok(None),
                    Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(Some(from..self.len)),
                    _ => Err(e),
                };
            }
        };
        let end = sys::again(|| seek(&self.file, SeekFrom::Hole(start)))?.min(self.len);
        Ok((start < end).then_some(start..end))
    }

    /// Not of a block device: there is nothing to share there.
    fn in_file(&self, at: u64) -> Option<FileRange<'_>> {
        let len = self.len.checked_sub(at).filter(|_| self.seekable_holes)?;
        Some(FileRange {
            file: self.file.as_fd(),
            at,
            len,
        })
    }
}

/// A gate that opens files named inside images, if they lie in the directory of the image. For the
/// command line, where the person who runs it asked for it.
#[derive(Debug, Clone)]
pub struct DirectoryGate {
    /// What is let in lies here.
    root: PathBuf,
    /// What names are relative to: the directory of the file that has them.
    base: PathBuf,
    force_share: bool,
}

impl DirectoryGate {
    /// Lets in files of the directory that holds `image`, and of its subdirectories.
    pub fn beside(image: &Path, force_share: bool) -> Self {
        let directory = image.parent().filter(|p| !p.as_os_str().is_empty());
        let root = directory.unwrap_or_else(|| Path::new(".")).to_owned();
        Self {
            base: root.clone(),
            root,
            force_share,
        }
    }

    fn resolve(&self, name: &str) -> io::Result<PathBuf> {
        let root = self.root.canonicalize()?;
        let path = self.base.join(name).canonicalize()?;
        if path.starts_with(&root) {
            Ok(path)
        } else {
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it lies outside the image's directory",
            ))
        }
    }
}

impl OpenGate for DirectoryGate {
    fn open(&self, reference: &Reference) -> longshore_image::Result<Arc<dyn ReadAt>> {
        use longshore_image::{Error, ErrorKind};
        let what = match reference.kind {
            ReferenceKind::Backing => "backing file",
            ReferenceKind::DataFile => "data file",
            _ => "extent file",
        };
        let path = self.resolve(&reference.name).map_err(|e| {
            // What is not there is nobody's attempt to get in.
            let (kind, how) = match e.kind() {
                io::ErrorKind::NotFound => (ErrorKind::Io, "was not found"),
                _ => (ErrorKind::Denied, "was not let in"),
            };
            Error::new(kind, format!("the {what} {:?} {how}", reference.name)).with_source(e)
        })?;
        let file = LocalFile::open(&path, self.force_share).map_err(|e| {
            Error::new(
                ErrorKind::Io,
                format!("the {what} {:?} did not open", reference.name),
            )
            .with_source(e)
        })?;
        Ok(Arc::new(file))
    }

    fn nested(&self, reference: &Reference) -> Arc<dyn OpenGate> {
        let mut nested = self.clone();
        if let Ok(path) = self.resolve(&reference.name)
            && let Some(directory) = path.parent()
        {
            directory.clone_into(&mut nested.base);
        }
        Arc::new(nested)
    }
}
