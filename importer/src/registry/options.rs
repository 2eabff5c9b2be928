//! What only registries need to be told.

use std::path::PathBuf;
use std::str::FromStr;

use super::platform::Platform;
use super::reference::is_component;

/// How to pull. The default suits public registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// A file with credentials: what Docker and podman write, or the value of a secret of type
    /// `kubernetes.io/dockerconfigjson`.
    pub auth_file: Option<PathBuf>,
    /// Which image of several; the machine's own platform if not given.
    pub platform: Option<Platform>,
    /// Registries whose certificates are not checked, and that may speak plain HTTP.
    pub insecure: Vec<InsecureHost>,
    /// Asked before the registry itself, in this order.
    pub mirrors: Vec<Mirror>,
}

/// What is wrong with the name of a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form {form}")]
pub struct BadHost {
    text: String,
    form: &'static str,
}

/// A registry by its host, and its port if that is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsecureHost(String);

impl InsecureHost {
    pub(super) fn is(&self, host: &str) -> bool {
        self.0.eq_ignore_ascii_case(host)
    }
}

impl FromStr for InsecureHost {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        if is_host(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadHost {
            text: text.to_owned(),
            form: "HOST[:PORT]",
        })
    }
}

/// A registry that has what another has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Whose content it has; everybody's if not given.
    pub(super) of: Option<String>,
    pub(super) host: String,
    /// In front of each repository.
    pub(super) prefix: Option<String>,
}

impl Mirror {
    /// The repository there, if it mirrors `host`.
    pub(super) fn repository(&self, host: &str, repository: &str) -> Option<String> {
        if self.of.as_ref().is_some_and(|of| of != host) {
            return None;
        }
        Some(match &self.prefix {
            Some(prefix) => format!("{prefix}/{repository}"),
            None => repository.to_owned(),
        })
    }
}

impl FromStr for Mirror {
    type Err = BadHost;

    /// Reads `[REGISTRY=]HOST[:PORT][/PREFIX]`.
    fn from_str(text: &str) -> Result<Self, BadHost> {
        let bad = || BadHost {
            text: text.to_owned(),
            form: "[REGISTRY=]HOST[:PORT][/PREFIX]",
        };
        let (of, place) = match text.split_once('=') {
            Some((of, place)) => (Some(of), place),
            None => (None, text),
        };
        let (host, prefix) = match place.split_once('/') {
            Some((host, prefix)) => (host, Some(prefix)),
            None => (place, None),
        };
        if !is_host(host)
            || of.is_some_and(|of| !is_host(of))
            || prefix.is_some_and(|prefix| !prefix.split('/').all(is_component))
        {
            return Err(bad());
        }
        Ok(Self {
            of: of.map(str::to_owned),
            host: host.to_owned(),
            prefix: prefix.map(str::to_owned),
        })
    }
}

fn is_host(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    !text.is_empty() && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_have_a_host_and_perhaps_a_prefix_and_an_original() {
        let mirror: Mirror = "docker.io=m.lan:5000/hub/x".parse().unwrap();
        assert_eq!(mirror.host, "m.lan:5000");
        let there = mirror.repository("docker.io", "library/a");
        assert_eq!(there.as_deref(), Some("hub/x/library/a"));
        assert_eq!(mirror.repository("quay.io", "a"), None);
        let all: Mirror = "m".parse().unwrap();
        assert_eq!(all.repository("quay.io", "a/b").as_deref(), Some("a/b"));
        for bad in ["", "http://m", "m/", "m/..", "=m", "m/A", "user@m"] {
            assert!(bad.parse::<Mirror>().is_err(), "{bad}");
        }
        assert!("a/b".parse::<InsecureHost>().is_err());
        assert!("A:5".parse::<InsecureHost>().unwrap().is("a:5"));
    }
}
