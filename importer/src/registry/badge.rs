//! What is shown to a registry: nothing, a password, or a token that is fetched when the registry asks
//! for one, and again when it has run out.
//!
//! Who gives tokens may be any host that the registry names, as it is for Docker; the user's password
//! goes there. So a registry that is reached by https can't name one that is not.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Request};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;
use url::form_urlencoded::Serializer;

use super::challenge::{Challenge, challenges};
use super::credentials::Secret;
use crate::BasicAuth;
use crate::http::call::{call, persist};
use crate::http::error::{HttpError, Retry};
use crate::http::location::{host, is_web};
use crate::http::passport::{Passport, Pending};
use crate::http::retry::Policy;

/// Proxies see upstream's registry client, which is a library, by Go's own name: rules for them go by the
/// first word, and so do upstream's tests. The second says who asks in truth.
pub(super) const USER_AGENT: &str =
    concat!("Go-http-client/1.1 longshore/", env!("CARGO_PKG_VERSION"));

/// A token with what comes around it has some kilobytes.
const MOST_TOKEN: usize = 256 << 10;
/// All requests under way are refused when a token runs out, and which token a refusal is for is not
/// known: so few are fetched within so long.
const MOST_FETCHED: u32 = 3;
const AT_ONCE: Duration = Duration::from_secs(10);

/// The papers for one repository.
pub(super) struct Badge {
    client: Client,
    /// The registry is reached by https.
    secure: bool,
    /// What is asked for where the registry does not say.
    scope: String,
    secret: Secret,
    stall: Duration,
    policy: Policy,
    shown: Mutex<Shown>,
}

/// What goes with requests now.
#[derive(Default)]
struct Shown {
    header: Option<HeaderValue>,
    /// Since when, and how often since then.
    fetched: Option<(Instant, u32)>,
}

impl Shown {
    /// How often it was made lately.
    fn lately(&self) -> u32 {
        match self.fetched {
            Some((since, times)) if since.elapsed() < AT_ONCE => times,
            _ => 0,
        }
    }
}

impl fmt::Debug for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Badge")
            .field("scope", &self.scope)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

/// Where and how a badge is asked for.
pub(super) struct Office {
    pub(super) client: Client,
    pub(super) secure: bool,
    pub(super) repository: String,
    pub(super) stall: Duration,
    pub(super) policy: Policy,
}

#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
}

impl Badge {
    pub(super) fn new(office: Office, secret: Secret) -> Arc<Self> {
        let Office {
            client,
            secure,
            repository,
            stall,
            policy,
        } = office;
        Arc::new(Self {
            client,
            secure,
            scope: format!("repository:{repository}:pull"),
            secret,
            stall,
            policy,
            shown: Mutex::default(),
        })
    }

