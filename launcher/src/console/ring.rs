//! The recent past of a console, and places in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// How many bytes are remembered; a reader that is further behind loses the oldest.
pub const HISTORY: usize = 1 << 20;
/// What a reader gets at once.
const PIECE: usize = 16 << 10;

/// A piece of what the guest printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Bytes before this piece that this reader was too slow for.
    pub lost: u64,
    pub data: Vec<u8>,
}

impl Output {
    /// The text that stands in for lost bytes.
    pub fn mark(&self) -> Option<String> {
        let lost = self.lost;
        (lost > 0).then(|| {
            format!("\r\n[longshore: {lost} bytes of console output lost, reader too slow]\r\n")
        })
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    past: Mutex<Past>,
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct Past {
    bytes: VecDeque<u8>,
    /// Offset, in all that was ever printed, of the first byte remembered.
    start: u64,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// Offset just behind the last byte.
    end: u64,
    closed: bool,
}

impl Ring {
    pub(super) fn new() -> Self {
        let past = Past {
            bytes: VecDeque::new(),
            start: 0,
        };
        Self {
            past: Mutex::new(past),
            state: watch::Sender::new(State {
                end: 0,
                closed: false,
            }),
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // A panic between two pushes leaves a ring that is merely shorter.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends, forgetting the oldest bytes; never waits for a reader.
    pub(super) fn push(&self, data: &[u8]) {
        let mut past = self.past();
        let kept = data
            .get(data.len().saturating_sub(HISTORY)..)
            .unwrap_or_default();
        let excess = (past.bytes.len() + kept.len()).saturating_sub(HISTORY);
        past.bytes.drain(..excess);
        past.bytes.extend(kept);
        past.start += (excess + data.len() - kept.len()) as u64;
        let end = past.start + past.bytes.len() as u64;
        drop(past);
        self.state.send_modify(|state| state.end = end);
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// Waits until nothing more will come.
    pub(super) async fn closed(&self) {
        // The sender is ours, so this cannot fail.
        drop(self.state.subscribe().wait_for(|state| state.closed).await);
    }

    /// From the first byte ever printed, as far as it is remembered.
    pub(super) fn reader_from_start(self: &Arc<Self>) -> Reader {
        self.reader_at(0)
    }

    /// From `back` bytes before the end.
    pub(super) fn reader_near_end(self: &Arc<Self>, back: u64) -> Reader {
        let start = self.past().start;
        let at = self.state.borrow().end.saturating_sub(back).max(start);
        self.reader_at(at)
    }

    fn reader_at(self: &Arc<Self>, at: u64) -> Reader {
        Reader {
            ring: Arc::clone(self),
            state: self.state.subscribe(),
            at,
        }
    }
}

/// A place in a console's output.
#[derive(Debug)]
pub struct Reader {
    ring: Arc<Ring>,
    state: watch::Receiver<State>,
    at: u64,
}

impl Reader {
    /// The next piece; `None` once the console has ended and all was read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Output> {
        loop {
            let State { end, closed } = *self.state.borrow_and_update();
            if self.at < end {
                return Some(self.take());
            }
            if closed {
                return None;
            }
            self.state.changed().await.ok()?;
        }
    }

    fn take(&mut self) -> Output {
        let past = self.ring.past();
        let lost = past.start.saturating_sub(self.at);
        let from = self.at.max(past.start);
        let skipped = usize::try_from(from - past.start).unwrap_or(usize::MAX);
        let mut data = Vec::with_capacity(PIECE.min(past.bytes.len().saturating_sub(skipped)));
        data.extend(past.bytes.iter().skip(skipped).take(PIECE));
        drop(past);
        self.at = from + data.len() as u64;
        Output { lost, data }
    }
}
