//! A thread of our own for the network, and how blocking code waits for it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use longshore_transfer::Cancel;
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use super::error::HttpError;
use crate::{Error, SourceOptions};

/// How soon a wait notices that it was cancelled.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// The runtime. It ends, with all that runs on it, when the last reader is gone, and never waits for
/// anything: a name server that does not answer must not hold up the exit.
#[derive(Debug)]
pub(crate) struct Net {
    runtime: Option<Runtime>,
    cancel: Cancel,
}

impl Net {
    /// The network for reading `name`.
    pub(crate) fn open(name: &str, options: &SourceOptions) -> Result<Arc<Self>, Error> {
        match Self::start(options.cancel.clone()) {
            Ok(net) => Ok(Arc::new(net)),
            Err(source) => Err(Error::Open {
                name: name.to_owned(),
                source: HttpError::Thread { source },
            }),
        }
    }

    pub(crate) fn start(cancel: Cancel) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            // One is enough: it moves bytes and undoes TLS, both faster than what comes after.
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("net")
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
            cancel,
        })
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Starts `task`. It runs until it ends or is aborted.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        // The runtime is only ever taken by `drop`.
        let runtime = self
            .runtime
            .as_ref()
            .expect("there is a runtime until drop");
        runtime.spawn(task).abort_handle()
    }

    /// Runs `work` and waits for what comes of it, or for the request to stop.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, HttpError>> + Send + 'static,
    ) -> Result<T, HttpError> {
        let (tx, rx) = mpsc::channel();
        let task = self.spawn(async move {
            // Nobody waits any more if this fails.
            let _ = tx.send(work.await);
        });
        loop {
            match rx.recv_timeout(TICK) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) if self.is_cancelled() => {
                    task.abort();
                    return Err(HttpError::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            }
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task ended without a result.
pub(crate) fn lost() -> HttpError {
    HttpError::Thread {
        source: io::Error::other("its task ended early"),
    }
}
