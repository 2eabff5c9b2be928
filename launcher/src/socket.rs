//! Unix sockets at paths of any length.
//!
//! The kernel takes 107 bytes of path; state directories may be deeper. A long path is reached
//! through a descriptor of its directory, which has a short name under `/proc/self/fd`.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};

const MAX_PATH: usize = 107;

/// A name short enough for the kernel, valid while the descriptor beside it is open.
fn short(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    if path.as_os_str().len() <= MAX_PATH {
        return Ok((path.to_owned(), None));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let named = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((named, Some(directory)))
}

pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (named, _directory) = short(path)?;
    UnixStream::connect(named).await
}

/// Binds anew, in place of a stale socket, for the owner alone.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let (named, _directory) = short(path)?;
    remove_stale(path)?;
    let listener = UnixListener::bind(&named)?;
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&named, owner_only)?;
    Ok(listener)
}

/// Removes a socket that a dead process left behind; anything that is no socket stays and is an error.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;

    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_work_at_paths_longer_than_the_kernel_takes() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("console.sock");
        let listener = listen(&path).unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), connect(&path));
        accepted.unwrap();
        connected.unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_but_a_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        drop(listen(&path).unwrap());
        assert!(path.exists(), "the kernel leaves the name behind");
        drop(listen(&path).unwrap());
        let file = directory.path().join("precious");
        std::fs::write(&file, "data").unwrap();
        assert!(listen(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
    }
}
