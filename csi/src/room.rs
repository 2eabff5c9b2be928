//! How much there may be in all, and what is spoken for.

use std::sync::{Mutex, PoisonError};

use crate::Driver;
use crate::controller::storage;
use crate::grpc::{Code, Status};

/// What is being made: it is on no record yet.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<u64>);

/// Room for something that is being made, until that is on record.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    pending: &'a Pending,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut pending = self
            .pending
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *pending -= self.bytes;
    }
}

impl Driver {
    /// Bytes that no volume has.
    pub(crate) fn left(&self) -> Result<u64, Status> {
        let volumes = self.store.volumes.all().map_err(storage)?;
        let used: u64 = volumes.iter().map(|volume| volume.size).sum();
        Ok(self.capacity.saturating_sub(used))
    }

    /// Sets room aside, if there is that much.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<Reserved<'_>, Status> {
        let pending = &self.pending;
        let mut sum = pending.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.left()?.saturating_sub(*sum);
        if bytes > left {
            let text = format!("{bytes} bytes more are wanted, and {left} are left");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        *sum += bytes;
        Ok(Reserved { pending, bytes })
    }
}
