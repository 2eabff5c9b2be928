//! The copy engine: the bytes of a source become a sparse raw disk, or a qcow2 image.
//!
//! ```text
//! random access:  tables -> plan ---------------> tasks -> decode (N threads) -> one writer -> target
//! forward only:   stream -> [hash] -> [unwrap]* -> pieces -^
//! served:         pieces of a raw disk from its server ----^
//! ```
//!
//! It owns threads, buffers, the memory budget, the target and its safety (partial names, locks,
//! fsync), progress and checksums. It knows nothing of where a source comes from beyond the
//! [`Source`] trait, and nothing of formats beyond `longshore-image`.

#![expect(
    clippy::cast_possible_truncation,
    reason = "u64 and usize are the same size: see the compile_error below"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "only shares and rates, for people, are floats"
)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("longshore-transfer moves disks: it needs 64-bit offsets in memory too");

mod blank;
mod budget;
mod cancel;
mod checksum;
mod engine;
mod error;
mod file;
mod hold;
mod journal;
mod lines;
mod lock;
mod phases;
mod pool;
mod progress;
mod served;
mod source;
mod sys;
mod target;
mod written;
mod zeros;

pub use crate::blank::{Blank, blank, wipe};
pub use crate::budget::{CHUNK, DEFAULT_MEMORY, Memory};
pub use crate::cancel::Cancel;
pub use crate::checksum::{Algorithm, Checksum, Hasher};
pub use crate::engine::{Inspection, Options, Report, inspect, transfer, unwrapped};
pub use crate::error::{Error, Result};
pub use crate::file::{DirectoryGate, LocalFile};
pub use crate::journal::Journal;
pub use crate::lines::Lines;
pub use crate::phases::Phases;
pub use crate::progress::{Meter, Progress, Reading, Snapshot, Tally};
pub use crate::served::{Piece, Served};
pub use crate::source::{
    Allowance, Exchange, FileSource, Finder, Fingerprint, Inside, Source, StdinSource,
};
pub use crate::sys::give_memory_back;
pub use crate::target::{Cache, Preallocate, Qcow2Spec, TargetFormat, TargetSpec};
pub use crate::zeros::is_zero;
