//! Where an image comes from, as the command line names it.

use std::ffi::OsStr;
use std::path::PathBuf;

use longshore_importer::{
    Contents, SourceOptions, contents_of, source_from, source_from_path, source_of_file,
    source_of_files,
};
use longshore_transfer::{Options, Source};

use crate::failure::Failure;

/// A source that was named and not opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `-`, or `-#disk` for a disk of the archive that comes.
    Stdin(Option<String>),
    /// A file or block device.
    File(PathBuf),
    /// Something with a scheme in front.
    Remote(String),
}

impl Place {
    /// What the word on the command line means. A file whose name looks like an address is reached
    /// by its directory: `./http:...`.
    pub(crate) fn of(word: &OsStr) -> Self {
        match word.to_str() {
            Some("-") => Self::Stdin(None),
            Some(text) if text.starts_with("-#") => Self::Stdin(Some(text.to_owned())),
            Some(text) if has_scheme(text) => Self::Remote(text.to_owned()),
            _ => Self::File(word.into()),
        }
    }

    /// Its name for people, without secrets.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin(_) => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Remote(address) => without_secrets(address),
        }
    }

    /// What is in it, if it is an archive and no disk of it was chosen.
    pub(crate) fn contents(
        &self,
        options: &SourceOptions,
        reading: &Options,
    ) -> Result<Option<Contents>, Failure> {
        match self {
            Self::Stdin(_) => Ok(None),
            Self::File(path) => match path.to_str() {
                Some(path) => Ok(contents_of(path, options, reading)?),
                None => Ok(None),
            },
            Self::Remote(address) => Ok(contents_of(address, options, reading)?),
        }
    }

    /// Opens it as a stream of files, whatever its name says of disks in it.
    pub(crate) fn open_files(&self, options: &SourceOptions) -> Result<Box<dyn Source>, Failure> {
        let spec = match self {
            Self::Stdin(_) => "-",
            Self::File(path) => return Ok(source_of_file(path, options)?),
            Self::Remote(address) => address,
        };
        Ok(source_of_files(spec, options)?)
    }

    /// Opens it. A server is asked at once.
    pub(crate) fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, Failure> {
        match self {
            Self::Stdin(member) => Ok(source_from(member.as_deref().unwrap_or("-"), options)?),
            Self::File(path) => Ok(source_from_path(path, options)?),
            Self::Remote(address) => Ok(source_from(address, options)?),
        }
    }
}

/// An address for people: user information may be a password, a query a signature.
fn without_secrets(address: &str) -> String {
    let plain = address.split(['?', '#']).next().unwrap_or_default();
    without_user(plain)
}

/// An address without who asks for it. A password may contain a slash that should have been escaped,
/// so everything up to the last `@` before the query goes.
pub(crate) fn without_user(address: &str) -> String {
    let end = address.find(['?', '#']).unwrap_or(address.len());
    let (plain, rest) = address.split_at(end);
    match plain.split_once("://") {
        Some((scheme, place)) => {
            // Of an image's name, what follows the @ is its digest.
            let (place, digest) = match place.rsplit_once('@') {
                Some((name, digest)) if scheme == "docker" && is_digest(digest) => {
                    (name, format!("@{digest}"))
                }
                _ => (place, String::new()),
            };
            let place = place.rsplit_once('@').map_or(place, |(_, host)| host);
            format!("{scheme}://{place}{digest}{rest}")
        }
        None => address.to_owned(),
    }
}

fn is_digest(text: &str) -> bool {
    let hex = |hex: &str| hex.bytes().all(|b| b.is_ascii_hexdigit());
    ["sha256:", "sha512:"]
        .iter()
        .any(|algorithm| text.strip_prefix(algorithm).is_some_and(hex))
}

/// `scheme://`, or one of the schemes that do without slashes.
fn has_scheme(text: &str) -> bool {
    let bare = ["oci-archive:", "docker-archive:", "oci:"];
    if bare.iter().any(|scheme| text.starts_with(scheme)) {
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
            ("-", Place::Stdin(None)),
            ("-#d", Place::Stdin(Some("-#d".to_owned()))),
            ("disk.qcow2", file("disk.qcow2")),
            ("/a/b c", file("/a/b c")),
            ("a:b", file("a:b")),
            ("./http://x", file("./http://x")),
            ("://x", file("://x")),
            ("http://h/d", remote("http://h/d")),
            ("HTTPS://h/d", remote("HTTPS://h/d")),
            ("s3://bucket/key", remote("s3://bucket/key")),
            ("oci-archive:a.tar", remote("oci-archive:a.tar")),
            ("docker://h/a:t", remote("docker://h/a:t")),
            ("oci:d", remote("oci:d")),
        ] {
            assert_eq!(Place::of(OsStr::new(word)), place, "{word}");
        }
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (address, shown, stored) in [
            ("http://h/d", "http://h/d", "http://h/d"),
            ("http://u:p@h/d?sig=1#f", "http://h/d", "http://h/d?sig=1#f"),
            ("http://u:p/x@h/d", "http://h/d", "http://h/d"),
            ("http://h/d?to=a@b", "http://h/d", "http://h/d?to=a@b"),
            (
                "docker://h/a@sha256:0f",
                "docker://h/a@sha256:0f",
                "docker://h/a@sha256:0f",
            ),
            (
                "docker://u:p@h/a@sha256:0f",
                "docker://h/a@sha256:0f",
                "docker://h/a@sha256:0f",
            ),
        ] {
            assert_eq!(without_secrets(address), shown);
            assert_eq!(without_user(address), stored);
        }
    }
}
