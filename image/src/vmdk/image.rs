//! A sparse extent with random access: the header, the footer of a stream, the grain directory.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::FromBytes;

use super::descriptor::Descriptor;
use super::extents::Walk;
use super::header::{Directory, Header};
use super::layout::{MARKER_EOS, MARKER_FOOTER, Marker, MarkerRest, SECTOR};
use super::map;
use crate::chain::Charged;
use crate::cluster::ClusterCodec;
use crate::num::{le32_entry, to_usize};
use crate::read_at::ReadAtExt;
use crate::{Error, ExtentKind, Extents, Image, Info, Limits, OpenGate, ReadAt, Result, coalesce};

/// Most images in a chain of parents; each is opened inside the one before.
const MAX_DEPTH: u32 = 32;

/// Marker, footer, marker.
const TAIL: u64 = 3 * SECTOR;

/// One VMDK file.
#[derive(Debug)]
pub(super) struct Sparse {
    file: Arc<dyn ReadAt>,
    header: Header,
    info: Info,
    directory: Charged<Vec<u8>>,
    parent: Option<Arc<dyn Image>>,
}

impl Sparse {
    /// Opens `file`, and its parents as far as `gate` lets them in. `wanted_cid` is what the child
    /// says its parent's content ID is.
    pub(super) fn open(
        file: Arc<dyn ReadAt>,
        gate: &dyn OpenGate,
        limits: &Limits,
        depth: u32,
        wanted_cid: Option<u32>,
    ) -> Result<Self> {
        if depth >= MAX_DEPTH {
            return Err(Error::malformed(format!(
                "more than {MAX_DEPTH} images in the chain of parents"
            )));
        }
        let head = read_up_to(&file, 0, Header::LEN, "the header")?;
        if head.starts_with(b"#") {
            let text = read_up_to(&file, 0, 64 << 10, "the descriptor")?;
            return Err(super::refuse_text(&text));
        }
        let header = Header::parse(&head, limits)?;
        let text = match header.descriptor() {
            Some(range) => {
                let len = range.end.saturating_sub(range.start);
                let _charge = limits.reserve(len, "the descriptor")?;
                file.read_vec_at(range.start, to_usize(len), "the descriptor")?
            }
            None => Vec::new(),
        };
        let descriptor = Descriptor::parse(&text)?;
        descriptor.check_single_file(header.is_stream())?;
        if let (Some(wanted), Some(found)) = (wanted_cid, descriptor.cid)
            && wanted != found
        {
            return Err(Error::malformed(format!(
                "the parent image has changed since: its content ID is {found:08x} instead of {wanted:08x}"
            )));
        }
        let info = super::info(&header, &descriptor)?;
        let parent = match descriptor.parent()? {
            None => None,
            Some(reference) if gate.leaves_out(&reference) => None,
            Some(reference) => {
                let nested = gate.nested(&reference);
                let parent = Self::open(
                    gate.open(&reference)?,
                    nested.as_ref(),
                    limits,
                    depth.saturating_add(1),
                    descriptor.parent_cid,
                )?;
                let parent: Arc<dyn Image> = Arc::new(parent);
                Some(parent)
            }
        };
        let header = match header.directory() {
            Directory::At(_) => header,
            Directory::InFooter => read_footer(&file, &header, limits)?,
        };
        let directory = read_directory(&file, &header, limits)?;
        Ok(Self {
            file,
            header,
            info,
            directory,
            parent,
        })
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn data_file(&self) -> &Arc<dyn ReadAt> {
        &self.file
    }

    pub(super) fn file_len(&self) -> u64 {
        self.file.len()
    }

    /// Offset of grain table number `table`, if it exists. Checked when the directory was read.
    pub(super) fn table(&self, table: u64) -> Option<u64> {
        le32_entry(&self.directory.value, to_usize(table))
            .filter(|&at| at != 0)
            .map(|at| u64::from(at).saturating_mul(SECTOR))
    }

    /// What a grain is that is in no table.
    pub(super) fn unallocated(&self) -> ExtentKind {
        if self.parent.is_some() {
            ExtentKind::Parent
        } else {
            ExtentKind::Zero
        }
    }
}

fn read_up_to(file: &Arc<dyn ReadAt>, at: u64, len: usize, what: &'static str) -> Result<Vec<u8>> {
    let there = to_usize(file.len().saturating_sub(at)).min(len);
    file.read_vec_at(at, there, what)
}

/// The footer takes the header's place. It is found from the end, as every reader does.
fn read_footer(file: &Arc<dyn ReadAt>, header: &Header, limits: &Limits) -> Result<Header> {
    let missing =
        |at| Error::malformed("there is no footer at the end of the file: it is truncated").at(at);
    let at = file.len().saturating_sub(TAIL);
    if at < header.data_start().saturating_mul(SECTOR) || at.next_multiple_of(SECTOR) != at {
        return Err(missing(at));
    }
    let tail = file.read_vec_at(at, to_usize(TAIL), "the footer")?;
    let mut sectors = tail.chunks_exact(to_usize(SECTOR));
    let (Some(first), Some(footer), Some(last)) = (sectors.next(), sectors.next(), sectors.next())
    else {
        return Err(missing(at));
    };
    if !is_marker(first, MARKER_FOOTER, 1) || !is_marker(last, MARKER_EOS, 0) {
        return Err(missing(at));
    }
    header.with_footer(&Header::parse(footer, limits)?)
}

fn is_marker(sector: &[u8], kind: u32, sectors: u64) -> bool {
    let Ok((marker, rest)) = Marker::ref_from_prefix(sector) else {
        return false;
    };
    MarkerRest::ref_from_bytes(rest).is_ok_and(|rest| rest.kind.get() == kind)
        && marker.size.get() == 0
        && marker.value.get() == sectors
}

/// The grain directory; its copy if what it points to can't be.
fn read_directory(
    file: &Arc<dyn ReadAt>,
    header: &Header,
    limits: &Limits,
) -> Result<Charged<Vec<u8>>> {
    let Directory::At(primary) = header.directory() else {
        return Err(Error::malformed("the grain directory is nowhere"));
    };
    let read = |sector: u64| {
        map::check_directory(header, sector, file.len())?;
        let len = header.directory_bytes();
        Charged::make(limits, len, "the grain directory", || {
            let bytes = file.read_vec_at(
                sector.saturating_mul(SECTOR),
                to_usize(len),
                "the grain directory",
            )?;
            map::check_tables(header, &bytes, file.len())?;
            Ok(bytes)
        })
    };
    if header.tables() == 0 {
        return Charged::make(limits, 0, "the grain directory", || Ok(Vec::new()));
    }
    match (read(primary), header.redundant()) {
        (Err(first), Some(copy)) if first.kind() == crate::ErrorKind::Malformed => {
            read(copy).map_err(|_| first)
        }
        (result, _) => result,
    }
}

impl Image for Sparse {
    fn virtual_size(&self) -> u64 {
        self.header.virtual_size()
    }

    fn info(&self) -> Info {
        self.info.clone()
    }

    fn cluster_size(&self) -> u64 {
        if self.header.is_stream() {
            self.header.grain_bytes()
        } else {
            0
        }
    }

    fn cluster_codec(&self) -> ClusterCodec {
        super::codec(&self.header)
    }

    fn data(&self) -> &Arc<dyn ReadAt> {
        &self.file
    }

    fn extents(&self, range: Range<u64>) -> Extents<'_> {
        let range = range.start..range.end.min(self.virtual_size());
        coalesce(Walk::new(self, range))
    }

    fn best_read_forward(&self) -> bool {
        self.header.is_stream() && self.parent.is_none()
    }

    fn parent(&self) -> Option<&Arc<dyn Image>> {
        self.parent.as_ref()
    }
}
