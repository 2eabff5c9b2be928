//! A person at a terminal: raw mode, the escape key, and attaching to a console socket.
//!
//! The terminal is given back as it was on every way out that runs destructors; signals that would
//! end the process otherwise are turned into ordinary returns by the supervisor.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::thread::JoinHandle;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// Ctrl+], as in telnet, virsh and virtctl.
pub const ESCAPE: u8 = 0x1D;

/// A terminal in raw mode; as it was before when dropped.
#[derive(Debug)]
struct RawMode<Fd: AsFd> {
    terminal: Fd,
    before: Termios,
}

impl<Fd: AsFd> RawMode<Fd> {
    fn new(terminal: Fd) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        // Lines of ours on standard error go to the same terminal and end in a bare newline.
        raw.output_modes |= before.output_modes & (OutputModes::OPOST | OutputModes::ONLCR);
        tcsetattr(&terminal, OptionalActions::Flush, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl<Fd: AsFd> Drop for RawMode<Fd> {
    fn drop(&mut self) {
        // A terminal that has gone away needs no restoring.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Standard input while it feeds a console; given back when dropped.
#[derive(Debug)]
pub struct Keyboard {
    _raw: Option<RawMode<OwnedFd>>,
    _stop: OwnedFd,
    _thread: JoinHandle<()>,
}

impl Keyboard {
    /// Takes standard input, in raw mode if it is a terminal, and feeds `keys` with what is typed.
    ///
    /// `keys` ends at the end of input and, on a terminal, at [`ESCAPE`]. Input that nobody takes
    /// waits in the terminal.
    pub fn take() -> io::Result<(Self, mpsc::Receiver<Bytes>)> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        Self::over(input)
    }

    fn over(input: OwnedFd) -> io::Result<(Self, mpsc::Receiver<Bytes>)> {
        let escape = input.is_terminal();
        let raw = if escape {
            Some(RawMode::new(input.try_clone()?)?)
        } else {
            None
        };
        let (sender, keys) = mpsc::channel(16);
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // A thread, since a read of a terminal can be neither made asynchronous without changing
        // the terminal for other processes nor be cancelled; polling the pipe makes it so.
        let thread = std::thread::Builder::new()
            .name("keyboard".to_owned())
            .spawn(move || {
                // An input that fails is an input that ends.
                drop(read_keys(input, &stopped, escape, &sender));
            })?;
        Ok((
            Self {
                _raw: raw,
                _stop: stop,
                _thread: thread,
            },
            keys,
        ))
    }
}

fn read_keys(
    input: OwnedFd,
    stopped: &OwnedFd,
    escape: bool,
    sender: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut input = std::fs::File::from(input);
    let mut buffer = [0; 1 << 10];
    loop {
        let mut watched = [
            PollFd::new(&input, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut watched, None) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled?,
        };
        let [_, stopped] = &watched;
        if !stopped.revents().is_empty() {
            return Ok(());
        }
        let length = input.read(&mut buffer)?;
        let typed = buffer.get(..length).unwrap_or_default();
        let (typed, escaped) = until_escape(typed, escape);
        let sent = typed.is_empty() || sender.blocking_send(Bytes::copy_from_slice(typed)).is_ok();
        if length == 0 || escaped || !sent {
            return Ok(());
        }
    }
}

/// What was typed before the escape key, and whether it was typed.
fn until_escape(typed: &[u8], escape: bool) -> (&[u8], bool) {
    let at = typed.iter().position(|key| escape && *key == ESCAPE);
    (
        typed.get(..at.unwrap_or(typed.len())).unwrap_or_default(),
        at.is_some(),
    )
}

/// How a session at a console ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// The person typed the escape key, or input ended.
    ByUser,
    /// The console ended, and the guest with it.
    ByConsole,
}

/// Connects standard input and output to the console socket of a running VM.
pub async fn attach(socket: &Path) -> io::Result<Detached> {
    let stream = crate::socket::connect(socket).await?;
    let (keyboard, keys) = Keyboard::take()?;
    let (from_console, to_console) = stream.into_split();
    let ended = session(from_console, to_console, tokio::io::stdout(), keys).await;
    drop(keyboard);
    ended
}

async fn session(
    mut from_console: impl AsyncRead + Unpin,
    mut to_console: impl AsyncWrite + Unpin,
    mut screen: impl AsyncWrite + Unpin,
    mut keys: mpsc::Receiver<Bytes>,
) -> io::Result<Detached> {
    let shown = async {
        let mut buffer = vec![0; 4 << 10];
        loop {
            let length = from_console.read(&mut buffer).await?;
            if length == 0 {
                return Ok(Detached::ByConsole);
            }
            screen
                .write_all(buffer.get(..length).unwrap_or_default())
                .await?;
            screen.flush().await?;
        }
    };
    let typed = async {
        while let Some(keys) = keys.recv().await {
            to_console.write_all(&keys).await?;
        }
        Ok(Detached::ByUser)
    };
    tokio::select! {
        ended = shown => ended,
        ended = typed => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_precedes_the_escape_key_is_typed_and_only_on_a_terminal() {
        assert_eq!(until_escape(b"ls\r", true), (&b"ls\r"[..], false));
        assert_eq!(until_escape(b"ls\x1Drm", true), (&b"ls"[..], true));
        assert_eq!(until_escape(b"\x1D", true), (&b""[..], true));
        assert_eq!(until_escape(b"a\x1Db", false), (&b"a\x1Db"[..], false));
    }

    #[tokio::test]
    async fn input_from_a_pipe_is_passed_on_to_its_end() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let (_keyboard, mut keys) = Keyboard::over(reader).unwrap();
        rustix::io::write(&writer, b"root\x1D\n").unwrap();
        drop(writer);
        let mut typed = Vec::new();
        while let Some(piece) = keys.recv().await {
            typed.extend_from_slice(&piece);
        }
        assert_eq!(typed, b"root\x1D\n");
    }

    #[tokio::test]
    async fn a_keyboard_that_is_dropped_stops_reading() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let kept = reader.try_clone().unwrap();
        let (keyboard, mut keys) = Keyboard::over(reader).unwrap();
        drop(keyboard);
        assert_eq!(keys.recv().await, None);
        rustix::io::write(&writer, b"x").unwrap();
        let mut byte = [0; 1];
        assert_eq!(
            rustix::io::read(&kept, &mut byte).unwrap(),
            1,
            "the byte is still there"
        );
    }

    /// A terminal pair: what a person has, and what the process has.
    fn terminal() -> (OwnedFd, OwnedFd) {
        use rustix::fs::{Mode, OFlags};
        use rustix::pty;
        let person = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
        pty::grantpt(&person).unwrap();
        pty::unlockpt(&person).unwrap();
        let name = pty::ptsname(&person, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        (
            person,
            rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap(),
        )
    }

    #[tokio::test]
    async fn a_terminal_is_raw_until_the_escape_key_and_restored_after() {
        let (person, process) = terminal();
        let observer = process.try_clone().unwrap();
        let modes = || {
            let modes = tcgetattr(&observer).unwrap();
            (modes.local_modes, modes.input_modes, modes.output_modes)
        };
        let before = modes();
        let (keyboard, mut keys) = Keyboard::over(process).unwrap();
        assert!(
            !modes().0.contains(rustix::termios::LocalModes::ISIG),
            "Ctrl+C is the guest's"
        );
        rustix::io::write(&person, b"\x03q\x1Dz").unwrap();
        let mut typed = Vec::new();
        while let Some(piece) = keys.recv().await {
            typed.extend_from_slice(&piece);
        }
        assert_eq!(typed, b"\x03q");
        drop(keyboard);
        assert_eq!(modes(), before);
    }

    #[tokio::test]
    async fn a_session_ends_with_the_console_or_with_the_keys() {
        let (ours, mut console) = tokio::io::duplex(64);
        let (_sender, keys) = mpsc::channel(1);
        console.write_all(b"login:").await.unwrap();
        drop(console);
        let (from_console, to_console) = tokio::io::split(ours);
        let mut screen = Vec::new();
        let ended = session(from_console, to_console, &mut screen, keys)
            .await
            .unwrap();
        assert_eq!(
            (ended, screen.as_slice()),
            (Detached::ByConsole, &b"login:"[..])
        );

        let (ours, mut console) = tokio::io::duplex(64);
        let (sender, keys) = mpsc::channel(1);
        sender.send(Bytes::from_static(b"root")).await.unwrap();
        drop(sender);
        let (from_console, to_console) = tokio::io::split(ours);
        let ended = session(from_console, to_console, tokio::io::sink(), keys)
            .await
            .unwrap();
        let mut typed = [0; 4];
        console.read_exact(&mut typed).await.unwrap();
        assert_eq!((ended, &typed), (Detached::ByUser, b"root"));
    }
}
