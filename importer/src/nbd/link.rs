//! A connection: a unix socket or TCP, read with patience that has an end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use longshore_transfer::Cancel;

use super::address::{Address, Place};
use super::error::NbdError;
use crate::http::TICK;

/// Headers of replies are small; what is large goes past this, all but what comes with its header: that is
/// copied once more.
const BUFFER: usize = 4 << 10;

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// How long to wait for what.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    /// For a request to be answered, or the handshake to end.
    pub(crate) stall: Duration,
    pub(crate) cancel: Cancel,
}

/// A socket whose reads end: by a byte, by the end of patience, or when someone asks to stop.
#[derive(Debug)]
struct Waiting {
    socket: Socket,
    patience: Patience,
    /// Since when nothing was finished.
    since: Instant,
    /// A read gives up after a tick.
    once: bool,
}

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Link(BufReader<Waiting>);

impl Link {
    pub(crate) fn connect(address: &Address, patience: &Patience) -> Result<Self, NbdError> {
        let fail = |source| NbdError::Connect {
            peer: address.peer(),
            source,
        };
        let socket = match &address.place {
            Place::Unix(path) => Socket::Unix(UnixStream::connect(path).map_err(fail)?),
            Place::Tcp(host, port) => Socket::Tcp(tcp(host, *port, patience).map_err(fail)?),
        };
        socket.set_timeouts(patience.stall).map_err(fail)?;
        Ok(Self(BufReader::with_capacity(
            BUFFER,
            Waiting {
                socket,
                patience: patience.clone(),
                since: Instant::now(),
                once: false,
            },
        )))
    }

    /// Something was finished: patience starts anew.
    pub(crate) fn refresh(&mut self) {
        self.0.get_mut().since = Instant::now();
    }

    /// From now on a request may take so long.
    pub(crate) fn be_patient(&mut self, stall: Duration) {
        self.0.get_mut().patience.stall = stall;
    }

    /// Waits a moment for something to read. False if nothing came.
    pub(crate) fn ready(&mut self) -> Result<bool, NbdError> {
        if !self.0.buffer().is_empty() {
            return Ok(true);
        }
        self.0.get_mut().once = true;
        let filled = self.0.fill_buf().map(|bytes| !bytes.is_empty());
        self.0.get_mut().once = false;
        match filled {
            Ok(true) => Ok(true),
            Ok(false) => Err(NbdError::Broken {
                source: io::ErrorKind::UnexpectedEof.into(),
            }),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

fn tcp(host: &str, port: u16, patience: &Patience) -> io::Result<TcpStream> {
    let mut last = None;
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience.connect) {
            Ok(stream) => {
                // Requests are small, and each is wanted at once.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = Some(e),
        }
        if patience.cancel.is_cancelled() {
            break;
        }
    }
    Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable)))
}

impl Socket {
    /// Requests are so small that they always fit into the socket: one that does not for so long is
    /// that of a server which is gone.
    fn set_timeouts(&self, write: Duration) -> io::Result<()> {
        let write = Some(write.max(TICK));
        match self {
            Self::Unix(s) => s
                .set_read_timeout(Some(TICK))
                .and_then(|()| s.set_write_timeout(write)),
            Self::Tcp(s) => s
                .set_read_timeout(Some(TICK))
                .and_then(|()| s.set_write_timeout(write)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It closes anyway.
        let _ = match &self.socket {
            Socket::Unix(s) => s.shutdown(Shutdown::Both),
            Socket::Tcp(s) => s.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Waiting {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.socket {
                Socket::Unix(s) => s.read(buf),
                Socket::Tcp(s) => s.read(buf),
            };
            match read {
                Err(e) if waits(&e) => {
                    if self.patience.cancel.is_cancelled() {
                        return Err(io::Error::other(NbdError::Cancelled));
                    }
                    if self.once {
                        let late = self.since.elapsed() > self.patience.stall;
                        return Err(if late {
                            self.stalled()
                        } else {
                            io::ErrorKind::WouldBlock.into()
                        });
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    // A byte now and then is no answer either.
                    if !self.once && self.since.elapsed() > self.patience.stall {
                        return Err(self.stalled());
                    }
                    return read;
                }
            }
            if self.since.elapsed() > self.patience.stall {
                return Err(self.stalled());
            }
        }
    }
}

impl Waiting {
    fn stalled(&self) -> io::Error {
        io::Error::other(NbdError::Stalled {
            after: self.patience.stall,
        })
    }
}

fn waits(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

impl Read for Link {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Link {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let socket = &mut self.0.get_mut().socket;
        match socket {
            Socket::Unix(s) => s.write(buf),
            Socket::Tcp(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
