//! The client itself, and whose certificates it believes.
//!
//! Authorities that vouch for a proxy may be those of one that looks inside and signs for every server in
//! its own name, so they count for all that a proxy is asked for. They do not count without it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Certificate, Client, ClientBuilder, redirect};
use rustls::ClientConfig;
use url::Url;

use super::agent::USER_AGENT;
use crate::{Error, Result, SourceOptions};

/// A bundle of every authority there is has a quarter of a megabyte.
const LARGEST_BUNDLE: u64 = 16 << 20;

/// Clients for a URL and wherever it redirects to.
#[derive(Debug)]
pub(crate) struct Clients {
    /// For all, if nothing is said of proxies' authorities; otherwise for what no proxy is asked for.
    plain: Client,
    proxied: Option<Proxied>,
    /// What they were made of.
    of: Recipe,
}

/// What clients are made of, without any of the secrets that go with requests.
#[derive(Debug, Clone)]
struct Recipe {
    url: Url,
    options: SourceOptions,
    agent: String,
}

/// Believes proxies' authorities too: in what it asks a proxy for, and nothing else.
#[derive(Debug)]
struct Proxied {
    client: Client,
    /// Which URLs these are, by the same rules as the client's own.
    proxies: Matcher,
}

impl Clients {
    pub(crate) fn new(url: &Url, options: &SourceOptions, agent: &str) -> Result<Self> {
        if options.insecure && url.scheme() == "https" {
            tracing::warn!("certificates are not checked: anyone on the way can change the image");
        }
        Self::make(Recipe {
            url: url.clone(),
            options: SourceOptions {
                ca: options.ca.clone(),
                proxy_ca: options.proxy_ca.clone(),
                insecure: options.insecure,
                connect_timeout: options.connect_timeout,
                connections: options.connections,
                ..SourceOptions::default()
            },
            agent: agent.to_owned(),
        })
    }

    /// The same with connections of their own: nobody else takes the one that was used last.
    pub(crate) fn others(&self) -> Result<Self> {
        Self::make(self.of.clone())
    }

    fn make(of: Recipe) -> Result<Self> {
        let Recipe {
            url,
            options,
            agent,
        } = &of;
        let mut certificates = authorities(&options.ca)?;
        if options.proxy_ca.is_empty() {
            return Ok(Self {
                plain: built(url, certificates, || builder(options, agent))?,
                proxied: None,
                of,
            });
        }
        let plain = built(url, certificates.clone(), || {
            builder(options, agent).no_proxy()
        })?;
        certificates.extend(authorities(&options.proxy_ca)?);
        let proxied = Proxied {
            client: built(url, certificates, || builder(options, agent))?,
            proxies: Matcher::from_system(),
        };
        Ok(Self {
            plain,
            proxied: Some(proxied),
            of,
        })
    }

    /// The one that asks for `url`.
    pub(crate) fn of(&self, url: &Url) -> &Client {
        match &self.proxied {
            Some(proxied) if proxied.takes(url) => &proxied.client,
            _ => &self.plain,
        }
    }
}

impl Proxied {
    fn takes(&self, url: &Url) -> bool {
        let url = url.as_str().parse();
        url.is_ok_and(|url| self.proxies.intercept(&url).is_some())
    }
}

/// Builds the client that asks for `url`.
pub(crate) fn client(url: &Url, options: &SourceOptions, agent: &str) -> Result<Client> {
    Ok(Clients::new(url, options, agent)?.of(url).clone())
}

/// A client that asks `url` itself, whatever proxies the environment names. With `tls` that says whose
/// certificates are believed.
pub(crate) fn direct(
    url: &Url,
    options: &SourceOptions,
    tls: Option<ClientConfig>,
) -> Result<Client> {
    match tls {
        None => built(url, authorities(&options.ca)?, || {
            builder(options, USER_AGENT).no_proxy()
        }),
        Some(tls) => builder(options, USER_AGENT)
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(unbuilt),
    }
}

/// A client that believes these authorities besides the system's.
fn built(
    url: &Url,
    certificates: Vec<Certificate>,
    builder: impl Fn() -> ClientBuilder,
) -> Result<Client> {
    match builder().tls_certs_merge(certificates.clone()).build() {
        // A container without ca-certificates has no authorities. That is no obstacle to http, nor
        // where the right one was given.
        Err(error) if url.scheme() == "http" || !certificates.is_empty() => {
            tracing::debug!(%error, "the system has no certificates");
            let only = builder().tls_certs_only(certificates);
            only.build().map_err(unbuilt)
        }
        client => client.map_err(unbuilt),
    }
}

fn unbuilt(error: reqwest::Error) -> Error {
    Error::Client {
        source: error.without_url(),
    }
}

fn builder(options: &SourceOptions, agent: &str) -> ClientBuilder {
    // Another part of the process may have chosen a provider already; any will do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder()
        .user_agent(agent)
        .referer(false)
        .redirect(redirect::Policy::none())
        .connect_timeout(options.connect_timeout)
        .pool_max_idle_per_host(options.connections.max(2))
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_keepalive(Duration::from_secs(30))
        .tls_danger_accept_invalid_certs(options.insecure)
}

/// A client for services of this machine, which have no certificates and are not behind a proxy.
pub(crate) fn nearby(patience: Duration, agent: &str) -> Result<Client> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder()
        .user_agent(agent)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(patience)
        .tls_certs_only([])
        .build()
        .map_err(|e| Error::Client {
            source: e.without_url(),
        })
}

/// The certificates in files, and in the files of directories.
fn authorities(paths: &[PathBuf]) -> Result<Vec<Certificate>> {
    let mut all = Vec::new();
    for path in paths {
        let fail = |source| Error::Ca {
            path: path.clone(),
            source,
        };
        let before = all.len();
        if path.is_dir() {
            for entry in fs::read_dir(path).map_err(fail)? {
                let file = entry.map_err(fail)?.path();
                // A mounted ConfigMap has links to files, and a hidden directory they lead to.
                if file.is_file() {
                    all.extend(bundle(&file).map_err(fail)?);
                }
            }
        } else {
            all.extend(bundle(path).map_err(fail)?);
        }
        if all.len() == before {
            let none = io::Error::new(
                io::ErrorKind::InvalidData,
                "there is no PEM certificate in it",
            );
            return Err(fail(none));
        }
    }
    Ok(all)
}

fn bundle(path: &Path) -> io::Result<Vec<Certificate>> {
    let mut pem = Vec::new();
    fs::File::open(path)?
        .take(LARGEST_BUNDLE)
        .read_to_end(&mut pem)?;
    Certificate::from_pem_bundle(&pem)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.without_url()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_certificates_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let missing = authorities(&[directory.path().join("none.pem")]);
        assert!(matches!(missing, Err(Error::Ca { .. })));
        let empty = authorities(&[directory.path().to_owned()]);
        assert!(matches!(empty, Err(Error::Ca { .. })));
        let noise = directory.path().join("noise.pem");
        fs::write(&noise, "not a certificate").unwrap();
        assert!(matches!(authorities(&[noise]), Err(Error::Ca { .. })));
    }
}
