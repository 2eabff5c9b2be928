//! Forward only: the header, the log, the metadata, the table; then blocks, in any order.
//!
//! Most writers put the table in front of the metadata that says how to read it. It waits in the driver's
//! hold until then.

use std::ops::Range;

use super::header::{Header, Regions, region_tables};
use super::layout::FRONT_LEN;
use super::map::{Place, SLICE};
use super::metadata::{Items, Metadata, len, span_bytes, table_range};
use super::overlay::Patches;
use super::{check_grown, info, log};
use crate::cluster::ClusterCodec;
use crate::forward::{Geometry, Layout, Options, Plan, Segment, SegmentKind, Table};
use crate::num::{le64_entry, to_u64, to_usize};
use crate::read_at::check_inside;
use crate::{Error, ErrorKind, Format, Limits, Reservation, Result};

const FRONT: u64 = 0;
const LOG: u64 = 1;
const METADATA: u64 = 2;
const ITEMS: u64 = 3;
/// Slices of the block allocation table: the rest of the id is the index of the first entry.
const BAT: u64 = 4;

/// The VHDX [`Layout`].
#[derive(Debug)]
pub(super) struct Tables {
    limits: Limits,
    /// Length of the file, as far as known.
    file: Option<u64>,
    header: Option<Header>,
    /// The region tables, while the log may still change them.
    kept: Vec<u8>,
    regions: Option<Regions>,
    items: Option<Items>,
    metadata: Option<Metadata>,
    geometry: Option<Geometry>,
    patches: Patches,
    /// For what is being waited for.
    charge: Option<Reservation>,
}

