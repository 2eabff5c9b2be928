//! Lines that say where part of the disk is.
//!
//! ```text
//! RW 4192256 SPARSE "disk-s001.vmdk"
//! RW 2048 FLAT "disk-flat.vmdk" 0
//! RW 2048 ZERO
//! ```

/// How part of a disk may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vmdk) enum Access {
    ReadWrite,
    ReadOnly,
    None,
}

/// A line that says where part of the disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::vmdk) struct ExtentLine {
    pub(in crate::vmdk) access: Access,
    /// Length in sectors.
    pub(in crate::vmdk) sectors: u64,
    /// `SPARSE`, `FLAT`, `ZERO`, `VMFS`, ...
    pub(in crate::vmdk) kind: String,
    /// The file, unless it is all zeros.
    pub(in crate::vmdk) file: Option<String>,
    /// Where it starts in that file, in sectors.
    pub(in crate::vmdk) offset: u64,
}

impl ExtentLine {
    /// What `line` says; none if it is about something else, an error if it starts as an extent only.
    pub(super) fn parse(line: &str) -> Option<Result<Self, ()>> {
        let (access, rest) = word(line);
        let access = match access {
            "RW" => Access::ReadWrite,
            "RDONLY" => Access::ReadOnly,
            "NOACCESS" => Access::None,
            _ => return None,
        };
        Some(Self::rest(access, rest).ok_or(()))
    }

    fn rest(access: Access, rest: &str) -> Option<Self> {
        let (sectors, rest) = word(rest);
        let sectors = sectors.parse().ok()?;
        let (kind, rest) = word(rest);
        if kind.is_empty() || kind.starts_with('"') {
            return None;
        }
        let (file, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (file, rest) = quoted.split_once('"')?;
                (Some(file.to_owned()), rest)
            }
            None => (None, rest),
        };
        let (offset, _) = word(rest.trim_start());
        let offset = match (offset, &file) {
            ("", _) | (_, None) => 0,
            (offset, Some(_)) => offset.parse().ok()?,
        };
        Some(Self {
            access,
            sectors,
            kind: kind.to_owned(),
            file,
            offset,
        })
    }
}

/// The first word, and what follows it and the white space behind it.
fn word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}
