//! How a differencing disk names its parent.
//!
//! It names it several times: by locators, one per platform, and by a plain name. Windows paths become
//! paths with slashes, and since an absolute path of another machine helps nobody, the file's name alone
//! is tried as well. Whether the right file was found, its unique ID tells.

use super::header::ParentFields;
use crate::num::{to_u64, to_usize};
use crate::read_at::ReadAtExt;
use crate::{Error, ReadAt, Reference, ReferenceKind, Result};

/// Longer names are not looked at.
const MAX_NAME: u32 = 4096;

/// Where to look for the parent, best first; never empty.
pub(super) fn references(file: &dyn ReadAt, fields: &ParentFields) -> Result<Vec<Reference>> {
    let mut relative = Vec::new();
    let mut absolute = Vec::new();
    for locator in &fields.locators {
        let (len, at) = (locator.len.get(), locator.at.get());
        let inside = at
            .checked_add(u64::from(len))
            .is_some_and(|end| end <= file.len());
        if len == 0 || len > MAX_NAME || !inside {
            continue;
        }
        let bytes = file.read_vec_at(at, to_usize(u64::from(len)), "a parent's name")?;
        match &locator.platform {
            b"W2ru" => relative.push(utf16(&bytes, u16::from_le_bytes)),
            b"W2ku" => absolute.push(utf16(&bytes, u16::from_le_bytes)),
            b"MacX" => {
                let url = String::from_utf8_lossy(&bytes);
                let url = url.split('\0').next().unwrap_or_default();
                let path = url.strip_prefix("file://").unwrap_or(url);
                relative.push(path.strip_prefix("localhost").unwrap_or(path).to_owned());
            }
            _ => {}
        }
    }
    let plain = utf16(&fields.name, u16::from_be_bytes);
    let mut names: Vec<String> = Vec::new();
    let whole = relative.iter().filter(|name| !is_absolute(name));
    let bases = relative.iter().chain([&plain]).chain(&absolute);
    for name in whole
        .map(|name| local(name))
        .chain(bases.map(|name| base(name)))
    {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(Error::malformed(
            "this VHD holds only what differs from a parent, and does not name it",
        ));
    }
    Ok(names
        .into_iter()
        .map(|name| Reference {
            name,
            format: Some("vhd".to_owned()),
            kind: ReferenceKind::Backing,
        })
        .collect())
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let (units, _) = bytes.as_chunks::<2>();
    let units = units
        .iter()
        .map(|&bytes| unit(bytes))
        .take_while(|&unit| unit != 0);
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

fn is_absolute(name: &str) -> bool {
    name.starts_with(['/', '\\']) || name.get(1..2) == Some(":")
}

/// A relative path as this machine spells it.
fn local(name: &str) -> String {
    let path = name.replace('\\', "/");
    path.strip_prefix("./").unwrap_or(&path).to_owned()
}

/// The file's name alone.
fn base(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    last.to_owned()
}

/// What a stream says: there is no way to read a second file along with it.
pub(super) fn refuse_stream() -> Error {
    Error::new(
        crate::ErrorKind::Denied,
        "this VHD holds only what differs from a parent image, which can't be read along with a stream: \
         give it as a file, with --backing same-dir and its parents beside it",
    )
}

/// Refuses a parent that is not the one that the child remembers.
pub(super) fn check_id(found: [u8; 16], wanted: [u8; 16]) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    let hex = |id: [u8; 16]| {
        id.iter().fold(String::with_capacity(32), |text, byte| {
            text + &format!("{byte:02x}")
        })
    };
    Err(Error::malformed(format!(
        "the parent image is another one than when this VHD was made: its unique ID is {} instead of {}",
        hex(found),
        hex(wanted)
    )))
}

/// Bytes that are read for names at most.
pub(super) fn most_bytes() -> u64 {
    to_u64(size_of::<ParentFields>()).saturating_add(u64::from(MAX_NAME).saturating_mul(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_machines_become_names_here() {
        for (name, here, alone) in [
            (r".\base.vhd", "base.vhd", "base.vhd"),
            (r".\a b\base.vhd", "a b/base.vhd", "base.vhd"),
            (r"..\base.vhd", "../base.vhd", "base.vhd"),
            ("./base.vhd", "base.vhd", "base.vhd"),
            ("base.vhd", "base.vhd", "base.vhd"),
        ] {
            assert!(!is_absolute(name));
            assert_eq!((local(name).as_str(), base(name).as_str()), (here, alone));
        }
        for name in [
            r"C:\disks\base.vhd",
            "/disks/base.vhd",
            r"\\server\base.vhd",
        ] {
            assert!(is_absolute(name));
            assert_eq!(base(name), "base.vhd");
        }
        assert_eq!(
            utf16(&[0, b'a', 0, b'b', 0, 0, 0, b'c'], u16::from_be_bytes),
            "ab"
        );
        assert_eq!(
            utf16(&[0xd8, 0, 0, b'b', 7], u16::from_be_bytes),
            "\u{fffd}b"
        );
    }
}
