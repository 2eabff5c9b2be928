//! Where bytes come from, as far as the engine cares.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_image::{Format, ReadAt, Wrapper};

use crate::file::LocalFile;
use crate::{Checksum, Error, Result, Served, sys};

/// A source of one image. The engine asks for random access or for a stream, as it needs.
pub trait Source: Send {
    /// The source for people, without secrets.
    fn name(&self) -> String;

    /// Length in bytes, if known.
    fn len(&self) -> Option<u64>;

    /// True if the source is known to have no bytes.
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The same bytes at random, if the source can do that.
    fn random(&self) -> Option<Arc<dyn ReadAt>>;

    /// Random access costs no more than a stream (a local file): the engine then walks tables instead
    /// of reading from front to back.
    fn prefers_random(&self) -> bool {
        false
    }

    /// A stream can be opened more than once.
    fn reopenable(&self) -> bool;

    /// The bytes from the start. Later calls only if [`Source::reopenable`]; they give the same bytes
    /// or fail.
    fn stream(&mut self) -> Result<Box<dyn Read + Send>>;

    /// The same as [`Source::stream`] from a source that has its bytes in buffers anyway: they change
    /// hands then, and are not copied. `None` if it has none, and nothing was opened.
    fn buffers(&mut self) -> Result<Option<Box<dyn Exchange>>> {
        Ok(None)
    }

    /// What the source knows of a stream of its own that begins with `head`, before any probing.
    /// `decided`: the user said what the image is, so content must not.
    fn inside(&self, _head: &[u8], _decided: bool) -> Inside {
        Inside::Image
    }

    /// The format of the content where the source knows it, so that the content is not asked: a guest
    /// can make a raw disk look like anything.
    fn format(&self) -> Option<Format> {
        None
    }

    /// The disk as its server hands it out, if it does: a raw disk of which it is known what is data.
    fn served(&mut self) -> Result<Option<Box<dyn Served>>> {
        Ok(None)
    }

    /// What is served are changes of a disk that the target has already: nothing else of the target is
    /// touched.
    fn changes_only(&self) -> bool {
        false
    }

    /// What the bytes of every stream must have, as far as the source knows: it is checked on each pass,
    /// besides what the user asks for, and random access is not used for a transfer.
    fn digest(&self) -> Option<Checksum> {
        None
    }

    /// What tells a local file from all others: device and inode.
    fn identity(&self) -> Option<(u64, u64)> {
        None
    }

    /// What tells the bytes of this source, as they are now, from any others, if that can be told for
    /// certain. Without it a transfer that ended early starts over.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    /// The bytes from `at` on, in the state that [`Source::fingerprint`] tells of. `None` if all before
    /// them would have to be read.
    fn stream_at(&mut self, _at: u64) -> Result<Option<Box<dyn Read + Send>>> {
        Ok(None)
    }

    /// Whether `error`, which came from this source, will be there at every later attempt too.
    fn lasts(&self, _error: &(dyn std::error::Error + 'static)) -> bool {
        false
    }

    /// Where the engine says how much memory it has left for the source. `None` if the source has no use
    /// for it.
    fn allowance(&self) -> Option<Allowance> {
        None
    }
}

/// A stream that gives full buffers for empty ones.
pub trait Exchange: Read + Send {
    /// Puts the next bytes into `buffer`, from its start on, or in its place another of the same length
    /// that has them. How many; 0 at the end.
    fn exchange(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize>;
}

/// What tells the bytes of a source from any others. All of it is written down and shown: no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Where they come from.
    pub place: String,
    /// Which state of what is there: a digest, a strong `ETag`, times of a file.
    pub state: String,
    /// How many there are.
    pub len: Option<u64>,
}

/// Memory that a source may take for bytes it fetches ahead of the reader: little until the engine knows
/// what it needs itself.
#[derive(Debug, Clone, Default)]
pub struct Allowance(Arc<AtomicU64>);

impl Allowance {
    /// Allows `bytes` from now on.
    pub fn allow(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// What is allowed now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a stream is, or what is left of it once compression was taken off.
#[derive(Debug)]
pub enum Inside {
    /// An image, compressed or not: probing tells.
    Image,
    /// An archive that is compressed so, whatever the image in it is said to be.
    Wrapped(Wrapper),
    /// An archive, in which this finds the image.
    Archive(Box<dyn Finder>),
}

/// Finds one image in an archive.
pub trait Finder: Send + std::fmt::Debug {
    /// The image's bytes as `archive` passes. An [`Error`] in an [`io::Error`] is given as it is.
    fn find(self: Box<Self>, archive: Box<dyn Read + Send>) -> Box<dyn Read + Send>;
}

/// A local file, block device, or something that only streams, such as a named pipe.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    /// It was opened by somebody else and is called so.
    named: Option<String>,
    random: Option<Arc<LocalFile>>,
    pipe: Option<File>,
}

impl FileSource {
    /// A regular file that somebody else opened and nobody changes. `name` is what it is called, by people and
    /// in journals: the path to it may be another one each time.
    pub fn named(file: File, name: String) -> Result<Self> {
        let path = PathBuf::from(&name);
        let local = LocalFile::from_file(file, &path, true)?;
        Ok(Self {
            path,
            named: Some(name),
            random: Some(Arc::new(local)),
            pipe: None,
        })
    }

