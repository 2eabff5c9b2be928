//! Forward only: the BAT passes first, in slices, and maps all that follows.

use super::extents::SLICE;
use super::header::Header;
use crate::cluster::ClusterCodec;
use crate::forward::{Geometry, Layout, Options, Plan, Segment, SegmentKind, Table};
use crate::num::{le32_entry, to_u64, to_usize};
use crate::{Limits, Result};

/// Table: the header. Slices of the BAT have the number of their first entry as id.
const HEAD: u64 = u64::MAX;

/// The Parallels [`Layout`].
#[derive(Debug)]
pub(super) struct Tables {
    limits: Limits,
    /// Length of the file, as far as known.
    file: u64,
    known: Option<(Header, Geometry)>,
}

impl Tables {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            limits: options.limits.clone(),
            file: options.stream_len.unwrap_or(u64::MAX),
            known: None,
        }
    }

    fn header(&mut self, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let header = Header::parse(bytes, &self.limits)?;
        plan.skip(0, to_u64(Header::LEN));
        next_slice(&header, 0, plan);
        let geometry = Geometry {
            virtual_size: Some(header.virtual_size()),
            cluster_size: 0,
            codec: ClusterCodec::None,
            info: header.info(),
        };
        self.known = Some((header, geometry));
        Ok(())
    }
}

/// Asks for the BAT from entry `first` on.
fn next_slice(header: &Header, first: u64, plan: &mut Plan) {
    let bat = header.bat();
    let at = bat.start.saturating_add(first.saturating_mul(4));
    if at < bat.end {
        plan.table(Table {
            at,
            len: to_usize(bat.end.saturating_sub(at).min(SLICE)),
            id: first,
            peek: false,
        });
    }
}

impl Layout for Tables {
    fn start(&self) -> Plan {
        let mut plan = Plan::default();
        plan.table(Table {
            at: 0,
            len: Header::LEN,
            id: HEAD,
            peek: true,
        });
        plan
    }

    fn table(&mut self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let Some((header, _)) = self.known.as_ref().filter(|_| table.id != HEAD) else {
            return self.header(bytes, plan);
        };
        let entries = to_u64(bytes.len()) / 4;
        for offset in 0..entries {
            let Some(entry) = le32_entry(bytes, to_usize(offset)) else {
                break;
            };
            let Some(at) = header.place(entry, self.file)? else {
                continue;
            };
            let index = table.id.saturating_add(offset);
            let guest = index.saturating_mul(header.cluster());
            let end = guest
                .saturating_add(header.cluster())
                .min(header.virtual_size());
            let len = end.saturating_sub(guest);
            plan.segment(Segment {
                at,
                len,
                guest,
                guest_len: len,
                kind: SegmentKind::Plain,
            });
        }
        next_slice(header, table.id.saturating_add(entries), plan);
        Ok(())
    }

    fn geometry(&self) -> Option<&Geometry> {
        self.known.as_ref().map(|(_, geometry)| geometry)
    }

    fn tail_is_zeros(&self, missing: &Segment, end: u64) -> bool {
        // The last cluster of it starts before the end: the rest of it was never written. Sizes of
        // clusters are no powers of two.
        let Some((header, _)) = &self.known else {
            return false;
        };
        let last = missing
            .guest
            .saturating_add(missing.guest_len)
            .saturating_sub(1);
        let index = last.checked_div(header.cluster()).unwrap_or(0);
        let start = index.saturating_mul(header.cluster());
        missing.at.saturating_add(start) < end.saturating_add(missing.guest)
    }
}
