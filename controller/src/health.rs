//! What the kubelet is told: whether the process is alive, and whether it is ready.
//!
//! ```text
//! /healthz  200 while the lease is looked at in time, whoever has it
//! /readyz   200 standing by, or at work once all that is watched was listed; else 503 with what is missing
//! ```
//!
//! Who stands by is ready for that: otherwise an update would wait for a new pod that waits for the old
//! one's lease.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::{Lookup, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// The lease is looked at every few seconds, and a request for it may take as long again.
const SILENCE: Duration = Duration::from_mins(1);
/// A question has this long from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at the same time: a kubelet has two.
const MOST: usize = 8;
/// Bytes of a question.
const MOST_QUESTION: usize = 4096;

/// What is known of our own state.
#[derive(Debug)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    looked: Instant,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    /// The lease was not seen yet.
    New,
    /// It is somebody else's.
    By,
    /// It is ours, and these are still being listed.
    AtWork(BTreeSet<&'static str>),
}

impl Health {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            looked: Instant::now(),
            standing: Standing::New,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease was looked at.
    pub(crate) fn looked(&self) {
        self.state().looked = Instant::now();
    }

    /// It is somebody else's.
    pub(crate) fn stands_by(&self) {
        self.state().standing = Standing::By;
    }

    /// It is ours, and `lists` must be there before we are ready.
    pub(crate) fn works(&self, lists: &[&'static str]) {
        self.state().standing = Standing::AtWork(lists.iter().copied().collect());
    }

    /// One of them is there.
    pub(crate) fn listed(&self, list: &str) {
        if let Standing::AtWork(missing) = &mut self.state().standing {
            missing.remove(list);
        }
    }

    /// Says so when `store` has it.
    pub(crate) fn await_list<K>(
        self: &Arc<Self>,
        list: &'static str,
        store: Store<K>,
    ) -> impl Future<Output = ()> + use<K>
    where
        K: Lookup + Clone + 'static,
        K::DynamicType: Eq + Hash + Clone,
    {
        let health = Arc::clone(self);
        async move {
            if store.wait_until_ready().await.is_ok() {
                health.listed(list);
            }
        }
    }

    /// The answer to a question, as status and text.
    fn answer(&self, path: &str, now: Instant) -> (&'static str, String) {
        let state = self.state();
        let silence = now.duration_since(state.looked);
        match path {
            "/healthz" if silence > SILENCE => (
                "500 Internal Server Error",
                format!("the lease was not looked at for {} s", silence.as_secs()),
            ),
            "/healthz" => ("200 OK", "alive".to_owned()),
            "/readyz" => match &state.standing {
                Standing::New => (
                    "503 Service Unavailable",
                    "the lease was not seen yet".to_owned(),
                ),
                Standing::By => ("200 OK", "standing by".to_owned()),
                Standing::AtWork(missing) if missing.is_empty() => ("200 OK", "at work".to_owned()),
                Standing::AtWork(missing) => {
                    let missing: Vec<&str> = missing.iter().copied().collect();
                    let missing = missing.join(", ");
                    (
                        "503 Service Unavailable",
                        format!("not listed yet: {missing}"),
                    )
                }
            },
            _ => ("404 Not Found", "there are /healthz and /readyz".to_owned()),
        }
    }

    /// Answers at `address` until the process ends.
    pub(crate) async fn serve(self: Arc<Self>, address: SocketAddr) -> Result<()> {
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let places = Arc::new(Semaphore::new(MOST));
        tokio::spawn(async move {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let health = Arc::clone(&self);
                        tokio::spawn(async move {
                            // Whoever asks and does not listen to the answer has no need of it.
                            drop(tokio::time::timeout(PATIENCE, health.converse(stream)).await);
                            drop(place);
                        });
                    }
                    // No descriptors left, mostly.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(())
    }

    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut question = Vec::new();
        let mut buffer = [0; 512];
        while !question.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = stream.read(&mut buffer).await?;
            if read == 0 || question.len() > MOST_QUESTION {
                return Ok(());
            }
            question.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
        let question = String::from_utf8_lossy(&question);
        let mut words = question.split_ascii_whitespace();
        let path = match words.next() {
            Some("GET") => words.next().unwrap_or_default(),
            _ => "",
        };
        let (status, text) = self.answer(path, Instant::now());
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}\n",
            text.len() + 1
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_by_is_ready_and_who_works_once_everything_is_listed() {
        let health = Health::new();
        let ready = |health: &Health| health.answer("/readyz", Instant::now());
        assert!(ready(&health).0.starts_with("503"));
        health.stands_by();
        assert_eq!(ready(&health).1, "standing by");
        health.works(&["claims", "volumes"]);
        health.listed("claims");
        assert_eq!(
            ready(&health),
            (
                "503 Service Unavailable",
                "not listed yet: volumes".to_owned()
            )
        );
        health.listed("volumes");
        assert_eq!(ready(&health).1, "at work");
    }

    #[test]
    fn who_does_not_look_at_the_lease_is_not_alive() {
        let begun = Instant::now();
        let health = Health::new();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(health.answer("/healthz", at(59)).0.starts_with("200"));
        assert!(health.answer("/healthz", at(600)).0.starts_with("500"));
        assert!(health.answer("/else", at(0)).0.starts_with("404"));
    }

    #[tokio::test]
    async fn questions_are_answered_and_what_is_none_is_cut() {
        let health = Health::new();
        let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = place.local_addr().unwrap();
        drop(place);
        Arc::clone(&health).serve(address).await.unwrap();
        for (question, expected) in [
            (
                "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
                "HTTP/1.1 200 OK",
            ),
            ("POST /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 404"),
            (&"x".repeat(6000), ""),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(question.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // What is left unread when a connection ends is a reset.
            drop(stream.read_to_end(&mut answer).await);
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with(expected), "{answer}");
            assert_eq!(answer.is_empty(), expected.is_empty());
        }
    }
}
