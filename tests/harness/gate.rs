//! A small HTTP server that does with each request what a test says: answers it, or passes it on to a real
//! server, slowly or in part.
//!
//! In front of a real store it shows what was asked and does what the store itself cannot be made to do; alone
//! it is a fake of a service that cannot be had (STS, metadata services), and is named so by whoever uses it.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::http::wire::{Headers, Port, Wire, read_head, read_request};
use crate::http::{Authority, Request};

/// Bytes copied at once.
const PIECE: u64 = 64 << 10;

/// Where a real server listens.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// A port.
    Tcp(SocketAddr),
    /// A socket in a directory of its own: nobody can take it first.
    Unix(PathBuf),
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This answer.
    Say {
        /// Its status.
        status: u16,
        /// Its headers.
        headers: Vec<(String, String)>,
        /// Its body.
        body: String,
    },
    /// The answer of the real server.
    Pass(Passing),
}

impl Reply {
    /// An answer with a body.
    pub fn say(status: u16, body: impl Into<String>) -> Self {
        Self::Say {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Say { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

/// How a request is passed on.
#[derive(Debug, Clone, Default)]
pub struct Passing {
    /// At most about so many bytes of the answer's body a second.
    pub rate: Option<u64>,
    /// The connection closes after so many bytes of the body.
    pub cut: Option<u64>,
    /// Headers of the request, in lower case, that do not reach the server.
    pub without: &'static [&'static str],
    /// Headers of the answer, in lower case, that do not reach the client.
    pub hide: &'static [&'static str],
}

/// Passes everything on.
pub fn transparent(_: &Asked, _: usize) -> Reply {
    Reply::Pass(Passing::default())
}

/// Passes everything on; of the first answers, so many `times`, only the first `bytes`.
pub fn cutting(times: usize, bytes: u64) -> impl Fn(&Asked, usize) -> Reply {
    move |_, number| {
        Reply::Pass(Passing {
            cut: (number < times).then_some(bytes),
            ..Passing::default()
        })
    }
}

/// Passes everything on, at about so many bytes a second.
pub fn slow(rate: u64) -> impl Fn(&Asked, usize) -> Reply {
    move |_, _| {
        Reply::Pass(Passing {
            rate: Some(rate),
            ..Passing::default()
        })
    }
}

/// A request and its body.
#[derive(Debug, Clone)]
pub struct Asked {
    /// All but the body.
    pub head: Request,
    /// The body.
    pub body: String,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }
}

type Decide = dyn Fn(&Asked, usize) -> Reply + Send + Sync;

struct State {
    decide: Box<Decide>,
    upstream: Mutex<Option<Upstream>>,
    asked: Mutex<Vec<Asked>>,
    sent: Mutex<u64>,
}

impl State {
    /// The number of a request.
    fn log(&self, asked: &Asked) -> usize {
        let mut all = self.asked.lock().unwrap();
        all.push(asked.clone());
        all.len() - 1
    }

    fn sent(&self, bytes: u64) {
        *self.sent.lock().unwrap() += bytes;
    }

    fn upstream(&self) -> Upstream {
        let upstream = self.upstream.lock().unwrap();
        upstream.clone().expect("there is a server behind")
    }
}

/// A running server. It ends when it is dropped.
pub struct Gate {
    port: Port,
    state: Arc<State>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A server that answers as `decide` says, which is given the request and its number from 0.
    pub fn alone(decide: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, None, decide)
    }

    /// The same in front of `upstream`, over TLS for `localhost` and `127.0.0.1` if there is an authority.
    pub fn listen(
        upstream: Option<Upstream>,
        authority: Option<&Authority>,
        decide: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen_on("127.0.0.1", upstream, authority, decide)
    }

    /// The same on another address of this host.
    pub fn listen_on(
        host: &str,
        upstream: Option<Upstream>,
        authority: Option<&Authority>,
        decide: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let tls = authority.map(|authority| authority.server_config(&["localhost", host]));
        let state = Arc::new(State {
            decide: Box::new(decide),
            upstream: Mutex::new(upstream),
            asked: Mutex::default(),
            sent: Mutex::default(),
        });
        let serving = Arc::clone(&state);
        // Clients that go away are part of the tests.
        let port = Port::open(host, tls, move |wire| drop(connection(wire, &serving)));
        Self { port, state }
    }

