//! Bytes that wait for their table: in memory first, then in an unlinked file.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_image::forward::{Hold, MemoryHold};
use longshore_image::{Error, ErrorKind, Result};

/// Most separate ranges remembered of a spill file (about 10 MiB).
const MOST_RANGES: usize = 200_000;

/// A [`MemoryHold`] that moves into a file without a name when it is full, up to a limit.
#[derive(Debug)]
pub(crate) struct SpillHold {
    memory: MemoryHold,
    directory: PathBuf,
    limit: u64,
    file: Option<File>,
    /// Ranges of the image that are in the file, which has the same offsets (and is sparse).
    spilled: BTreeMap<u64, u64>,
    total: Arc<AtomicU64>,
}

impl SpillHold {
    /// Keeps `memory` bytes in memory and up to `limit` in a file of `directory`. `total` counts what
    /// was spilled.
    pub(crate) fn new(memory: u64, directory: &Path, limit: u64, total: Arc<AtomicU64>) -> Self {
        Self {
            memory: MemoryHold::new(memory),
            directory: directory.to_owned(),
            limit,
            file: None,
            spilled: BTreeMap::new(),
            total,
        }
    }

    fn file(&mut self) -> Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => unnamed(&self.directory).map_err(|e| {
                Error::io(
                    format!("making a spill file in {}", self.directory.display()),
                    e,
                )
            })?,
        };
        Ok(self.file.insert(file))
    }

    fn spill(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let end = at + bytes.len() as u64;
        let file = self.file()?;
        file.write_all_at(bytes, at)
            .map_err(|e| Error::io("writing the spill file", e))?;
        self.total.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        match self.spilled.range_mut(..=at).next_back() {
            Some((_, last_end)) if *last_end >= at => *last_end = end.max(*last_end),
            _ => {
                self.spilled.insert(at, end);
            }
        }
        Ok(())
    }

    fn spilled(&self, at: u64, len: u64) -> bool {
        self.spilled
            .range(..=at)
            .next_back()
            .is_some_and(|(_, &end)| at + len <= end)
    }
}

/// A file in `directory` that goes when it is closed.
fn unnamed(directory: &Path) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => Ok(fd.into()),
        // Some filesystems can't: make one with a name and take the name away.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT) => {
            let path = directory.join(format!(".longshore-spill-{}.partial", std::process::id()));
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
            std::fs::remove_file(&path)?;
            Ok(fd.into())
        }
        Err(e) => Err(e.into()),
    }
}

impl Hold for SpillHold {
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<bool> {
        if self.file.is_none() && self.memory.put(at, bytes)? {
            return Ok(true);
        }
        let held = self.memory.bytes() + self.total.load(Ordering::Relaxed);
        if held.saturating_add(bytes.len() as u64) > self.limit || self.spilled.len() >= MOST_RANGES
        {
            return Ok(false);
        }
        for (at, bytes) in self.memory.drain() {
            self.spill(at, &bytes)?;
        }
        self.spill(at, bytes)?;
        Ok(true)
    }

    fn take(&mut self, at: u64, buf: &mut [u8]) -> Result<bool> {
        if self.file.is_none() {
            return self.memory.take(at, buf);
        }
        if !self.spilled(at, buf.len() as u64) {
            return Ok(false);
        }
        // Reading does not forget: the file is sparse, counted when written and goes as a whole.
        let file = self.file()?;
        file.read_exact_at(buf, at)
            .map_err(|e| Error::new(ErrorKind::Io, "reading the spill file").with_source(e))?;
        Ok(true)
    }

    fn clear(&mut self) {
        self.memory.clear();
        self.spilled.clear();
        self.file = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_in_memory_goes_to_a_file_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let total = Arc::new(AtomicU64::new(0));
        let mut hold = SpillHold::new(1000, dir.path(), 10_000, Arc::clone(&total));
        for i in 0..8u8 {
            assert!(hold.put(u64::from(i) * 500, &[i; 500]).unwrap());
        }
        let mut buf = [9; 1000];
        assert!(hold.take(250, &mut buf).unwrap());
        assert_eq!((buf[0], buf[250], buf[999]), (0, 1, 2));
        assert_eq!(total.load(Ordering::Relaxed), 4000);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "the file has no name"
        );
        assert!(
            !hold.put(100_000, &[1; 7000]).unwrap(),
            "beyond the limit nothing is kept"
        );
        assert!(!hold.take(3900, &mut [0; 200]).unwrap());
    }
}
