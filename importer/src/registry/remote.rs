//! Images in registries.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_transfer::Source;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request};
use url::Url;

use super::badge::{Badge, Office, USER_AGENT};
use super::credentials::{AuthFile, Secret};
use super::digest::Digest;
use super::error::RegistryError;
use super::manifest::{self, Descriptor, MOST_TEXT};
use super::reference::{Reference, api_host};
use super::resolve::{Store, Text};
use crate::http::HttpSource;
use crate::http::agent::{is_redirect, redirected};
use crate::http::answer::text;
use crate::http::call::{Reply, call, persist};
use crate::http::error::HttpError;
use crate::http::location::{host, same_origin};
use crate::http::net::Net;
use crate::http::passport::Passport;
use crate::http::retry::Policy;
use crate::http::trust;
use crate::{Error, SourceOptions};

const MOST_REDIRECTS: usize = 5;

/// A registry's answer names what it serves.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// An image in a registry, or in one of its mirrors.
pub(super) struct Remote {
    name: String,
    wanted: String,
    /// What it must have, if the name says so.
    digest: Option<Digest>,
    net: Arc<Net>,
    /// In the order in which they are asked. The last is the registry itself.
    places: Vec<Place>,
    /// Who gave something last: what belongs together comes from one place if it has all of it.
    favourite: AtomicUsize,
    options: SourceOptions,
}

/// One registry, as it is asked.
struct Place {
    host: String,
    repository: String,
    /// Nothing is lost if it does not answer: it is not asked twice.
    is_mirror: bool,
    insecure: bool,
    secret: Secret,
    /// Made when it is first asked.
    reached: Mutex<Option<Reached>>,
}

/// What it takes to ask.
#[derive(Clone)]
struct Reached {
    client: Client,
    /// `https://HOST/v2/REPOSITORY/`.
    base: Url,
    badge: Arc<Badge>,
}

impl Remote {
    /// Nobody is asked yet.
    pub(super) fn open(
        reference: &Reference,
        options: &SourceOptions,
    ) -> Result<Self, RegistryError> {
        let name = reference.to_string();
        let layer = |e: Error| RegistryError::Layer {
            source: Box::new(e),
        };
        let net = Net::open(&name, options).map_err(layer)?;
        let settings = &options.registry;
        let file = match &settings.auth_file {
            Some(path) => AuthFile::read(path)?,
            None => AuthFile::default(),
        };
        let place = |host: &str, repository: String, is_mirror: bool| {
            let secret = match &options.basic_auth {
                // Given for the registry that was named, and for no other.
                Some(auth) if !is_mirror => Secret::Password(auth.clone()),
                _ => file.secret(host, &repository),
            };
            let insecure = options.insecure || settings.insecure.iter().any(|i| i.is(host));
            Place {
                host: host.to_owned(),
                repository,
                is_mirror,
                insecure,
                secret,
                reached: Mutex::default(),
            }
        };
        let mut places = Vec::new();
        for mirror in &settings.mirrors {
            if let Some(repository) = mirror.repository(&reference.host, &reference.repository) {
                places.push(place(&mirror.host, repository, true));
            }
        }
        places.push(place(&reference.host, reference.repository.clone(), false));
        Ok(Self {
            name,
            wanted: reference.wanted(),
            digest: reference.digest.clone(),
            net,
            places,
            favourite: AtomicUsize::new(0),
            options: options.clone(),
        })
    }

    /// Asks one place after the other.
    fn anywhere<T>(
        &self,
        mut ask: impl FnMut(&Place) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let favourite = self.favourite.load(Ordering::Relaxed);
        let mut order: Vec<usize> = (0..self.places.len()).collect();
        order.sort_by_key(|at| *at != favourite);
        let mut failed = None;
        for at in order {
            let Some(place) = self.places.get(at) else {
                continue;
            };
            match ask(place) {
                Ok(found) => {
                    self.favourite.store(at, Ordering::Relaxed);
                    return Ok(found);
                }
                Err(e) if is_cancelled(&e) => return Err(e),
                // A mirror need not have everything: what the registry itself says counts.
                Err(e) if place.is_mirror => {
                    tracing::warn!(
                        mirror = place.host,
                        cause = &e as &dyn std::error::Error,
                        "a mirror does not have it"
                    );
                    failed.get_or_insert(e);
                }
                Err(e) => failed = Some(e),
            }
        }
        Err(failed.unwrap_or_else(|| RegistryError::malformed(&self.name, "no registry is named")))
    }

