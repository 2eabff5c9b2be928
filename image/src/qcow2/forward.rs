//! Forward only: which tables to catch as the stream passes, and what they map.

use super::header::{HEAD_LEN, Header};
use super::map::{Place, RawEntry, SLICE};
use crate::forward::{Geometry, Layout, Plan, Segment, SegmentKind, Table};
use crate::num::{be64_entry, to_u64, to_usize};
use crate::{Error, ErrorKind, Format, Limits, Result};

/// How often the bytes of the file may be read as tables before it counts as an attack.
const MAX_SHARING: u64 = 16;

/// What tables may be read however short the file is, in bytes.
const SHARING_SLACK: u64 = 64 << 20;

/// The header.
const HEADER: u64 = 0;
/// Tables of L1: the rest of the id is the guest offset of their first entry.
const L1: u64 = 1;
/// Tables of L2, likewise. Guest offsets are multiples of a cluster, so low bits are free.
const L2: u64 = 2;
/// A look at the refcount table.
const REFCOUNTS: u64 = 3;
const TAG: u64 = 3;

/// The qcow and qcow2 [`Layout`].
#[derive(Debug)]
pub(super) struct Tables {
    format: Format,
    limits: Limits,
    known: Option<(Header, Geometry)>,
    /// Bytes of tables seen, and the farthest end of one: the file is at least that long.
    read: u64,
    farthest: u64,
}

impl Tables {
    pub(super) fn new(format: Format, limits: Limits) -> Self {
        Self {
            format,
            limits,
            known: None,
            read: 0,
            farthest: 0,
        }
    }

