//! Random access: a walk over the block map.

use std::ops::Range;
use std::sync::Arc;

use super::header::Header;
use crate::num::to_usize;
use crate::read_at::{ReadAtExt, check_inside};
use crate::table::Entries;
use crate::{Extent, ExtentKind, Extents, Image, Info, Limits, ReadAt, Result, coalesce};

const MAP: &str = "the block map";

/// A VDI with random access.
#[derive(Debug)]
pub(super) struct Vdi {
    file: Arc<dyn ReadAt>,
    header: Header,
    limits: Limits,
}

impl Vdi {
    pub(super) fn open(file: Arc<dyn ReadAt>, limits: &Limits) -> Result<Self> {
        let len = to_usize(file.len()).min(Header::LEN);
        let header = Header::parse(&file.read_vec_at(0, len, "the header")?, limits)?;
        check_inside(file.len(), header.map(), header.map_len(), MAP)?;
        Ok(Self {
            file,
            header,
            limits: limits.clone(),
        })
    }
}

impl Image for Vdi {
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
        let header = &self.header;
        coalesce(Walk {
            header,
            file: self.file.len(),
            entries: Entries::new(
                self.file.as_ref(),
                header.map(),
                header.blocks(),
                MAP,
                &self.limits,
            ),
            range: range.start..range.end.min(header.virtual_size()),
        })
    }
}

/// One extent per block, not joined yet.
#[derive(Debug)]
struct Walk<'a> {
    header: &'a Header,
    file: u64,
    entries: Entries<'a>,
    range: Range<u64>,
}

impl Walk<'_> {
    fn step(&mut self) -> Result<Extent> {
        let size = self.header.block_size();
        let index = self.range.start.checked_div(size).unwrap_or(0);
        let entry = self.entries.get(index, self.range.end.div_ceil(size))?;
        let kind = match self.header.place(entry, self.file)? {
            Some(at) => ExtentKind::Data { at },
            None => ExtentKind::Zero,
        };
        let whole = Extent {
            guest: self.header.guest(index),
            kind,
        };
        let extent = whole.clip(&self.range).unwrap_or(whole);
        self.range.start = extent.guest.end;
        Ok(extent)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.range.is_empty()).then(|| self.step())
    }
}
