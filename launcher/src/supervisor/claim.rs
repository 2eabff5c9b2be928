//! The claim on a VM's directory: one run at a time, and nothing stale left from the one before.
//!
//! The claim is a lock on a file. QEMU inherits the descriptor, so the lock is held until the
//! supervisor *and* its QEMU are gone: a run that was killed outright never meets the next one, which
//! waits for the old QEMU to finish dying. The lock says nothing about disks; QEMU locks those itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fd::{AsRawFd as _, RawFd};
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

use super::RunError;

const LOCK: &str = "run.lock";
/// A QEMU that was killed gives back its memory before it is gone; large guests take seconds.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Holds the lock, and removes the sockets when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    lock: File,
    sockets: Vec<PathBuf>,
}

impl Claim {
    /// Waits for an earlier run's remains to be gone, then removes its sockets.
    pub(super) async fn on(dir: &Path, sockets: Vec<PathBuf>) -> Result<Self, RunError> {
        let path = dir.join(LOCK);
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| RunError::State { step, path, source }
        };
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("opening", &path))?;
        let given_up = Instant::now() + PATIENCE;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= given_up {
                        return Err(RunError::InUse {
                            dir: dir.to_owned(),
                        });
                    }
                    sleep(LOOK_EVERY).await;
                }
                Err(source) => return Err(failed("locking", &path)(source)),
            }
        }
        for socket in &sockets {
            crate::socket::remove_stale(socket).map_err(failed("replacing", socket))?;
        }
        Ok(Self { lock, sockets })
    }

    /// For the child to inherit; valid as long as the claim.
    pub(super) fn descriptor(&self) -> RawFd {
        self.lock.as_raw_fd()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // What cannot be removed now is removed by the next run, or refused by it.
            drop(crate::socket::remove_stale(socket));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_directory_is_claimed_once_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = Claim::on(directory.path(), Vec::new()).await.unwrap();
        let second = Claim::on(directory.path(), Vec::new()).await.unwrap_err();
        assert!(matches!(second, RunError::InUse { .. }));
        drop(first);
        Claim::on(directory.path(), Vec::new()).await.unwrap();
    }

    #[tokio::test]
    async fn stale_sockets_are_removed_at_the_start_and_ours_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("qmp.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let claim = Claim::on(directory.path(), vec![socket.clone()])
            .await
            .unwrap();
        assert!(!socket.exists());
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        drop(claim);
        assert!(!socket.exists());
        drop(listener);
    }

    #[tokio::test]
    async fn a_file_in_place_of_a_socket_is_not_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("qmp.sock");
        std::fs::write(&file, "precious").unwrap();
        let error = Claim::on(directory.path(), vec![file.clone()])
            .await
            .unwrap_err();
        assert_eq!(error.reason(), "StateUnusable");
        assert!(file.exists());
    }
}
