//! Where the disk goes: a new file, or a block device.
//!
//! What the bytes of the file mean is not decided here: see `engine::output`.
//!
//! What is on disk when we die:
//! - **file**: only `.NAME.partial` beside the target; the target itself appears, whole and durable, by
//!   rename, or stays as it was;
//! - **block device**: its first MiB reads as zeros until everything else is durable, so a partial
//!   disk neither boots nor probes as anything. Where a journal is kept, the end of it has a mark by which
//!   the journal knows the device;
//! - **changed in place**: see `in_place`.
//!
//! With a journal what is there is gone on with: see `resume` and `crate::journal`.
//!
//! A new file starts as zeros, so zeros are not written. A device does not: what was never written is
//! zeroed at the end, from a record of what was.

mod behind;
mod in_place;
mod resume;
mod share;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_image::Format;
use longshore_image::cluster::Encoding;
use longshore_image::qcow2::write::{Store, USUAL_CLUSTER_SIZE};
use rustix::fs::{FallocateFlags, Mode, OFlags};

use self::behind::WriteBehind;
use self::resume::Mark;
use crate::journal::{Journal, Kept, Plan};
use crate::lock::{self, Role};
use crate::written::Written;
use crate::{Error, Result, file, sys};

/// How much of a block device is written last.
const HEAD: u64 = 1 << 20;
/// The very last of it, which a kill leaves written or not, never in part.
const FIRST: usize = 4096;
/// How much of the rest of it is written at once.
const HEAD_STEP: usize = 64 << 10;
/// Zeros are written in pieces of this size where nothing better works.
const ZEROS: usize = 1 << 20;
/// Most separate written ranges remembered (about 6 MiB) before gaps between them are zeroed early.
const MOST_RANGES: usize = 100_000;
/// `O_DIRECT` wants offsets, lengths and memory aligned to this.
const DIRECT_ALIGN: usize = 4096;

/// Whether blocks are set aside for what is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preallocate {
    /// The file stays sparse.
    #[default]
    Off,
    /// `fallocate`: blocks without writing; zeros are written where the filesystem can't.
    Falloc,
    /// Zeros are written.
    Full,
}

/// How the page cache is used for the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cache {
    /// Through the page cache.
    #[default]
    Writeback,
    /// Past it (`O_DIRECT`) where the filesystem can.
    None,
}

/// What a target is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetFormat {
    /// The disk's bytes, as they are.
    #[default]
    Raw,
    /// A qcow2 image in a file.
    Qcow2(Qcow2Spec),
}

impl TargetFormat {
    /// The format.
    pub fn format(self) -> Format {
        match self {
            Self::Raw => Format::Raw,
            Self::Qcow2(_) => Format::Qcow2,
        }
    }
}

/// How a qcow2 image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2Spec {
    /// Bytes per cluster: a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// How clusters are compressed; `None` leaves them as they are.
    pub compression: Option<Encoding>,
}

impl Default for Qcow2Spec {
    fn default() -> Self {
        Self {
            cluster_size: USUAL_CLUSTER_SIZE,
            compression: None,
        }
    }
}

/// What to write to, and how.
#[derive(Debug, Clone, Default)]
pub struct TargetSpec {
    /// What is written.
    pub format: TargetFormat,
    /// File to make or replace, or block device to fill.
    pub path: PathBuf,
    /// Blocks for zeros.
    pub preallocate: Preallocate,
    /// Page cache.
    pub cache: Cache,
    /// Size of the result in bytes; must not be smaller than the disk. `None`: the disk's own.
    pub size: Option<u64>,
    /// fsync before it counts as done, and start writing out early so that this does not take long.
    pub sync: bool,
    /// Do without QEMU's image locks.
    pub force_share: bool,
    /// Write down what is done, and go on from there if it was written down before. `None`: a transfer
    /// that ends early leaves nothing. Only raw disks have one.
    pub journal: Option<Journal>,
}

