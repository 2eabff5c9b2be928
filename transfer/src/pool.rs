//! A fixed number of buffers that go round: what bounds the memory of the engine.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::cancel::{Failure, Stopped};

#[derive(Debug)]
struct Inner {
    free: Vec<Vec<u8>>,
    unmade: usize,
    closed: bool,
}

/// A pool of at most `count` buffers, each made when first needed.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    inner: Arc<(Mutex<Inner>, Condvar)>,
    capacity: usize,
}

impl Pool {
    /// A pool of `count` buffers of `capacity` bytes that closes when the transfer fails.
    pub(crate) fn new(count: usize, capacity: usize, failure: &Failure) -> Self {
        let inner = Inner {
            free: Vec::with_capacity(count),
            unmade: count,
            closed: false,
        };
        let this = Self {
            inner: Arc::new((Mutex::new(inner), Condvar::new())),
            capacity,
        };
        let closing = Arc::downgrade(&this.inner);
        failure.on_failure(move || {
            if let Some(inner) = closing.upgrade() {
                inner
                    .0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .closed = true;
                inner.1.notify_all();
            }
        });
        this
    }

    /// A buffer of full length, with whatever was last in it; waits for one to come back.
    pub(crate) fn get(&self) -> Result<Vec<u8>, Stopped> {
        let (lock, wake) = &*self.inner;
        let mut inner = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if inner.closed {
                return Err(Stopped);
            }
            if let Some(buffer) = inner.free.pop() {
                return Ok(buffer);
            }
            if inner.unmade > 0 {
                inner.unmade -= 1;
                drop(inner);
                return Ok(vec![0; self.capacity]);
            }
            inner = wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets `more` buffers go round.
    pub(crate) fn grow(&self, more: usize) {
        let (lock, wake) = &*self.inner;
        lock.lock().unwrap_or_else(PoisonError::into_inner).unmade += more;
        wake.notify_all();
    }

    /// Gives a buffer of this pool back.
    pub(crate) fn put(&self, buffer: Vec<u8>) {
        debug_assert_eq!(buffer.len(), self.capacity, "a buffer of another pool");
        let (lock, wake) = &*self.inner;
        lock.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .free
            .push(buffer);
        wake.notify_one();
    }
}
