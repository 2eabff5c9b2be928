//! Keeps a transfer from timing out while the target is slower than the server's patience.
//!
//! The engine cancels a transfer whose ticket nobody used for a while (the inactivity timeout), and tickets
//! run out unless they are extended.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::engine::Transfer;

/// When the server was last asked for something.
#[derive(Debug)]
pub(super) struct Alive(Mutex<Instant>);

impl Alive {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Instant::now())))
    }

    /// Something was asked for just now.
    pub(super) fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn idle(&self) -> Duration {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed()
    }
}

/// A thread that extends the ticket, and asks the server for little when nobody asks for more. It ends when
/// this is dropped.
pub(super) struct Keeping {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeping {
    /// Starts it. `touch` asks the server for something small.
    pub(super) fn start(
        transfer: Arc<Transfer>,
        alive: Arc<Alive>,
        inactivity: Duration,
        mut touch: impl FnMut() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let every = (inactivity / 4).max(Duration::from_millis(100));
        let thread = std::thread::Builder::new()
            .name("imageio-alive".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    if alive.idle() >= every {
                        touch();
                        alive.touch();
                    }
                    if let Err(error) = transfer.extend() {
                        tracing::warn!(
                            cause = &error as &dyn std::error::Error,
                            "the image transfer could not be extended"
                        );
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It notices at once, unless a request of its own is under way.
            let _ = thread.join();
        }
    }
}
