//! The descriptor: a few lines of text that say what kind of disk this is and what it consists of.
//!
//! It is embedded in the file or, for disks of several files, a file of its own. The grammar here is
//! that of both; [`Descriptor::check_single_file`] is about what the readers of this crate take.

use crate::{Error, Reference, ReferenceKind, Result};

/// Content ID that stands for "no parent".
const NO_PARENT: u32 = u32::MAX;

/// Most extents a descriptor may list.
const MAX_EXTENTS: usize = 1024;

/// A line that says where part of the disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExtentLine {
    /// How it may be used: `RW`, `RDONLY`, `NOACCESS`.
    pub(super) access: String,
    /// Length in sectors.
    pub(super) sectors: u64,
    /// `SPARSE`, `FLAT`, `ZERO`, `VMFS`, ...
    pub(super) kind: String,
    /// The file, unless it is all zeros.
    pub(super) file: Option<String>,
    /// Where it starts in that file, in sectors.
    pub(super) offset: u64,
}

/// What a descriptor says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) create_type: Option<String>,
    pub(super) cid: Option<u32>,
    pub(super) parent_cid: Option<u32>,
    pub(super) parent_hint: Option<String>,
    pub(super) extents: Vec<ExtentLine>,
    encrypted: bool,
}

impl Descriptor {
    /// Reads the text up to the first NUL; the rest is padding. Unknown lines are none of our
    /// business, as everywhere else.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let text = text.split(|&b| b == 0).next().unwrap_or_default();
        // File names may be in any encoding: only the gate and people look at them.
        let text = String::from_utf8_lossy(text);
        let mut found = Self::default();
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(extent) = extent_line(line) {
                if found.extents.len() >= MAX_EXTENTS {
                    return Err(Error::malformed(format!(
                        "the descriptor lists more than {MAX_EXTENTS} extents"
                    )));
                }
                found.extents.push(extent);
            } else if let Some((key, value)) = line.split_once('=') {
                found.set(key.trim(), unquote(value.trim()))?;
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

    /// Refuses by name what is not one sparse extent embedded with its descriptor.
    pub(super) fn check_single_file(&self, is_stream: bool) -> Result<()> {
        if self.encrypted {
            return Err(Error::unsupported("this VMDK is encrypted"));
        }
        match self.create_type.as_deref() {
            Some("monolithicSparse" | "streamOptimized") => {}
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "VMDKs of type {other:?} are not read, only monolithicSparse and streamOptimized"
                )));
            }
            // Every writer of streams embeds a descriptor, but nothing in it is needed to read one. A
            // sparse extent without is part of a larger disk.
            None if is_stream => {}
            None => {
                return Err(Error::unsupported(
                    "this is one extent of a VMDK of several files, which are not read",
                ));
            }
        }
        if self.extents.len() > 1 {
            return Err(Error::unsupported(format!(
                "this VMDK consists of {} extents; those of several files are not read",
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
                kind: ReferenceKind::Extent,
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

fn content_id(value: &str) -> Result<u32> {
    u32::from_str_radix(value, 16).map_err(|e| {
        Error::malformed(format!("{value:?} in the descriptor is no content ID")).with_source(e)
    })
}

fn unquote(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|rest| rest.split('"').next())
        .unwrap_or(value)
}

/// `RW 4192256 SPARSE "disk-s001.vmdk"`, `RW 2048 FLAT "disk-flat.vmdk" 0`, `RW 2048 ZERO`.
fn extent_line(line: &str) -> Option<ExtentLine> {
    let mut words = line.splitn(4, [' ', '\t']);
    let access = words.next()?;
    if !["RW", "RDONLY", "NOACCESS"].contains(&access) {
        return None;
    }
    let sectors = words.next()?.parse().ok()?;
    let kind = words.next()?;
    let rest = words.next().unwrap_or_default().trim();
    let (file, offset) = match rest.strip_prefix('"').and_then(|r| r.split_once('"')) {
        Some((file, offset)) => (Some(file.to_owned()), offset.trim()),
        None => (None, ""),
    };
    Some(ExtentLine {
        access: access.to_owned(),
        sectors,
        kind: kind.to_owned(),
        file,
        offset: offset
            .split_whitespace()
            .next()
            .and_then(|o| o.parse().ok())
            .unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_descriptor_of_several_files_is_understood() {
        let text = b"# Disk DescriptorFile\r\nversion=1\r\nCID=fffffffe\r\nparentCID=ffffffff\r\n\
            createType = \"twoGbMaxExtentSparse\"\r\n\r\n# Extent description\r\n\
            RW 4192256 SPARSE \"disk one-s001.vmdk\"\r\nRDONLY 2048\tFLAT \"disk-flat.vmdk\" 128\r\n\
            RW 77 ZERO\r\nNOACCESS 1 VMFS \"x\"\r\nddb.adapterType = \"ide\"\r\n\0\0RW 1 ZERO";
        let descriptor = Descriptor::parse(text).unwrap();
        let line = |access: &str, sectors, kind: &str, file: Option<&str>, offset| ExtentLine {
            access: access.to_owned(),
            sectors,
            kind: kind.to_owned(),
            file: file.map(str::to_owned),
            offset,
        };
        assert_eq!(
            descriptor.extents,
            [
                line("RW", 4_192_256, "SPARSE", Some("disk one-s001.vmdk"), 0),
                line("RDONLY", 2048, "FLAT", Some("disk-flat.vmdk"), 128),
                line("RW", 77, "ZERO", None, 0),
                line("NOACCESS", 1, "VMFS", Some("x"), 0),
            ]
        );
        assert_eq!(
            descriptor.create_type.as_deref(),
            Some("twoGbMaxExtentSparse")
        );
        assert_eq!(
            (descriptor.cid, descriptor.parent_cid),
            (Some(0xFFFF_FFFE), Some(u32::MAX))
        );
        assert_eq!(descriptor.parent().unwrap(), None);
    }

    #[test]
    fn a_parent_is_what_the_hint_names() {
        let parse = |text: &str| Descriptor::parse(text.as_bytes()).unwrap().parent();
        let parent = parse("parentCID=12\nparentFileNameHint=\"a b.vmdk\"").unwrap();
        assert_eq!(parent.unwrap().name, "a b.vmdk");
        assert_eq!(parse("parentCID=0\n").unwrap(), None);
        assert_eq!(parse("parentFileNameHint=\"\"").unwrap(), None);
        assert_eq!(
            parse("parentCID=12\n").unwrap_err().kind(),
            ErrorKind::Malformed
        );
    }

    #[test]
    fn what_is_not_text_is_no_panic_and_lists_are_bounded() {
        Descriptor::parse(&[0xFF; 3000]).unwrap();
        Descriptor::parse(b"=\n=\"\nCID\n\"\nRW\nRW 1\nRW x y\nRW 1 ZERO \"").unwrap();
        let many = "RW 1 ZERO\n".repeat(2000);
        let e = Descriptor::parse(many.as_bytes()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
    }
}
