//! Blocks that the target has together with the source, instead of a copy of their bytes.
//!
//! What is shared keeps the source's allocation: blocks of zeros inside it are not looked for.

use std::os::fd::{AsFd, BorrowedFd};

use super::{Kind, Preallocate, Target, TargetFormat};
use crate::sys;

impl Target {
    /// The block that shared ranges must begin and end at; `None` where nothing can be shared: on a device,
    /// inside an image, and where blocks of the target's own were asked for.
    pub(crate) fn shares_blocks_of(&self) -> Option<u64> {
        let plain = matches!(self.kind, Kind::File { .. })
            && self.spec.format == TargetFormat::Raw
            && self.spec.preallocate == Preallocate::Off;
        let filesystem = plain.then(|| rustix::fs::fstatvfs(&self.file).ok())??;
        Some(filesystem.f_bsize).filter(|block| block.is_power_of_two())
    }

    /// Makes `len` bytes at `guest` the blocks that `from` has at `at`. False if that does not work here,
    /// for whatever reason: then nothing is lost by copying, which also shows what is wrong, if anything
    /// is.
    pub(crate) fn share(&mut self, guest: u64, from: BorrowedFd<'_>, at: u64, len: u64) -> bool {
        if let Err(e) = sys::share_range(self.file.as_fd(), guest, from, at, len) {
            tracing::debug!(guest, len, error = %e, "blocks are not shared");
            return false;
        }
        self.end = self.end.max(guest + len);
        self.shared += len;
        true
    }

    /// Bytes that are shared with the source.
    pub(crate) fn bytes_shared(&self) -> u64 {
        self.shared
    }
}
