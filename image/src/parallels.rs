//! Parallels expandable disks (`docs/interop/parallels.rst` in QEMU's tree), version 2, both kinds.
//!
//! ```text
//! header (64 bytes) -> BAT, at once behind it: a u32 per cluster of the disk, 0 for zeros, else
//!                        its sector of the file      (WithoutFreeSpace)
//!                        its cluster of the file     (WithouFreSpacExt)
//!                        -> cluster: any number of sectors, by default 1 MiB
//! ```
//! One file of such a disk is read, which is what QEMU makes and reads: the bundle that Parallels
//! Desktop keeps around it (`DiskDescriptor.xml`: snapshots, several files) is not. Dirty bitmaps are not
//! looked at, and an image that was not closed is read as it is.
//!
//! Stricter than QEMU: clusters behind the end of the file, tables that do not cover the disk and
//! clusters over the tables are errors, and not zeros.

mod extents;
mod forward;
mod header;

use std::ops::Range;
use std::sync::Arc;

use self::extents::Walk;
use self::header::Header;
use crate::forward::{Decoder, Mapped, Options};
use crate::num::to_usize;
use crate::read_at::{ReadAtExt, check_inside};
use crate::{Extents, Image, Info, Limits, ReadAt, Result, coalesce};

/// A Parallels disk with random access.
#[derive(Debug)]
struct Parallels {
    file: Arc<dyn ReadAt>,
    header: Header,
}

/// Opens a Parallels disk for random access.
pub fn open(file: Arc<dyn ReadAt>, limits: &Limits) -> Result<Arc<dyn Image>> {
    let len = to_usize(file.len()).min(Header::LEN);
    let header = Header::parse(&file.read_vec_at(0, len, "the header")?, limits)?;
    let bat = header.bat();
    check_inside(
        file.len(),
        bat.start,
        bat.end.saturating_sub(bat.start),
        "the block allocation table",
    )?;
    Ok(Arc::new(Parallels { file, header }))
}

/// A forward decoder for a Parallels stream.
pub fn decoder(options: Options) -> Result<Box<dyn Decoder>> {
    let layout = forward::Tables::new(&options);
    Ok(Box::new(Mapped::new(layout, options)))
}

impl Image for Parallels {
    fn virtual_size(&self) -> u64 {
        self.header.virtual_size()
    }

    fn info(&self) -> Info {
        self.header.info()
    }

    fn data(&self) -> &Arc<dyn ReadAt> {
        &self.file
    }

    fn extents(&self, range: Range<u64>) -> Extents<'_> {
        let range = range.start..range.end.min(self.virtual_size());
        coalesce(Walk::new(&self.file, &self.header, range))
    }
}
