//! A target that has a disk already, of which parts are replaced: nothing else of it is touched.
//!
//! A kill leaves some parts new and some old. Applying the same changes again makes all of them new.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use rustix::fs::{FallocateFlags, Mode, OFlags};

use super::{Kind, Target, TargetFormat, not_this_way};
use crate::lock::{self, Role};
use crate::{Error, Result, TargetSpec, file, sys};

impl Target {
    /// Opens and locks a target that is to be changed in place. It must be there: a disk is not made of
    /// changes.
    pub(crate) fn existing(spec: &TargetSpec, source: Option<(u64, u64)>) -> Result<Self> {
        let path = &spec.path;
        if spec.format != TargetFormat::Raw {
            let text = "changes are applied to raw disks";
            return Err(not_this_way(path, text));
        }
        let meta = sys::again(|| std::fs::metadata(path))
            .map_err(|e| Error::target("find the disk to change,", path, e))?;
        if source == Some(file::identity(&meta)) {
            return Err(Error::SameFile { path: path.clone() });
        }
        let device = meta.file_type().is_block_device();
        if !device && !meta.is_file() {
            let e = io::Error::new(io::ErrorKind::InvalidInput, "not a file or block device");
            return Err(Error::target("change", path, e));
        }
        let exclusive = if device {
            OFlags::EXCL
        } else {
            OFlags::empty()
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC | exclusive;
        let fd = sys::again(|| rustix::fs::open(path, flags, Mode::empty()))
            .map_err(|e| Error::target("open", path, e))?;
        let file = File::from(fd);
        if !spec.force_share {
            lock::take(file.as_fd(), path, Role::Writer)?;
        }
        let ask = |e| Error::target("ask the size of", path, e);
        let (size, sector) = if device {
            let size = sys::again(|| sys::device_size(file.as_fd())).map_err(ask)?;
            let sector = sys::again(|| sys::device_sector(file.as_fd())).map_err(ask)?;
            (size, Some(sector))
        } else {
            (meta.len(), None)
        };
        let mut this = Self::of(spec, Kind::InPlace { size, sector }, file);
        this.choose_cache();
        Ok(this)
    }

    /// Zeros are written too, since something else may be there.
    pub(crate) fn is_in_place(&self) -> bool {
        matches!(self.kind, Kind::InPlace { .. })
    }

    /// Refuses a disk that is larger than what is there.
    pub(super) fn holds(&self, needed: u64) -> Result<()> {
        match self.kind {
            Kind::InPlace { size, .. } if needed > size => Err(Error::TooSmall {
                needed,
                available: size,
                what: self.spec.path.display().to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Makes `range` of a disk that is changed in place read as zeros.
    pub(crate) fn clear(&mut self, range: Range<u64>) -> Result<()> {
        self.holds(range.end)?;
        let Kind::InPlace { sector, .. } = self.kind else {
            return Ok(());
        };
        let Some(sector) = sector else {
            return self.punch(range);
        };
        let start = range.start.next_multiple_of(sector).min(range.end);
        let end = (range.end / sector * sector).max(start);
        if start < end && sys::device_zero(self.file.as_fd(), start, end - start).is_ok() {
            self.zero_by_writing(range.start..start)?;
            return self.zero_by_writing(end..range.end);
        }
        self.zero_by_writing(range)
    }

    fn punch(&mut self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let len = range.end - range.start;
        match sys::again(|| rustix::fs::fallocate(&self.file, flags, range.start, len)) {
            Ok(()) => Ok(()),
            // Filesystems without holes.
            Err(_) => self.zero_by_writing(range),
        }
    }
}
