//! A port at which every connection is served by a thread of its own, plain or over TLS, and what comes first on
//! each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Request;

/// What bytes go over.
pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// It closes when it is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    secure: bool,
    closing: Arc<AtomicBool>,
}

impl Port {
    /// One of a host, whose connections are given to `serve`.
    pub(crate) fn open(
        host: &str,
        tls: Option<Arc<ServerConfig>>,
        serve: impl Fn(BufReader<Box<dyn Wire>>) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let port = Self {
            address: listener.local_addr().unwrap(),
            secure: tls.is_some(),
            closing: Arc::default(),
        };
        let (closing, serve) = (Arc::clone(&port.closing), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if closing.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (serve, tls) = (Arc::clone(&serve), tls.clone());
                thread::spawn(move || serve(BufReader::new(over(stream, tls))));
            }
        });
        port
    }

    /// A URL here.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme(), self.address)
    }

    /// The same by a name of the host.
    pub(crate) fn url_by(&self, name: &str, path: &str) -> String {
        format!("{}://{name}:{}{path}", self.scheme(), self.address.port())
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees the flag and closes the port.
        let _ = TcpStream::connect(self.address);
    }
}

fn over(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Box<dyn Wire> {
    // It may have gone again: whoever reads is told.
    let _ = stream.set_nodelay(true);
    match tls {
        None => Box::new(stream),
        Some(config) => {
            let session = ServerConnection::new(config).unwrap();
            Box::new(StreamOwned::new(session, stream))
        }
    }
}

/// Names in lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// The first line and the headers, unless the other side has gone.
pub(crate) fn read_head(wire: &mut impl BufRead) -> io::Result<Option<(String, Headers)>> {
    let mut line = || -> io::Result<String> {
        let mut line = String::new();
        wire.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    let start = line()?;
    if start.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else {
            return Ok(Some((start, headers)));
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// All of a request in front of its body, unless the other side has gone.
pub(crate) fn read_request(wire: &mut impl BufRead) -> io::Result<Option<Request>> {
    Ok(read_head(wire)?.map(|(start, headers)| {
        let mut words = start.split_whitespace().map(str::to_owned);
        Request {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            headers,
        }
    }))
}
