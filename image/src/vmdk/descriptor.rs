//! The descriptor: a few lines of text that say what kind of disk this is and what it consists of.
//!
//! It is embedded in the file or, for disks of several files, a file of its own. The grammar here is
//! that of both, as VMware's products and QEMU write it and as they have been edited since: any line
//! ends, spaces, quotes and letter case, keys of all kinds, padding with NULs. What a reader of this crate
//! takes, [`Descriptor::check_single_file`] and `several` say.

mod extent_line;
mod text;

pub(super) use self::extent_line::{Access, ExtentLine};
pub(super) use self::text::is_one;
use crate::{Error, Reference, ReferenceKind, Result};

/// Content ID that stands for "no parent".
const NO_PARENT: u32 = u32::MAX;

/// Most extents a descriptor may list: 16 TiB in extents of 2 GiB.
const MAX_EXTENTS: usize = 8192;

/// What a descriptor says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) create_type: Option<String>,
    pub(super) cid: Option<u32>,
    pub(super) parent_cid: Option<u32>,
    pub(super) parent_hint: Option<String>,
    pub(super) extents: Vec<ExtentLine>,
    /// The first line that starts as an extent and does not go on as one.
    pub(super) bad_line: Option<String>,
    encrypted: bool,
}

impl Descriptor {
    /// Reads the text up to the first NUL; the rest is padding. Unknown lines are none of our
    /// business, as everywhere else.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let text = text::decode(bytes);
        let mut found = Self::default();
        for line in text.split(['\n', '\r']) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match ExtentLine::parse(line) {
                Some(Ok(_)) if found.extents.len() >= MAX_EXTENTS => {
                    return Err(Error::malformed(format!(
                        "the descriptor lists more than {MAX_EXTENTS} extents"
                    )));
                }
                Some(Ok(extent)) => found.extents.push(extent),
                Some(Err(())) => {
                    found.bad_line.get_or_insert_with(|| shortened(line));
                }
                None => {
                    if let Some((key, value)) = line.split_once('=') {
                        found.set(key.trim(), unquote(value.trim()))?;
                    }
                }
            }
        }
        Ok(found)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if key.eq_ignore_ascii_case("createType") {
            self.create_type = Some(value.to_owned());
        } else if key.eq_ignore_ascii_case("CID") {
            self.cid = Some(content_id(value)?);
        } else if key.eq_ignore_ascii_case("parentCID") {
            self.parent_cid = Some(content_id(value)?);
        } else if key.eq_ignore_ascii_case("parentFileNameHint") {
            self.parent_hint = Some(value.to_owned()).filter(|hint| !hint.is_empty());
        } else if key.to_ascii_lowercase().starts_with("encryption") {
            self.encrypted = true;
        }
        Ok(())
    }

    /// Refuses what nobody can read without a key.
    pub(super) fn check_encryption(&self) -> Result<()> {
        if self.encrypted {
            return Err(Error::unsupported("this VMDK is encrypted"));
        }
        Ok(())
    }

    /// Refuses by name what is not one sparse extent embedded with its descriptor.
    pub(super) fn check_single_file(&self, is_stream: bool) -> Result<()> {
        self.check_encryption()?;
        match self.create_type.as_deref() {
            Some("monolithicSparse" | "streamOptimized") => {}
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "VMDKs of type {other:?} are not read from one file, only monolithicSparse and \
                     streamOptimized"
                )));
            }
            // Every writer of streams embeds a descriptor, but nothing in it is needed to read one. A
            // sparse extent without is part of a larger disk.
            None if is_stream => {}
            None => return Err(super::kind::lone_extent("a sparse extent")),
        }
        if self.extents.len() > 1 {
            return Err(Error::unsupported(format!(
                "this VMDK consists of {} extents, but its descriptor is embedded in one of them",
                self.extents.len()
            )));
        }
        Ok(())
    }

    /// The image that holds what this one does not.
    pub(super) fn parent(&self) -> Result<Option<Reference>> {
        if let Some(name) = &self.parent_hint {
            return Ok(Some(Reference {
                name: name.clone(),
                format: Some("vmdk".to_owned()),
                kind: ReferenceKind::Backing,
            }));
        }
        match self.parent_cid {
            None | Some(NO_PARENT | 0) => Ok(None),
            Some(cid) => Err(Error::malformed(format!(
                "the image holds only what differs from a parent (content ID {cid:08x}), but does not name it"
            ))),
        }
    }
}

/// A content ID. Like C's `scanf`, which everybody else reads it with: as many hexadecimal digits as
/// there are, of which the last eight count.
fn content_id(value: &str) -> Result<u32> {
    let digits = value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
        .unwrap_or(value);
    let end = digits
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(digits.len());
    let digits = digits.get(..end).unwrap_or_default();
    let tail = digits.get(end.saturating_sub(8)..).unwrap_or_default();
    u32::from_str_radix(tail, 16).map_err(|e| {
        Error::malformed(format!(
            "{:?} in the descriptor is no content ID",
            shortened(value)
        ))
        .with_source(e)
    })
}

fn unquote(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|rest| rest.split('"').next())
        .unwrap_or(value)
}

/// As much of a text as fits in a message.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests;
