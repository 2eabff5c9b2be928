//! Who we are to a registry: what the user gave, or what `docker login` left in a file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::error::RegistryError;
use crate::BasicAuth;

/// Most bytes of a file with credentials. A Kubernetes secret has no more.
const MOST: u64 = 1 << 20;

/// What is shown to a registry, or to who gives tokens for it. Never shown to people.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// Nobody in particular.
    None,
    /// Name and password.
    Password(BasicAuth),
    /// A token to get tokens with.
    Identity(String),
    /// A token for the registry itself.
    Registry(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(..)",
            Self::Identity(_) => "Identity(..)",
            Self::Registry(_) => "Registry(..)",
        })
    }
}

/// A file of `docker login` or `podman login`, or a dockerconfigjson.
#[derive(Default)]
pub(super) struct AuthFile {
    /// By host, or host and the beginning of a repository.
    entries: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
struct Document {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity: Option<String>,
    #[serde(default, rename = "registrytoken")]
    registry: Option<String>,
}

impl AuthFile {
    /// Reads a file. Its text is in no error.
    pub(super) fn read(path: &Path) -> Result<Self, RegistryError> {
        let fail = |source| RegistryError::AuthFile {
            path: path.to_owned(),
            source,
        };
        let mut text = Vec::new();
        let file = File::open(path).map_err(fail)?;
        file.take(MOST + 1).read_to_end(&mut text).map_err(fail)?;
        let wrong = |what: &str| fail(io::Error::new(io::ErrorKind::InvalidData, what));
        if text.len() as u64 > MOST {
            return Err(wrong("it has more than a megabyte"));
        }
        Self::parse(&text).ok_or_else(|| {
            wrong("it is no JSON with registries under \"auths\", as docker login writes it")
        })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let document: Document = serde_json::from_slice(text).ok()?;
        let auths = match document.auths {
            Some(auths) => auths,
            // An old .dockercfg has the registries at its top.
            None if document.store.is_none() && document.helpers.is_none() => {
                serde_json::from_slice(text).ok()?
            }
            None => BTreeMap::new(),
        };
        if document.store.is_some() || document.helpers.is_some_and(|h| !h.is_empty()) {
            tracing::debug!(
                "credential helpers are not run: only what the file itself has is used"
            );
        }
        let mut entries = BTreeMap::new();
        for (key, entry) in auths {
            let key = place(&key).to_owned();
            entries.entry(key).or_insert(entry);
        }
        Some(Self { entries })
    }

    /// What the file has for a repository: the entry with the longest path counts.
    pub(super) fn secret(&self, host: &str, repository: &str) -> Secret {
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        let mut key = format!("{host}/{repository}");
        loop {
            if let Some(entry) = self.entries.get(&key) {
                return entry.secret();
            }
            match key.rfind('/') {
                Some(end) => key.truncate(end),
                None => return Secret::None,
            }
        }
    }
}

impl Entry {
    fn secret(&self) -> Secret {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identity) {
            return Secret::Identity(token);
        }
        if let Some(token) = given(&self.registry) {
            return Secret::Registry(token);
        }
        if let Some((user, password)) = self.auth.as_deref().and_then(decoded) {
            return Secret::Password(BasicAuth { user, password });
        }
        match (given(&self.username), given(&self.password)) {
            (Some(user), Some(password)) => Secret::Password(BasicAuth { user, password }),
            _ => Secret::None,
        }
    }
}

/// `user:password` in base64, with or without its padding.
fn decoded(auth: &str) -> Option<(String, String)> {
    let auth = auth.trim();
    let bytes = STANDARD.decode(auth);
    let bytes = bytes.or_else(|_| STANDARD_NO_PAD.decode(auth)).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.trim_end_matches('\0').split_once(':')?;
    (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

/// The host and path that a key means: Docker writes addresses (`https://index.docker.io/v1/`), podman
/// hosts with paths.
fn place(key: &str) -> &str {
    let place = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let place = place.trim_end_matches('/');
    let place = ["/v1", "/v2"]
        .iter()
        .find_map(|end| place.strip_suffix(end))
        .unwrap_or(place);
    match place {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

/// Where programs of this machine leave credentials: the first of `REGISTRY_AUTH_FILE`,
/// `DOCKER_CONFIG/config.json`, podman's `auth.json` and Docker's `config.json` that is there. A variable
/// counts even if its file is not there: somebody meant it.
pub fn usual_auth_file() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return Some(file);
    }
    if let Some(directory) = variable("DOCKER_CONFIG") {
        return Some(directory.join("config.json"));
    }
    let podman = variable("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json"));
    let docker = variable("HOME").map(|d| d.join(".docker/config.json"));
    podman.into_iter().chain(docker).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Secret {
        Secret::Password(BasicAuth {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    fn file(text: &str) -> AuthFile {
        AuthFile::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_entry_of_the_host_is_taken_and_the_longest_path_counts() {
        let file = file(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnAxOng="},
                "h.io:5000": {"auth": "YTpi"},
                "h.io:5000/team": {"username": "t", "password": "p"},
                "ghcr.io": {"identitytoken": "it", "auth": "YTpi"},
                "r.io": {"registrytoken": "rt"},
                "empty.io": {}
            }}"#,
        );
        assert_eq!(
            file.secret("docker.io", "library/x"),
            password("hub", "p1:x")
        );
        assert_eq!(
            file.secret("registry-1.docker.io", "x"),
            password("hub", "p1:x")
        );
        assert_eq!(file.secret("h.io:5000", "other/x"), password("a", "b"));
        assert_eq!(file.secret("h.io:5000", "team/x"), password("t", "p"));
        assert_eq!(file.secret("h.io:5000", "teams/x"), password("a", "b"));
        assert_eq!(file.secret("ghcr.io", "x"), Secret::Identity("it".into()));
        assert_eq!(file.secret("r.io", "x"), Secret::Registry("rt".into()));
        for other in ["h.io", "empty.io", "evil-h.io:5000", "io"] {
            assert_eq!(file.secret(other, "x"), Secret::None, "{other}");
        }
    }

    #[test]
    fn an_old_dockercfg_has_no_auths() {
        let old = file(r#"{"https://h.io/v2/": {"auth": "YTpi", "email": "x@y"}}"#);
        assert_eq!(old.secret("h.io", "x"), password("a", "b"));
        assert_eq!(
            file(r#"{"credsStore": "desktop"}"#).secret("h.io", "x"),
            Secret::None
        );
    }

    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        for text in ["s3cret", "[\"s3cret\"]", r#"{"auths": {"h": "s3cret"}}"#] {
            std::fs::write(&path, text).unwrap();
            let error = AuthFile::read(&path).err().unwrap();
            let said = format!("{error:?} {error}");
            assert!(
                !said.contains("s3cret") && said.contains("config.json"),
                "{said}"
            );
        }
        assert!(!format!("{:?}", password("a", "s3cret")).contains("s3cret"));
    }
}