#[derive(Debug)]
enum Kind {
    File {
        partial: PathBuf,
        /// The file that will be replaced, kept open for its locks.
        _replaced: Option<File>,
    },
    Device {
        size: u64,
        sector: u64,
        /// What belongs into the first MiB.
        head: Vec<u8>,
    },
    /// A disk of which parts are replaced.
    InPlace {
        size: u64,
        /// Of a block device.
        sector: Option<u64>,
    },
}

/// An open target. Dropping it unfinished removes the partial file, unless it has a journal: then that
/// is for whoever has the journal to decide.
#[derive(Debug)]
pub(crate) struct Target {
    spec: TargetSpec,
    kind: Kind,
    file: File,
    direct: Option<Direct>,
    /// What was written, if what was not must be zeroed at the end.
    written: Option<Written>,
    behind: Option<WriteBehind>,
    bytes: u64,
    shared: u64,
    /// End of the last bytes of the disk that were written.
    end: u64,
    /// What a file's length was set to.
    len: u64,
    finished: bool,
    begun: Begun,
    /// What a device is known by until it is whole.
    mark: Option<Mark>,
}

/// What a journal has to do with a target.
#[derive(Debug, Clone, Copy, Default)]
struct Begun {
    /// A journal tells what is here.
    journalled: bool,
    /// Some of the disk is here from an earlier run.
    resumed: bool,
    /// The head of a device has changed since the journal was told.
    head_changed: bool,
}

