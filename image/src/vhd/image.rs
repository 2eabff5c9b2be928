//! A VHD of any kind with random access.

use std::ops::Range;
use std::sync::Arc;

use super::SizeRule;
use super::extents::Walk;
use super::footer::{self, Footer, Found, Kind, LEN};
use super::header::Header;
use super::parent;
use crate::num::{to_u64, to_usize};
use crate::raw::Raw;
use crate::read_at::{ReadAtExt, check_inside};
use crate::{
    Error, ErrorKind, ExtentKind, Extents, Image, Info, Limits, OpenGate, ReadAt, Result, coalesce,
};

/// Most images in a chain of parents; each is opened inside the one before.
const MAX_DEPTH: u32 = 32;

/// A dynamic or differencing disk.
#[derive(Debug)]
pub(super) struct Dynamic {
    file: Arc<dyn ReadAt>,
    header: Header,
    info: Info,
    differencing: bool,
    parent: Option<Arc<dyn Image>>,
    limits: Limits,
}

/// Opens a VHD.
pub(super) fn open(
    file: Arc<dyn ReadAt>,
    gate: &dyn OpenGate,
    limits: &Limits,
    rule: SizeRule,
) -> Result<Arc<dyn Image>> {
    open_layer(file, gate, limits, rule, 1, None)
}

/// The first and the last 512 bytes, or all there are.
pub(super) fn ends(file: &dyn ReadAt) -> Result<(Vec<u8>, Vec<u8>)> {
    let len = to_usize(file.len()).min(LEN);
    let front = file.read_vec_at(0, len, "the copy of the footer")?;
    let tail = file.read_vec_at(file.len().saturating_sub(to_u64(len)), len, "the footer")?;
    Ok((front, tail))
}

/// `wanted` is what the child says its parent's unique ID is.
fn open_layer(
    file: Arc<dyn ReadAt>,
    gate: &dyn OpenGate,
    limits: &Limits,
    rule: SizeRule,
    depth: u32,
    wanted: Option<[u8; 16]>,
) -> Result<Arc<dyn Image>> {
    let (front, tail) = ends(file.as_ref())?;
    let found = footer::choose(&front, &tail, file.len(), rule)?;
    let (Found::Fixed(footer) | Found::Mapped(footer)) = &found;
    if let Some(wanted) = wanted {
        parent::check_id(footer.unique_id(), wanted)?;
    }
    match &found {
        Found::Fixed(footer) => {
            let info = super::info(footer, "fixed", None);
            Ok(Arc::new(Raw::part(file, info)))
        }
        Found::Mapped(footer) => open_mapped(file, footer, gate, limits, depth),
    }
}

fn open_mapped(
    file: Arc<dyn ReadAt>,
    footer: &Footer,
    gate: &dyn OpenGate,
    limits: &Limits,
    depth: u32,
) -> Result<Arc<dyn Image>> {
    let bytes = file.read_vec_at(footer.data_offset(), Header::LEN, "the header")?;
    let header = Header::parse(&bytes, footer)?;
    check_inside(
        file.len(),
        header.table(),
        header.table_len(),
        "the block allocation table",
    )?;
    let differencing = footer.kind() == Kind::Differencing;
    let variant = if differencing {
        "differencing"
    } else {
        "dynamic"
    };
    let mut info = super::info(footer, variant, Some(header.block_size()));
    let mut above = None;
    if differencing {
        let _charge = limits.reserve(parent::most_bytes(), "the names of the parent")?;
        let names = parent::references(file.as_ref(), header.parent())?;
        info.references.extend(names.first().cloned());
        if depth >= MAX_DEPTH {
            return Err(Error::malformed(format!(
                "more than {MAX_DEPTH} images in the chain of parents"
            )));
        }
        above = open_parent(&names, gate, limits, depth, header.parent().id)?;
    }
    Ok(Arc::new(Dynamic {
        file,
        header,
        info,
        differencing,
        parent: above,
        limits: limits.clone(),
    }))
}

/// The first of `names` that opens has to be the right one.
fn open_parent(
    names: &[crate::Reference],
    gate: &dyn OpenGate,
    limits: &Limits,
    depth: u32,
    id: [u8; 16],
) -> Result<Option<Arc<dyn Image>>> {
    let mut refused = None;
    for reference in names {
        if gate.leaves_out(reference) {
            return Ok(None);
        }
        match gate.open(reference) {
            Ok(file) => {
                let nested = gate.nested(reference);
                // The child says where the disk ends. A parent that ended by its geometry would only
                // take away from it.
                let rule = SizeRule::CurrentSize;
                let depth = depth.saturating_add(1);
                return open_layer(file, nested.as_ref(), limits, rule, depth, Some(id)).map(Some);
            }
            Err(e) if matches!(e.kind(), ErrorKind::Denied | ErrorKind::Io) => {
                refused.get_or_insert(e);
            }
            Err(e) => return Err(e),
        }
    }
    match refused {
        Some(e) => Err(e),
        None => Ok(None),
    }
}

impl Dynamic {
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is not in this image.
    pub(super) fn elsewhere(&self) -> ExtentKind {
        if self.parent.is_some() {
            ExtentKind::Parent
        } else {
            ExtentKind::Zero
        }
    }

    /// The bitmaps say which sectors of a block are there.
    pub(super) fn has_bitmaps(&self) -> bool {
        self.differencing
    }
}

impl Image for Dynamic {
    fn virtual_size(&self) -> u64 {
        self.header.virtual_size()
    }

    fn info(&self) -> Info {
        self.info.clone()
    }

    fn data(&self) -> &Arc<dyn ReadAt> {
        &self.file
    }

    fn extents(&self, range: Range<u64>) -> Extents<'_> {
        let range = range.start..range.end.min(self.virtual_size());
        coalesce(Walk::new(self, range))
    }

    fn parent(&self) -> Option<&Arc<dyn Image>> {
        self.parent.as_ref()
    }
}
