//! Digests that name content.

use std::fmt;
use std::str::FromStr;

use longshore_transfer::{Algorithm, Checksum, Hasher};
use serde::Deserialize;

use super::error::RegistryError;

/// A SHA-256 or SHA-512 in lower-case hex, as both specifications want it. Nothing weaker is taken: it
/// is what makes content from anywhere trustworthy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Digest(Checksum);

/// It is none.
#[derive(Debug, thiserror::Error)]
#[error("this is no sha256 or sha512 digest")]
pub(super) struct NoDigest;

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let (algorithm, hex) = text.split_once(':').ok_or(NoDigest)?;
        // What is upper-case is another name to a registry.
        if !matches!(algorithm, "sha256" | "sha512") || hex.bytes().any(|b| b.is_ascii_uppercase())
        {
            return Err(NoDigest);
        }
        text.parse().map(Self).map_err(|_| NoDigest)
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        text.parse()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.algorithm.name(), self.0.hex)
    }
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Checksum {
            algorithm: Algorithm::Sha256,
            hex: computed(Algorithm::Sha256, bytes),
        })
    }

    /// For the engine, which checks what streams.
    pub(super) fn checksum(&self) -> Checksum {
        self.0.clone()
    }

    pub(super) fn algorithm(&self) -> &'static str {
        self.0.algorithm.name()
    }

    pub(super) fn hex(&self) -> &str {
        &self.0.hex
    }

    /// Fails unless `bytes` have it. `what` they are to be, for the error.
    pub(super) fn check(&self, what: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let found = computed(self.0.algorithm, bytes);
        if found == self.0.hex {
            return Ok(());
        }
        Err(RegistryError::Digest {
            what: what.to_owned(),
            expected: self.to_string(),
            computed: found,
        })
    }
}

fn computed(algorithm: Algorithm, bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_compared_with_its_name() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digest: Digest = abc.parse().unwrap();
        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(digest.to_string(), abc);
        assert!(digest.check("it", b"abc").is_ok());
        assert!(matches!(
            digest.check("it", b"abd"),
            Err(RegistryError::Digest { .. })
        ));
    }

    #[test]
    fn weak_and_malformed_digests_are_none() {
        for text in [
            "",
            "sha256:",
            "sha256:0123",
            "sha1:a9993e364706816aba3e25717850c26c9cd0d89d",
            "SHA256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha256:../../../../../../../../../../../../../../../../etc/passwd0000000000",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
