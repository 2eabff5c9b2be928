//! A bearer token for each request, one generation of the object, and what Google's answers mean.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::token::Chain;
use crate::http::answer::readable;
use crate::http::error::HttpError;
use crate::http::passport::{Passport, Pending, Refusal, Verdict};
use crate::object::lease::Lease;
use crate::object::refusal::Complaint;
use crate::object::secret::Secret;

const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");
const IF_GENERATION: HeaderName = HeaderName::from_static("x-goog-if-generation-match");

/// Papers for one object.
#[derive(Debug)]
pub(super) struct GcsPassport {
    chain: Chain,
    /// The store has refused to do without a token: the machine is asked for one.
    wanted: AtomicBool,
    /// What the first answer was.
    generation: Mutex<Option<HeaderValue>>,
}

impl GcsPassport {
    pub(super) fn new(chain: Chain) -> Self {
        Self {
            chain,
            wanted: AtomicBool::new(false),
            generation: Mutex::default(),
        }
    }

    fn generation(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self) -> Option<&Lease<Secret>> {
        match &self.chain {
            Chain::Nobody => None,
            Chain::Tokens(lease) => Some(lease),
            Chain::Perhaps(lease) => self.wanted.load(Ordering::Relaxed).then_some(lease),
        }
    }

    async fn token(&self) -> Result<Option<Arc<Secret>>, HttpError> {
        match self.lease() {
            Some(lease) => lease.papers().await.map(Some),
            None => Ok(None),
        }
    }

    async fn other_token(&self, refusal: &Refusal<'_>) -> Result<bool, HttpError> {
        let was_shown = |token: &Secret| {
            let shown = refusal.papers.get(AUTHORIZATION);
            shown.is_some_and(|value| *value == bearer(token))
        };
        match &self.chain {
            Chain::Tokens(lease) if refusal.status == 401 => lease.renew(was_shown).await,
            Chain::Perhaps(lease) if matches!(refusal.status, 401 | 403) => {
                if self.wanted.swap(true, Ordering::Relaxed) && refusal.status == 403 {
                    return Ok(false);
                }
                match lease.renew(was_shown).await {
                    Ok(other) => Ok(other),
                    Err(HttpError::Cancelled) => Err(HttpError::Cancelled),
                    Err(error) => {
                        // Most machines have none.
                        tracing::debug!(cause = &error as &dyn std::error::Error, "no account");
                        self.wanted.store(false, Ordering::Relaxed);
                        Ok(false)
                    }
                }
            }
            _ => Ok(false),
        }
    }

    async fn read(&self, refusal: Refusal<'_>) -> Result<Verdict, HttpError> {
        if refusal.status == 412 {
            let was = readable(self.generation().as_ref());
            return Ok(Verdict::Means(changed(was, "another".to_owned())));
        }
        if !refusal.retried && self.other_token(&refusal).await? {
            return Ok(Verdict::Again);
        }
        let token = self.token().await.ok().flatten();
        let secrets: Vec<&Secret> = token.iter().map(|token| &**token).collect();
        let hint = match refusal.status {
            401 | 403 if token.is_none() => {
                ": it was asked without credentials, for none were found (GOOGLE_APPLICATION_CREDENTIALS, a login of gcloud, the machine's account)"
            }
            401 | 403 => {
                ": the account does not allow it, or there is no such object and it does not allow to know that"
            }
            404 => ": check bucket and object",
            _ => "",
        };
        let complaint = Complaint::read(refusal.body);
        Ok(match complaint.error(&refusal, hint, &secrets) {
            Some(error) => Verdict::Means(error),
            None => Verdict::Plain,
        })
    }
}

fn bearer(token: &Secret) -> HeaderValue {
    // Tokens are checked when they are read: visible ASCII.
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn changed(was: String, now: String) -> HttpError {
    HttpError::Changed {
        what: "its generation",
        was,
        now,
    }
}

impl Passport for GcsPassport {
    fn stamp<'a>(&'a self, _: &'a Url, _: &'a HeaderMap) -> Pending<'a, HeaderMap> {
        Box::pin(async move {
            let mut papers = HeaderMap::new();
            if let Some(token) = self.token().await? {
                papers.insert(AUTHORIZATION, bearer(&token));
            }
            if let Some(generation) = self.generation().clone() {
                papers.insert(IF_GENERATION, generation);
            }
            Ok(papers)
        })
    }

    fn refused<'a>(&'a self, _: u16, _: &'a HeaderMap) -> Pending<'a, bool> {
        // Everything is in `judge`.
        Box::pin(async { Ok(false) })
    }

    fn judge<'a>(&'a self, refusal: Refusal<'a>) -> Pending<'a, Verdict> {
        Box::pin(self.read(refusal))
    }

    fn admitted(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        let now = headers.get(GENERATION);
        let mut generation = self.generation();
        match &*generation {
            // A cache that tells none is found out by its ETag.
            Some(was) if now.is_some_and(|now| now != was) => {
                Err(changed(readable(Some(was)), readable(now)))
            }
            Some(_) => Ok(()),
            None => {
                *generation = now.cloned();
                Ok(())
            }
        }
    }
}