    /// A new header in answer to `challenge`; `None` if there is none.
    async fn answer(&self, challenge: &Challenge) -> Result<Option<HeaderValue>, HttpError> {
        match (challenge, &self.secret) {
            (Challenge::Basic, Secret::Password(auth)) => Ok(Some(basic(auth)?)),
            (Challenge::Bearer { .. }, Secret::Registry(token)) => Ok(Some(bearer(token)?)),
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                _,
            ) => {
                let scope = scope.as_deref().unwrap_or(&self.scope);
                let token = self.token(realm, service.as_deref(), scope).await?;
                Ok(Some(bearer(&token)?))
            }
            (Challenge::Basic, _) => Ok(None),
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<String, HttpError> {
        let url = Url::parse(realm).ok().filter(is_web);
        let Some(url) = url else {
            return Err(no_token(
                "the registry",
                "what it names as its giver of tokens is no URL",
            ));
        };
        let giver = host(&url);
        if self.secure && url.scheme() != "https" {
            return Err(no_token(
                &giver,
                "the registry speaks https and its giver of tokens does not: anyone on the way could read the password",
            ));
        }
        let attempt = async || {
            let request = self.request(&url, service, scope)?;
            let reply = call(&self.client, request, self.stall, MOST_TOKEN).await?;
            reply.success(match self.secret {
                Secret::None => ": it gives no token to nobody in particular, give credentials",
                _ => ": check the user name and the password, or the token",
            })
        };
        let reply = persist(self.policy, attempt).await;
        let reply = reply.map_err(|source| HttpError::Papers {
            what: format!("a token from {giver}"),
            retry: source.retry(),
            source: Box::new(source),
        })?;
        let answer: Option<Given> = serde_json::from_slice(&reply.body).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        token
            .filter(|token| !token.is_empty())
            .ok_or_else(|| no_token(&giver, "there is no token in its answer"))
    }

    fn request(&self, url: &Url, service: Option<&str>, scope: &str) -> Result<Request, HttpError> {
        let mut url = url.clone();
        // What the registry wrote into its address is not for us to keep.
        crate::http::location::without_user(&mut url);
        url.set_fragment(None);
        let json = HeaderValue::from_static("application/json");
        if let Secret::Identity(token) = &self.secret {
            let mut form = Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token")
                .append_pair("client_id", "longshore")
                .append_pair("scope", scope)
                .append_pair("refresh_token", token);
            if let Some(service) = service {
                form.append_pair("service", service);
            }
            let mut request = Request::new(Method::POST, url);
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(CONTENT_TYPE, kind);
            request.headers_mut().insert(ACCEPT, json);
            *request.body_mut() = Some(form.finish().into());
            return Ok(request);
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", scope);
            if let Secret::Password(auth) = &self.secret {
                query.append_pair("account", &auth.user);
            }
        }
        let mut request = Request::new(Method::GET, url);
        request.headers_mut().insert(ACCEPT, json);
        if let Secret::Password(auth) = &self.secret {
            request.headers_mut().insert(AUTHORIZATION, basic(auth)?);
        }
        Ok(request)
    }
}

impl Passport for Badge {
    fn user_agent(&self) -> &'static str {
        USER_AGENT
    }

    fn stamp<'a>(&'a self, _: &'a Url, _: &'a HeaderMap) -> Pending<'a, HeaderMap> {
        Box::pin(async {
            let header = self.shown.lock().await.header.clone();
            Ok(header
                .map(|header| (AUTHORIZATION, header))
                .into_iter()
                .collect())
        })
    }

    fn refused<'a>(&'a self, status: u16, headers: &'a HeaderMap) -> Pending<'a, bool> {
        Box::pin(async move {
            if status != 401 {
                return Ok(false);
            }
            let mut shown = self.shown.lock().await;
            let lately = shown.lately();
            if lately >= MOST_FETCHED {
                return Ok(true);
            }
            let mut challenges = challenges(headers);
            // A password for each request is the last resort.
            challenges.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
            for challenge in &challenges {
                let Some(header) = self.answer(challenge).await? else {
                    continue;
                };
                let is_new = shown.header.as_ref() != Some(&header);
                let since = shown.fetched.filter(|_| lately > 0);
                let since = since.map_or_else(Instant::now, |(since, _)| since);
                *shown = Shown {
                    header: Some(header),
                    fetched: Some((since, lately + 1)),
                };
                // Another request may have been first to show it.
                return Ok(is_new || lately > 0);
            }
            Ok(false)
        })
    }
}

fn basic(auth: &BasicAuth) -> Result<HeaderValue, HttpError> {
    let pair = STANDARD.encode(format!("{}:{}", auth.user, auth.password));
    sensitive(&format!("Basic {pair}"))
}

fn bearer(token: &str) -> Result<HeaderValue, HttpError> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Result<HeaderValue, HttpError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| no_token("the registry", "it has bytes that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn no_token(giver: &str, why: &'static str) -> HttpError {
    HttpError::Papers {
        what: format!("a token from {giver}"),
        retry: Retry::Permanent,
        source: why.into(),
    }
}
