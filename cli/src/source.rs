//! Where an image comes from, as the command line names it.

use std::ffi::OsStr;
use std::path::PathBuf;

use longshore_transfer::{FileSource, Source, StdinSource};

use crate::failure::Failure;

/// A source that was named and not opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `-`.
    Stdin,
    /// A file or block device.
    File(PathBuf),
    /// Something with a scheme in front.
    Remote(String),
}

impl Place {
    /// What the word on the command line means. A file whose name looks like an address is reached
    /// by its directory: `./http:...`.
    pub(crate) fn of(word: &OsStr) -> Self {
        if word == "-" {
            return Self::Stdin;
        }
        match word.to_str() {
            Some(text) if has_scheme(text) => Self::Remote(text.to_owned()),
            _ => Self::File(word.into()),
        }
    }

    /// Its name for people, without secrets.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Remote(address) => address.clone(),
        }
    }

    /// Opens it.
    pub(crate) fn open(&self, force_share: bool) -> Result<Box<dyn Source>, Failure> {
        match self {
            Self::Stdin => Ok(StdinSource::open(force_share)?),
            Self::File(path) => Ok(Box::new(FileSource::open(path, force_share)?)),
            Self::Remote(address) => Err(Failure::Unsupported {
                what: format!("{address}: no source of this kind is read"),
                next: "fetch it with another tool, and give the file".to_owned(),
            }),
        }
    }
}

/// `scheme://`, or one of the schemes that do without slashes.
fn has_scheme(text: &str) -> bool {
    if text.starts_with("oci-archive:") {
        return true;
    }
    let Some((scheme, _)) = text.split_once("://") else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_files_unless_they_say_otherwise() {
        let remote = |text: &str| Place::Remote(text.to_owned());
        let file = |text: &str| Place::File(text.into());
        for (word, place) in [
            ("-", Place::Stdin),
            ("disk.qcow2", file("disk.qcow2")),
            ("/a/b c", file("/a/b c")),
            ("a:b", file("a:b")),
            ("./http://x", file("./http://x")),
            ("://x", file("://x")),
            ("http://h/d", remote("http://h/d")),
            ("HTTPS://h/d", remote("HTTPS://h/d")),
            ("s3://bucket/key", remote("s3://bucket/key")),
            ("oci-archive:a.tar", remote("oci-archive:a.tar")),
        ] {
            assert_eq!(Place::of(OsStr::new(word)), place, "{word}");
        }
    }
}
