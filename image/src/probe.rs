//! What a stream or file is, from its first bytes.
//!
//! Probing is a separate step on purpose: whoever opens an image names its format, and decides whether
//! the name came from a person or from content that a guest may have written.

use crate::Format;
use crate::vhd::SizeRule;

/// How many bytes from the start [`probe`] wants to see (fewer at the end of shorter input).
pub const PROBE_LEN: usize = 512;

/// How many bytes from the end [`probe_tail`] wants to see (fewer of shorter input).
pub const TAIL_LEN: usize = crate::vhd::FOOTER_LEN;

/// A compressed stream around something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wrapper {
    /// gzip, one or more members.
    Gzip,
    /// xz, one or more streams.
    Xz,
    /// zstd, one or more frames.
    Zstd,
    /// bzip2, one or more streams.
    Bzip2,
}

impl Wrapper {
    /// The usual suffix without its dot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Xz => "xz",
            Self::Zstd => "zst",
            Self::Bzip2 => "bz2",
        }
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Probe {
    /// A compressed stream.
    Wrapper(Wrapper),
    /// A disk image; anything unknown is raw.
    Image(Format),
    /// A known disk image format that is not read here.
    Unsupported(&'static str),
}

/// Recognises what starts with `head`.
pub fn probe(head: &[u8]) -> Probe {
    const MAGICS: &[(&[u8], usize, Probe)] = &[
        (b"\x1f\x8b\x08", 0, Probe::Wrapper(Wrapper::Gzip)),
        (b"\xfd7zXZ\0", 0, Probe::Wrapper(Wrapper::Xz)),
        (b"\x28\xb5\x2f\xfd", 0, Probe::Wrapper(Wrapper::Zstd)),
        (b"QFI\xfb\0\0\0\x01", 0, Probe::Image(Format::Qcow)),
        (b"QFI\xfb", 0, Probe::Image(Format::Qcow2)),
        (b"vhdxfile", 0, Probe::Image(Format::Vhdx)),
        (b"conectix", 0, Probe::Image(Format::Vhd(SizeRule::Creator))),
        (b"\x7f\x10\xda\xbe", 64, Probe::Image(Format::Vdi)),
        (b"WithoutFreeSpace", 0, Probe::Image(Format::Parallels)),
        (b"WithouFreSpacExt", 0, Probe::Image(Format::Parallels)),
        (b"QED\0", 0, Probe::Unsupported("qed")),
    ];
    for &(magic, at, found) in MAGICS {
        if head.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
            return found;
        }
    }
    // Sparse extents of three kinds, and descriptors, which are text.
    if crate::vmdk::is_one(head) {
        return Probe::Image(Format::Vmdk);
    }
    // zstd also has skippable frames, which pzstd and others put first.
    if let Some(&[0x50..=0x5f, 0x2a, 0x4d, 0x18]) = head.first_chunk::<4>() {
        return Probe::Wrapper(Wrapper::Zstd);
    }
    // "BZh" alone is a plausible text: ask for the block or end-of-stream mark behind the level too.
    if head.starts_with(b"BZh")
        && head
            .get(3)
            .is_some_and(|level| (b'1'..=b'9').contains(level))
        && head.get(4..10).is_some_and(|mark| {
            mark == [0x31, 0x41, 0x59, 0x26, 0x53, 0x59]
                || mark == [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]
        })
    {
        return Probe::Wrapper(Wrapper::Bzip2);
    }
    Probe::Image(Format::Raw)
}

/// Recognises what ends with `tail` and is `len` bytes long. For what [`probe`] calls raw: a fixed VHD is
/// marked nowhere but at its end. `docs/decisions/0011-fixed-vhd-probing.md` says what is asked of the
/// mark, and why.
pub fn probe_tail(tail: &[u8], len: u64) -> Option<Format> {
    crate::vhd::marks_fixed_disk(tail, len).then_some(Format::Vhd(SizeRule::Creator))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_raw_however_short() {
        for head in [
            &b""[..],
            b"Q",
            b"BZh9",
            b"\x1f\x8b",
            &[0; 512],
            b"BZhello world",
        ] {
            assert_eq!(probe(head), Probe::Image(Format::Raw), "{head:?}");
        }
    }

    #[test]
    fn every_wrapper_and_image_is_known_by_its_magic() {
        assert_eq!(probe(b"QFI\xfb\0\0\0\x03"), Probe::Image(Format::Qcow2));
        assert_eq!(probe(b"QFI\xfb\0\0\0\x01"), Probe::Image(Format::Qcow));
        assert_eq!(probe(b"WithouFreSpacExt"), Probe::Image(Format::Parallels));
        assert_eq!(probe(b"KDMV\x03\0\0\0"), Probe::Image(Format::Vmdk));
        assert_eq!(probe(b"\x1f\x8b\x08\0"), Probe::Wrapper(Wrapper::Gzip));
        assert_eq!(probe(b"\xfd7zXZ\0\0"), Probe::Wrapper(Wrapper::Xz));
        assert_eq!(
            probe(b"\x28\xb5\x2f\xfd\x04"),
            Probe::Wrapper(Wrapper::Zstd)
        );
        assert_eq!(
            probe(b"\x51\x2a\x4d\x18\x04"),
            Probe::Wrapper(Wrapper::Zstd)
        );
        assert_eq!(probe(b"BZh91AY&SY"), Probe::Wrapper(Wrapper::Bzip2));
        assert_eq!(probe(b"vhdxfile"), Probe::Image(Format::Vhdx));
    }
}
