//! The header of a qcow or qcow2 image, validated: what both ways of reading agree on.

mod area;
mod features;
mod version1;

use std::ops::Range;

use zerocopy::FromBytes;

use self::area::Area;
use self::features::Features;
use super::layout::{COMPRESSION_TYPE_AT, MAGIC, RawHeader, RawHeaderV3, incompatible};
use super::map::Shape;
use crate::cluster::ClusterCodec;
use crate::num::to_u64;
use crate::{
    Compression, Error, ErrorKind, Format, Info, Limits, Reference, ReferenceKind, Result,
};

/// How much of the start of the file [`Header::parse`] wants to see; less at the end of a shorter one.
/// QEMU writes extensions and names into the first few hundred bytes.
pub(super) const HEAD_LEN: usize = 64 << 10;

/// Largest L1 table QEMU opens, in bytes.
const MAX_L1_BYTES: u64 = 32 << 20;

/// Largest refcount table QEMU opens, in bytes.
const MAX_REFCOUNT_BYTES: u64 = 8 << 20;

/// A header that made sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    shape: Shape,
    codec: ClusterCodec,
    features: Vec<String>,
    l1_bytes: u64,
    refcounts: Range<u64>,
    backing: Option<Reference>,
    data_file: Option<Reference>,
}

impl Header {
    /// Reads the header at the start of `head`, the first [`HEAD_LEN`] bytes of the image.
    pub(super) fn parse(head: &[u8], format: Format, limits: &Limits) -> Result<Self> {
        if is_version1(head, format)? {
            return version1::parse(head, limits);
        }
        let (raw, rest) = RawHeader::read_from_prefix(head).map_err(|_| truncated())?;
        debug_assert_eq!(raw.magic, MAGIC);
        let version = raw.version.get();
        let v3 = match version {
            2 => None,
            3 => Some(
                RawHeaderV3::read_from_prefix(rest)
                    .map_err(|_| truncated())?
                    .0,
            ),
            other => {
                return Err(Error::unsupported(format!(
                    "qcow2 version {other} is not read here, only 2 and 3"
                ))
                .at(4));
            }
        };
        let cluster_bits = raw.cluster_bits.get();
        if !(9..=21).contains(&cluster_bits) {
            return Err(Error::malformed(format!(
                "cluster size of 2^{cluster_bits} bytes is not between 512 bytes and 2 MiB"
            ))
            .at(20));
        }
        let cluster_size = 1_u64.checked_shl(cluster_bits).unwrap_or(u64::MAX);
        let header_len = header_length(v3.as_ref(), cluster_size)?;
        if to_u64(head.len()) < header_len {
            return Err(truncated());
        }
        let area = Area::new(head, &raw, header_len, cluster_size)?;
        let features = Features::of(v3.as_ref());
        features.check_known(&area)?;
        match raw.crypt_method.get() {
            0 => {}
            1 => return Err(encrypted("AES")),
            2 => return Err(encrypted("LUKS")),
            other => {
                return Err(Error::unsupported(format!(
                    "the image is encrypted by unknown method {other}"
                ))
                .at(32));
            }
        }
        if let Some(order) = v3.as_ref().map(|v3| v3.refcount_order.get())
            && order > 6
        {
            return Err(Error::malformed(format!(
                "reference counts of 2^{order} bits are wider than 64"
            ))
            .at(96));
        }
        let extended_l2 = features.has(incompatible::EXTENDED_L2);
        if extended_l2 && cluster_bits < 14 {
            return Err(Error::malformed(format!(
                "extended L2 entries need clusters of 16 KiB, and these have {cluster_size} bytes"
            ))
            .at(20));
        }
        let external_data = features.has(incompatible::EXTERNAL_DATA);
        let shape = Shape {
            version,
            cluster_bits,
            l2_bits: cluster_bits.saturating_sub(if extended_l2 { 4 } else { 3 }),
            virtual_size: raw.size.get(),
            l1_at: raw.l1_table_offset.get(),
            extended_l2,
            external_data,
        };
        limits.check_virtual_size(shape.virtual_size)?;
        let l1_bytes = check_l1(&shape, raw.l1_size.get())?;
        let extensions = area.extensions()?;
        let codec = compression(head, header_len, &features)?;
        Ok(Self {
            shape,
            codec: if external_data {
                ClusterCodec::None
            } else {
                codec
            },
            features: features.words(raw.nb_snapshots.get() > 0),
            l1_bytes,
            refcounts: refcount_table(&raw, cluster_size),
            backing: area.backing_file(extensions.backing_format)?,
            data_file: data_file(external_data, extensions.data_file)?,
        })
    }

    /// How to read the tables.
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Size of the whole L1 table in bytes, at most 32 MiB.
    pub(super) fn l1_bytes(&self) -> u64 {
        self.l1_bytes
    }

    /// Where the refcount table is; empty if that makes no sense. Who uses which cluster is of no
    /// interest to a reader, but it helps to know that these bytes are not the disk's.
    pub(super) fn refcounts(&self) -> &Range<u64> {
        &self.refcounts
    }

    /// How compressed clusters are decoded.
    pub(super) fn codec(&self) -> ClusterCodec {
        self.codec
    }

    /// Guest bytes of a compressed cluster; 0 if there can be none.
    pub(super) fn compressed_size(&self) -> u64 {
        match self.codec {
            ClusterCodec::None => 0,
            _ => self.shape.cluster_size(),
        }
    }

