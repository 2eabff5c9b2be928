//! A VMDK with random access: its parts, its parent, and all of that as one image.
//!
//! A disk of one file is a disk of one part. Parts lie in a row on the disk; their files lie in a row in
//! [`Image::data`], in the same order unless a file is used twice.

use std::ops::Range;
use std::sync::Arc;

use super::descriptor::Descriptor;
use super::grains::Grains;
use super::header::Header;
use super::joined::Joined;
use super::kind::{Kind, lone_extent, not_this_format};
use super::part::{Content, Part, Walk};
use super::several;
use crate::cluster::ClusterCodec;
use crate::num::{to_u64, to_usize};
use crate::read_at::ReadAtExt;
use crate::{
    Error, Extents, Image, Info, Limits, OpenGate, ReadAt, Reference, Reservation, Result, coalesce,
};

/// Most images in a chain of parents; each is opened inside the one before.
const MAX_DEPTH: u32 = 32;

/// Longest descriptor that is a file of its own, in bytes. QEMU reads as much.
const MAX_TEXT: usize = 1 << 20;

/// One disk, its parents not included.
#[derive(Debug)]
pub(super) struct Disk {
    parts: Vec<Part>,
    data: Arc<dyn ReadAt>,
    info: Info,
    parent: Option<Arc<dyn Image>>,
    /// Most bytes of the disk that one compressed grain holds.
    packed: u64,
    /// It is a stream that tells more of itself when it is read as one.
    forward: bool,
    /// For the list of parts.
    _charge: Option<Reservation>,
}

/// What a file says before its parent is looked for.
pub(super) struct Found {
    pub(super) parts: Vec<Part>,
    pub(super) data: Arc<dyn ReadAt>,
    pub(super) info: Info,
    pub(super) charge: Option<Reservation>,
}

impl Disk {
    /// Opens `file`, and its extents and parents as far as `gate` lets them in. `wanted_cid` is what the
    /// child says its parent's content ID is.
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
        let (descriptor, found) = read(file, gate, limits)?;
        if let (Some(wanted), Some(found)) = (wanted_cid, descriptor.cid)
            && wanted != found
        {
            return Err(Error::malformed(format!(
                "the parent image has changed since: its content ID is {found:08x} instead of {wanted:08x}"
            )));
        }
        let parent = match descriptor.parent()? {
            None => None,
            Some(reference) if gate.leaves_out(&reference) => None,
            Some(reference) => Some(open_parent(&reference, &descriptor, gate, limits, depth)?),
        };
        let Found {
            parts,
            data,
            info,
            charge,
        } = found;
        Ok(Self {
            packed: parts.iter().map(Part::packed).max().unwrap_or(0),
            forward: parts.len() == 1 && parts.first().is_some_and(|part| part.packed() > 0),
            parts,
            data,
            info,
            parent,
            _charge: charge,
        })
    }
}

fn open_parent(
    reference: &Reference,
    child: &Descriptor,
    gate: &dyn OpenGate,
    limits: &Limits,
    depth: u32,
) -> Result<Arc<dyn Image>> {
    let nested = gate.nested(reference);
    let parent = Disk::open(
        gate.open(reference)?,
        nested.as_ref(),
        limits,
        depth.saturating_add(1),
        child.parent_cid,
    )?;
    Ok(Arc::new(parent))
}

/// What `file` consists of, by what it starts with.
fn read(
    file: Arc<dyn ReadAt>,
    gate: &dyn OpenGate,
    limits: &Limits,
) -> Result<(Descriptor, Found)> {
    let head = read_up_to(&file, Header::LEN, "the header")?;
    match Kind::of(&head) {
        Kind::Sparse => {
            let header = Header::parse(&head, limits)?;
            let descriptor = embedded(&file, &header, limits)?;
            if header.virtual_size() == 0 && several::are_meant(&descriptor) {
                // A header around the descriptor of other files, as QEMU has it.
                let found = several::open(&descriptor, gate, limits)?;
                return Ok((descriptor, found));
            }
            descriptor.check_single_file(header.is_stream())?;
            let info = super::info(&header, &descriptor)?;
            Ok((descriptor, one(file, header, info, limits)?))
        }
        Kind::Cowd => {
            let header = Header::parse_cowd(&head, limits)?;
            check_cowd_alone(&header)?;
            let descriptor = Descriptor::default();
            let info = super::info(&header, &descriptor)?;
            Ok((descriptor, one(file, header, info, limits)?))
        }
        Kind::SeSparse => Err(lone_extent("a seSparse extent of an ESX host")),
        Kind::Text => {
            let _charge = limits.reserve(file.len().min(to_u64(MAX_TEXT)), "the descriptor")?;
            let text = read_up_to(&file, MAX_TEXT, "the descriptor")?;
            if text.len() == MAX_TEXT && !text.contains(&0) {
                return Err(Error::malformed(format!(
                    "a descriptor of more than {MAX_TEXT} bytes is not possible"
                )));
            }
            let descriptor = Descriptor::parse(&text)?;
            let found = several::open(&descriptor, gate, limits)?;
            Ok((descriptor, found))
        }
        Kind::Other => Err(not_this_format()),
    }
}

/// The header names a parent, and nobody reads such pairs.
pub(super) fn check_cowd_alone(header: &Header) -> Result<()> {
    if header.is_cowd_delta() {
        return Err(Error::unsupported(
            "this COWD image holds only what differs from a parent that its header names (ESX 2), which is \
             not read",
        ));
    }
    Ok(())
}

fn embedded(file: &Arc<dyn ReadAt>, header: &Header, limits: &Limits) -> Result<Descriptor> {
    let Some(range) = header.descriptor() else {
        return Ok(Descriptor::default());
    };
    let len = range.end.saturating_sub(range.start);
    let _charge = limits.reserve(len, "the descriptor")?;
    Descriptor::parse(&file.read_vec_at(range.start, to_usize(len), "the descriptor")?)
}

/// A disk of one file.
fn one(file: Arc<dyn ReadAt>, header: Header, info: Info, limits: &Limits) -> Result<Found> {
    let mut files = Joined::default();
    let base = files.push("", Arc::clone(&file))?;
    let part = Part {
        guest: 0..header.virtual_size(),
        base,
        content: Content::Grains(Grains::open(file, header, limits)?),
        name: None,
    };
    Ok(Found {
        parts: vec![part],
        data: files.into_data(),
        info,
        charge: None,
    })
}

pub(super) fn read_up_to(
    file: &Arc<dyn ReadAt>,
    len: usize,
    what: &'static str,
) -> Result<Vec<u8>> {
    file.read_vec_at(0, to_usize(file.len()).min(len), what)
}

impl Image for Disk {
    fn virtual_size(&self) -> u64 {
        self.info.virtual_size
    }

    fn info(&self) -> Info {
        self.info.clone()
    }

    fn cluster_size(&self) -> u64 {
        self.packed
    }

    fn cluster_codec(&self) -> ClusterCodec {
        super::codec(self.packed > 0)
    }

    fn data(&self) -> &Arc<dyn ReadAt> {
        &self.data
    }

    fn extents(&self, range: Range<u64>) -> Extents<'_> {
        let range = range.start..range.end.min(self.virtual_size());
        coalesce(Walk::new(&self.parts, range, self.parent.is_some()))
    }

    fn best_read_forward(&self) -> bool {
        self.forward && self.parent.is_none()
    }

    fn parent(&self) -> Option<&Arc<dyn Image>> {
        self.parent.as_ref()
    }
}
