//! The header of version 1.

use zerocopy::FromBytes;

use super::{Header, MAX_L1_BYTES, area, encrypted, truncated};
use crate::cluster::ClusterCodec;
use crate::num::{to_u64, to_usize};
use crate::qcow2::layout::{MAGIC, RawHeaderV1};
use crate::qcow2::map::Shape;
use crate::{Error, Limits, Reference, ReferenceKind, Result};

/// Longest name QEMU takes.
const MAX_NAME: u32 = 1023;

/// `head` starts as an image of version 1.
pub(super) fn is_meant(head: &[u8]) -> bool {
    head.strip_prefix(&MAGIC)
        .is_some_and(|rest| rest.starts_with(&[0, 0, 0, 1]))
}

/// Reads the header at the start of `head`.
pub(super) fn parse(head: &[u8], limits: &Limits) -> Result<Header> {
    let (raw, _) = RawHeaderV1::read_from_prefix(head).map_err(|_| truncated())?;
    debug_assert_eq!((raw.magic, raw.version.get()), (MAGIC, 1));
    match raw.crypt_method.get() {
        0 => {}
        1 => return Err(encrypted("AES")),
        other => {
            return Err(Error::unsupported(format!(
                "the image is encrypted by unknown method {other}"
            ))
            .at(36));
        }
    }
    let size = raw.size.get();
    if size <= 1 {
        return Err(Error::malformed(format!("a disk of {size} bytes is not possible")).at(24));
    }
    if !(9..=16).contains(&raw.cluster_bits) {
        return Err(Error::malformed(format!(
            "cluster size of 2^{} bytes is not between 512 bytes and 64 KiB",
            raw.cluster_bits
        ))
        .at(32));
    }
    if !(6..=13).contains(&raw.l2_bits) {
        return Err(Error::malformed(format!(
            "L2 tables of 2^{} entries are not between 512 bytes and 64 KiB",
            raw.l2_bits
        ))
        .at(33));
    }
    limits.check_virtual_size(size)?;
    let shape = Shape {
        version: 1,
        cluster_bits: u32::from(raw.cluster_bits),
        l2_bits: u32::from(raw.l2_bits),
        // Whole sectors, as QEMU has it.
        virtual_size: size.saturating_sub(size % 512),
        l1_at: raw.l1_table_offset.get(),
        extended_l2: false,
        external_data: false,
    };
    let l1_bytes = shape.l1_entries().saturating_mul(8);
    if l1_bytes > MAX_L1_BYTES {
        return Err(Error::unsupported(format!(
            "L1 size too big: a table of {} entries is larger than 32 MiB",
            shape.l1_entries()
        ))
        .at(24));
    }
    if l1_bytes > 0 && shape.l1_at < to_u64(size_of::<RawHeaderV1>())
        || shape
            .l1_at
            .checked_add(l1_bytes)
            .is_none_or(|end| end > 1 << 63)
    {
        return Err(Error::malformed("L1 table is over the header or out of range").at(40));
    }
    Ok(Header {
        shape,
        codec: ClusterCodec::Deflate,
        features: Vec::new(),
        l1_bytes,
        refcounts: 0..0,
        backing: backing(
            head,
            raw.backing_file_offset.get(),
            raw.backing_file_size.get(),
        )?,
        data_file: None,
    })
}

/// The backing file. Its format the image does not say.
fn backing(head: &[u8], at: u64, len: u32) -> Result<Option<Reference>> {
    if at == 0 || len == 0 {
        return Ok(None);
    }
    if len > MAX_NAME {
        return Err(Error::malformed(format!(
            "the name of the backing file has {len} bytes, {MAX_NAME} are possible"
        ))
        .at(16));
    }
    let end = at.saturating_add(u64::from(len));
    let Some(bytes) = head.get(to_usize(at)..to_usize(end)) else {
        return Err(Error::malformed(
            "the name of the backing file is not at the start of the image",
        )
        .at(8));
    };
    Ok(Some(Reference {
        name: area::name(bytes, "name of the backing file", at)?,
        format: None,
        kind: ReferenceKind::Backing,
    }))
}
