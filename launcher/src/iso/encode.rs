//! Number and text encodings of ECMA-119 and Joliet.

/// A number in both byte orders (7.3.3).
pub(super) fn both32(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// A number in both byte orders (7.2.3).
pub(super) fn both16(value: u16) -> [u8; 4] {
    let mut bytes = [0; 4];
    bytes[..2].copy_from_slice(&value.to_le_bytes());
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// Text in UCS-2, big endian. Names are checked to need no surrogates.
pub(super) fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// Text in a field of a fixed length, filled up with spaces.
pub(super) fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length, b' ');
    bytes
}

/// Likewise in UCS-2; an odd byte at the end stays zero.
pub(super) fn padded_ucs2(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = ucs2(text);
    while bytes.len() + 2 <= length {
        bytes.extend_from_slice(&ucs2(" "));
    }
    bytes.resize(length, 0);
    bytes
}