    fn header(&mut self, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let header = Header::parse(bytes, self.format, &self.limits)?;
        if let Some(reference) = header.backing().or_else(|| header.data_file()) {
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "the image refers to {:?}, which can't be opened for a stream: give the image as a file",
                    reference.name
                ),
            ));
        }
        let shape = header.shape();
        // One slice of L1 must not name more tables than one slice of L2 names clusters.
        let l2_slices = shape.l2_bytes().div_ceil(SLICE);
        let step = (SLICE / 8).checked_div(l2_slices).unwrap_or(1).max(1);
        let mut first = 0;
        while first < shape.l1_entries() {
            let entries = step.min(shape.l1_entries().saturating_sub(first));
            plan.table(Table {
                at: shape.l1_at.saturating_add(first.saturating_mul(8)),
                len: to_usize(entries.saturating_mul(8)),
                id: first.saturating_mul(shape.l1_covers()) | L1,
                peek: false,
            });
            first = first.saturating_add(entries);
        }
        Self::skip_overhead(&header, plan);
        let geometry = Geometry {
            virtual_size: Some(shape.virtual_size),
            cluster_size: header.compressed_size(),
            codec: header.codec(),
            info: header.info(),
        };
        self.known = Some((header, geometry));
        Ok(())
    }

    /// What is known not to be the disk's need not be held for tables to come: with clusters of 2 MiB
    /// header, refcounts and L1 take 8 MiB.
    fn skip_overhead(header: &Header, plan: &mut Plan) {
        let shape = header.shape();
        if shape.version == 1 {
            // L1 is wherever it is, and goes by anyway.
            plan.skip(0, shape.l1_at.min(shape.cluster_size()));
            return;
        }
        plan.skip(0, shape.cluster_size());
        if header.l1_bytes() > 0 {
            let len = header.l1_bytes().next_multiple_of(shape.cluster_size());
            plan.skip(shape.l1_at, len);
        }
        let refcounts = header.refcounts();
        plan.skip(
            refcounts.start,
            refcounts.end.saturating_sub(refcounts.start),
        );
        if !refcounts.is_empty() && refcounts.end <= shape.l1_at {
            plan.table(Table {
                at: refcounts.start,
                len: to_usize(SLICE.min(refcounts.end.saturating_sub(refcounts.start))),
                id: REFCOUNTS,
                peek: true,
            });
        }
    }

    /// Refcount blocks are not the disk's either.
    fn refcounts(header: &Header, bytes: &[u8], plan: &mut Plan) {
        let size = header.shape().cluster_size();
        let (entries, _) = bytes.as_chunks::<8>();
        for entry in entries {
            let at = u64::from_be_bytes(*entry);
            if at != 0 && header.shape().cluster_start(at) == at {
                plan.skip(at, size);
            }
        }
    }

    fn l1(header: &Header, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let shape = header.shape();
        let mut guest = table.id & !TAG;
        for index in 0..bytes.len() / 8 {
            let at = table.at.saturating_add(to_u64(index).saturating_mul(8));
            let raw = be64_entry(bytes, index).unwrap_or(0);
            if let Some(l2) = shape.l2_table(raw, at)? {
                let clusters = shape
                    .virtual_size
                    .saturating_sub(guest)
                    .div_ceil(shape.cluster_size())
                    .min(shape.l2_entries());
                let width = shape.entry_size();
                let step = SLICE.checked_div(width).unwrap_or(1);
                let mut first = 0;
                while first < clusters {
                    let entries = step.min(clusters.saturating_sub(first));
                    plan.table(Table {
                        at: l2.saturating_add(first.saturating_mul(width)),
                        len: to_usize(entries.saturating_mul(width)),
                        id: guest.saturating_add(first.saturating_mul(shape.cluster_size())) | L2,
                        peek: false,
                    });
                    first = first.saturating_add(entries);
                }
            }
            guest = guest.saturating_add(shape.l1_covers());
        }
        Ok(())
    }

    fn l2(header: &Header, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let shape = header.shape();
        let width = shape.entry_size();
        let mut guest = table.id & !TAG;
        let mut index = 0;
        while let Some(raw) = RawEntry::of(bytes, index, shape.extended_l2) {
            if !raw.is_empty() {
                let at = table.at.saturating_add(to_u64(index).saturating_mul(width));
                let cluster = shape.cluster(raw, guest, at)?;
                for (range, place) in cluster.parts(guest, shape.cluster_size()) {
                    let guest_len = range
                        .end
                        .min(shape.virtual_size)
                        .saturating_sub(range.start);
                    let (at, len, kind) = match place {
                        Place::Unallocated | Place::Zero => continue,
                        Place::Data { at } => (at, guest_len, SegmentKind::Plain),
                        Place::Compressed { at, len } => {
                            (at, u64::from(len), SegmentKind::Compressed)
                        }
                    };
                    plan.segment(Segment {
                        at,
                        len,
                        guest: range.start,
                        guest_len,
                        kind,
                    });
                }
            }
            guest = guest.saturating_add(shape.cluster_size());
            index = index.saturating_add(1);
        }
        Ok(())
    }
}

impl Layout for Tables {
    fn start(&self) -> Plan {
        let mut plan = Plan::default();
        plan.table(Table {
            at: 0,
            len: HEAD_LEN,
            id: HEADER,
            peek: true,
        });
        plan
    }

    fn table(&mut self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let Some((header, _)) = &self.known else {
            return self.header(bytes, plan);
        };
        if table.id == REFCOUNTS {
            Self::refcounts(header, bytes, plan);
            return Ok(());
        }
        let len = to_u64(bytes.len());
        self.read = self.read.saturating_add(len);
        self.farthest = self.farthest.max(table.at.saturating_add(len));
        let allowed = self
            .farthest
            .saturating_mul(MAX_SHARING)
            .saturating_add(SHARING_SLACK);
        if self.read > allowed {
            return Err(Error::limit(
                "the image refers to the same tables over and over: it is damaged or hostile",
                0,
            )
            .at(table.at));
        }
        match table.id & TAG {
            L1 => Self::l1(header, table, bytes, plan),
            _ => Self::l2(header, table, bytes, plan),
        }
    }

    fn geometry(&self) -> Option<&Geometry> {
        self.known.as_ref().map(|(_, geometry)| geometry)
    }
}