    fn text(&self, what: &str, path: &str, accept: &'static str) -> Result<Text, RegistryError> {
        self.anywhere(|place| {
            let fail = |source| RegistryError::Http {
                what: format!("{what} from {}", place.host),
                source,
            };
            let reached = self.reach(place)?;
            let url = reached
                .base
                .join(path)
                .map_err(|e| RegistryError::malformed(what, e.to_string()))?;
            let policy = self.policy(place);
            let stall = self.options.stall_timeout;
            let extra = headers(&self.options_for(place).headers, accept).map_err(|source| {
                RegistryError::Layer {
                    source: Box::new(source),
                }
            })?;
            let work = async move {
                persist(policy, async || {
                    let reply = reached.get(&url, &extra, stall).await?;
                    let hint = hint(reply.status);
                    reply.success(hint)
                })
                .await
            };
            let reply = self.net.wait(work).map_err(fail)?;
            let named = text(&reply.headers, &CONTENT_DIGEST).and_then(|named| named.parse().ok());
            let media_type = text(&reply.headers, &CONTENT_TYPE).unwrap_or("");
            Ok(Text {
                media_type: media_type.to_owned(),
                named,
                bytes: reply.body,
            })
        })
    }

    fn policy(&self, place: &Place) -> Policy {
        let mut policy = Policy::of(&self.options);
        if place.is_mirror {
            policy.retries = 0;
        }
        policy
    }

    /// Finds out how a registry is reached. One that is insecure may speak https or http.
    fn reach(&self, place: &Place) -> Result<Reached, RegistryError> {
        let mut reached = place.reached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reached) = &*reached {
            return Ok(reached.clone());
        }
        let found = self.find(place)?;
        *reached = Some(found.clone());
        Ok(found)
    }

    fn find(&self, place: &Place) -> Result<Reached, RegistryError> {
        let secure = self.ways(place, "https")?;
        if !place.insecure {
            return Ok(secure);
        }
        let plain = self.ways(place, "http")?;
        let stall = self.options.stall_timeout;
        let policy = self.policy(place);
        let fail = |source| RegistryError::Http {
            what: format!("an answer from {}", place.host),
            source,
        };
        let ping = |reached: &Reached| {
            let client = reached.client.clone();
            let url = reached
                .base
                .join("/v2/")
                .unwrap_or_else(|_| reached.base.clone());
            async move {
                persist(policy, async || {
                    let request = Request::new(Method::GET, url.clone());
                    match call(&client, request, stall, MOST_REPLY).await {
                        // Whatever it is, it speaks HTTP.
                        Err(HttpError::Overlong { .. }) => Ok(()),
                        reply => reply.map(drop),
                    }
                })
                .await
            }
        };
        // Both at once, which saves round trips, with nothing in it that is secret. That https is spoken
        // ends the wait for the other, as an error would.
        let (secured, plainly) = (ping(&secure), ping(&plain));
        let work = async move {
            let secured = async {
                match secured.await {
                    Ok(()) => Err(Ok(None)),
                    Err(HttpError::Cancelled) => Err(Err(HttpError::Cancelled)),
                    Err(error) => Ok(error),
                }
            };
            let both = tokio::try_join!(secured, async { Ok(plainly.await) });
            both.map_or_else(
                |ended| ended,
                |(error, plainly)| plainly.map(|()| Some(error)),
            )
        };
        match self.net.wait(work).map_err(fail)? {
            None => Ok(secure),
            Some(error) => {
                tracing::debug!(%error, host = place.host, "no https");
                tracing::warn!(
                    host = place.host,
                    "the registry speaks plain http: anyone on the way can read passwords and change what is not named by a digest"
                );
                Ok(plain)
            }
        }
    }

    fn ways(&self, place: &Place, scheme: &str) -> Result<Reached, RegistryError> {
        let base = format!(
            "{scheme}://{}/v2/{}/",
            api_host(&place.host),
            place.repository
        );
        let base = Url::parse(&base).map_err(|e| {
            RegistryError::malformed(format!("the host {}", place.host), e.to_string())
        })?;
        let options = self.options_for(place);
        let client =
            trust::client(&base, &options, USER_AGENT).map_err(|e| RegistryError::Layer {
                source: Box::new(e),
            })?;
        let office = Office {
            client: client.clone(),
            secure: scheme == "https",
            repository: place.repository.clone(),
            stall: options.stall_timeout,
            policy: self.policy(place),
        };
        Ok(Reached {
            client,
            base,
            badge: Badge::new(office, place.secret.clone()),
        })
    }

    /// What the HTTP source is told: names and passwords are the badge's.
    fn options_for(&self, place: &Place) -> SourceOptions {
        SourceOptions {
            insecure: place.insecure,
            basic_auth: None,
            headers: if place.is_mirror {
                Vec::new()
            } else {
                self.options.headers.clone()
            },
            ..self.options.clone()
        }
    }
}

