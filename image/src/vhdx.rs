//! VHDX, the virtual disks of Hyper-V ([MS-VHDX], version 1).
//!
//! ```text
//! 0        64K       128K      192K     256K     320K   1 MiB, then in any order
//! +--------+---------+---------+--------+--------+- ... +-----+-----+----------+---------------+
//! | "vhdx- | header  | header  | region | region |      | log | BAT | metadata | blocks of     |
//! |  file" |         |         | table  | table  |      |     |     |          | 1 to 256 MiB  |
//! +--------+---------+---------+--------+--------+- ... +-----+-----+----------+---------------+
//!             newer valid one    first valid one
//! ```
//! Read: fixed, dynamic and differencing disks (parents through the gate, sector bitmaps), logical sectors of
//! 512 and 4096 bytes, files that were not closed: their log is replayed in memory, and the file is not written.
//!
//! Refused by name: regions and metadata items that a reader must know and this one does not, other kinds of
//! parents, logs that can't be replayed.
//!
//! Where QEMU does otherwise: it does not read differencing disks at all, and no disk whose log has to be
//! replayed unless it may write to the file; a file that says it has a log in which there is no valid entry
//! is read by QEMU as if it had none, and is damaged according to the specification (2.3.3) and here; QEMU only
//! looks at the first region table.

mod extents;
mod forward;
mod header;
mod layout;
mod locator;
mod log;
mod map;
mod metadata;
mod overlay;

use std::ops::Range;
use std::sync::Arc;

use self::extents::{Source, Walk};
use self::header::{Header, Regions, region_tables};
use self::layout::FRONT_LEN;
use self::locator::Locator;
use self::metadata::{Items, Metadata, len, span_bytes, table_range};
use self::overlay::{Patched, Patches};
use crate::forward::{Decoder, Mapped, Options};
use crate::num::{to_u64, to_usize};
use crate::read_at::{ReadAtExt, check_inside};
use crate::{
    Compression, Error, ErrorKind, ExtentKind, Extents, Format, Image, Info, Limits, OpenGate,
    ReadAt, Result, coalesce,
};

/// Most images in a chain of parents, so that one that names itself ends.
const MAX_DEPTH: u32 = 32;

/// By how much the log may let the file grow. A crash leaves some blocks that were being added.
const MAX_GROWTH: u64 = 1 << 30;

/// A VHDX file with random access.
#[derive(Debug)]
struct Vhdx {
    header: Header,
    regions: Regions,
    metadata: Metadata,
    /// With the log over it.
    file: Arc<dyn ReadAt>,
    parent: Option<Arc<dyn Image>>,
    limits: Limits,
}

/// Opens a VHDX file for random access, and its parents as far as `gate` lets them in.
pub fn open(file: Arc<dyn ReadAt>, gate: &dyn OpenGate, limits: &Limits) -> Result<Arc<dyn Image>> {
    Ok(Arc::new(open_layer(file, gate, limits, 1, None)?))
}

/// A forward decoder for a VHDX stream.
pub fn decoder(options: Options) -> Result<Box<dyn Decoder>> {
    let layout = forward::Tables::new(&options);
    Ok(Box::new(Mapped::new(layout, options)))
}

/// Opens one file; `child` is what the image above knows of it.
fn open_layer(
    file: Arc<dyn ReadAt>,
    gate: &dyn OpenGate,
    limits: &Limits,
    depth: u32,
    child: Option<&Locator>,
) -> Result<Vhdx> {
    let file_len = file.len();
    let front_len = file_len.min(to_u64(FRONT_LEN));
    let _front = limits.reserve(front_len, "the header section")?;
    let mut front = file.read_vec_at(0, to_usize(front_len), "the header section")?;
    let header = Header::parse(&front)?;
    if let Some(child) = child {
        child.check(header.data_write_guid)?;
    }
    let file = if header.is_dirty() {
        let patches = replay(&file, &header, limits)?;
        let tables = region_tables();
        let changed = front.get_mut(to_usize(tables.start)..).unwrap_or_default();
        patches.apply(changed, tables.start);
        Arc::new(Patched::new(file, patches))
    } else {
        file
    };
    let regions = Regions::parse(&front, &header.log)?;
    let metadata = read_metadata(&file, file_len, &regions, limits)?;
    let bat = bat_bytes(&metadata, &regions)?;
    check_inside(
        file_len,
        regions.bat.start,
        bat,
        "the block allocation table",
    )?;
    let parent = match &metadata.parent {
        Some(locator) => open_parent(locator, gate, limits, depth)?,
        None => None,
    };
    Ok(Vhdx {
        header,
        regions,
        metadata,
        file,
        parent,
        limits: limits.clone(),
    })
}