    /// Puts a server behind it that had to know its address first.
    pub fn put_before(&self, upstream: Upstream) {
        *self.state.upstream.lock().unwrap() = Some(upstream);
    }

    /// A URL here.
    pub fn url(&self, path: &str) -> String {
        self.port.url(path)
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Bytes of bodies sent to clients so far.
    pub fn sent(&self) -> u64 {
        *self.state.sent.lock().unwrap()
    }
}

fn connection(mut wire: BufReader<Box<dyn Wire>>, state: &State) -> io::Result<()> {
    while let Some(request) = read_request(&mut wire)? {
        let mut body = vec![0; size(length(&request.headers).unwrap_or(0))];
        wire.read_exact(&mut body)?;
        let asked = Asked {
            head: request,
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        let number = state.log(&asked);
        match (state.decide)(&asked, number) {
            Reply::Say {
                status,
                headers,
                body,
            } => {
                let length = format!("Content-Length: {}\r\n", body.len());
                let head = head(
                    &format!("HTTP/1.1 {status} Whatever"),
                    &headers,
                    &[],
                    &length,
                );
                wire.get_mut().write_all((head + &body).as_bytes())?;
                wire.get_mut().flush()?;
            }
            Reply::Pass(passing) => pass(&mut wire, &asked, &passing, state)?,
        }
    }
    Ok(())
}

/// All in front of a body, less the headers that are hidden, with one more line.
fn head(start: &str, headers: &Headers, hidden: &[&str], more: &str) -> String {
    let is_shown = |name: &str| name != "connection" && !hidden.contains(&name);
    let lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| is_shown(name))
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("{start}\r\n{}{more}\r\n", lines.concat())
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

fn length(headers: &Headers) -> Option<u64> {
    let found = headers.iter().find(|(name, _)| name == "content-length");
    found.and_then(|(_, value)| value.parse().ok())
}

fn pass<W: Wire + ?Sized>(
    wire: &mut BufReader<Box<W>>,
    asked: &Asked,
    passing: &Passing,
    state: &State,
) -> io::Result<()> {
    let Asked { head: asked, body } = asked;
    let mut far: Box<dyn Wire> = match state.upstream() {
        Upstream::Tcp(address) => Box::new(TcpStream::connect(address)?),
        Upstream::Unix(path) => Box::new(UnixStream::connect(path)?),
    };
    // A proxy is asked for a whole URL.
    let path = match asked.target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => &asked.target,
    };
    let start = format!("{} {path} HTTP/1.1", asked.method);
    let head_there = head(
        &start,
        &asked.headers,
        passing.without,
        "connection: close\r\n",
    );
    far.write_all(head_there.as_bytes())?;
    far.write_all(body.as_bytes())?;
    far.flush()?;
    let mut far = BufReader::new(far);
    let (start, headers) = read_head(&mut far)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let head_back = head(&start, &headers, passing.hide, "");
    wire.get_mut().write_all(head_back.as_bytes())?;
    let all = length(&headers).ok_or(io::ErrorKind::InvalidData)?;
    let until = passing.cut.map_or(all, |cut| all.min(cut));
    let mut at = 0;
    while at < until {
        let most = passing.rate.map_or(PIECE, |rate| (rate / 20).max(1));
        let mut piece = vec![0; size(most.min(until - at))];
        far.read_exact(&mut piece)?;
        wire.get_mut().write_all(&piece)?;
        wire.get_mut().flush()?;
        at += piece.len() as u64;
        state.sent(piece.len() as u64);
        if passing.rate.is_some() {
            // This is the slow line itself, no wait for anything.
            thread::sleep(Duration::from_millis(50));
        }
    }
    wire.get_mut().flush()?;
    if until < all {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(())
}
