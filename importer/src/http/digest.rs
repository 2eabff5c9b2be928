//! A digest that goes on: it can be read without ending it.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

#[derive(Debug, Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all bytes so far.
    pub(crate) fn hex(&self) -> String {
        let mut hex = String::new();
        for byte in self.0.clone().finalize() {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_read_and_goes_on() {
        let mut hasher = Hasher::default();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hasher.hex(), empty);
        hasher.update(b"a");
        let _ = hasher.hex();
        hasher.update(b"bc");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hasher.hex(), abc);
    }
}
