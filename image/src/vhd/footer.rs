//! The footer and its copy: which one is believed, and what it says.
//!
//! With random access both ends are looked at:
//!
//! | in front | at the end | the image is |
//! |---|---|---|
//! | a good dynamic or differencing footer | anything but the next | what the front says |
//! | the same | a good fixed footer that accounts for the whole file | refused: a guest may have written the front |
//! | a fixed or impossible one with the right checksum | a good footer, not a fixed one | refused |
//! | anything else | a good footer | what the end says |
//! | anything else | none | refused |
//!
//! A good footer has the cookie and the right checksum. Virtual PC before 2004 wrote 511 bytes of it.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{SECTOR, SizeRule};
use crate::num::to_u64;
use crate::{Error, ErrorKind, Result};

/// Bytes of a footer.
pub(crate) const LEN: usize = 512;
/// Bytes of a footer of old versions of Virtual PC: the last, reserved, byte is missing.
const OLD_LEN: usize = 511;

const COOKIE: [u8; 8] = *b"conectix";

/// Most sectors a VHD may have: 2040 GiB.
const MAX_SECTORS: u64 = 0xff00_0000;

/// The geometry that stands for "too large for a geometry".
const MAX_GEOMETRY: u64 = 65_535 * 16 * 255;

/// Whose images are as large as their geometry: Virtual PC, and QEMU without `force_size`.
const BY_GEOMETRY: [[u8; 4]; 2] = [*b"vpc ", *b"qemu"];

/// "Hard Disk Footer Format".
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFooter {
    cookie: [u8; 8],
    features: U32,
    version: U32,
    data_offset: U64,
    timestamp: U32,
    creator: [u8; 4],
    creator_version: U32,
    creator_os: [u8; 4],
    original_size: U64,
    current_size: U64,
    cylinders: U16,
    heads: u8,
    sectors: u8,
    kind: U32,
    checksum: U32,
    unique_id: [u8; 16],
    saved_state: u8,
    reserved: [u8; 427],
}

const _: () = assert!(size_of::<RawFooter>() == LEN);

/// Offset of `checksum`.
const CHECKSUM_AT: usize = 64;

/// What kind of disk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed,
    Dynamic,
    Differencing,
}

/// A good footer.
#[derive(Debug, Clone)]
pub(super) struct Footer {
    kind: Kind,
    size: u64,
    current_size: u64,
    by_geometry: bool,
    creator: [u8; 4],
    data_offset: u64,
    unique_id: [u8; 16],
}

impl Footer {
    /// Checks the footer in `bytes`, which are 512 or 511.
    pub(super) fn parse(bytes: &[u8], rule: SizeRule) -> Result<Self> {
        let mut whole = [0; LEN];
        for (to, from) in whole.iter_mut().zip(bytes) {
            *to = *from;
        }
        let raw = RawFooter::read_from_bytes(&whole).map_err(|_| not_this())?;
        if raw.cookie != COOKIE {
            return Err(not_this());
        }
        if checksum(&whole, CHECKSUM_AT) != raw.checksum.get() {
            return Err(Error::malformed(
                "the checksum of the VHD's footer is wrong: it is damaged",
            ));
        }
        if raw.version.get() >> 16 != 1 {
            return Err(Error::unsupported(format!(
                "VHD version {}.{} is not known",
                raw.version.get() >> 16,
                raw.version.get() & 0xffff
            )));
        }
        let kind = match raw.kind.get() {
            2 => Kind::Fixed,
            3 => Kind::Dynamic,
            4 => Kind::Differencing,
            other => {
                return Err(Error::unsupported(format!("VHD type {other} is not known")));
            }
        };
        let geometry = u64::from(raw.cylinders.get())
            .saturating_mul(u64::from(raw.heads))
            .saturating_mul(u64::from(raw.sectors));
        let by_geometry = geometry != MAX_GEOMETRY
            && match rule {
                SizeRule::Creator => BY_GEOMETRY.contains(&raw.creator),
                SizeRule::Geometry => true,
                SizeRule::CurrentSize => false,
            };
        let current_size = raw.current_size.get();
        let sectors = if by_geometry {
            geometry
        } else {
            current_size / SECTOR
        };
        if sectors > MAX_SECTORS {
            return Err(Error::malformed(format!(
                "a disk of {sectors} sectors is larger than a VHD can be"
            )));
        }
        Ok(Self {
            kind,
            size: sectors.saturating_mul(SECTOR),
            current_size,
            by_geometry,
            creator: raw.creator,
            data_offset: raw.data_offset.get(),
            unique_id: raw.unique_id,
        })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Size of the disk in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Offset of the header of a disk that is not fixed.
    pub(super) fn data_offset(&self) -> u64 {
        self.data_offset
    }

    pub(super) fn unique_id(&self) -> [u8; 16] {
        self.unique_id
    }

    /// A fixed disk whose data and footer, of `footer_len` bytes, are a file of `len` bytes exactly.
    fn accounts_for(&self, footer_len: u64, len: u64) -> bool {
        self.kind == Kind::Fixed && self.current_size.checked_add(footer_len) == Some(len)
    }

    /// What to tell people about it.
    pub(super) fn features(&self) -> Vec<String> {
        let creator = String::from_utf8_lossy(&self.creator);
        let creator = creator.trim_end_matches(['\0', ' ']);
        let mut features = vec![format!("creator {creator:?}")];
        if self.by_geometry {
            features.push(format!(
                "size by geometry (current size {})",
                self.current_size
            ));
        } else {
            features.push("size by current size".to_owned());
        }
        features
    }
}

/// The first 512 bytes are a footer with the right checksum, whatever it says.
fn is_sealed(bytes: &[u8]) -> bool {
    let stored = bytes
        .get(CHECKSUM_AT..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map(|stored| u32::from_be_bytes(*stored));
    bytes.starts_with(&COOKIE)
        && bytes.get(..LEN).map(|whole| checksum(whole, CHECKSUM_AT)) == stored
}

/// One's complement of the sum of all bytes but the checksum's own.
pub(super) fn checksum(bytes: &[u8], checksum_at: usize) -> u32 {
    let own = checksum_at..checksum_at.saturating_add(4);
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| !own.contains(at))
        .fold(0_u32, |sum, (_, &byte)| sum.wrapping_add(u32::from(byte)));
    !sum
}

fn not_this() -> Error {
    Error::new(
        ErrorKind::NotThisFormat,
        "this is not a VHD: no footer is at its end, and no copy of one in front",
    )
}

/// The footer at the end, and how long it is.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) footer: Footer,
    pub(super) len: u64,
}

