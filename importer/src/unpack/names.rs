//! What an entry may be called, and where a link may lead.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::archive::ArchiveError;

/// Longest name, as the kernel has it.
const MOST_BYTES: usize = 4096;
/// Longest part of a name, as nearly every filesystem has it.
const MOST_PART: usize = 255;
/// Deepest directory.
const MOST_PARTS: usize = 128;
/// Longest part of a name that a message shows.
const SHOWN: usize = 200;

/// A name inside the directory that is unpacked to: parts without `.`, `..` and empty ones. None at all
/// is the directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    parts: Vec<OsString>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| part.to_string_lossy())
            .collect();
        shown(&parts.join("/")).fmt(f)
    }
}

fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN).collect();
    format!("{cut:?}")
}

impl ArchiveError {
    /// An entry that would reach beyond the directory, or that is more than a file.
    pub(super) fn escape(name: impl fmt::Display, what: &'static str) -> Self {
        Self::Unsafe {
            entry: name.to_string(),
            what,
        }
    }
}

impl Name {
    /// Of bytes as they are in the archive.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let refused = |what| ArchiveError::escape(shown(&String::from_utf8_lossy(bytes)), what);
        if bytes.is_empty() {
            return Err(refused("a name without a character"));
        }
        if bytes.len() > MOST_BYTES {
            return Err(refused("a name of more than 4096 bytes"));
        }
        if bytes.starts_with(b"/") {
            return Err(refused("an absolute name"));
        }
        if bytes.contains(&0) {
            return Err(refused("a name with a zero byte"));
        }
        let mut parts = Vec::new();
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(refused("a name with ..")),
                long if long.len() > MOST_PART => {
                    return Err(refused("a part of a name of more than 255 bytes"));
                }
                part => parts.push(OsString::from_vec(part.to_owned())),
            }
        }
        if parts.len() > MOST_PARTS {
            return Err(refused("a name more than 128 directories deep"));
        }
        Ok(Self { parts })
    }

    pub(super) fn parts(&self) -> &[OsString] {
        &self.parts
    }

    /// Directories on the way, and the last part; `None` for the directory itself.
    pub(super) fn split(&self) -> Option<(&[OsString], &OsStr)> {
        let (last, parents) = self.parts.split_last()?;
        Some((parents, last))
    }

    /// A symbolic link of this name may lead to `target`: to what is in the directory, whatever other
    /// links are on the way. `..` is good only at the beginning, where what it leaves is known to be
    /// directories; behind a name that may be a link itself, nobody knows what it leaves.
    pub(super) fn symlink_target(&self, target: &[u8]) -> Result<(), ArchiveError> {
        let refused = |what| Err(ArchiveError::escape(self, what));
        if target.is_empty() || target.len() > MOST_BYTES || target.contains(&0) {
            return refused("a symbolic link that leads nowhere");
        }
        if target.starts_with(b"/") {
            return refused("a symbolic link to an absolute name");
        }
        let mut depth = self.parts.len().saturating_sub(1);
        let mut down = false;
        for part in target.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." if down => return refused("a symbolic link with .. behind a name"),
                b".." => match depth.checked_sub(1) {
                    Some(less) => depth = less,
                    None => return refused("a symbolic link that leads out of the directory"),
                },
                _ => down = true,
            }
        }
        Ok(())
    }

    /// Bytes of memory that keeping it takes, about.
    pub(super) fn weight(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.as_bytes().len() + 24);
        parts.sum::<usize>() + 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_to_their_parts_and_never_leave() {
        for (name, parts) in [
            ("a", Some(vec!["a"])),
            ("./a//b/", Some(vec!["a", "b"])),
            ("./", Some(vec![])),
            ("...", Some(vec!["..."])),
            ("/a", None),
            ("//a", None),
            ("..", None),
            ("a/../b", None),
            ("a/..", None),
            ("", None),
            ("a\0b", None),
        ] {
            let parsed = Name::parse(name.as_bytes()).ok();
            let expected = parts.map(|parts| Name {
                parts: parts.into_iter().map(Into::into).collect(),
            });
            assert_eq!(parsed, expected, "{name:?}");
        }
        assert!(Name::parse(&[b'a'; 256]).is_err());
        assert!(Name::parse(&b"a/".repeat(129)).is_err());
        assert!(Name::parse(&b"a/".repeat(128)).is_ok());
        assert!(Name::parse(&b"a/".repeat(2049)).is_err());
    }

    #[test]
    fn links_lead_up_no_further_than_they_are_deep() {
        let name = Name::parse(b"a/b/link").unwrap();
        for (target, good) in [
            ("c", true),
            ("../c", true),
            ("../../c", true),
            ("./../../c/./d", true),
            ("../../../c", false),
            ("c/..", false),
            ("../c/../d", false),
            ("/etc/passwd", false),
            ("", false),
        ] {
            assert_eq!(
                name.symlink_target(target.as_bytes()).is_ok(),
                good,
                "{target}"
            );
        }
    }
}
