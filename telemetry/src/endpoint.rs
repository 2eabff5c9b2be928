//! `GET /metrics` over TLS.
//!
//! ```text
//! accept thread -> one thread for each of at most MOST connections: handshake, one request, one answer
//! ```
//!
//! The certificate is made when the endpoint starts, signed by nobody, and kept in memory: whoever
//! scrapes is inside the cluster's network and gets numbers only. Nothing that a client does matters to
//! the program: each connection has a deadline, and where there are too many, the oldest is cut.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

use crate::metrics::CONTENT_TYPE;

/// Connections at the same time.
const MOST: usize = 8;
/// A connection has this long from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a request, more than any scraper sends.
const MOST_REQUEST: usize = 8 << 10;
/// A handshake and a page of metrics need little.
const STACK: usize = 256 << 10;
/// A pause after an accept that failed (no descriptors left, mostly).
const REST: Duration = Duration::from_millis(100);

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The address could not be listened at.
    #[error("could not listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// No certificate could be made.
    #[error("could not make a certificate")]
    Certificate {
        /// The cause.
        source: rcgen::Error,
    },
    /// TLS could not be set up.
    #[error("could not set up TLS")]
    Tls {
        /// The cause.
        source: rustls::Error,
    },
    /// No thread could be started.
    #[error("could not start a thread")]
    Thread {
        /// The cause.
        source: io::Error,
    },
}

/// A running endpoint. It ends when it is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    closing: Arc<AtomicBool>,
}

impl Endpoint {
    /// Serves what `render` gives at `address`.
    pub fn start(
        address: SocketAddr,
        render: impl Fn() -> String + Send + Sync + 'static,
    ) -> Result<Self, EndpointError> {
        let tls = Arc::new(own_certificate()?);
        let listen = |source| EndpointError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let closing = Arc::new(AtomicBool::new(false));
        let server = Server {
            tls,
            render: Arc::new(render),
            open: Arc::default(),
        };
        let flag = Arc::clone(&closing);
        thread::Builder::new()
            .name("metrics".to_owned())
            .stack_size(STACK)
            .spawn(move || server.accept(&listener, &flag))
            .map_err(|source| EndpointError::Thread { source })?;
        Ok(Self {
            address: bound,
            closing,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        let mut wake = self.address;
        if wake.ip().is_unspecified() {
            wake.set_ip(match wake {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        // Wakes the accepting thread, which then sees the flag.
        drop(TcpStream::connect_timeout(&wake, REST));
    }
}

type Open = Arc<Mutex<VecDeque<(u64, TcpStream)>>>;

struct Server {
    tls: Arc<ServerConfig>,
    render: Arc<dyn Fn() -> String + Send + Sync>,
    open: Open,
}

impl Server {
    fn accept(&self, listener: &TcpListener, closing: &AtomicBool) {
        for number in 0u64.. {
            let accepted = listener.accept();
            if closing.load(Ordering::Acquire) {
                return;
            }
            let Ok((stream, _)) = accepted else {
                thread::sleep(REST);
                continue;
            };
            let Ok(handle) = stream.try_clone() else {
                continue;
            };
            {
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                if open.len() >= MOST
                    && let Some((_, oldest)) = open.pop_front()
                {
                    // Its thread finds the line dead and ends.
                    drop(oldest.shutdown(Shutdown::Both));
                }
                open.push_back((number, handle));
            }
            let (tls, render, open) = (
                Arc::clone(&self.tls),
                Arc::clone(&self.render),
                Arc::clone(&self.open),
            );
            let serving = move || {
                // A client that breaks off is no news to anybody.
                drop(answer(stream, &tls, render.as_ref()));
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                open.retain(|(other, _)| *other != number);
            };
            let started = thread::Builder::new()
                .name("scrape".to_owned())
                .stack_size(STACK)
                .spawn(serving);
            if started.is_err() {
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.retain(|(other, _)| *other != number);
            }
        }
    }
}

fn own_certificate() -> Result<ServerConfig, EndpointError> {
    let certificate = |source| EndpointError::Certificate { source };
    let signed =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(certificate)?;
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![signed.cert.der().clone()], key)
        })
        .map_err(|source| EndpointError::Tls { source })
}

/// One request and its answer.
fn answer(
    stream: TcpStream,
    tls: &Arc<ServerConfig>,
    render: &dyn Fn() -> String,
) -> io::Result<()> {
    let mut line = Timed {
        stream,
        until: Instant::now() + PATIENCE,
    };
    let mut session = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
    let mut secure = rustls::Stream::new(&mut session, &mut line);
    let mut head = Vec::new();
    let mut some = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let n = secure.read(&mut some)?;
        if n == 0 || head.len() > MOST_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&some[..n]);
    }
    let (status, body) = match request(&head) {
        Some(("GET", "/metrics")) => ("200 OK", render()),
        Some(("GET", _)) => ("404 Not Found", "metrics are at /metrics\n".to_owned()),
        Some(_) => ("405 Method Not Allowed", "metrics are to GET\n".to_owned()),
        None => ("400 Bad Request", "this is no HTTP/1 request\n".to_owned()),
    };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    );
    secure.write_all(text.as_bytes())?;
    secure.conn.send_close_notify();
    secure.flush()
}

/// Method and path.
fn request(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let path = target.split('?').next()?;
    (version.starts_with("HTTP/1.") && words.next().is_none()).then_some((method, path))
}

/// A connection that ends at a point in time, however slowly bytes come.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buf)
    }
}

impl Write for Timed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests;
