//! QEMU's image locks, so that we neither read an image that a VM is writing nor write one it uses.
//!
//! QEMU (`block/file-posix.c`) locks single bytes of the file with open-file-description locks: byte
//! 100+i shared while it holds permission i, byte 200+i shared while it does not let others hold it.
//! Permissions: 0 consistent read, 1 write, 3 resize. We take the same locks and make the same checks.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::{Error, Result, sys};

const PERMISSION: u64 = 100;
const UNSHARED: u64 = 200;
const CONSISTENT_READ: u64 = 0;
const WRITE: u64 = 1;
const RESIZE: u64 = 3;

/// What we want to do with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Read it while nobody writes it.
    Reader,
    /// Write it while nobody else does.
    Writer,
}

/// Takes the locks; they go when the file is closed. Filesystems without such locks are let be.
pub(crate) fn take(fd: BorrowedFd<'_>, path: &Path, role: Role) -> Result<()> {
    let (held, excluded): (&[u64], &[u64]) = match role {
        Role::Reader => (&[CONSISTENT_READ], &[WRITE, RESIZE]),
        Role::Writer => (&[CONSISTENT_READ, WRITE, RESIZE], &[WRITE, RESIZE]),
    };
    let busy = |what| Error::Locked {
        path: path.to_owned(),
        what,
    };
    let failed = |e: io::Error| Error::target("lock", path, e);
    for byte in held
        .iter()
        .map(|p| PERMISSION + p)
        .chain(excluded.iter().map(|p| UNSHARED + p))
    {
        match sys::again(|| sys::lock_byte(fd, byte, false)) {
            Ok(true) => {}
            Ok(false) => return Err(busy("it holds an exclusive lock")),
            Err(e) if not_supported(&e) => return Ok(()),
            Err(e) => return Err(failed(e)),
        }
    }
    // Our own locks do not show in these checks: they belong to the same open file.
    let is_free = |byte| sys::again(|| sys::byte_is_free(fd, byte)).map_err(failed);
    for permission in held {
        if !is_free(UNSHARED + permission)? {
            return Err(busy(match *permission {
                WRITE => "it does not let others write",
                RESIZE => "it does not let others resize",
                _ => "it does not let others read",
            }));
        }
    }
    for permission in excluded {
        if !is_free(PERMISSION + permission)? {
            return Err(busy("it is open for writing"));
        }
    }
    Ok(())
}

/// Network filesystems without lock service, and old ones, say it in one of these ways.
fn not_supported(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    fn twice() -> (tempfile::NamedTempFile, File, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let a = File::options()
            .read(true)
            .write(true)
            .open(file.path())
            .unwrap();
        let b = File::options()
            .read(true)
            .write(true)
            .open(file.path())
            .unwrap();
        (file, a, b)
    }

    #[test]
    fn readers_share_and_writers_exclude_everyone() {
        let (file, a, b) = twice();
        take(a.as_fd(), file.path(), Role::Reader).unwrap();
        take(b.as_fd(), file.path(), Role::Reader).unwrap();
        let c = File::options()
            .read(true)
            .write(true)
            .open(file.path())
            .unwrap();
        assert!(matches!(
            take(c.as_fd(), file.path(), Role::Writer),
            Err(Error::Locked { .. })
        ));
        drop((a, b, c));
        let writer = File::options()
            .read(true)
            .write(true)
            .open(file.path())
            .unwrap();
        take(writer.as_fd(), file.path(), Role::Writer).unwrap();
        let late = File::options()
            .read(true)
            .write(true)
            .open(file.path())
            .unwrap();
        assert!(matches!(
            take(late.as_fd(), file.path(), Role::Reader),
            Err(Error::Locked { .. })
        ));
    }
}
