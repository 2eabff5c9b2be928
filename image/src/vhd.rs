//! VHD, the image format of Virtual PC and Hyper-V ("Virtual Hard Disk Image Format Specification" 1.0;
//! QEMU calls it `vpc`). Numbers in it are big-endian, sectors have 512 bytes.
//!
//! ```text
//! fixed:         the disk's bytes                                              | footer
//! dynamic:       footer | header | BAT: a u32 sector per block, or 0xFFFFFFFF
//! differencing:                      -> sector bitmap | block of 2 MiB ...      | footer
//! ```
//! - The **footer** at the end has a copy in front, except in fixed disks. Either does, if its checksum
//!   is right. `footer` has the table of which is believed when both are there.
//! - **The size** is the footer's current size or its geometry, depending on who made the image, as in
//!   QEMU; [`SizeRule`] forces either.
//! - **Sector bitmaps** are looked at in differencing disks only, where a clear bit means the parent.
//!   In dynamic disks every sector of a block that is there is read, as QEMU does.
//! - **Parents** open through the gate only, and not at all from a stream. They are VHDs, and have the
//!   unique ID that the child remembers. QEMU reads a differencing disk without its parent; here that
//!   is refused.
//! - **Fixed disks** in a stream are known by their end only: see `fixed` and
//!   `docs/decisions/0011-fixed-vhd-probing.md`.
//!
//! Every block has to lie in the file as a whole, and not over the tables. Unknown types and versions are
//! refused by name. Saved states are ignored.

mod extents;
mod fixed;
mod footer;
mod forward;
mod header;
mod image;
mod parent;

use std::sync::Arc;

use crate::forward::{Decoder, Options};
use crate::{Format, Image, Info, Limits, OpenGate, ReadAt, Result};

pub(crate) use self::footer::{LEN as FOOTER_LEN, marks_fixed_disk};

/// Sectors of everything in a VHD.
const SECTOR: u64 = 512;

/// Which of its two sizes the disk of a VHD has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SizeRule {
    /// As QEMU (since 10.0) decides by who made the image: the geometry for Virtual PC (`vpc `) and for
    /// QEMU without `force_size` (`qemu`), the current size for everybody else: Hyper-V (`win `, `vs  `),
    /// disk2vhd (`d2v `), `VirtualBox` (`vbox`), QEMU with `force_size` (`qem2`), `XenServer` (`tap`),
    /// `XenConverter` (`CTXS`), Azure (`wa`), and whoever comes next.
    #[default]
    Creator,
    /// Cylinders x heads x sectors. The largest geometry of all stands for "larger than that", and means
    /// the current size, here as in QEMU.
    Geometry,
    /// The current size of the footer.
    CurrentSize,
}

impl SizeRule {
    /// What follows `vhd` (or `vpc`) in a name of a format.
    pub(crate) fn from_suffix(suffix: &str) -> Option<Self> {
        match suffix {
            "" => Some(Self::Creator),
            ":chs" => Some(Self::Geometry),
            ":current-size" => Some(Self::CurrentSize),
            _ => None,
        }
    }
}

/// Opens a VHD for random access, and through `gate` its parents.
pub fn open(
    file: Arc<dyn ReadAt>,
    gate: &dyn OpenGate,
    limits: &Limits,
    rule: SizeRule,
) -> Result<Arc<dyn Image>> {
    image::open(file, gate, limits, rule)
}

/// A forward decoder for a VHD stream.
pub fn decoder(options: Options, rule: SizeRule) -> Result<Box<dyn Decoder>> {
    Ok(Box::new(forward::Forward::new(options, rule)))
}

/// A forward decoder for a stream whose beginning said nothing: a fixed VHD if its end says so, else raw.
pub fn raw_or_fixed(options: &Options) -> Box<dyn Decoder> {
    Box::new(fixed::Fixed::probing(options.stream_len))
}

/// What to show of an image with this footer.
fn info(footer: &footer::Footer, variant: &str, cluster_size: Option<u64>) -> Info {
    Info {
        format: Format::Vhd(SizeRule::Creator),
        variant: variant.to_owned(),
        virtual_size: footer.size(),
        cluster_size,
        compression: crate::Compression::None,
        features: footer.features(),
        references: Vec::new(),
    }
}
