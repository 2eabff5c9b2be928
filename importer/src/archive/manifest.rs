//! The manifest of an OVA: a digest for each file, one per line, `SHA256(disk.vmdk)= 0123...`.

use std::collections::HashMap;

use longshore_transfer::Checksum;

use super::ArchiveError;

/// What the files are to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    digests: HashMap<String, Checksum>,
}

impl Manifest {
    /// Takes a manifest apart. Lines of unknown algorithms are an error: skipping them would claim a
    /// check that did not happen.
    pub(super) fn parse(text: &[u8]) -> Result<Self, ArchiveError> {
        let text = std::str::from_utf8(text)
            .map_err(|_| ArchiveError::malformed("its manifest is not text"))?;
        let mut digests = HashMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let bad = || ArchiveError::malformed(format!("its manifest has the line {line:?}"));
            let (algorithm, rest) = line.split_once('(').ok_or_else(bad)?;
            let (file, digest) = rest.rsplit_once(')').ok_or_else(bad)?;
            let hex = digest
                .trim_start()
                .strip_prefix('=')
                .ok_or_else(bad)?
                .trim();
            let algorithm = algorithm.trim().replace('-', "");
            let checksum = format!("{algorithm}:{hex}").parse().map_err(|_| bad())?;
            let file = file.trim_start_matches("./");
            if digests.insert(file.to_owned(), checksum).is_some() {
                return Err(ArchiveError::malformed(format!(
                    "its manifest names {file:?} twice"
                )));
            }
        }
        Ok(Self { digests })
    }

    /// What `file` is to be; `None` if the manifest does not say.
    pub(super) fn digest(&self, file: &str) -> Option<&Checksum> {
        self.digests.get(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_vmware_virtualbox_and_openssl_are_read() {
        let hex = "9".repeat(40);
        let long = "A".repeat(64);
        for line in [
            format!("SHA1(disk 1.vmdk)= {hex}\n"),
            format!("SHA1 (disk 1.vmdk) = {hex}\r\n\r\n"),
            format!("SHA256(x.ovf)= {long}\nSHA1(./disk 1.vmdk)={hex}"),
        ] {
            let manifest = Manifest::parse(line.as_bytes()).unwrap();
            assert_eq!(manifest.digest("disk 1.vmdk").unwrap().hex, hex, "{line}");
            assert_eq!(manifest.digest("other"), None);
        }
    }

    #[test]
    fn lines_that_cannot_be_checked_are_refused() {
        let hex = "9".repeat(40);
        for text in [
            "CRC32(a)= 01".to_owned(),
            "SHA1 a 01".to_owned(),
            "SHA1(a)= 0123".to_owned(),
            format!("SHA1(a)= {hex}\nSHA1(a)= {hex}"),
        ] {
            assert!(Manifest::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Manifest::parse(b"\xff\xfe").is_err());
    }
}
