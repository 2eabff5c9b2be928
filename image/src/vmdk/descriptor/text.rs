//! From bytes to text: is it a descriptor at all, and which encoding it is in.

use std::borrow::Cow;

/// How a file with a byte order mark starts: some editors put one in front of UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What the characters 0x80 to 0x9f of windows-1252 are; those that are not, stay as they are.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// A descriptor starts with `head`: its title, or as QEMU recognises one, comments and blank lines up to
/// a version that is known.
pub(in crate::vmdk) fn is_one(head: &[u8]) -> bool {
    const TITLE: &[u8] = b"# Disk DescriptorFile";
    let head = head.strip_prefix(BOM).unwrap_or(head);
    if head
        .first_chunk::<{ TITLE.len() }>()
        .is_some_and(|start| start.eq_ignore_ascii_case(TITLE))
    {
        return true;
    }
    let mut lines = head.split(|&b| b == b'\n');
    // The last one may be cut.
    lines.next_back();
    let first = lines
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b"#"));
    matches!(first, Some(b"version=1" | b"version=2" | b"version=3"))
}

/// The text up to the first NUL. Names of files may be in any encoding: in windows-1252 if the
/// descriptor says so (and it is not UTF-8 all the same), in UTF-8 as far as that goes else.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    let bytes = bytes.split(|&b| b == 0).next().unwrap_or_default();
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) if says_windows_1252(bytes) => {
            Cow::Owned(bytes.iter().copied().map(from_windows_1252).collect())
        }
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

fn from_windows_1252(byte: u8) -> char {
    byte.checked_sub(0x80)
        .and_then(|index| WINDOWS_1252.get(usize::from(index)))
        .copied()
        .unwrap_or_else(|| char::from(byte))
}

fn says_windows_1252(bytes: &[u8]) -> bool {
    bytes.split(|&b| b == b'\n' || b == b'\r').any(|line| {
        let line = line.trim_ascii().to_ascii_lowercase();
        line.strip_prefix(b"encoding").is_some_and(|rest| {
            let value: Vec<u8> = rest
                .iter()
                .copied()
                .filter(|b| !b.is_ascii_whitespace() && *b != b'"')
                .collect();
            matches!(
                value.as_slice(),
                b"=windows-1252" | b"=iso-8859-1" | b"=cp1252"
            )
        })
    })
}