/// What the log says, in memory.
fn replay(file: &Arc<dyn ReadAt>, header: &Header, limits: &Limits) -> Result<Patches> {
    let log = &header.log;
    check_inside(file.len(), log.start, to_u64(len(log)), "the log")?;
    let _charge = limits.reserve(to_u64(len(log)), "the log")?;
    let bytes = file.read_vec_at(log.start, len(log), "the log")?;
    let patches = log::replay(&bytes, header.log_guid, limits)?;
    check_grown(&patches, file.len())?;
    Ok(patches)
}

/// The log and the length of the file agree.
fn check_grown(patches: &Patches, file: u64) -> Result<()> {
    if file < patches.flushed {
        return Err(Error::malformed(format!(
            "the log knows a file of {} bytes, and it has {file}: it is truncated",
            patches.flushed
        )));
    }
    if patches.grown > file.saturating_add(MAX_GROWTH) {
        return Err(Error::malformed(format!(
            "the log wants the file of {file} bytes to have {}: it is truncated or damaged",
            patches.grown
        )));
    }
    Ok(())
}

fn read_metadata(
    file: &Arc<dyn ReadAt>,
    file_len: u64,
    regions: &Regions,
    limits: &Limits,
) -> Result<Metadata> {
    let read = |range: &Range<u64>, what: &'static str| {
        check_inside(file_len, range.start, to_u64(len(range)), what)?;
        file.read_vec_at(range.start, len(range), what)
    };
    let region = &regions.metadata;
    let _table = limits.reserve(metadata::TABLE_LEN, "the metadata table")?;
    let table = read(&table_range(region)?, "the metadata table")?;
    let items = Items::parse(&table, to_u64(len(region)))?;
    let _items = limits.reserve(span_bytes(&items), "the metadata")?;
    let span = items.span();
    let start = region.start.saturating_add(span.start);
    let bytes = read(
        &(start..start.saturating_add(span_bytes(&items))),
        "the metadata",
    )?;
    Metadata::parse(&items, &bytes, limits)
}

/// How much of the block allocation table the disk needs.
fn bat_bytes(metadata: &Metadata, regions: &Regions) -> Result<u64> {
    let needed = metadata.shape.entries().saturating_mul(8);
    if needed > to_u64(len(&regions.bat)) {
        return Err(Error::malformed(format!(
            "the block allocation table has {} bytes, and the disk needs {needed}",
            len(&regions.bat)
        ))
        .at(regions.bat.start));
    }
    Ok(needed)
}

/// Opens the parent at the first of its places that opens.
fn open_parent(
    locator: &Locator,
    gate: &dyn OpenGate,
    limits: &Limits,
    depth: u32,
) -> Result<Option<Arc<dyn Image>>> {
    if depth >= MAX_DEPTH {
        return Err(Error::malformed(format!(
            "more than {MAX_DEPTH} images in the chain of parents"
        )));
    }
    let mut refused = None;
    for reference in locator.references() {
        if gate.leaves_out(&reference) {
            return Ok(None);
        }
        let file = match gate.open(&reference) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::Denied => {
                refused.get_or_insert(e);
                continue;
            }
            Err(e) => return Err(e),
        };
        let nested = gate.nested(&reference);
        let parent = open_layer(
            file,
            nested.as_ref(),
            limits,
            depth.saturating_add(1),
            Some(locator),
        )?;
        return Ok(Some(Arc::new(parent)));
    }
    Err(refused.unwrap_or_else(|| Error::malformed("the parent is nowhere")))
}

fn info(header: &Header, metadata: &Metadata) -> Info {
    let variant = match (&metadata.parent, metadata.fixed) {
        (Some(_), _) => "differencing",
        (None, true) => "fixed",
        (None, false) => "dynamic",
    };
    let mut features = vec![format!(
        "sectors of {} bytes, physically {}",
        metadata.logical_sector, metadata.physical_sector
    )];
    if header.is_dirty() {
        features.push("log to replay".to_owned());
    }
    Info {
        format: Format::Vhdx,
        variant: variant.to_owned(),
        virtual_size: metadata.shape.virtual_size,
        cluster_size: Some(metadata.shape.block_size),
        compression: Compression::None,
        features,
        references: metadata
            .parent
            .iter()
            .flat_map(Locator::references)
            .take(1)
            .collect(),
    }
}

impl Image for Vhdx {
    fn virtual_size(&self) -> u64 {
        self.metadata.shape.virtual_size
    }

    fn info(&self) -> Info {
        info(&self.header, &self.metadata)
    }

    fn data(&self) -> &Arc<dyn ReadAt> {
        &self.file
    }

    fn extents(&self, range: Range<u64>) -> Extents<'_> {
        let source = Source {
            file: self.file.as_ref(),
            shape: &self.metadata.shape,
            regions: &self.regions,
            parent: if self.parent.is_some() {
                ExtentKind::Parent
            } else {
                ExtentKind::Zero
            },
            limits: &self.limits,
        };
        coalesce(Walk::new(source, range))
    }

    fn parent(&self) -> Option<&Arc<dyn Image>> {
        self.parent.as_ref()
    }
}
