//! An image opened for random access.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use crate::cluster::ClusterCodec;
use crate::{Extents, Limits, OpenGate, ReadAt, Result};

/// A disk image format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The disk's bytes, as they are.
    Raw,
    /// QEMU copy-on-write, version 2 or 3.
    Qcow2,
    /// QEMU copy-on-write, version 1.
    Qcow,
    /// VMware virtual disk.
    Vmdk,
    /// Microsoft Virtual Hard Disk, which QEMU calls `vpc`.
    Vhd(crate::vhd::SizeRule),
    /// `VirtualBox` disk image.
    Vdi,
    /// Parallels expandable disk.
    Parallels,
    /// Hyper-V virtual disk, version 2.
    Vhdx,
}

impl Format {
    /// The name as our command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qcow => "qcow",
            Self::Vmdk => "vmdk",
            Self::Vhd(_) => "vhd",
            Self::Vdi => "vdi",
            Self::Parallels => "parallels",
            Self::Vhdx => "vhdx",
        }
    }

    /// The name as `qemu-img` spells it.
    pub(crate) fn qemu_name(self) -> &'static str {
        match self {
            Self::Vhd(_) => "vpc",
            other => other.name(),
        }
    }

    /// The format of that name, which may be QEMU's. `vhd:chs` and `vhd:current-size` are VHDs whose size
    /// goes by one of the two.
    pub fn from_name(name: &str) -> Option<Self> {
        let vhd = ["vhd", "vpc"].iter().find_map(|vhd| name.strip_prefix(vhd));
        if let Some(suffix) = vhd
            && let Some(rule) = crate::vhd::SizeRule::from_suffix(suffix)
        {
            return Some(Self::Vhd(rule));
        }
        [
            Self::Raw,
            Self::Qcow2,
            Self::Qcow,
            Self::Vmdk,
            Self::Vdi,
            Self::Parallels,
            Self::Vhdx,
        ]
        .into_iter()
        .find(|f| f.name() == name)
    }
}

/// How an image's data is compressed, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// The format, or this image, has no compressed clusters.
    None,
    /// zlib or raw deflate.
    Zlib,
    /// zstd.
    Zstd,
}

/// What `longshore info` shows of an image beyond its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Format.
    pub format: Format,
    /// Version or variant, such as `v3` or `streamOptimized`.
    pub variant: String,
    /// Size of the guest's disk in bytes.
    pub virtual_size: u64,
    /// Bytes per cluster, grain or block; `None` for raw.
    pub cluster_size: Option<u64>,
    /// How compressed clusters are compressed, were there any.
    pub compression: Compression,
    /// Features in the words of the format's specification, such as `extended l2`, `lazy refcounts`.
    pub features: Vec<String>,
    /// Other files the image refers to: backing file, data file.
    pub references: Vec<crate::Reference>,
}

/// One image file opened for random access. Its parent, if any, is another [`Image`]: see
/// [`crate::chain::Chain`] for the two together.
pub trait Image: Send + Sync + Debug {
    /// Size of the guest's disk in bytes.
    fn virtual_size(&self) -> u64;

    /// What to show of it.
    fn info(&self) -> Info;

    /// Most guest bytes that one compressed extent covers, in bytes; 0 if there are none.
    fn cluster_size(&self) -> u64 {
        0
    }

    /// How [`crate::ExtentKind::Compressed`] is decoded.
    fn cluster_codec(&self) -> ClusterCodec {
        ClusterCodec::None
    }

    /// Where the `at` of extents points into.
    fn data(&self) -> &Arc<dyn ReadAt>;

    /// Extents of `range`, which is cut to the disk. A compressed cluster at the start of the range
    /// is yielded whole, so the first extent may begin before `range.start`. Tables are read as the
    /// walk gets to them, in bounded slices.
    fn extents(&self, range: Range<u64>) -> Extents<'_>;

    /// Going through all of it in order with a [`crate::forward::Decoder`] costs no more than its tables
    /// do, and finds what they can't show: a VMDK stream that has grains twice, elsewhere, or in no table.
    fn best_read_forward(&self) -> bool {
        false
    }

    /// The image that [`crate::ExtentKind::Parent`] refers to.
    fn parent(&self) -> Option<&Arc<dyn Image>> {
        None
    }
}

/// Opens `file` as `format` for random access. `gate` decides about other files it names.
pub fn open(
    format: Format,
    file: Arc<dyn ReadAt>,
    gate: &dyn OpenGate,
    limits: &Limits,
) -> Result<Arc<dyn Image>> {
    match format {
        Format::Raw => Ok(Arc::new(crate::raw::Raw::open(file, limits)?)),
        Format::Qcow2 => crate::qcow2::open(file, gate, limits),
        Format::Qcow => crate::qcow2::open_version1(file, gate, limits),
        Format::Vmdk => crate::vmdk::open(file, gate, limits),
        Format::Vhd(rule) => crate::vhd::open(file, gate, limits, rule),
        Format::Vdi => crate::vdi::open(file, limits),
        Format::Parallels => crate::parallels::open(file, limits),
        Format::Vhdx => crate::vhdx::open(file, gate, limits),
    }
}

/// The extents of `image` over its whole disk, as a list. For tests and small images.
pub fn all_extents(image: &dyn Image) -> Result<Vec<crate::Extent>> {
    image.extents(0..image.virtual_size()).collect()
}