fn is_cancelled(error: &RegistryError) -> bool {
    let http = match error {
        RegistryError::Http { source, .. } => source,
        RegistryError::Layer { source } => match &**source {
            Error::Open { source, .. } => source,
            _ => return false,
        },
        _ => return false,
    };
    matches!(http, HttpError::Cancelled)
}

/// Most bytes of an answer that nobody reads.
const MOST_REPLY: usize = 64 << 10;

impl Store for Remote {
    fn root(&self) -> Result<Text, RegistryError> {
        let path = format!("manifests/{}", self.wanted);
        self.text("the manifest", &path, manifest::ACCEPT)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Text, RegistryError> {
        let path = format!("manifests/{}", descriptor.digest);
        self.text("the manifest", &path, manifest::ACCEPT)
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Text, RegistryError> {
        let path = format!("blobs/{}", descriptor.digest);
        self.text("the image's configuration", &path, "*/*")
    }

    fn wanted(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Source>, RegistryError> {
        let path = format!("blobs/{}", descriptor.digest);
        self.anywhere(|place| {
            let reached = self.reach(place)?;
            let url = reached
                .base
                .join(&path)
                .map_err(|e| RegistryError::malformed("a layer's URL", e.to_string()))?;
            let name = format!("{} layer {}", self.name, descriptor.digest);
            let options = self.options_for(place);
            let net = Arc::clone(&self.net);
            let source = HttpSource::object(name, url, reached.badge, net, &options);
            match source {
                Ok(source) => Ok(Box::new(source) as Box<dyn Source>),
                Err(source) => Err(RegistryError::Layer {
                    source: Box::new(source),
                }),
            }
        })
    }
}

impl Reached {
    /// Asks for a small thing, wherever that leads. What is meant for the registry stays there.
    async fn get(&self, url: &Url, extra: &Extra, stall: Duration) -> Result<Reply, HttpError> {
        let most = usize::try_from(MOST_TEXT).unwrap_or(usize::MAX);
        let mut at = url.clone();
        let mut at_home = true;
        let mut renewed = false;
        for _ in 0..=MOST_REDIRECTS {
            let mut request = Request::new(Method::GET, at.clone());
            request.headers_mut().insert(ACCEPT, extra.accept.clone());
            if at_home {
                request.headers_mut().extend(extra.secret.clone());
                let papers = self.badge.stamp(&at, request.headers()).await?;
                request.headers_mut().extend(papers);
            }
            let reply = call(&self.client, request, stall, most).await?;
            match reply.status {
                status if is_redirect(status) => {
                    at = redirected(&at, &reply.headers)?;
                    at_home = at_home && same_origin(url, &at);
                }
                401 if at_home && !renewed && self.badge.refused(401, &reply.headers).await? => {
                    renewed = true;
                }
                _ => return Ok(reply),
            }
        }
        Err(HttpError::Redirect {
            host: host(url),
            why: format!("more than {MOST_REDIRECTS} times in a row"),
        })
    }
}

/// What goes with requests for small things.
struct Extra {
    accept: HeaderValue,
    /// For the registry alone.
    secret: HeaderMap,
}

fn headers(given: &[(String, String)], accept: &'static str) -> Result<Extra, Error> {
    Ok(Extra {
        accept: HeaderValue::from_static(accept),
        secret: crate::http::agent::secrets(given, None)?,
    })
}

fn hint(status: u16) -> &'static str {
    match status {
        401 => {
            ": the image is not there or not public: check its name, and give credentials (--user, --authfile)"
        }
        403 => ": these credentials do not allow it",
        404 => ": check the repository and the tag",
        406 => ": it has the image in no form that is read here",
        429 => {
            ": it limits how often images are pulled: give credentials (--user, --authfile), or a mirror"
        }
        _ => "",
    }
}
