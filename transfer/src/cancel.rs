//! One flag that stops a transfer, and the first error that did.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// Asks a transfer to stop from outside, such as a signal handler. Cheap to clone and to look at.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks for the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stage had to stop; why is in the [`Failure`] that all stages share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

type Hook = Box<dyn Fn() + Send>;

/// The first error of all stages of one transfer. Later ones are consequences.
#[derive(Clone, Default)]
pub(crate) struct Failure {
    first: Arc<Mutex<Option<Error>>>,
    failed: Arc<AtomicBool>,
    hooks: Arc<Mutex<Vec<Hook>>>,
}

impl Failure {
    /// Records `error` if it is the first, and wakes whoever waits for a buffer.
    pub(crate) fn fail(&self, error: Error) -> Stopped {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        drop(first);
        self.failed.store(true, Ordering::Release);
        for hook in self
            .hooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            hook();
        }
        Stopped
    }

    /// Calls `hook` when something fails; at once if it has.
    pub(crate) fn on_failure(&self, hook: impl Fn() + Send + 'static) {
        if self.failed() {
            hook();
        }
        self.hooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(hook));
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Takes the first error out.
    pub(crate) fn take(&self) -> Option<Error> {
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