impl Target {
    /// Opens and locks the target, before anything is read. Nothing of an existing target is changed. With
    /// a `plan` also what its journal is to be kept with, and what it says if it can be believed.
    pub(crate) fn open(
        spec: &TargetSpec,
        source: Option<(u64, u64)>,
        plan: Option<&Plan>,
    ) -> Result<(Self, Option<Kept>)> {
        let path = &spec.path;
        let is_image = spec.format != TargetFormat::Raw;
        if is_image && spec.preallocate != Preallocate::Off {
            let text = "blocks are not set aside inside a qcow2 image; its tables are always there";
            return Err(not_this_way(path, text));
        }
        let existing = match sys::again(|| std::fs::metadata(path)) {
            Ok(meta) => Some(meta),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::target("look at", path, e)),
        };
        if let Some(meta) = &existing {
            if source == Some(file::identity(meta)) {
                return Err(Error::SameFile { path: path.clone() });
            }
            if meta.file_type().is_block_device() {
                if is_image {
                    let text = "qcow2 is written to files; a block device takes the raw disk";
                    return Err(not_this_way(path, text));
                }
                return Self::device(spec, plan);
            }
            if !meta.is_file() {
                let e = io::Error::new(io::ErrorKind::InvalidInput, "not a file or block device");
                return Err(Error::target("write", path, e));
            }
        }
        Self::new_file(spec, existing.is_some(), plan)
    }

    /// Nothing was written yet, and nothing is known to need zeros.
    fn of(spec: &TargetSpec, kind: Kind, file: File) -> Self {
        Self {
            spec: spec.clone(),
            kind,
            file,
            direct: None,
            written: None,
            behind: None,
            bytes: 0,
            shared: 0,
            end: 0,
            len: 0,
            finished: false,
            begun: Begun::default(),
            mark: None,
        }
    }

    fn new_file(
        spec: &TargetSpec,
        exists: bool,
        plan: Option<&Plan>,
    ) -> Result<(Self, Option<Kept>)> {
        let path = &spec.path;
        let replaced = if exists && !spec.force_share {
            let old = File::options()
                .read(true)
                .write(true)
                .open(path)
                .map_err(|e| Error::target("open", path, e))?;
            lock::take(old.as_fd(), path, Role::Writer)?;
            Some(old)
        } else {
            None
        };
        let partial = partial_name(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open =
            |flags| sys::again(|| rustix::fs::open(&partial, flags, Mode::from_raw_mode(0o644)));
        let (opened, left_behind) = match open(flags | OFlags::EXCL) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => (open(flags), true),
            opened => (opened, false),
        };
        let file = File::from(opened.map_err(|e| Error::target("create", &partial, e))?);
        // Whoever else writes the same partial file holds this lock.
        lock::take(file.as_fd(), &partial, Role::Writer)?;
        let full = spec.preallocate == Preallocate::Full;
        let kind = Kind::File {
            partial,
            _replaced: replaced,
        };
        let mut this = Self::of(spec, kind, file);
        this.written = full.then(Written::default);
        // From here on a failure takes the partial file with it, unless there is a journal of it.
        let kept = this.find_journal(plan, left_behind)?;
        if !this.begun.resumed {
            this.file.set_len(0).map_err(|e| this.failed("empty", e))?;
        }
        this.choose_cache();
        this.begun.journalled = kept.is_some();
        Ok((this, kept))
    }

    fn device(spec: &TargetSpec, plan: Option<&Plan>) -> Result<(Self, Option<Kept>)> {
        let path = &spec.path;
        // EXCL on a block device: fails while it is mounted or part of something else.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
        let fd = sys::again(|| rustix::fs::open(path, flags, Mode::empty()))
            .map_err(|e| Error::target("open", path, e))?;
        let file = File::from(fd);
        if !spec.force_share {
            lock::take(file.as_fd(), path, Role::Writer)?;
        }
        let ask = |e| Error::target("ask the size of", path, e);
        let size = sys::again(|| sys::device_size(file.as_fd())).map_err(ask)?;
        let sector = sys::again(|| sys::device_sector(file.as_fd())).map_err(ask)?;
        let kind = Kind::Device {
            size,
            sector,
            head: Vec::new(),
        };
        let mut this = Self::of(spec, kind, file);
        this.written = Some(Written::default());
        let kept = this.find_journal_of_device(plan)?;
        this.choose_cache();
        this.begun.journalled = kept.is_some();
        Ok((this, kept))
    }

    fn choose_cache(&mut self) {
        if self.spec.cache == Cache::None {
            self.direct = Direct::open(&self.file);
            if self.direct.is_none() {
                tracing::warn!(
                    "the target can't be written past the page cache; writing through it"
                );
            }
        }
        if self.spec.sync && self.direct.is_none() {
            self.behind = Some(WriteBehind::default());
        }
    }

    /// The disk's size is known, or how large it is at least (or neither, for a raw stream of unknown
    /// length): makes room, or refuses before the first byte is written.
    pub(crate) fn begin(&mut self, disk: Option<u64>) -> Result<()> {
        if self.is_in_place() {
            // Its size stays what it is, whatever was asked for.
            return self.holds(disk.unwrap_or(0));
        }
        if let (Some(disk), Some(size)) = (disk, self.spec.size)
            && disk > size
        {
            let what = format!("the requested size of {}", self.spec.path.display());
            return Err(Error::TooSmall {
                needed: disk,
                available: size,
                what,
            });
        }
        if self.spec.format != TargetFormat::Raw {
            // The file is as long as the image becomes.
            return Ok(());
        }
        let size = self.spec.size.or(disk);
        if let Kind::Device {
            size: device, head, ..
        } = &mut self.kind
        {
            if let Some(needed) = size.filter(|needed| needed > device) {
                let what = self.spec.path.display().to_string();
                return Err(Error::TooSmall {
                    needed,
                    available: *device,
                    what,
                });
            }
            if self.begun.resumed {
                return Ok(());
            }
            let len = HEAD.min(*device);
            *head = vec![0; usize::try_from(len).unwrap_or(0)];
            let mut head = std::mem::take(head);
            // What was there must not boot while we are at work.
            if let Some(mark) = &self.mark {
                mark.put(&mut head);
            }
            self.put(0, &head)?;
            self.file.sync_data().map_err(|e| self.failed("fsync", e))?;
            self.bytes = 0;
            head.fill(0);
            if let Kind::Device { head: place, .. } = &mut self.kind {
                *place = head;
            }
        } else if let Some(size) = size {
            self.file
                .set_len(size)
                .map_err(|e| self.failed("make room in", e))?;
            self.len = size;
            if self.spec.preallocate == Preallocate::Falloc && size > 0 {
                self.fallocate(size)?;
            }
        }
        Ok(())
    }

    /// Size of the block device, if the target is one.
    pub(crate) fn device_size(&self) -> Option<u64> {
        match &self.kind {
            Kind::Device { size, .. } => Some(*size),
            Kind::File { .. } | Kind::InPlace { .. } => None,
        }
    }

    /// Refuses a disk that a device has no room for.
    pub(crate) fn fits(&self, disk: u64) -> Result<()> {
        match self.device_size().filter(|device| disk > *device) {
            Some(available) => Err(Error::TooSmall {
                needed: disk,
                available,
                what: self.spec.path.display().to_string(),
            }),
            None => Ok(()),
        }
    }

    /// What is never written will be zeroed by [`Target::finish`].
    pub(crate) fn is_zeroed_at_the_end(&self) -> bool {
        self.written.is_some()
    }

    fn fallocate(&mut self, size: u64) -> Result<()> {
        let none = FallocateFlags::empty();
        let done = sys::again(|| rustix::fs::fallocate(&self.file, none, 0, size));
        let Err(e) = done else { return Ok(()) };
        match e.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {
                tracing::warn!("the filesystem can't set blocks aside; zeros are written instead");
                self.written = Some(Written::default());
                Ok(())
            }
            _ => Err(self.failed("set blocks aside for", e)),
        }
    }

    fn failed(&self, action: &'static str, e: io::Error) -> Error {
        let path = self.spec.path.clone();
        match e.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Error::NoSpace {
                path,
                written: self.bytes,
                source: e,
            },
            _ => Error::target(action, path, e),
        }
    }

    /// Writes bytes of the disk.
    pub(crate) fn write(&mut self, guest: u64, bytes: &[u8]) -> Result<()> {
        let end = guest + bytes.len() as u64;
        self.end = self.end.max(end);
        if self.is_in_place() {
            self.holds(end)?;
            return self.put(guest, bytes);
        }
        if let Kind::Device { size, head, .. } = &mut self.kind {
            if end > *size {
                let what = self.spec.path.display().to_string();
                return Err(Error::TooSmall {
                    needed: end,
                    available: *size,
                    what,
                });
            }
            let head_len = head.len() as u64;
            if guest < head_len {
                self.begun.head_changed = true;
                let n = bytes.len().min((head_len - guest) as usize);
                head[guest as usize..guest as usize + n].copy_from_slice(&bytes[..n]);
                let rest = &bytes[n..];
                return if rest.is_empty() {
                    Ok(())
                } else {
                    self.write(head_len, rest)
                };
            }
        } else if let Some(limit) = self.limit().filter(|limit| end > *limit) {
            let what = format!("the requested size of {}", self.spec.path.display());
            return Err(Error::TooSmall {
                needed: end,
                available: limit,
                what,
            });
        }
        self.put(guest, bytes)?;
        if let Some(written) = &mut self.written {
            written.add(guest..end);
            if written.len() > MOST_RANGES {
                self.zero_early()?;
            }
        }
        Ok(())
    }

    /// What the file may not outgrow.
    fn limit(&self) -> Option<u64> {
        match self.spec.format {
            TargetFormat::Raw => self.spec.size,
            TargetFormat::Qcow2(_) => None,
        }
    }

    /// What was asked for.
    pub(crate) fn spec(&self) -> &TargetSpec {
        &self.spec
    }

    /// Bytes to the file, whatever they are.
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let done = match &mut self.direct {
            Some(direct) => direct.write(&self.file, at, bytes),
            None => self.file.write_all_at(bytes, at),
        };
        done.map_err(|e| self.failed("write", e))?;
        self.bytes += bytes.len() as u64;
        if let Some(behind) = &mut self.behind {
            let written = at..at + bytes.len() as u64;
            behind
                .wrote(self.file.as_fd(), written)
                .map_err(|e| self.failed("write out what was written to", e))?;
        }
        Ok(())
    }

    /// Too many separate ranges: zero the gaps of the lower half. What belongs there and comes later
    /// simply overwrites the zeros.
    fn zero_early(&mut self) -> Result<()> {
        let until = self.written.as_ref().map_or(0, Written::median);
        self.zero_gaps(0..until)
    }

    /// Zeroes what was not written of `window`.
    pub(crate) fn zero_gaps(&mut self, window: Range<u64>) -> Result<()> {
        let Some(written) = &self.written else {
            return Ok(());
        };
        let from = match &self.kind {
            Kind::Device { head, .. } => window.start.max(head.len() as u64),
            Kind::File { .. } | Kind::InPlace { .. } => window.start,
        };
        for gap in written.gaps(from..window.end.max(from)) {
            self.zero(gap)?;
        }
        if let Some(written) = &mut self.written {
            written.add(window);
        }
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        if let Kind::Device { sector, size, .. } = &self.kind {
            let start = range.start.next_multiple_of(*sector);
            // What follows within a sector may be of the disk already.
            let end = range.end.min(*size) / *sector * *sector;
            if start < end && sys::device_zero(self.file.as_fd(), start, end - start).is_ok() {
                self.zero_by_writing(range.start..start)?;
                return self.zero_by_writing(end..range.end);
            }
        }
        self.zero_by_writing(range)
    }

    fn zero_by_writing(&mut self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let zeros = vec![0; ZEROS];
        let mut at = range.start;
        while at < range.end {
            let n = ZEROS.min(usize::try_from(range.end - at).unwrap_or(ZEROS));
            self.put(at, &zeros[..n])?;
            at += n as u64;
        }
        Ok(())
    }

    /// Time spent waiting for earlier writes to be on storage.
    pub(crate) fn write_back(&self) -> Duration {
        self.behind
            .as_ref()
            .map_or(Duration::ZERO, WriteBehind::waited)
    }

    /// Bytes written so far.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes
    }

    /// The disk ends at `disk`, as became known after more had been written: what is beyond is
    /// zeroed, up to `size` at least.
    fn cut(&mut self, disk: u64, size: u64) -> Result<()> {
        if let Some(written) = &mut self.written {
            written.cut(disk);
        }
        if let Kind::Device { head, .. } = &mut self.kind {
            let end = usize::try_from(disk).unwrap_or(usize::MAX).min(head.len());
            head[end..].fill(0);
            let from = disk.max(head.len() as u64);
            return if from < self.end {
                self.zero(from..self.end)
            } else {
                Ok(())
            };
        }
        self.file
            .set_len(disk)
            .map_err(|e| self.failed("set the size of", e))?;
        if self.spec.preallocate == Preallocate::Falloc && size > disk {
            self.fallocate(size)?;
        }
        Ok(())
    }

    /// The head of a device, now that all else is written: from its end to its beginning, so that what is
    /// there after a kill lacks what it would be recognised by, and the first page by itself.
    fn write_head(&mut self, head: &[u8]) -> Result<()> {
        self.file.sync_data().map_err(|e| self.failed("fsync", e))?;
        let (first, rest) = head.split_at(FIRST.min(head.len()));
        let mut end = head.len();
        for piece in rest.rchunks(HEAD_STEP) {
            end -= piece.len();
            self.put(end as u64, piece)?;
        }
        self.file.sync_data().map_err(|e| self.failed("fsync", e))?;
        self.put(0, first)
    }

    /// Everything of a disk of `disk` bytes was written: zeroes what was not, makes it durable and
    /// gives it its name.
    pub(crate) fn finish(&mut self, disk: u64) -> Result<()> {
        let size = self.spec.size.unwrap_or(disk).max(disk);
        if self.end > disk {
            self.cut(disk, size)?;
        }
        if let Kind::File { .. } = &self.kind {
            self.file
                .set_len(size)
                .map_err(|e| self.failed("set the size of", e))?;
        }
        self.zero_gaps(0..size)?;
        let head = match &mut self.kind {
            Kind::Device { head, .. } => std::mem::take(head),
            Kind::File { .. } | Kind::InPlace { .. } => Vec::new(),
        };
        if !head.is_empty() {
            self.write_head(&head)?;
        }
        if self.spec.sync || !head.is_empty() {
            self.file.sync_all().map_err(|e| self.failed("fsync", e))?;
        }
        if let Some(behind) = &mut self.behind {
            behind.finish(self.file.as_fd());
        }
        if let Kind::File { partial, .. } = &self.kind {
            let directory = self.spec.sync.then(|| directory_of(&self.spec.path));
            let directory = directory
                .transpose()
                .map_err(|e| self.failed("open the directory of", e))?;
            sys::again(|| std::fs::rename(partial, &self.spec.path))
                .map_err(|e| self.failed("give its name to", e))?;
            self.finished = true;
            if let Some(directory) = directory {
                directory
                    .sync_all()
                    .map_err(|e| self.failed("fsync the directory of", e))?;
            }
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Kind::File { partial, .. } = &self.kind
            && !self.finished
            && !self.begun.journalled
            && let Err(e) = sys::again(|| std::fs::remove_file(partial))
        {
            tracing::warn!(path = %partial.display(), error = %e, "the partial file stays behind");
        }
    }
}

