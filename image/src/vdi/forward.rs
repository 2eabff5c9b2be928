//! A VDI as it passes by: its header, its block map, its blocks.

use super::header::Header;
use crate::forward::{Geometry, Layout, Options, Plan, Segment, SegmentKind, Table};
use crate::num::to_u64;
use crate::{Error, Limits, Result, table};

/// Table: the header. Slices of the block map have their number as id.
const HEADER: u64 = u64::MAX;

/// The tables of a VDI.
#[derive(Debug)]
pub(super) struct BlockMap {
    limits: Limits,
    /// Length of the file, as far as known.
    file: u64,
    header: Option<(Header, Geometry)>,
}

impl BlockMap {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            limits: options.limits.clone(),
            file: options.stream_len.unwrap_or(u64::MAX),
            header: None,
        }
    }

    fn header(&mut self, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let header = Header::parse(bytes, &self.limits)?;
        plan.skip(0, header.map());
        let slices = header.map_len().div_ceil(table::SLICE);
        let plan_bytes = slices.saturating_mul(to_u64(size_of::<Table>()));
        let _plan = self.limits.reserve(plan_bytes, "the block map")?;
        for (id, at, len) in table::slices(header.map(), header.map_len()) {
            plan.table(Table {
                at,
                len,
                id,
                peek: false,
            });
        }
        let geometry = header.geometry();
        self.header = Some((header, geometry));
        Ok(())
    }
}

impl Layout for BlockMap {
    fn start(&self) -> Plan {
        let mut plan = Plan::default();
        plan.table(Table {
            at: 0,
            len: Header::LEN,
            id: HEADER,
            peek: true,
        });
        plan
    }

    fn table(&mut self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        if table.id == HEADER {
            return self.header(bytes, plan);
        }
        let Some((header, _)) = &self.header else {
            return Err(Error::malformed("the block map comes before the header"));
        };
        let segments = to_u64(bytes.len() / 4).saturating_mul(to_u64(size_of::<Segment>()));
        let _plan = self.limits.reserve(segments, "the block map")?;
        for (index, entry) in table::entries(table.id, bytes) {
            if let Some(at) = header.place(entry, self.file)? {
                let guest = header.guest(index);
                let len = guest.end.saturating_sub(guest.start);
                plan.segment(Segment {
                    at,
                    len,
                    guest: guest.start,
                    guest_len: len,
                    kind: SegmentKind::Plain,
                });
            }
        }
        Ok(())
    }

    fn geometry(&self) -> Option<&Geometry> {
        self.header.as_ref().map(|(_, geometry)| geometry)
    }
}
