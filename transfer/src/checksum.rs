//! Digests of what came over the wire, computed as it passes.

use std::fmt::Write as _;
use std::str::FromStr;

use sha2::Digest as _;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};

/// A digest algorithm of `--checksum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5: for old lists of images, no protection against intent.
    Md5,
    /// SHA-1: likewise.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// As it is spelled in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// An expected digest, `ALGO:HEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The digest in lower-case hex.
    pub hex: String,
}

impl FromStr for Checksum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, hex)) = text.split_once(':') else {
            return Err(format!(
                "{text:?} is not ALGO:HEX, such as sha256:9f86d08..."
            ));
        };
        let all = [
            Algorithm::Md5,
            Algorithm::Sha1,
            Algorithm::Sha256,
            Algorithm::Sha512,
        ];
        let Some(algorithm) = all
            .into_iter()
            .find(|a| a.name().eq_ignore_ascii_case(name))
        else {
            return Err(format!(
                "unknown algorithm {name:?}: md5, sha1, sha256 or sha512"
            ));
        };
        if hex.len() != algorithm.hex_len() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            let len = algorithm.hex_len();
            return Err(format!(
                "a {} digest has {len} hex digits",
                algorithm.name()
            ));
        }
        Ok(Self {
            algorithm,
            hex: hex.to_ascii_lowercase(),
        })
    }
}

/// A digest being computed.
#[expect(missing_debug_implementations, reason = "hash states tell nothing")]
pub struct Hasher(State);

enum State {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Nothing was hashed yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Md5 => State::Md5(md5::Md5::new()),
            Algorithm::Sha1 => State::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Md5(h) => h.update(bytes),
            State::Sha1(h) => h.update(bytes),
            State::Sha256(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
        }
    }

    /// What was hashed so far, to go on from in another process.
    pub(crate) fn state(&self) -> Vec<u8> {
        match &self.0 {
            State::Md5(h) => h.serialize().to_vec(),
            State::Sha1(h) => h.serialize().to_vec(),
            State::Sha256(h) => h.serialize().to_vec(),
            State::Sha512(h) => h.serialize().to_vec(),
        }
    }

    /// Goes on from a [`Self::state`]; `None` if it is none of this algorithm.
    pub(crate) fn from_state(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        Some(Self(match algorithm {
            Algorithm::Md5 => State::Md5(restored(state)?),
            Algorithm::Sha1 => State::Sha1(restored(state)?),
            Algorithm::Sha256 => State::Sha256(restored(state)?),
            Algorithm::Sha512 => State::Sha512(restored(state)?),
        }))
    }

    /// The digest in lower-case hex.
    pub fn hex(self) -> String {
        let digest: Vec<u8> = match self.0 {
            State::Md5(h) => h.finalize().to_vec(),
            State::Sha1(h) => h.finalize().to_vec(),
            State::Sha256(h) => h.finalize().to_vec(),
            State::Sha512(h) => h.finalize().to_vec(),
        };
        hex(&digest)
    }
}

/// In lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn restored<H: SerializableState>(state: &[u8]) -> Option<H> {
    H::deserialize(&SerializedState::<H>::try_from(state).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashing_goes_on_from_a_state_and_from_nothing_else() {
        for algorithm in [
            Algorithm::Md5,
            Algorithm::Sha1,
            Algorithm::Sha256,
            Algorithm::Sha512,
        ] {
            let bytes = [7; 1000];
            for cut in [0, 1, 64, 500, 1000] {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&bytes[..cut]);
                let state = hasher.state();
                assert!(Hasher::from_state(algorithm, &state[1..]).is_none());
                let mut resumed = Hasher::from_state(algorithm, &state).unwrap();
                resumed.update(&bytes[cut..]);
                hasher.update(&bytes[cut..]);
                assert_eq!(resumed.hex(), hasher.hex(), "{algorithm:?} at {cut}");
            }
            // A block that is said to be fuller than a block.
            let _ = Hasher::from_state(algorithm, &vec![255; Hasher::new(algorithm).state().len()]);
        }
    }

    #[test]
    fn digests_of_abc_are_those_of_the_standards() {
        for (text, expected) in [
            ("md5", "900150983cd24fb0d6963f7d28e17f72"),
            ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "sha256",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            let checksum: Checksum = format!("{text}:{expected}").parse().unwrap();
            let mut hasher = Hasher::new(checksum.algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            assert_eq!(hasher.hex(), checksum.hex);
        }
    }

    #[test]
    fn what_is_not_a_checksum_is_refused() {
        for text in [
            "",
            "sha256",
            "sha256:12",
            "crc:00",
            "md5:zz0150983cd24fb0d6963f7d28e17f72",
        ] {
            assert!(text.parse::<Checksum>().is_err(), "{text}");
        }
    }
}
