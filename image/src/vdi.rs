//! VDI, `VirtualBox`'s disk image, version 1.1.
//!
//! ```text
//! header -> block map: a u32 per block: its number in the data area, 0xFFFFFFFF never written,
//!                      0xFFFFFFFE discarded; both read as zeros
//!             -> data area: blocks of (nearly always) 1 MiB, in the order they were first written
//! ```
//! Dynamic and static images are the same to a reader; blocks may have any power of two as their size,
//! where QEMU reads 1 MiB only, and need not be aligned. A block has to start inside the file and reads
//! as zeros past its end. Several map entries may name one block (QEMU reads that, too); how much
//! comes of it is limited by [`crate::chain::Sharing`].
//!
//! Refused by name: undo and differencing images and whatever else has a parent, extra data in front of
//! blocks, other sector sizes and versions.

mod forward;
mod header;
mod image;

use std::sync::Arc;

use crate::forward::{Decoder, Mapped, Options};
use crate::{Image, Limits, ReadAt, Result};

/// Opens a VDI for random access. It refers to no other file.
pub fn open(file: Arc<dyn ReadAt>, limits: &Limits) -> Result<Arc<dyn Image>> {
    Ok(Arc::new(image::Vdi::open(file, limits)?))
}

/// A forward decoder for a VDI stream.
pub fn decoder(options: Options) -> Result<Box<dyn Decoder>> {
    let layout = forward::BlockMap::new(&options);
    Ok(Box::new(Mapped::new(layout, options)))
}
