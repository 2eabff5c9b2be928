//! A table of 32-bit entries in a file, read some entries at a time.

use crate::num::{to_u64, to_usize};
use crate::read_at::ReadAtExt;
use crate::{Error, Limits, ReadAt, Reservation, Result};

/// Most bytes of a table in memory at once, and of what a stream's decoder takes in at once.
pub(crate) const SLICE: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    count: u64,
    what: &'static str,
    limits: &'a Limits,
    /// Some entries, from `first` on.
    slice: Vec<u8>,
    first: u64,
    charge: Option<Reservation>,
}

impl<'a> Entries<'a> {
    /// The `count` entries at offset `at`, which messages call `what`.
    pub(crate) fn new(
        file: &'a dyn ReadAt,
        at: u64,
        count: u64,
        what: &'static str,
        limits: &'a Limits,
    ) -> Self {
        Self {
            file,
            at,
            count,
            what,
            limits,
            slice: Vec::new(),
            first: 0,
            charge: None,
        }
    }

    /// Entry `index`; entries up to `until` are wanted soon.
    pub(crate) fn get(&mut self, index: u64, until: u64) -> Result<[u8; 4]> {
        if let Some(entry) = self.find(index) {
            return Ok(entry);
        }
        if self.charge.is_none() {
            self.charge = Some(self.limits.reserve(SLICE, "a walk over a table")?);
        }
        let wanted = until.min(self.count).saturating_sub(index).max(1);
        let len = wanted.saturating_mul(4).min(SLICE);
        let at = self.at.saturating_add(index.saturating_mul(4));
        self.slice = self.file.read_vec_at(at, to_usize(len), self.what)?;
        self.first = index;
        self.find(index)
            .ok_or_else(|| Error::malformed(format!("{} is too short", self.what)).at(at))
    }

    fn find(&self, index: u64) -> Option<[u8; 4]> {
        let place = to_usize(index.checked_sub(self.first)?.checked_mul(4)?);
        self.slice.get(place..)?.first_chunk::<4>().copied()
    }
}

/// The pieces that a table of `len` bytes at offset `at` passes by in: number, offset, length.
pub(crate) fn slices(at: u64, len: u64) -> impl Iterator<Item = (u64, u64, usize)> {
    (0..len.div_ceil(SLICE)).map(move |n| {
        let start = n.saturating_mul(SLICE);
        let part = len.saturating_sub(start).min(SLICE);
        (n, at.saturating_add(start), to_usize(part))
    })
}

/// Entries of a slice that passed by, with the number each has in its table.
pub(crate) fn entries(slice: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, [u8; 4])> {
    let first = slice.saturating_mul(SLICE / 4);
    let (entries, _) = bytes.as_chunks::<4>();
    entries
        .iter()
        .enumerate()
        .map(move |(n, entry)| (first.saturating_add(to_u64(n)), *entry))
}
