//! QEMU as a process: how it is spawned, what it says on standard error, how it ends.

use std::collections::VecDeque;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::claim::Claim;
use super::outcome::Exit;
use super::{Command, RunError};

/// How much of standard error is kept for the report of a failure.
const TAIL: usize = 8 << 10;
/// A longer line is cut into several.
const LINE: usize = 1 << 10;
/// After QEMU's end a helper of its may still hold the pipe; it is not waited for longer than this.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running QEMU. It dies with this value, and with the thread that made it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) pid: u32,
    reader: JoinHandle<String>,
}

impl Process {
    /// QEMU, and the lines of its standard error as they come.
    pub(super) fn spawn(
        command: &Command,
        claim: &Claim,
    ) -> Result<(Self, mpsc::Receiver<String>), RunError> {
        let mut spawned = std::process::Command::new(&command.program);
        spawned
            .args(&command.args)
            .current_dir(&command.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl+C in a terminal is for the supervisor; QEMU would die of it at once.
            .process_group(0);
        crate::sys::die_with_parent(&mut spawned, Some(claim.descriptor()));
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => RunError::NoQemu {
                program: command.program.clone(),
                source,
            },
            _ => RunError::Host {
                step: "starting qemu",
                source,
            },
        };
        let mut child = tokio::process::Command::from(spawned)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (sender, lines) = mpsc::channel(64);
        let reader = tokio::spawn(listen(child.stderr.take(), sender));
        let pid = child.id().unwrap_or_default();
        Ok((Self { child, pid, reader }, lines))
    }

    /// Waits for the end. Cancel-safe.
    pub(super) async fn exited(&mut self) -> Exit {
        match self.child.wait().await {
            Ok(status) => exit(status),
            // Cannot happen to a child of ours that nobody else waits for.
            Err(_) => Exit::Code(-1),
        }
    }

    /// SIGKILL; nothing happens to a process that is gone.
    pub(super) fn kill(&mut self) {
        drop(self.child.start_kill());
    }

    /// The last of standard error; call after the end.
    pub(super) async fn last_words(mut self) -> String {
        match tokio::time::timeout(LAST_WORDS, &mut self.reader).await {
            Ok(Ok(tail)) => tail,
            Ok(Err(_)) | Err(_) => String::new(),
        }
    }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

/// Reads to the end, hands on lines, and keeps the tail.
async fn listen(stderr: Option<ChildStderr>, lines: mpsc::Sender<String>) -> String {
    let Some(mut stderr) = stderr else {
        return String::new();
    };
    let mut tail = VecDeque::with_capacity(TAIL);
    let mut line = Vec::new();
    let mut buffer = [0; 1 << 10];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        for byte in buffer.get(..length).unwrap_or_default() {
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(*byte);
            if *byte != b'\n' {
                line.push(*byte);
            }
            if (*byte == b'\n' || line.len() == LINE) && !line.is_empty() {
                let text = String::from_utf8_lossy(&line).into_owned();
                line.clear();
                // A supervisor that is busy misses the line; it still has the tail.
                drop(lines.try_send(text));
            }
        }
    }
    String::from_utf8_lossy(tail.make_contiguous()).into_owned()
}