impl End {
    /// Looks for it in `tail`, the last 512 bytes or all there are.
    pub(super) fn find(tail: &[u8], rule: SizeRule) -> Result<Self> {
        let mut found = Err(not_this());
        for len in [LEN, OLD_LEN] {
            let Some(bytes) = tail.len().checked_sub(len).and_then(|at| tail.get(at..)) else {
                continue;
            };
            if !bytes.starts_with(&COOKIE) {
                continue;
            }
            found = Footer::parse(bytes, rule).map(|footer| Self {
                footer,
                len: to_u64(len),
            });
            if found.is_ok() {
                break;
            }
        }
        found
    }

    /// It belongs to a fixed disk that is the whole file of `len` bytes.
    pub(super) fn is_fixed_disk(&self, len: u64) -> bool {
        self.footer.accounts_for(self.len, len)
    }

    /// Checks that it can be the end of a fixed disk in a file of `len` bytes.
    pub(super) fn check_fixed(&self, len: u64) -> Result<()> {
        let data = len.saturating_sub(self.len);
        if self.footer.size > data {
            let remedy = if self.footer.by_geometry && self.footer.current_size <= data {
                "; `--from vhd:current-size` goes by the size instead"
            } else {
                ""
            };
            return Err(Error::malformed(format!(
                "a fixed disk of {} bytes in {data} bytes of data: the VHD is damaged{remedy}",
                self.footer.size
            ))
            .at(data));
        }
        Ok(())
    }
}

/// What an image is, by both of its ends.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// A fixed disk, by the footer at its end.
    Fixed(Footer),
    /// A disk with a header and tables.
    Mapped(Footer),
}

/// A good footer in front of a disk with tables. The front of a fixed disk is the guest's.
pub(super) fn in_front(front: &[u8], rule: SizeRule) -> Option<Footer> {
    let front = front.get(..LEN)?;
    Footer::parse(front, rule)
        .ok()
        .filter(|footer| footer.kind != Kind::Fixed)
}

/// Decides by the first and the last 512 bytes of a file of `len` bytes: see the module.
pub(super) fn choose(front: &[u8], tail: &[u8], len: u64, rule: SizeRule) -> Result<Found> {
    let end = End::find(tail, rule);
    if let Some(footer) = in_front(front, rule) {
        check_agree(end.as_ref().ok(), len)?;
        return Ok(Found::Mapped(footer));
    }
    match end {
        Ok(end) if end.footer.kind == Kind::Fixed => {
            end.check_fixed(len)?;
            Ok(Found::Fixed(end.footer))
        }
        Ok(end) => match front.get(..LEN).map(|front| Footer::parse(front, rule)) {
            // The front is not damaged: it says something else.
            Some(Err(e)) if is_sealed(front) => Err(e),
            Some(Ok(_)) => Err(Error::malformed(
                "the footer in front of this VHD says that it is a fixed disk, the one at its end says that \
                 it is not: it is damaged",
            )),
            _ => Ok(Found::Mapped(end.footer)),
        },
        // What is wrong with the front is the better answer where there is one.
        Err(e) => match front.get(..LEN).map(|front| Footer::parse(front, rule)) {
            Some(Err(front)) if front.kind() != ErrorKind::NotThisFormat => Err(front),
            Some(Ok(_)) => Err(Error::malformed(
                "there is no footer at the end of this fixed VHD: it is truncated",
            )),
            _ => Err(e),
        },
    }
}

/// The front of the file is that of a disk with tables; its end must not be that of a fixed disk.
pub(super) fn check_agree(end: Option<&End>, len: u64) -> Result<()> {
    if end.is_some_and(|end| end.is_fixed_disk(len)) {
        return Err(Error::malformed(
            "the footer at the end says that this VHD is a fixed disk, its first sector says that it is \
             not: a guest may have written that sector, so neither is believed; `--from raw` takes the \
             bytes as they are, the footer included",
        ));
    }
    Ok(())
}

/// True if `tail`, the last 512 bytes of a file of `len` bytes, marks a fixed disk that is the whole
/// file.
pub(crate) fn marks_fixed_disk(tail: &[u8], len: u64) -> bool {
    End::find(tail, SizeRule::Creator).is_ok_and(|end| end.is_fixed_disk(len))
}
