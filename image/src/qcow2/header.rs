//! The header of a qcow2 image, validated: what both ways of reading agree on.

use std::ops::Range;

use zerocopy::FromBytes;

use super::layout::{
    COMPRESSION_TYPE_AT, MAGIC, RawExtension, RawFeatureName, RawHeader, RawHeaderV3, autoclear,
    compatible, extension, incompatible,
};
use super::map::Shape;
use crate::cluster::ClusterCodec;
use crate::num::{to_u64, to_usize};
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

/// Longest name of a backing or data file, in bytes.
const MAX_NAME: u64 = 1023;

/// Longest name of a backing format, in bytes.
const MAX_FORMAT_NAME: usize = 15;

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
    pub(super) fn parse(head: &[u8], limits: &Limits) -> Result<Self> {
        if !head.starts_with(&MAGIC) {
            return Err(Error::new(
                ErrorKind::NotThisFormat,
                "the file does not start as a qcow2 image does",
            ));
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
            format: Format::Qcow2,
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
            "L1 table of {entries} entries is larger than 32 MiB"
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

/// Feature bits; none before version 3.
#[derive(Debug)]
struct Features {
    incompatible: u64,
    compatible: u64,
    autoclear: u64,
}

impl Features {
    fn of(v3: Option<&RawHeaderV3>) -> Self {
        Self {
            incompatible: v3.map_or(0, |v3| v3.incompatible_features.get()),
            compatible: v3.map_or(0, |v3| v3.compatible_features.get()),
            autoclear: v3.map_or(0, |v3| v3.autoclear_features.get()),
        }
    }

    fn has(&self, bit: u64) -> bool {
        self.incompatible & bit != 0
    }

    /// Refuses what would be read wrongly, by name.
    fn check_known(&self, area: &Area<'_>) -> Result<()> {
        let unknown = self.incompatible & !incompatible::KNOWN;
        if unknown != 0 {
            let names: Vec<String> = (0..64_u8)
                .filter(|&bit| unknown.checked_shr(u32::from(bit)).unwrap_or(0) & 1 != 0)
                .map(|bit| match area.feature_name(bit) {
                    Some(name) => format!("bit {bit} {name:?}"),
                    None => format!("bit {bit}"),
                })
                .collect();
            return Err(Error::unsupported(format!(
                "the image needs features that are unknown here: {}",
                names.join(", ")
            ))
            .at(72));
        }
        if self.has(incompatible::CORRUPT) {
            return Err(Error::unsupported(
                "the image is marked as corrupt: repair it with `qemu-img check -r all`",
            )
            .at(72));
        }
        Ok(())
    }

    fn words(&self, snapshots: bool) -> Vec<String> {
        [
            (self.has(incompatible::DIRTY), "dirty"),
            (self.has(incompatible::EXTERNAL_DATA), "external data file"),
            (self.has(incompatible::EXTENDED_L2), "extended l2"),
            (
                self.compatible & compatible::LAZY_REFCOUNTS != 0,
                "lazy refcounts",
            ),
            (self.autoclear & autoclear::BITMAPS != 0, "bitmaps"),
            (
                self.autoclear & autoclear::RAW_EXTERNAL_DATA != 0,
                "raw external data",
            ),
            (snapshots, "internal snapshots"),
        ]
        .into_iter()
        .filter(|(there, _)| *there)
        .map(|(_, word)| word.to_owned())
        .collect()
    }
}

/// What the extensions say, as far as it matters.
#[derive(Debug, Default)]
struct Extensions {
    backing_format: Option<String>,
    data_file: Option<String>,
}

/// The first cluster: extensions, and behind them the name of the backing file.
#[derive(Debug)]
struct Area<'a> {
    head: &'a [u8],
    /// Where extensions start and must end.
    start: u64,
    end: u64,
    backing_at: u64,
    backing_len: u64,
    cluster_size: u64,
}

impl<'a> Area<'a> {
    fn new(head: &'a [u8], raw: &RawHeader, header_len: u64, cluster_size: u64) -> Result<Self> {
        let backing_at = raw.backing_file_offset.get();
        let backing_len = u64::from(raw.backing_file_size.get());
        if backing_at != 0 {
            let end = backing_at.checked_add(backing_len);
            if backing_at < header_len || end.is_none_or(|end| end > cluster_size) {
                return Err(Error::malformed(format!(
                    "name of the backing file at {backing_at:#x} is not between header and end of the first cluster"
                ))
                .at(8));
            }
            if backing_len > MAX_NAME {
                return Err(Error::malformed(format!(
                    "name of the backing file has {backing_len} bytes, more than {MAX_NAME}"
                ))
                .at(16));
            }
        }
        Ok(Self {
            head,
            start: header_len,
            end: if backing_at == 0 {
                cluster_size
            } else {
                backing_at
            },
            backing_at,
            backing_len,
            cluster_size,
        })
    }

    fn bytes(&self, at: u64, len: u64) -> Result<&'a [u8]> {
        self.head
            .get(to_usize(at)..to_usize(at.saturating_add(len)))
            .ok_or_else(|| {
                if self.head.len() < HEAD_LEN || self.cluster_size <= to_u64(HEAD_LEN) {
                    truncated()
                } else {
                    Error::unsupported("the header is longer than 64 KiB").at(at)
                }
            })
    }

    /// Walks the extensions until `visit` had enough (it says false) or they end.
    fn walk(&self, mut visit: impl FnMut(u32, &'a [u8], u64) -> Result<bool>) -> Result<()> {
        let mut at = self.start;
        while at.saturating_add(8) <= self.end {
            let (raw, _) =
                RawExtension::read_from_prefix(self.bytes(at, 8)?).map_err(|_| truncated())?;
            let len = u64::from(raw.len.get());
            if raw.kind.get() == extension::END {
                return Ok(());
            }
            let data_at = at.saturating_add(8);
            if len > self.end.saturating_sub(data_at) {
                return Err(Error::malformed(format!(
                    "header extension {:#x} of {len} bytes reaches past the header",
                    raw.kind.get()
                ))
                .at(at));
            }
            if !visit(raw.kind.get(), self.bytes(data_at, len)?, data_at)? {
                return Ok(());
            }
            at = data_at.saturating_add(len.div_ceil(8).saturating_mul(8));
        }
        Ok(())
    }

    fn extensions(&self) -> Result<Extensions> {
        let mut found = Extensions::default();
        self.walk(|kind, data, at| {
            match kind {
                extension::BACKING_FORMAT => {
                    if data.len() > MAX_FORMAT_NAME {
                        return Err(Error::malformed(format!(
                            "name of the backing format has {} bytes",
                            data.len()
                        ))
                        .at(at));
                    }
                    found.backing_format = Some(name(data, "name of the backing format", at)?);
                }
                extension::DATA_FILE => {
                    if to_u64(data.len()) > MAX_NAME {
                        return Err(Error::malformed(format!(
                            "name of the data file has {} bytes, more than {MAX_NAME}",
                            data.len()
                        ))
                        .at(at));
                    }
                    found.data_file = Some(name(data, "name of the data file", at)?);
                }
                _ => {}
            }
            Ok(true)
        })?;
        Ok(found)
    }

    /// What the image itself calls incompatible feature `bit`.
    fn feature_name(&self, bit: u8) -> Option<String> {
        let mut found = None;
        // The image is refused anyway: damage on the way to a name does not matter.
        let _: Result<()> = self.walk(|kind, data, _| {
            if kind == extension::FEATURE_NAMES {
                let (entries, _) = data.as_chunks::<{ size_of::<RawFeatureName>() }>();
                found = entries
                    .iter()
                    .filter_map(|entry| RawFeatureName::read_from_bytes(entry).ok())
                    .find(|entry| entry.kind == 0 && entry.bit == bit)
                    .map(|entry| String::from_utf8_lossy(until_nul(&entry.name)).into_owned());
            }
            Ok(found.is_none())
        });
        found
    }

    fn backing_file(&self, format: Option<String>) -> Result<Option<Reference>> {
        if self.backing_at == 0 || self.backing_len == 0 {
            return Ok(None);
        }
        let bytes = self.bytes(self.backing_at, self.backing_len)?;
        Ok(Some(Reference {
            name: name(bytes, "name of the backing file", self.backing_at)?,
            format,
            kind: ReferenceKind::Backing,
        }))
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

/// A name as QEMU takes it: up to the first NUL. One that is not UTF-8 would be shown and opened as
/// something else.
fn name(bytes: &[u8], what: &'static str, at: u64) -> Result<String> {
    let name = std::str::from_utf8(until_nul(bytes))
        .map_err(|_| Error::unsupported(format!("{what} is not UTF-8")).at(at))?;
    Ok(name.to_owned())
}
