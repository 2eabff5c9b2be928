//! VMDK: virtual disks of VMware ("Virtual Disk Format 5.0"), in one file with its descriptor inside.
//!
//! ```text
//! header -> grain directory: a u32 sector per grain table, 0 for none
//!             -> grain table: a u32 sector per grain (512 of them), 0 for none, 1 for zeros
//!                  -> grain: 64 KiB of the disk as they are            (monolithicSparse)
//!                  -> grain: address, size, zlib data                  (streamOptimized)
//! ```
//! - **monolithicSparse**, versions 1 to 3, with the redundant grain directory where the first is
//!   unusable, and zeroed grains;
//! - **streamOptimized**, with its directory at the end (VMware, `VirtualBox`) or in front (QEMU,
//!   open-vmdk).
//! - Parents (delta links) open through the gate only, and not at all from a stream.
//!
//! Refused by name: disks of several files and their descriptors, flat and raw device disks, ESX
//! formats (COWD, seSparse), encryption, compression without markers, unknown incompatible flags.
//!
//! With random access the tables decide, as they do for QEMU: the address in front of a compressed
//! grain is not looked at, for that would take a read per grain. From a stream the addresses decide, and
//! the tables must agree with them: whoever wants a whole stream checked reads it forward.

mod descriptor;
mod extents;
mod forward;
mod header;
mod image;
mod layout;
mod map;
mod sparse;
mod stream;

use std::sync::Arc;

use self::descriptor::Descriptor;
use self::header::Header;
use crate::cluster::ClusterCodec;
use crate::forward::{Decoder, Geometry, Options};
use crate::{Error, Format, Image, Info, Limits, OpenGate, ReadAt, Result};

/// Opens a VMDK for random access.
pub fn open(file: Arc<dyn ReadAt>, gate: &dyn OpenGate, limits: &Limits) -> Result<Arc<dyn Image>> {
    Ok(Arc::new(image::Sparse::open(file, gate, limits, 0, None)?))
}

/// A forward decoder for a VMDK stream.
pub fn decoder(options: Options) -> Result<Box<dyn Decoder>> {
    Ok(Box::new(forward::Forward::new(options)))
}

fn codec(header: &Header) -> ClusterCodec {
    if header.is_stream() {
        ClusterCodec::Zlib
    } else {
        ClusterCodec::None
    }
}

fn info(header: &Header, descriptor: &Descriptor) -> Result<Info> {
    let variant = if header.is_stream() {
        "streamOptimized"
    } else {
        "monolithicSparse"
    };
    Ok(Info {
        format: Format::Vmdk,
        variant: variant.to_owned(),
        virtual_size: header.virtual_size(),
        cluster_size: Some(header.grain_bytes()),
        compression: codec(header).compression(),
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
        codec: codec(header),
        info: info(header, descriptor)?,
    })
}

/// The refusal of a descriptor that is a file of its own.
fn refuse_text(text: &[u8]) -> Error {
    match Descriptor::parse(text) {
        Ok(descriptor) => Error::unsupported(format!(
            "this is the descriptor of a VMDK of several files ({}), which are not read",
            descriptor.create_type.as_deref().unwrap_or("unknown type")
        )),
        Err(e) => e,
    }
}
