//! Real NBD servers, nbdkit and qemu-nbd, and a line to them that breaks.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::program::run;

/// A server on a unix socket, ended when dropped.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
}

impl Server {
    /// nbdkit with these arguments. It is in the background, and answers, when this returns.
    pub fn nbdkit(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("nbdkit");
        command
            .arg("-U")
            .arg(directory.path().join("socket"))
            .arg("-P")
            .arg(directory.path().join("pid"));
        run(command.args(args));
        Self { directory }
    }

    /// qemu-nbd for an image of this format, with several clients allowed.
    pub fn qemu(format: &str, image: &Path) -> Self {
        Self::qemu_with(&["--format", format], image)
    }

    /// The same with these arguments.
    pub fn qemu_with(args: &[&str], image: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("qemu-nbd");
        command
            .args(["--fork", "--persistent", "--shared=16", "--read-only"])
            .arg("--socket")
            .arg(directory.path().join("socket"))
            .arg("--pid-file")
            .arg(directory.path().join("pid"))
            .args(args)
            .arg(image);
        run(&mut command);
        Self { directory }
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The address of its export.
    pub fn url(&self) -> String {
        url(&self.socket())
    }
}

/// The address of the export behind a socket.
pub fn url(socket: &Path) -> String {
    format!("nbd+unix:///?socket={}", socket.display())
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.directory.path().join("pid")) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}

/// A line to a server that breaks after so many bytes of the server's; one number for each connection.
/// Later connections hold.
#[derive(Debug)]
pub struct Line {
    directory: TempDir,
    connections: Arc<AtomicUsize>,
}

impl Line {
    /// A line to `server`.
    pub fn to(server: &Server, breaks: Vec<u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, to) = (Arc::clone(&connections), server.socket());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let n = count.fetch_add(1, Ordering::SeqCst);
                let most = breaks.get(n).copied().unwrap_or(u64::MAX);
                let (client, server) = (client.unwrap(), UnixStream::connect(&to).unwrap());
                let (from, back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pass(from, back, u64::MAX));
                std::thread::spawn(move || pass(server, client, most));
            }
        });
        Self {
            directory,
            connections,
        }
    }

    /// The address of the export at its other end.
    pub fn url(&self) -> String {
        url(&self.directory.path().join("socket"))
    }

    /// How often it was made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn pass(from: UnixStream, mut to: UnixStream, most: u64) {
    let mut from = from.take(most);
    let mut buf = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut buf) {
        if n == 0 || to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.get_ref().shutdown(Shutdown::Both);
}
