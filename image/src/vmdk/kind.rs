//! What kind of VMDK file starts with some bytes.

use super::descriptor;
use super::layout::{COWD_MAGIC, MAGIC};
use super::sesparse;
use crate::{Error, ErrorKind};

/// The kinds of files a VMDK is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A hosted sparse extent, which may have its descriptor inside.
    Sparse,
    /// A sparse extent of ESX, before VMFS 6.
    Cowd,
    /// A sparse extent of ESX, since VMFS 6.
    SeSparse,
    /// A descriptor.
    Text,
    /// None of these, or the bytes of a flat extent.
    Other,
}

impl Kind {
    /// What starts with `head`.
    pub(super) fn of(head: &[u8]) -> Self {
        if head.starts_with(&MAGIC) {
            Self::Sparse
        } else if head.starts_with(&COWD_MAGIC) {
            Self::Cowd
        } else if head.starts_with(&sesparse::MAGIC) {
            Self::SeSparse
        } else if descriptor::is_one(head) {
            Self::Text
        } else {
            Self::Other
        }
    }
}

pub(super) fn not_this_format() -> Error {
    Error::new(
        ErrorKind::NotThisFormat,
        "this is not a VMDK: neither its magic number nor a descriptor is at the start",
    )
}

/// The refusal of an extent that does not know which disk it belongs to.
pub(super) fn lone_extent(what: &'static str) -> Error {
    Error::unsupported(format!(
        "this is {what}, one part of a VMDK of several files: give the descriptor that names it, a small \
         text file beside it"
    ))
}
