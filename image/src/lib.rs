//! Disk image formats as extents.
//!
//! This crate turns a disk image (raw, qcow2, VMDK, VHD, VHDX, VDI) into a map from guest ranges to where their
//! bytes are, and turns compressed clusters and compressed streams into bytes. There are two ways to read an
//! image, and every format that can be read both ways gives the same bytes both ways:
//!
//! - **random access** ([`Image`], over [`ReadAt`]): walk the tables, get [`Extent`]s, read what they name;
//! - **forward only** ([`forward`]): bytes are pushed in as they pass by, and `(guest range, bytes)`
//!   pieces come out.
//!
//! It is synchronous, has no `unsafe`, and allocates nothing from a number found in an image before
//! [`Limits`] allowed it. It does not write disks, spawn threads or know about networks: that is
//! `longshore-transfer`.
#![forbid(unsafe_code)]
#![deny(
    missing_docs,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]
#![cfg_attr(
    test,
    expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "tests build images by hand and may fail by panicking"
    )
)]

pub mod chain;
pub mod cluster;
mod error;
mod extent;
pub mod forward;
mod gate;
mod image;
mod limits;
mod num;
pub mod parallels;
mod probe;
pub mod qcow2;
pub mod raw;
mod read_at;
pub mod stream;
mod table;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

pub use crate::error::{Error, ErrorKind, Result};
pub use crate::extent::{Extent, ExtentKind, Extents, coalesce};
pub use crate::gate::{DenyAll, OpenGate, Reference, ReferenceKind};
pub use crate::image::{Compression, Format, Image, Info, all_extents, open};
pub use crate::limits::{Limits, Reservation};
pub use crate::probe::{PROBE_LEN, Probe, TAIL_LEN, Wrapper, probe, probe_tail};
pub use crate::read_at::{FileRange, ReadAt, ReadAtExt};