/// A format's own tables are written, and now and then read again.
impl Store for Target {
    type Error = Error;

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.write(at, bytes)
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read_at(&mut buf[filled..], at + filled as u64) {
                Ok(0) => {
                    buf[filled..].fill(0);
                    break;
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed("read back", e)),
            }
        }
        Ok(())
    }
}

fn not_this_way(path: &Path, text: &'static str) -> Error {
    let e = io::Error::new(io::ErrorKind::InvalidInput, text);
    Error::target("write qcow2 to", path, e)
}

/// `.NAME.partial` beside the target.
fn partial_name(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        let e = io::Error::new(io::ErrorKind::InvalidInput, "it has no file name");
        return Err(Error::target("write", path, e));
    };
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    Ok(path.with_file_name(partial))
}

fn directory_of(path: &Path) -> io::Result<File> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))
}

/// Writes past the page cache through a second descriptor and an aligned buffer.
#[derive(Debug)]
struct Direct {
    file: File,
    bounce: Vec<u8>,
    /// Where in `bounce` aligned memory begins.
    start: usize,
}

impl Direct {
    fn open(file: &File) -> Option<Self> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
        let direct = sys::again(|| rustix::fs::open(&path, flags, Mode::empty())).ok()?;
        let bounce = vec![0; ZEROS + DIRECT_ALIGN];
        let start = bounce.as_ptr().align_offset(DIRECT_ALIGN);
        Some(Self {
            file: direct.into(),
            bounce,
            start,
        })
    }

    /// The aligned part goes direct, what sticks out at either end through the cache.
    fn write(&mut self, cached: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        let align = DIRECT_ALIGN as u64;
        let start = at.next_multiple_of(align);
        let end = (at + bytes.len() as u64) / align * align;
        if start >= end {
            return cached.write_all_at(bytes, at);
        }
        let (before, rest) = bytes.split_at((start - at) as usize);
        let (middle, after) = rest.split_at((end - start) as usize);
        cached.write_all_at(before, at)?;
        let mut offset = start;
        for piece in middle.chunks(ZEROS) {
            let aligned = &mut self.bounce[self.start..self.start + piece.len()];
            aligned.copy_from_slice(piece);
            self.file.write_all_at(aligned, offset)?;
            offset += piece.len() as u64;
        }
        cached.write_all_at(after, end)
    }
}
