//! A web server that fails as it is told to: HTTP/1.1 on threads, plain or TLS.
//!
//! Each [`Page`] says how its server behaves at its best and holds a script of [`Fault`]s, one for each
//! GET, after which it behaves. What was asked is recorded.

mod page;
mod serve;
mod tls;
pub(crate) mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub use self::page::{Body, Fault, Length, Page, Ranges, Rate};
pub use self::tls::Authority;
use self::wire::Port;

/// How long [`Server::wait_until`] waits before the test fails.
const DEADLINE: Duration = Duration::from_mins(3);

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, or what else.
    pub method: String,
    /// Path and query; all of the URL where the server was asked as a proxy.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What happened so far.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// All requests, in the order they came.
    pub requests: Vec<Request>,
    /// Connections that the client closed while an answer was under way.
    pub gone: usize,
    /// Bytes of bodies written.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct State {
    pages: Mutex<HashMap<String, Page>>,
    log: Mutex<Log>,
    changed: Condvar,
}

impl State {
    fn log(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.log.lock().unwrap());
        self.changed.notify_all();
    }
}

/// A running server. It ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    port: Port,
    state: Arc<State>,
}

impl Server {
    /// A plain server with these pages, on a port of its own.
    pub fn start<'a>(pages: impl IntoIterator<Item = (&'a str, Page)>) -> Self {
        Self::listen("127.0.0.1", pages, None)
    }

    /// A plain server on another address of this host, or over TLS with a certificate for it.
    pub fn start_on<'a>(
        host: &str,
        authority: Option<&Authority>,
        pages: impl IntoIterator<Item = (&'a str, Page)>,
    ) -> Self {
        let tls = authority.map(|authority| authority.server_config(&[host]));
        Self::listen(host, pages, tls)
    }

    /// The same over TLS, for `localhost` and `127.0.0.1`.
    pub fn start_tls<'a>(
        authority: &Authority,
        pages: impl IntoIterator<Item = (&'a str, Page)>,
    ) -> Self {
        Self::start_tls_as(authority, &["localhost", "127.0.0.1"], pages)
    }

    /// The same with a certificate for these names.
    pub fn start_tls_as<'a>(
        authority: &Authority,
        names: &[&str],
        pages: impl IntoIterator<Item = (&'a str, Page)>,
    ) -> Self {
        Self::listen("127.0.0.1", pages, Some(authority.server_config(names)))
    }

    fn listen<'a>(
        host: &str,
        pages: impl IntoIterator<Item = (&'a str, Page)>,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let state = Arc::new(State::default());
        for (path, page) in pages {
            let mut pages = state.pages.lock().unwrap();
            pages.insert(path.to_owned(), page);
        }
        let serving = Arc::clone(&state);
        let port = Port::open(host, tls, move |wire| serve::connection(wire, &serving));
        Self { port, state }
    }

    /// The URL of a page.
    pub fn url(&self, path: &str) -> String {
        self.port.url(path)
    }

    /// The same by the name `localhost`: another host to a client.
    pub fn url_by_name(&self, path: &str) -> String {
        self.port.url_by("localhost", path)
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Puts a page in place of another.
    pub fn set(&self, path: &str, page: Page) {
        self.state
            .pages
            .lock()
            .unwrap()
            .insert(path.to_owned(), page);
    }

    /// How fast what is at a path comes, if it is slowed down.
    pub fn rate(&self, path: &str) -> Option<Rate> {
        self.state.pages.lock().unwrap().get(path)?.throttle.clone()
    }

    /// What happened so far.
    pub fn log(&self) -> Log {
        self.state.log.lock().unwrap().clone()
    }

    /// Waits until the log is as `wanted`; panics after three minutes.
    pub fn wait_until(&self, wanted: impl Fn(&Log) -> bool) -> Log {
        let until = Instant::now() + DEADLINE;
        let mut log: MutexGuard<'_, Log> = self.state.log.lock().unwrap();
        while !wanted(&log) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain: {log:?}");
            log = self.state.changed.wait_timeout(log, left).unwrap().0;
        }
        log.clone()
    }
}
