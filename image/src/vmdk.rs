//! VMDK: virtual disks of VMware ("Virtual Disk Format 5.0"), of one file or of several.
//!
//! ```text
//! descriptor (text, embedded or a file of its own) -> extents, a row of parts of the disk
//!   flat: a file, from an offset on          zero: no file
//!   sparse:
//!     header -> grain directory: a u32 sector per grain table, 0 for none
//!                 -> grain table: a u32 sector per grain (512 of them), 0 for none, 1 for zeros
//!                      -> grain: 64 KiB of the disk as they are       (SPARSE)
//!                      -> grain: address, size, zlib data             (streamOptimized)
//!   COWD: the same with another header, and 4096 entries a table      (SPARSE, VMFSSPARSE)
//!   seSparse: see its module                                          (SESPARSE)
//! ```
//! - **monolithicSparse**, versions 1 to 3, with the redundant grain directory where the first is
//!   unusable, and zeroed grains;
//! - **streamOptimized**, with its directory at the end (VMware, `VirtualBox`) or in front (QEMU,
//!   open-vmdk);
//! - **COWD** by itself, as ESX 2 exported disks;
//! - by their descriptor, through the gate: **twoGbMaxExtentSparse**, **twoGbMaxExtentFlat**,
//!   **monolithicFlat**, **vmfs** and its kin, **vmfsSparse**, **seSparse**, **custom**. Not from a stream: there is
//!   one file in it.
//! - Parents (delta links) open through the gate only, and not at all from a stream.
//!
//! Refused by name: raw devices and mappings of them, encryption, compression without markers,
//! unknown incompatible flags, journals to be replayed, extents without their descriptor.
//!
//! With random access the tables decide, as they do for QEMU: the address in front of a compressed
//! grain is not looked at, for that would take a read per grain. From a stream the addresses decide, and
//! the tables must agree with them: whoever wants a whole stream checked reads it forward.

mod descriptor;
mod disk;
mod extents;
mod forward;
mod grains;
mod header;
mod joined;
mod kind;
mod layout;
mod map;
mod part;
mod sesparse;
mod several;
mod sparse;
mod stream;

use std::sync::Arc;

use self::descriptor::Descriptor;
use self::header::Header;
use self::kind::Kind;
use crate::cluster::ClusterCodec;
use crate::forward::{Decoder, Geometry, Options};
use crate::{Error, Format, Image, Info, Limits, OpenGate, ReadAt, Result};

/// A VMDK starts with `head`.
pub(crate) fn is_one(head: &[u8]) -> bool {
    Kind::of(head) != Kind::Other
}

/// Opens a VMDK for random access.
pub fn open(file: Arc<dyn ReadAt>, gate: &dyn OpenGate, limits: &Limits) -> Result<Arc<dyn Image>> {
    Ok(Arc::new(disk::Disk::open(file, gate, limits, 0, None)?))
}

/// A forward decoder for a VMDK stream.
pub fn decoder(options: Options) -> Result<Box<dyn Decoder>> {
    Ok(Box::new(forward::Forward::new(options)))
}

fn codec(compressed: bool) -> ClusterCodec {
    if compressed {
        ClusterCodec::Zlib
    } else {
        ClusterCodec::None
    }
}

fn info(header: &Header, descriptor: &Descriptor) -> Result<Info> {
    let variant = if header.is_cowd() {
        "COWD"
    } else if header.is_stream() {
        "streamOptimized"
    } else {
        "monolithicSparse"
    };
    Ok(Info {
        format: Format::Vmdk,
        variant: variant.to_owned(),
        virtual_size: header.virtual_size(),
        cluster_size: Some(header.grain_bytes()),
        compression: codec(header.is_stream()).compression(),
        features: header.features(),
        references: descriptor.parent()?.into_iter().collect(),
    })
}

fn geometry(header: &Header, descriptor: &Descriptor) -> Result<Geometry> {
    Ok(Geometry {
        virtual_size: Some(header.virtual_size()),
        cluster_size: if header.is_stream() {
            header.grain_bytes()
        } else {
            0
        },
        codec: codec(header.is_stream()),
        info: info(header, descriptor)?,
    })
}

/// The refusal of a descriptor that passes by.
fn refuse_text(text: &[u8]) -> Error {
    let descriptor = match Descriptor::parse(text) {
        Ok(descriptor) => descriptor,
        Err(e) => return e,
    };
    match several::check(&descriptor) {
        Ok(kind) => Error::unsupported(format!(
            "this is the descriptor of a VMDK of several files ({kind}), and a stream holds one: give it as \
             a local file (without --checksum), with the others beside it"
        )),
        Err(e) => e,
    }
}
