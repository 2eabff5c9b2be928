//! Names of images in registries, as `docker pull` takes them.

use std::fmt;

use super::digest::Digest;
use crate::{Error, Result};

/// The longest name there is: a registry's limit, and ours.
const LONGEST: usize = 1024;

/// Where an image is, completed by the rules of Docker Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// Host and perhaps port, `docker.io` for Docker Hub.
    pub(super) host: String,
    pub(super) repository: String,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<Digest>,
}

impl Reference {
    /// Reads what follows `docker://`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let refuse = |why: &str| Error::Reference {
            shown: shown(text),
            why: why.to_owned(),
        };
        if text.len() > LONGEST {
            return Err(refuse("it is longer than any name"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.parse();
                let digest = digest.map_err(|_| {
                    refuse("what follows its @ is no digest such as sha256:0123... (user names do not belong into it)")
                })?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("its tag has characters that no tag has"));
        }
        let (host, repository) = match path.split_once('/') {
            Some((host, rest)) if is_host(host) => (host, rest),
            _ => ("docker.io", path),
        };
        let host = if host == "index.docker.io" || host == "registry-1.docker.io" {
            "docker.io"
        } else {
            host
        };
        if !host.bytes().all(is_host_byte) {
            return Err(refuse("its host has characters that no host has"));
        }
        let repository = if host == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if !repository.split('/').all(is_component) {
            return Err(refuse(
                "a repository is lower-case letters, digits and separators: HOST[:PORT]/PATH[:TAG][@DIGEST]",
            ));
        }
        Ok(Self {
            host: host.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// What to ask for: the digest counts where both are given, as it does for Docker.
    pub(super) fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker://{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None if self.tag.is_none() => f.write_str(":latest"),
            None => Ok(()),
        }
    }
}

/// Who answers for a host: Docker Hub has its API elsewhere.
pub(super) fn api_host(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// The first part of a name is a host if it could not be a part of a path.
fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':', '[']) || part.contains(char::is_uppercase)
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Letters and digits, with single separators between them. `..` is none of these.
pub(super) fn is_component(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.bytes().next().zip(part.bytes().last());
    ends.is_some_and(|(first, last)| plain(first) && plain(last))
        && part.bytes().all(|b| plain(b) || b"._-".contains(&b))
        && !part.contains("..")
}

/// For errors: what stands before an `@` may be a password.
fn shown(text: &str) -> String {
    let plain = match text.rsplit_once('@') {
        Some((name, digest)) if digest.parse::<Digest>().is_ok() && !name.contains('@') => name,
        Some((_, host)) => host,
        None => text,
    };
    let plain = plain.split(['?', '#']).next().unwrap_or("");
    format!("docker://{}", plain.chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_as_docker_does() {
        let sha = "0".repeat(64);
        for (text, expected) in [
            (
                "fedora",
                "docker://docker.io/library/fedora:latest".to_owned(),
            ),
            (
                "fedora:43",
                "docker://docker.io/library/fedora:43".to_owned(),
            ),
            (
                "kubevirt/x",
                "docker://docker.io/kubevirt/x:latest".to_owned(),
            ),
            (
                "docker.io/x",
                "docker://docker.io/library/x:latest".to_owned(),
            ),
            (
                "index.docker.io/x",
                "docker://docker.io/library/x:latest".to_owned(),
            ),
            ("localhost/x", "docker://localhost/x:latest".to_owned()),
            ("h:5000/a/b:t", "docker://h:5000/a/b:t".to_owned()),
            ("[::1]:5000/a", "docker://[::1]:5000/a:latest".to_owned()),
            (
                "quay.io/a/b-c_d",
                "docker://quay.io/a/b-c_d:latest".to_owned(),
            ),
            (
                &format!("h.io/a@sha256:{sha}"),
                format!("docker://h.io/a@sha256:{sha}"),
            ),
            (
                &format!("h.io/a:t@sha256:{sha}"),
                format!("docker://h.io/a:t@sha256:{sha}"),
            ),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn a_digest_counts_more_than_a_tag() {
        let text = format!("h.io/a:t@sha256:{}", "1".repeat(64));
        let wanted = Reference::parse(&text).unwrap().wanted();
        assert!(wanted.starts_with("sha256:1"));
    }

    #[test]
    fn what_is_no_name_is_refused_and_secrets_are_not_shown() {
        for text in [
            "",
            "h.io/",
            "h.io/../etc",
            "h.io/a/../b",
            "h.io/A",
            "h.io/a:",
            "h.io/a:t/../x",
            "h.io/a@sha256:12",
            "h.io/a@md5:0123",
            "h.io/a b",
            "h.io/a?x=s3cret",
            "jane:s3cret@h.io/a",
            "jane:s3cret@h.io/a@sha256:12",
            "h.io//a",
            &"a/".repeat(1000),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(matches!(error, Error::Reference { .. }), "{text}");
            let said = format!("{error} {error:?}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }
}
