//! The parent locator: keys and values in UTF-16 that say where the parent is, and which one it was.

use zerocopy::FromBytes;

use super::layout::{Guid, LOCATOR_VHDX, RawLocator, RawLocatorEntry};
use crate::num::to_usize;
use crate::{Error, Reference, ReferenceKind, Result};

/// Most entries that are looked at; five are known.
const MAX_ENTRIES: usize = 64;

/// What a child knows of its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Locator {
    /// What the parent's `DataWriteGuid` may be.
    linkage: Vec<Guid>,
    /// Where the parent may be, the likeliest first, with `/` between names.
    paths: Vec<String>,
}

impl Locator {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let Ok((header, rest)) = RawLocator::ref_from_prefix(bytes) else {
            return Err(Error::malformed("the parent locator is cut"));
        };
        if header.locator_type != LOCATOR_VHDX {
            return Err(Error::unsupported(format!(
                "the parent is found by a locator of type {{{}}}, which is not known",
                header.locator_type
            )));
        }
        let mut linkage = Vec::new();
        let (mut relative, mut volume, mut absolute) = (None, None, None);
        let count = usize::from(header.key_value_count.get());
        for entry in rest
            .chunks_exact(size_of::<RawLocatorEntry>())
            .take(count.min(MAX_ENTRIES))
        {
            let Ok(entry) = RawLocatorEntry::ref_from_bytes(entry) else {
                break;
            };
            let key = text(bytes, entry.key_offset.get(), entry.key_length.get())?;
            let value = text(bytes, entry.value_offset.get(), entry.value_length.get())?;
            match key.as_str() {
                "parent_linkage" | "parent_linkage2" => {
                    let guid = Guid::parse(&value).ok_or_else(|| {
                        Error::malformed(format!(
                            "{key} of the parent locator is no identifier: {value:?}"
                        ))
                    })?;
                    linkage.push(guid);
                }
                "relative_path" => relative = Some(value.replace('\\', "/")),
                "volume_path" => volume = file_name(&value),
                "absolute_win32_path" => absolute = file_name(&value),
                _ => {}
            }
        }
        if linkage.is_empty() {
            return Err(Error::malformed(
                "the parent locator does not say which parent it means (parent_linkage)",
            ));
        }
        let mut paths: Vec<String> = Vec::new();
        for path in [relative, volume, absolute].into_iter().flatten() {
            if !path.is_empty() && !paths.contains(&path) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(Error::malformed(
                "the parent locator does not say where the parent is",
            ));
        }
        Ok(Self { linkage, paths })
    }

    /// Files that may be the parent, in the order in which to try them. Drives and volumes of Windows are
    /// nowhere here: of an absolute path only the name is left, beside the image.
    pub(super) fn references(&self) -> impl Iterator<Item = Reference> + '_ {
        self.paths.iter().map(|path| Reference {
            name: path.clone(),
            format: Some("vhdx".to_owned()),
            kind: ReferenceKind::Backing,
        })
    }

    /// Refuses a parent that is another, or was written to since.
    pub(super) fn check(&self, found: Guid) -> Result<()> {
        if self.linkage.contains(&found) {
            return Ok(());
        }
        let wanted: Vec<String> = self.linkage.iter().map(Guid::to_string).collect();
        Err(Error::malformed(format!(
            "the parent image is another one, or has changed since: its data is {found} instead of {}",
            wanted.join(" or ")
        )))
    }
}

/// The last name of a path of Windows.
fn file_name(path: &str) -> Option<String> {
    path.rsplit(['\\', '/']).next().map(str::to_owned)
}

/// UTF-16 at an offset of the locator.
fn text(bytes: &[u8], at: u32, len: u16) -> Result<String> {
    let start = to_usize(u64::from(at));
    let found = start
        .checked_add(usize::from(len))
        .and_then(|end| bytes.get(start..end));
    let Some(found) = found else {
        return Err(Error::malformed(
            "an entry of the parent locator reaches past its end",
        ));
    };
    let (units, rest) = found.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    String::from_utf16(&units)
        .ok()
        .filter(|_| rest.is_empty())
        .ok_or_else(|| Error::malformed("an entry of the parent locator is no text"))
}
