//! qcow2, QEMU's copy-on-write format, versions 2 and 3 (`docs/interop/qcow2.txt` in QEMU's tree), and its
//! predecessor qcow, which is version 1 (`block/qcow.c`).
//!
//! ```text
//! header cluster          L1 table              L2 tables                 clusters
//! +------------------+    +-------------+    +------------------+    +---------------------+
//! | header           |--->| offset      |--->| offset | zero    |--->| guest bytes, or     |
//! | extensions       |    | 0: nothing  |    | compressed: at,n |    | deflate/zstd, packed|
//! | backing name     |    +-------------+    | (+ 32 subcl.)    |    | to the byte         |
//! +------------------+                       +------------------+    +---------------------+
//! ```
//!
//! Read: clusters of 512 bytes to 2 MiB, compressed by zlib (raw deflate) or zstd, zero clusters,
//! extended L2 entries, internal snapshots (ignored: only the active L1 is followed), lazy refcounts,
//! images that were not closed (dirty: reading does not need refcounts), backing files and external
//! data files that the gate lets in, last clusters that are only partly in the file.
//!
//! Version 1 has the same two levels of tables, without refcounts, flags, extensions and alignment; L2
//! tables have a size of their own, compressed clusters end at a byte, L1 follows the header.
//!
//! Refused by name: encryption, the corrupt bit, unknown incompatible features, other versions and
//! compression types. Refcounts (but for where they are), bitmaps and the state of suspended machines
//! are not looked at.
//!
//! A backing file is opened as the format that the image names. If it names none, its content decides
//! among raw, qcow2 and VMDK; a guest that wrote a raw disk chose that content, so a gate that opens
//! files should be one that trusts them.
//!
//! Images are written by [`mod@write`].

mod extents;
mod forward;
mod header;
mod layout;
mod map;
pub mod write;

use std::ops::Range;
use std::sync::Arc;

use self::extents::{Source, Walk, read_head};
use self::forward::Tables;
use self::header::Header;
use crate::cluster::ClusterCodec;
use crate::forward::{Decoder, Mapped, Options};
use crate::num::to_usize;
use crate::read_at::{ReadAtExt, check_inside};
use crate::{
    Error, ExtentKind, Extents, Format, Image, Info, Limits, OpenGate, PROBE_LEN, Probe, ReadAt,
    Reference, Result, coalesce, probe,
};

/// Most images in a chain of backing files, so that one that names itself ends.
const MAX_DEPTH: u32 = 32;

/// A qcow2 image with random access.
#[derive(Debug)]
struct Qcow2 {
    header: Header,
    file: Arc<dyn ReadAt>,
    data: Arc<dyn ReadAt>,
    backing: Option<Arc<dyn Image>>,
    limits: Limits,
}

/// Opens a qcow2 image for random access, and through `gate` what it refers to.
pub fn open(file: Arc<dyn ReadAt>, gate: &dyn OpenGate, limits: &Limits) -> Result<Arc<dyn Image>> {
    open_layer(Format::Qcow2, file, gate, limits, 1)
}

/// The same for version 1.
pub fn open_version1(
    file: Arc<dyn ReadAt>,
    gate: &dyn OpenGate,
    limits: &Limits,
) -> Result<Arc<dyn Image>> {
    open_layer(Format::Qcow, file, gate, limits, 1)
}

/// A forward decoder for a qcow2 stream.
pub fn decoder(options: Options) -> Result<Box<dyn Decoder>> {
    let layout = Tables::new(Format::Qcow2, options.limits.clone());
    Ok(Box::new(Mapped::new(layout, options)))
}

/// The same for version 1.
pub fn decoder_version1(options: Options) -> Result<Box<dyn Decoder>> {
    let layout = Tables::new(Format::Qcow, options.limits.clone());
    Ok(Box::new(Mapped::new(layout, options)))
}

fn open_layer(
    format: Format,
    file: Arc<dyn ReadAt>,
    gate: &dyn OpenGate,
    limits: &Limits,
    depth: u32,
) -> Result<Arc<dyn Image>> {
    let header = Header::parse(&read_head(&file)?, format, limits)?;
    check_inside(
        file.len(),
        header.shape().l1_at,
        header.shape().l1_entries().saturating_mul(8),
        "the L1 table",
    )?;
    let data = match header.data_file() {
        Some(reference) => gate.open(reference)?,
        None => Arc::clone(&file),
    };
    let backing = match header.backing() {
        Some(reference) if gate.leaves_out(reference) => None,
        Some(reference) if depth < MAX_DEPTH => Some(open_backing(reference, gate, limits, depth)?),
        Some(_) => {
            return Err(Error::malformed(format!(
                "more than {MAX_DEPTH} images in the chain of backing files"
            )));
        }
        None => None,
    };
    Ok(Arc::new(Qcow2 {
        header,
        file,
        data,
        backing,
        limits: limits.clone(),
    }))
}

fn open_backing(
    reference: &Reference,
    gate: &dyn OpenGate,
    limits: &Limits,
    depth: u32,
) -> Result<Arc<dyn Image>> {
    let file = gate.open(reference)?;
    let format = backing_format(reference, &file)?;
    let nested = gate.nested(reference);
    match format {
        Format::Qcow | Format::Qcow2 => open_layer(
            format,
            file,
            nested.as_ref(),
            limits,
            depth.saturating_add(1),
        ),
        other => crate::open(other, file, nested.as_ref(), limits),
    }
}

/// What the image says, else what the content says.
fn backing_format(reference: &Reference, file: &Arc<dyn ReadAt>) -> Result<Format> {
    let name = &reference.name;
    if let Some(format) = &reference.format {
        return Format::from_name(format).ok_or_else(|| {
            Error::unsupported(format!(
                "the backing file {name:?} has format {format:?}, which is not read here"
            ))
        });
    }
    let len = to_usize(file.len()).min(PROBE_LEN);
    match probe(&file.read_vec_at(0, len, "the backing file")?) {
        Probe::Image(format) => Ok(format),
        Probe::Wrapper(_) => Ok(Format::Raw),
        Probe::Unsupported(format) => Err(Error::unsupported(format!(
            "the backing file {name:?} is {format}, which is not read here"
        ))),
    }
}

impl Image for Qcow2 {
    fn virtual_size(&self) -> u64 {
        self.header.shape().virtual_size
    }

    fn info(&self) -> Info {
        self.header.info()
    }

    fn cluster_size(&self) -> u64 {
        self.header.compressed_size()
    }

    fn cluster_codec(&self) -> ClusterCodec {
        self.header.codec()
    }

    fn data(&self) -> &Arc<dyn ReadAt> {
        &self.data
    }

    fn extents(&self, range: Range<u64>) -> Extents<'_> {
        let source = Source {
            file: self.file.as_ref(),
            data_len: self.data.len(),
            shape: self.header.shape(),
            hole: if self.backing.is_some() {
                ExtentKind::Parent
            } else {
                ExtentKind::Zero
            },
            limits: &self.limits,
        };
        coalesce(Walk::new(source, range))
    }

    fn parent(&self) -> Option<&Arc<dyn Image>> {
        self.backing.as_ref()
    }
}
