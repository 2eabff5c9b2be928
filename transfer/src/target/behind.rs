//! Own write-back: starts writing out early and lets go of what is written, so that a large import
//! neither fills the page cache of its cgroup nor ends in a minute of fsync.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::sys;

/// Write-out is started after this many bytes.
const STEP: u64 = 4 << 20;
/// This many steps may be under way before the oldest is waited for and dropped. With the one being
/// written and the one being waited for, no more than 24 MiB are dirty or on their way to storage.
const STEPS: usize = 4;

/// Bytes since the last step, and the steps under way.
#[derive(Debug, Default)]
pub(crate) struct WriteBehind {
    current: Option<Range<u64>>,
    bytes: u64,
    started: VecDeque<Range<u64>>,
    waited: Duration,
}

impl WriteBehind {
    /// `range` was written. An error of write-out is the caller's to report: the kernel tells of it once
    /// for each open file, so the fsync at the end may not hear of it any more.
    pub(crate) fn wrote(&mut self, fd: BorrowedFd<'_>, range: Range<u64>) -> io::Result<()> {
        self.bytes += range.end - range.start;
        let span = match self.current.take() {
            None => range,
            Some(span) => span.start.min(range.start)..span.end.max(range.end),
        };
        if self.bytes < STEP {
            self.current = Some(span);
            return Ok(());
        }
        self.bytes = 0;
        write_out(fd, &span, false)?;
        self.started.push_back(span);
        if self.started.len() > STEPS {
            self.retire(fd)?;
        }
        Ok(())
    }

    fn retire(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(span) = self.started.pop_front() {
            let len = span.end - span.start;
            let waiting = Instant::now();
            write_out(fd, &span, true)?;
            self.waited += waiting.elapsed();
            let len = std::num::NonZeroU64::new(len);
            let _ = rustix::fs::fadvise(fd, span.start, len, rustix::fs::Advice::DontNeed);
        }
        Ok(())
    }

    /// Time spent waiting for steps to be on storage.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    /// All is durable: lets go of the rest.
    pub(crate) fn finish(&mut self, fd: BorrowedFd<'_>) {
        self.started.clear();
        let _ = rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed);
    }
}

/// Filesystems that can't do this write out at fsync.
fn write_out(fd: BorrowedFd<'_>, span: &Range<u64>, wait: bool) -> io::Result<()> {
    match sys::write_out(fd, span.start, span.end - span.start, wait) {
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::ESPIPE)
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}
