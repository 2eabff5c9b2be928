//! The guest's serial console, for any number of readers and writers.
//!
//! QEMU offers the console on a unix socket that takes one peer; we are that peer, always connected
//! and always reading, so that the guest never waits for a person. What it prints goes into a ring
//! of [`HISTORY`] bytes. Every reader (standard output, a client of our own socket, the log file) has
//! its own place in the ring; one that falls behind by the whole ring loses the oldest bytes and gets
//! a mark in their place. Memory is thus the ring plus one buffer per reader, whatever the guest does.
//!
//! Input of all writers is merged in order of arrival and held back while the guest does not take it.
//!
//! What the bytes mean is not known here, and nothing here ends a guest.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

mod clients;
mod log;
mod pump;
mod ring;
pub mod terminal;

pub use ring::{HISTORY, Output, Reader};

use ring::Ring;

/// How much of the past a new client is shown.
const SCROLLBACK: u64 = 8 << 10;
/// Pieces of input that may wait for the guest.
const INPUT_BACKLOG: usize = 64;
/// Log files are rotated at this size unless told otherwise; the one before is kept.
pub const LOG_LIMIT: u64 = 16 << 20;

/// Where the console is and where it goes.
#[derive(Debug, Clone)]
pub struct Config {
    /// QEMU's socket; need not exist yet.
    pub serial: PathBuf,
    /// A file that keeps what the guest prints.
    pub log: Option<LogFile>,
    /// A socket of our own for clients.
    pub listen: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct LogFile {
    pub path: PathBuf,
    /// Size at which the file becomes `PATH.1`; at most twice this is on disk.
    pub limit: u64,
}

/// A running multiplexer. Dropping it ends every connection.
#[derive(Debug)]
pub struct Console {
    ring: Arc<Ring>,
    input: mpsc::Sender<Bytes>,
    attached: watch::Receiver<bool>,
    ending: watch::Sender<bool>,
    pump: Task,
    log: Option<Task>,
    listener: Option<Task>,
    socket: Option<PathBuf>,
}

/// A task that does not outlive its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Console {
    /// Opens the log and our socket, and begins to look for QEMU's.
    pub fn start(config: Config) -> io::Result<Self> {
        let Config {
            serial,
            log,
            listen,
        } = config;
        let ring = Arc::new(Ring::new());
        let (input, typed) = mpsc::channel(INPUT_BACKLOG);
        let (attached_sender, attached) = watch::channel(false);
        let (ending, ended) = watch::channel(false);
        let log = log
            .map(|file| log::RotatingLog::open(&file.path, file.limit))
            .transpose()?
            .map(|log| Task(tokio::spawn(log::keep(log, ring.reader_from_start()))));
        let listener = listen
            .as_deref()
            .map(crate::socket::listen)
            .transpose()?
            .map(|listener| clients::serve(listener, Arc::clone(&ring), input.clone()))
            .map(|served| Task(tokio::spawn(served)));
        let pump = pump::run(serial, Arc::clone(&ring), typed, attached_sender, ended);
        let pump = Task(tokio::spawn(pump));
        Ok(Self {
            ring,
            input,
            attached,
            ending,
            pump,
            log,
            listener,
            socket: listen,
        })
    }

    /// Waits until QEMU's end is connected; what the guest printed before that is lost.
    pub async fn attached(&self) {
        let mut attached = self.attached.clone();
        // The sender lives as long as the pump, which ends only after `finish`.
        drop(attached.wait_for(|attached| *attached).await);
    }

    /// Everything still remembered, then everything to come.
    pub fn reader(&self) -> Reader {
        self.ring.reader_from_start()
    }

    /// Where to send what is typed.
    pub fn input(&self) -> mpsc::Sender<Bytes> {
        self.input.clone()
    }

    /// QEMU is gone: reads what is left of its output, and lets the log and the clients have it.
    ///
    /// Readers then see the end. Gives up on a disk or a client that takes nothing after `patience`.
    pub async fn finish(mut self, patience: Duration) {
        self.ending.send_replace(true);
        let rest = async {
            // A task that panicked has nothing left to say.
            drop((&mut self.pump.0).await);
            for task in [&mut self.log, &mut self.listener].into_iter().flatten() {
                drop((&mut task.0).await);
            }
        };
        if tokio::time::timeout(patience, rest).await.is_err() {
            tracing::warn!("the end of the console may be missing from its log and for clients");
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.ring.close();
        self.listener = None;
        if let Some(socket) = &self.socket {
            // A name that is gone already is as it should be.
            drop(crate::socket::remove_stale(socket));
        }
    }
}

/// Copies a console to a writer until the console ends or the writer does.
///
/// A closed pipe is an ordinary end: the guest does not depend on who watches it.
pub async fn copy_out<W: AsyncWrite + Unpin>(mut reader: Reader, mut writer: W) -> io::Result<()> {
    while let Some(output) = reader.next().await {
        let written = async {
            if let Some(mark) = output.mark() {
                writer.write_all(mark.as_bytes()).await?;
            }
            writer.write_all(&output.data).await?;
            writer.flush().await
        };
        match written.await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
