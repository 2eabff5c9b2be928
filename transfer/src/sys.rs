//! The system calls that no safe crate offers. The only unsafe code of this crate.
#![expect(
    unsafe_code,
    reason = "raw system calls; each block says why it is sound"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Keeps the memory of this process to what it uses: buffers of 256 KiB and more go back to the kernel
/// when they are freed. Left alone, glibc raises that mark with every large buffer it frees, and xz,
/// whose blocks grow, then keeps the heap of all of them. To be called before threads start.
pub fn give_memory_back() {
    const THRESHOLD: libc::c_int = 256 << 10;
    // SAFETY: mallopt takes two integers, and its effect is confined to the allocator. It fails only
    // for values out of range, and then nothing changes.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD)
    };
}

/// Makes a call again that a signal interrupted: filesystems in user space and on the network interrupt
/// even what local ones never do.
pub(crate) fn again<T, E: Into<io::Error>>(
    mut call: impl FnMut() -> std::result::Result<T, E>,
) -> io::Result<T> {
    loop {
        match call().map_err(Into::into) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Starts write-out of `len` bytes at `offset`; with `wait` also waits for it. No promise of
/// durability is taken from it: that is fsync's.
pub(crate) fn write_out(fd: BorrowedFd<'_>, offset: u64, len: u64, wait: bool) -> io::Result<()> {
    let flags = if wait {
        libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER
    } else {
        libc::SYNC_FILE_RANGE_WRITE
    };
    let (offset, len) = (signed(offset)?, signed(len)?);
    again(|| {
        // SAFETY: takes integers only; the descriptor is borrowed for the call.
        let done = unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, len, flags) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    })
}

/// Lets `len` bytes at `offset` of `to` be the blocks that `from` has at `at`: both files have them then,
/// and whoever is written to gets new ones. Both are on one filesystem that can do this, and offsets and
/// length are multiples of its block.
pub(crate) fn share_range(
    to: BorrowedFd<'_>,
    offset: u64,
    from: BorrowedFd<'_>,
    at: u64,
    len: u64,
) -> io::Result<()> {
    let request = libc::file_clone_range {
        src_fd: from.as_raw_fd().into(),
        src_offset: at,
        src_length: len,
        dest_offset: offset,
    };
    // SAFETY: FICLONERANGE reads one file_clone_range, which `request` is, and it outlives the call; both
    // descriptors are borrowed for it.
    let done = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONERANGE, &raw const request) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Size of a block device in bytes.
pub(crate) fn device_size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
    let mut size = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64, which `size` is, and it outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), BLKGETSIZE64, &raw mut size) };
    if done == 0 {
        Ok(size)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes a range of a block device read as zeros (BLKZEROOUT: the kernel writes them where the device
/// can't do it by itself). Offset and length are multiples of the logical sector.
pub(crate) fn device_zero(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    const BLKZEROOUT: libc::c_ulong = 0x127f;
    let range = [offset, len];
    // SAFETY: BLKZEROOUT reads two u64, which `range` is, and it outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), BLKZEROOUT, range.as_ptr()) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Logical sector size of a block device in bytes.
pub(crate) fn device_sector(fd: BorrowedFd<'_>) -> io::Result<u64> {
    const BLKSSZGET: libc::c_ulong = 0x1268;
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int, which `size` is, and it outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), BLKSSZGET, &raw mut size) };
    if done == 0 {
        u64::try_from(size).map_err(io::Error::other)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes an open-file-description lock on one byte, shared or exclusive; false if another holds one
/// that excludes it.
pub(crate) fn lock_byte(fd: BorrowedFd<'_>, at: u64, exclusive: bool) -> io::Result<bool> {
    let request = lock_request(at, exclusive)?;
    // SAFETY: F_OFD_SETLK reads one flock, which `request` is, and it outlives the call.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const request) };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// True if an exclusive lock on the byte would be granted, that is: nobody else holds one of any kind.
pub(crate) fn byte_is_free(fd: BorrowedFd<'_>, at: u64) -> io::Result<bool> {
    let mut request = lock_request(at, true)?;
    // SAFETY: F_OFD_GETLK reads and writes one flock, which `request` is, and it outlives the call.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut request) };
    if done == 0 {
        Ok(i32::from(request.l_type) == libc::F_UNLCK)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn lock_request(at: u64, exclusive: bool) -> io::Result<libc::flock> {
    let kind = if exclusive {
        libc::F_WRLCK
    } else {
        libc::F_RDLCK
    };
    Ok(libc::flock {
        l_type: i16::try_from(kind).map_err(io::Error::other)?,
        l_whence: i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
        l_start: signed(at)?,
        l_len: 1,
        l_pid: 0,
    })
}

fn signed(n: u64) -> io::Result<i64> {
    i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}