impl Tables {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            limits: options.limits.clone(),
            file: options.stream_len,
            header: None,
            kept: Vec::new(),
            regions: None,
            items: None,
            metadata: None,
            geometry: None,
            patches: Patches::default(),
            charge: None,
        }
    }

    fn front(&mut self, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let header = Header::parse(bytes)?;
        plan.skip(0, super::layout::HEADER_SECTION);
        if header.is_dirty() {
            let kept = region_tables();
            let log = header.log.clone();
            let cost = to_u64(len(&log)).saturating_add(to_u64(len(&kept)));
            self.charge = Some(self.limits.reserve(cost, "the log")?);
            self.kept = bytes
                .get(to_usize(kept.start)..to_usize(kept.end))
                .unwrap_or_default()
                .to_vec();
            self.want(&log, LOG, plan)?;
            self.header = Some(header);
            return Ok(());
        }
        plan.skip(header.log.start, to_u64(len(&header.log)));
        self.regions(bytes, &header, plan)?;
        self.header = Some(header);
        Ok(())
    }

    /// Catches `range` as the table `id`.
    fn want(&self, range: &Range<u64>, id: u64, plan: &mut Plan) -> Result<()> {
        if let Some(file) = self.file {
            check_inside(file, range.start, to_u64(len(range)), "a table")?;
        }
        plan.table(Table {
            at: range.start,
            len: len(range),
            id,
            peek: false,
        });
        Ok(())
    }

    fn log(&mut self, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let Some(header) = self.header.take() else {
            return Err(out_of_order());
        };
        self.patches = log::replay(bytes, header.log_guid, &self.limits)?;
        if let Some(file) = self.file {
            check_grown(&self.patches, file)?;
        }
        // The header section as far as the log can have changed it.
        let mut front = vec![0; to_usize(region_tables().start)];
        front.append(&mut self.kept);
        self.patches.apply(
            front
                .get_mut(to_usize(region_tables().start)..)
                .unwrap_or_default(),
            region_tables().start,
        );
        self.charge = None;
        self.regions(&front, &header, plan)?;
        self.header = Some(header);
        Ok(())
    }

    fn regions(&mut self, front: &[u8], header: &Header, plan: &mut Plan) -> Result<()> {
        let regions = Regions::parse(front, &header.log)?;
        self.want(&table_range(&regions.metadata)?, METADATA, plan)?;
        self.regions = Some(regions);
        Ok(())
    }

    fn metadata_table(&mut self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let Some(regions) = &self.regions else {
            return Err(out_of_order());
        };
        let region = regions.metadata.clone();
        let items = Items::parse(&self.patched(table, bytes), to_u64(len(&region)))?;
        let span = items.span();
        let cost = span_bytes(&items);
        self.charge = Some(
            self.limits
                .reserve(cost.saturating_mul(2), "the metadata")?,
        );
        let place = region.start.saturating_add(span.start)..region.start.saturating_add(span.end);
        self.want(&place, ITEMS, plan)?;
        self.items = Some(items);
        Ok(())
    }

    fn items(&mut self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let (Some(header), Some(regions), Some(items)) = (&self.header, &self.regions, &self.items)
        else {
            return Err(out_of_order());
        };
        let metadata = Metadata::parse(items, &self.patched(table, bytes), &self.limits)?;
        if let Some(reference) = metadata
            .parent
            .iter()
            .flat_map(super::Locator::references)
            .next()
        {
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "the image holds only what differs from {:?}, which can't be opened for a stream: give the image as a file",
                    reference.name
                ),
            ));
        }
        let total = super::bat_bytes(&metadata, regions)?;
        let mut from = 0;
        while from < total {
            let n = SLICE.min(total.saturating_sub(from));
            let at = regions.bat.start.saturating_add(from);
            self.want(
                &(at..at.saturating_add(n)),
                BAT.saturating_add(from / 8),
                plan,
            )?;
            from = from.saturating_add(n);
        }
        self.geometry = Some(Geometry {
            virtual_size: Some(metadata.shape.virtual_size),
            cluster_size: 0,
            codec: ClusterCodec::None,
            info: info(header, &metadata),
        });
        self.metadata = Some(metadata);
        self.charge = None;
        Ok(())
    }

    fn slice(&self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        let (Some(regions), Some(metadata)) = (&self.regions, &self.metadata) else {
            return Err(out_of_order());
        };
        let shape = &metadata.shape;
        let bytes = self.patched(table, bytes);
        let first = table.id.saturating_sub(BAT);
        for position in 0..bytes.len() / 8 {
            let index = first.saturating_add(to_u64(position));
            let (Some(raw), Some(block)) = (le64_entry(&bytes, position), shape.block_at(index))
            else {
                continue;
            };
            let at = regions.bat.start.saturating_add(index.saturating_mul(8));
            let Place::Data { at } = shape.payload(raw, block, at, regions)? else {
                continue;
            };
            let guest = shape.guest_range(block);
            let len = guest.end.saturating_sub(guest.start);
            if self.patches.touch(&(at..at.saturating_add(len))) {
                return Err(Error::unsupported(
                    "the log has to be replayed over the disk's data, which can't be done in a stream: give the image as a file",
                )
                .at(at));
            }
            plan.segment(Segment {
                at,
                len,
                guest: guest.start,
                guest_len: len,
                kind: SegmentKind::Plain,
            });
        }
        Ok(())
    }

    /// The table's bytes as they are once the log is replayed.
    fn patched<'a>(&self, table: &Table, bytes: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        let end = table.at.saturating_add(to_u64(bytes.len()));
        if !self.patches.touch(&(table.at..end)) {
            return bytes.into();
        }
        let mut bytes = bytes.to_vec();
        self.patches.apply(&mut bytes, table.at);
        bytes.into()
    }
}

fn out_of_order() -> Error {
    Error::malformed("tables of the file came before those that explain them")
}

impl Layout for Tables {
    fn start(&self) -> Plan {
        let mut plan = Plan::default();
        plan.table(Table {
            at: 0,
            len: FRONT_LEN,
            id: FRONT,
            peek: true,
        });
        plan
    }

    fn table(&mut self, table: &Table, bytes: &[u8], plan: &mut Plan) -> Result<()> {
        match table.id {
            FRONT => self.front(bytes, plan),
            LOG => self.log(bytes, plan),
            METADATA => self.metadata_table(table, bytes, plan),
            ITEMS => self.items(table, bytes, plan),
            _ => self.slice(table, bytes, plan),
        }
    }

    fn geometry(&self) -> Option<&Geometry> {
        self.geometry.as_ref()
    }

    fn format(&self) -> Format {
        Format::Vhdx
    }

    /// Blocks are written whole, so what is missing was cut off; unless the log says that the file was
    /// about to grow.
    fn tail_is_zeros(&self, missing: &Segment, end: u64) -> bool {
        end >= self.patches.flushed && missing.at.saturating_add(missing.len) <= self.patches.grown
    }
}
