//! Addresses of exports: `nbd://host[:port]/export` and `nbd+unix:///export?socket=path`
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md>).

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::error::NbdError;

const PORT: u16 = 10809;
/// The protocol's longest string.
const MOST_NAME: usize = 4096;

/// An export, and where its server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) place: Place,
    pub(crate) export: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Unix(PathBuf),
    Tcp(String, u16),
}

impl Address {
    /// True if `scheme` is one that [`Address::parse`] takes, or refuses with a better message.
    pub(crate) fn is_scheme(scheme: &str) -> bool {
        matches!(scheme, "nbd" | "nbd+unix" | "nbds" | "nbds+unix")
    }

    pub(crate) fn parse(spec: &str) -> Result<Self, NbdError> {
        let refuse = |why: &str| NbdError::Address {
            why: why.to_owned(),
        };
        let url = Url::parse(spec).map_err(|e| refuse(&e.to_string()))?;
        let path = url.path();
        let export = percent_decode_str(path.strip_prefix('/').unwrap_or(path))
            .decode_utf8()
            .map_err(|_| refuse("the export's name is not UTF-8"))?
            .into_owned();
        if export.len() > MOST_NAME {
            return Err(refuse("the export's name is too long"));
        }
        let socket = url
            .query_pairs()
            .find(|(key, _)| key == "socket")
            .map(|(_, value)| PathBuf::from(value.into_owned()));
        let place = match (url.scheme(), socket) {
            ("nbd", _) => match url.host_str().filter(|host| !host.is_empty()) {
                // The brackets of an address of IPv6 are the URL's.
                Some(host) => Place::Tcp(
                    host.trim_matches(['[', ']']).to_owned(),
                    url.port().unwrap_or(PORT),
                ),
                None => return Err(refuse("it names no host")),
            },
            ("nbd+unix", Some(path)) => Place::Unix(path),
            ("nbd+unix", None) => return Err(refuse("it has no ?socket=PATH")),
            _ => return Err(NbdError::Tls),
        };
        Ok(Self { place, export })
    }

    /// The server for people.
    pub(crate) fn peer(&self) -> String {
        match &self.place {
            Place::Unix(path) => path.display().to_string(),
            Place::Tcp(host, port) => format!("{host}:{port}"),
        }
    }

    /// All of it for people. There are no secrets in it.
    pub(crate) fn shown(&self) -> String {
        match &self.place {
            Place::Unix(path) => {
                format!("nbd+unix:///{}?socket={}", self.export, path.display())
            }
            Place::Tcp(host, port) => format!("nbd://{host}:{port}/{}", self.export),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(spec: &str) -> Address {
        Address::parse(spec).unwrap()
    }

    #[test]
    fn addresses_are_taken_apart() {
        let tcp = |host: &str, port, export: &str| Address {
            place: Place::Tcp(host.to_owned(), port),
            export: export.to_owned(),
        };
        assert_eq!(parsed("nbd://h"), tcp("h", PORT, ""));
        assert_eq!(parsed("nbd://h:1/a%20b/c"), tcp("h", 1, "a b/c"));
        assert_eq!(parsed("nbd://[::1]:1/"), tcp("::1", 1, ""));
        let unix = parsed("nbd+unix:///disk?socket=/run/a%20b.sock");
        assert_eq!(unix.place, Place::Unix("/run/a b.sock".into()));
        assert_eq!(unix.export, "disk");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for spec in ["nbd:///disk", "nbd+unix:///disk", "nbd://h/%ff"] {
            assert!(
                matches!(Address::parse(spec), Err(NbdError::Address { .. })),
                "{spec}"
            );
        }
        assert!(matches!(Address::parse("nbds://h/"), Err(NbdError::Tls)));
    }
}
