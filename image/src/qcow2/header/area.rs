//! The rest of the header cluster: extensions, and names of other files.

use zerocopy::FromBytes;

use super::{HEAD_LEN, truncated};
use crate::num::{to_u64, to_usize};
use crate::qcow2::layout::{RawExtension, RawFeatureName, RawHeader, extension};
use crate::{Error, Reference, ReferenceKind, Result};

/// Longest name of a backing or data file, in bytes.
const MAX_NAME: u64 = 1023;

/// Longest name of a backing format, in bytes.
const MAX_FORMAT_NAME: usize = 15;

/// What the extensions say, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) backing_format: Option<String>,
    pub(super) data_file: Option<String>,
}

/// The first cluster: extensions, and behind them the name of the backing file.
#[derive(Debug)]
pub(super) struct Area<'a> {
    head: &'a [u8],
    /// Where extensions start and must end.
    start: u64,
    end: u64,
    backing_at: u64,
    backing_len: u64,
    cluster_size: u64,
}

impl<'a> Area<'a> {
    pub(super) fn new(
        head: &'a [u8],
        raw: &RawHeader,
        header_len: u64,
        cluster_size: u64,
    ) -> Result<Self> {
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

    pub(super) fn extensions(&self) -> Result<Extensions> {
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
    pub(super) fn feature_name(&self, bit: u8) -> Option<String> {
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

    pub(super) fn backing_file(&self, format: Option<String>) -> Result<Option<Reference>> {
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
pub(super) fn name(bytes: &[u8], what: &'static str, at: u64) -> Result<String> {
    let name = std::str::from_utf8(until_nul(bytes))
        .map_err(|_| Error::unsupported(format!("{what} is not UTF-8")).at(at))?;
    Ok(name.to_owned())
}
