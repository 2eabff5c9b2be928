//! How to reach a source.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use longshore_transfer::{Cancel, Tally};

use crate::{Error, ObjectOptions, RegistryOptions, Result};

/// What servers take from one client without complaint, and enough to fill a long line.
pub const MOST_CONNECTIONS: usize = 16;

/// What a source may need besides its name. The default suits public servers.
#[derive(Clone)]
pub struct SourceOptions {
    /// PEM files of authorities to trust besides the system's, or directories of such files.
    pub ca: Vec<PathBuf>,
    /// The same for authorities that vouch for proxies, and for what proxies show in the name of servers.
    /// Whoever is asked without a proxy is not believed on their word.
    pub proxy_ca: Vec<PathBuf>,
    /// Extra request headers. Values are secrets: they are never shown, and never leave the host of
    /// the URL.
    pub headers: Vec<(String, String)>,
    /// Name and password for the server. Takes precedence over those in the URL.
    pub basic_auth: Option<BasicAuth>,
    /// Accept any certificate. For tests.
    pub insecure: bool,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next byte.
    pub stall_timeout: Duration,
    /// Most attempts after the first one that make no headway.
    pub retries: u32,
    /// Pause before the first retry. Later ones take twice as long each.
    pub backoff: Duration,
    /// Most requests to a server at the same time. With 1 the content comes as one stream.
    pub connections: usize,
    /// What only registries need to be told.
    pub registry: RegistryOptions,
    /// For object stores.
    pub objects: ObjectOptions,
    /// Read local images that another process writes to.
    pub force_share: bool,
    /// Ends every wait for the network.
    pub cancel: Cancel,
    /// Counts requests that failed and are made again.
    pub tally: Tally,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            ca: Vec::new(),
            proxy_ca: Vec::new(),
            headers: Vec::new(),
            basic_auth: None,
            insecure: false,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_mins(1),
            retries: 8,
            backoff: Duration::from_millis(250),
            connections: MOST_CONNECTIONS,
            registry: RegistryOptions::default(),
            objects: ObjectOptions::default(),
            force_share: false,
            cancel: Cancel::default(),
            tally: Tally::default(),
        }
    }
}

impl fmt::Debug for SourceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("SourceOptions")
            .field("ca", &self.ca)
            .field("proxy_ca", &self.proxy_ca)
            .field("headers", &names)
            .field("basic_auth", &self.basic_auth)
            .field("insecure", &self.insecure)
            .field("connect_timeout", &self.connect_timeout)
            .field("stall_timeout", &self.stall_timeout)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("connections", &self.connections)
            .field("registry", &self.registry)
            .field("objects", &self.objects)
            .field("force_share", &self.force_share)
            .finish_non_exhaustive()
    }
}

/// A name and a password. The password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// Name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth").finish_non_exhaustive()
    }
}

/// Takes `Name: value` apart, as `--header` gets it. Both are checked when a source is opened.
pub fn parse_header(text: &str) -> Result<(String, String)> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        // The text stays out of the message: it may be all secret.
        _ => Err(Error::Header {
            name: String::new(),
            why: "it has the form `Name: value`",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_taken_apart_at_the_first_colon() {
        let header = parse_header("X-Token:  a:b ").unwrap();
        assert_eq!(header, ("X-Token".to_owned(), "a:b".to_owned()));
        assert!(matches!(
            parse_header("no colon"),
            Err(Error::Header { .. })
        ));
        assert!(matches!(parse_header(": value"), Err(Error::Header { .. })));
    }

    #[test]
    fn options_are_shown_without_their_secrets() {
        let options = SourceOptions {
            headers: vec![("X-Token".into(), "hush".into())],
            basic_auth: Some(BasicAuth {
                user: "jane".into(),
                password: "hush".into(),
            }),
            ..SourceOptions::default()
        };
        let shown = format!("{options:?}");
        assert!(
            shown.contains("X-Token") && !shown.contains("hush"),
            "{shown}"
        );
    }
}
