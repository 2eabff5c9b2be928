//! How much an image may make us allocate and do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Memory that tables of images may take by default, in bytes.
const DEFAULT_TABLE_BYTES: u64 = 32 << 20;

/// Limits shared by everything that reads one image. Cloning shares the same counters.
///
/// Nothing is allocated from a number in a file before [`Limits::reserve`] said yes.
#[derive(Debug, Clone)]
pub struct Limits {
    used: Arc<AtomicU64>,
    table_bytes: u64,
    max_virtual_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self::with_table_bytes(DEFAULT_TABLE_BYTES)
    }
}

impl Limits {
    /// Largest virtual disk read here, in bytes: what a Linux file can hold, minus room for rounding.
    pub const MAX_VIRTUAL_SIZE: u64 = (1 << 62) - (1 << 30);

    /// Limits that let tables take `bytes` of memory at once.
    pub fn with_table_bytes(bytes: u64) -> Self {
        Self {
            used: Arc::default(),
            table_bytes: bytes,
            max_virtual_size: Self::MAX_VIRTUAL_SIZE,
        }
    }

    /// Charges `bytes` for `what` before they are allocated; they are given back on drop.
    pub fn reserve(&self, bytes: u64, what: &'static str) -> Result<Reservation> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let total = before.saturating_add(bytes);
        if total > self.table_bytes {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            let text = format!(
                "{what} would need {} MiB of memory, of which {} MiB are allowed",
                total.div_ceil(1 << 20),
                self.table_bytes >> 20
            );
            return Err(Error::limit(text, total));
        }
        Ok(Reservation {
            used: Arc::clone(&self.used),
            bytes,
        })
    }

    /// Refuses virtual sizes that no disk here can have.
    pub fn check_virtual_size(&self, size: u64) -> Result<()> {
        if size > self.max_virtual_size {
            return Err(Error::malformed(format!(
                "virtual size {size} is larger than any disk can be"
            )));
        }
        Ok(())
    }

    /// Bytes of memory tables may take at once.
    pub fn table_bytes(&self) -> u64 {
        self.table_bytes
    }
}

/// Memory charged to [`Limits`]; dropping it gives it back.
#[derive(Debug)]
pub struct Reservation {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