    /// Opens `path`.
    pub fn open(path: &Path, force_share: bool) -> Result<Self> {
        let fail = |e: io::Error| Error::Source {
            name: path.display().to_string(),
            source: Box::new(e),
        };
        let file = File::open(path).map_err(fail)?;
        let kind = sys::again(|| file.metadata()).map_err(fail)?.file_type();
        if kind.is_dir() {
            return Err(fail(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        if kind.is_file() || kind.is_block_device() {
            let local = LocalFile::from_file(file, path, force_share)?;
            return Ok(Self {
                path: path.to_owned(),
                named: None,
                random: Some(Arc::new(local)),
                pipe: None,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            named: None,
            random: None,
            pipe: Some(file),
        })
    }
}

impl Source for FileSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn len(&self) -> Option<u64> {
        self.random.as_ref().map(longshore_image::ReadAt::len)
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        let file = Arc::clone(self.random.as_ref()?);
        Some(file)
    }

    fn prefers_random(&self) -> bool {
        true
    }

    fn reopenable(&self) -> bool {
        self.random.is_some()
    }

    fn stream(&mut self) -> Result<Box<dyn Read + Send>> {
        if let Some(file) = &self.random {
            file.advise_sequential();
            return Ok(Box::new(Cursor {
                file: Arc::clone(file),
                at: 0,
            }));
        }
        match self.pipe.take() {
            Some(pipe) => Ok(Box::new(pipe)),
            None => Err(read_twice(self.name())),
        }
    }

    fn identity(&self) -> Option<(u64, u64)> {
        self.random.as_ref().map(|file| file.identity())
    }

    /// Of a file. That of a device tells nothing of what is on it.
    fn fingerprint(&self) -> Option<Fingerprint> {
        let file = self.random.as_ref()?;
        let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let times = format!(
            "modified at {}.{:09}, changed at {}.{:09}",
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        );
        let inode = meta.ino();
        let (place, state) = if let Some(name) = &self.named {
            // What it is mounted by may have another number each time, as its path may be another one.
            (name.clone(), format!("inode {inode}, {times}"))
        } else {
            let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
            let state = format!("inode {inode} of device {}, {times}", meta.dev());
            (path.display().to_string(), state)
        };
        Some(Fingerprint {
            place,
            state,
            len: Some(file.len()),
        })
    }

    fn stream_at(&mut self, at: u64) -> Result<Option<Box<dyn Read + Send>>> {
        let Some(file) = &self.random else {
            return Ok(None);
        };
        file.advise_sequential();
        Ok(Some(Box::new(Cursor {
            file: Arc::clone(file),
            at,
        })))
    }
}

fn read_twice(name: String) -> Error {
    let cause = io::Error::new(io::ErrorKind::NotSeekable, "a pipe can be read only once");
    Error::Source {
        name,
        source: Box::new(cause),
    }
}

/// Reads a file that is shared with others from front to back.
struct Cursor {
    file: Arc<LocalFile>,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let there = self.file.len().saturating_sub(self.at);
        let n = buf.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        self.file.read_exact_at(&mut buf[..n], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Standard input. A file redirected into it is a file.
#[derive(Debug, Default)]
pub struct StdinSource {
    taken: bool,
}

impl StdinSource {
    /// Standard input as a source: with random access when a regular file stands behind it.
    pub fn open(force_share: bool) -> Result<Box<dyn Source>> {
        let path = Path::new("/dev/stdin");
        let is_file = std::fs::metadata(path).is_ok_and(|meta| meta.is_file());
        // Opening by name gives a cursor of its own; what was read of it before stays unread here, so
        // only a file at its start counts.
        let at_start = rustix::fs::tell(rustix::stdio::stdin()).is_ok_and(|at| at == 0);
        if is_file
            && at_start
            && let Ok(source) = FileSource::open(path, force_share)
        {
            return Ok(Box::new(source));
        }
        Ok(Box::new(Self::default()))
    }
}

impl Source for StdinSource {
    fn name(&self) -> String {
        "standard input".to_owned()
    }

    fn len(&self) -> Option<u64> {
        None
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        None
    }

    fn reopenable(&self) -> bool {
        false
    }

    fn stream(&mut self) -> Result<Box<dyn Read + Send>> {
        if std::mem::replace(&mut self.taken, true) {
            return Err(read_twice(self.name()));
        }
        Ok(Box::new(io::stdin()))
    }
}