    /// What the image does not hold is read from there.
    pub(super) fn backing(&self) -> Option<&Reference> {
        self.backing.as_ref()
    }

    /// Clusters are there instead of here.
    pub(super) fn data_file(&self) -> Option<&Reference> {
        self.data_file.as_ref()
    }

    /// What to show.
    pub(super) fn info(&self) -> Info {
        Info {
            format: if self.shape.version == 1 {
                Format::Qcow
            } else {
                Format::Qcow2
            },
            variant: format!("v{}", self.shape.version),
            virtual_size: self.shape.virtual_size,
            cluster_size: Some(self.shape.cluster_size()),
            compression: match self.codec {
                ClusterCodec::None => Compression::None,
                codec => codec.compression(),
            },
            features: self.features.clone(),
            references: self
                .backing
                .iter()
                .chain(&self.data_file)
                .cloned()
                .collect(),
        }
    }
}

/// Which of the two formats starts with `head`; an error unless it is `format`.
fn is_version1(head: &[u8], format: Format) -> Result<bool> {
    let old = version1::is_meant(head);
    if old && format == Format::Qcow2 {
        return Err(Error::unsupported(
            "qcow version 1 is a format of its own: it is read as qcow, not as qcow2",
        )
        .at(4));
    }
    if !head.starts_with(&MAGIC) || old != (format == Format::Qcow) {
        return Err(Error::new(
            ErrorKind::NotThisFormat,
            format!("the file does not start as a {} image does", format.name()),
        ));
    }
    Ok(old)
}

fn truncated() -> Error {
    Error::malformed("the image ends inside its header: it is truncated")
}

fn encrypted(method: &str) -> Error {
    Error::unsupported(format!(
        "the image is encrypted ({method}), which is not read here"
    ))
    .at(32)
}

/// Length of the header proper, extensions not included.
fn header_length(v3: Option<&RawHeaderV3>, cluster_size: u64) -> Result<u64> {
    let Some(v3) = v3 else {
        return Ok(to_u64(size_of::<RawHeader>()));
    };
    let len = u64::from(v3.header_length.get());
    if len < 104 || len > cluster_size {
        return Err(Error::malformed(format!(
            "header length {len} is not between 104 and the cluster size {cluster_size}"
        ))
        .at(100));
    }
    Ok(len)
}

/// Checks where L1 is and that it is long enough; says how long.
fn check_l1(shape: &Shape, entries: u32) -> Result<u64> {
    let bytes = u64::from(entries).saturating_mul(8);
    if bytes > MAX_L1_BYTES {
        return Err(Error::malformed(format!(
            "L1 size too big: a table of {entries} entries is larger than 32 MiB"
        ))
        .at(36));
    }
    if u64::from(entries) < shape.l1_entries() {
        return Err(Error::malformed(format!(
            "L1 table of {entries} entries is too small for {} bytes, which take {}",
            shape.virtual_size,
            shape.l1_entries()
        ))
        .at(36));
    }
    if bytes == 0 {
        return Ok(0);
    }
    if shape.cluster_start(shape.l1_at) != shape.l1_at {
        return Err(Error::malformed(format!(
            "L1 table at {:#x} is no start of a cluster",
            shape.l1_at
        ))
        .at(40));
    }
    if shape.l1_at == 0 {
        return Err(Error::malformed("L1 table is over the header").at(40));
    }
    if shape
        .l1_at
        .checked_add(bytes)
        .is_none_or(|end| end > 1 << 63)
    {
        return Err(Error::malformed("L1 table is out of range").at(40));
    }
    Ok(bytes)
}

fn refcount_table(raw: &RawHeader, cluster_size: u64) -> Range<u64> {
    let at = raw.refcount_table_offset.get();
    let len = u64::from(raw.refcount_table_clusters.get()).saturating_mul(cluster_size);
    let aligned = at & cluster_size.saturating_sub(1) == 0;
    match at.checked_add(len) {
        Some(end) if aligned && at > 0 && len <= MAX_REFCOUNT_BYTES => at..end,
        _ => 0..0,
    }
}

/// The codec that header and feature bits agree on.
fn compression(head: &[u8], header_len: u64, features: &Features) -> Result<ClusterCodec> {
    let declared = match head.get(COMPRESSION_TYPE_AT) {
        Some(&kind) if header_len > to_u64(COMPRESSION_TYPE_AT) => kind,
        _ => 0,
    };
    let bit = features.has(incompatible::COMPRESSION);
    match (declared, bit) {
        (0, false) => Ok(ClusterCodec::Deflate),
        (1, true) => Ok(ClusterCodec::Zstd),
        (0 | 1, _) => Err(Error::malformed(
            "the compression type and its feature bit contradict each other",
        )
        .at(104)),
        (other, _) => {
            Err(Error::unsupported(format!("compression type {other} is unknown here")).at(104))
        }
    }
}

fn data_file(external: bool, name: Option<String>) -> Result<Option<Reference>> {
    match (external, name) {
        (false, _) => Ok(None),
        (true, Some(name)) => Ok(Some(Reference {
            name,
            format: Some("raw".to_owned()),
            kind: ReferenceKind::DataFile,
        })),
        (true, None) => Err(Error::unsupported(
            "the image keeps its data in another file and does not name it",
        )),
    }
}
