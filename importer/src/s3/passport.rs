//! A signature for each request, and what S3's answers mean.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use reqwest::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use url::Url;

use super::keys::{Chain, Keys};
use super::sign;
use crate::http::answer::text;
use crate::http::error::HttpError;
use crate::http::passport::{Passport, Pending, Refusal, Verdict};
use crate::object::lease::Lease;
use crate::object::refusal::Complaint;
use crate::object::secret::Secret;

const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

/// Papers for one bucket.
#[derive(Debug)]
pub(super) struct S3Passport {
    chain: Arc<Chain>,
    region: String,
    /// The store has refused to do without keys: the machine's role is asked for.
    wanted: AtomicBool,
    /// Where the bucket is, if it turned out not to be in `region`.
    told: Mutex<Option<String>>,
}

impl S3Passport {
    pub(super) fn new(chain: Arc<Chain>, region: String) -> Self {
        Self {
            chain,
            region,
            wanted: AtomicBool::new(false),
            told: Mutex::default(),
        }
    }

    /// The region that the store named instead of ours.
    pub(super) fn told(&self) -> Option<String> {
        let told = self.told.lock();
        told.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lease(&self) -> Option<&Lease<Keys>> {
        match &*self.chain {
            Chain::Nobody => None,
            Chain::Keys(lease) => Some(lease),
            Chain::Perhaps(lease) => self.wanted.load(Ordering::Relaxed).then_some(lease),
        }
    }

    /// True if there are other keys than those of the refused request.
    async fn other_keys(&self, refusal: &Refusal<'_>, code: &str) -> Result<bool, HttpError> {
        match &*self.chain {
            Chain::Keys(lease) if is_about_time(refusal.status, code) => {
                lease
                    .renew(|keys| sign::made_with(keys, refusal.papers))
                    .await
            }
            Chain::Perhaps(lease) if matches!(refusal.status, 401 | 403) => {
                if self.wanted.swap(true, Ordering::Relaxed) && !is_about_time(refusal.status, code)
                {
                    return Ok(false);
                }
                match lease
                    .renew(|keys| sign::made_with(keys, refusal.papers))
                    .await
                {
                    Ok(other) => Ok(other),
                    Err(HttpError::Cancelled) => Err(HttpError::Cancelled),
                    Err(error) => {
                        // Most machines have none.
                        tracing::debug!(cause = &error as &dyn std::error::Error, "no role");
                        self.wanted.store(false, Ordering::Relaxed);
                        Ok(false)
                    }
                }
            }
            _ => Ok(false),
        }
    }

    async fn read(&self, refusal: Refusal<'_>) -> Result<Verdict, HttpError> {
        let complaint = Complaint::read(refusal.body);
        let code = complaint.code.as_str();
        if matches!(refusal.status, 301 | 307 | 400) {
            let named = text(refusal.headers, &BUCKET_REGION).map(str::to_owned);
            if let Some(region) = named.or_else(|| complaint.region.clone())
                && region != self.region
            {
                *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(region);
            }
        }
        if refusal.status == 412 {
            return Ok(Verdict::Means(HttpError::Changed {
                what: "its state",
                was: "that of the first answer".to_owned(),
                now: "another".to_owned(),
            }));
        }
        if !refusal.retried && self.other_keys(&refusal, code).await? {
            return Ok(Verdict::Again);
        }
        let keys = match self.lease() {
            Some(lease) => lease.papers().await.ok(),
            None => None,
        };
        let secrets: Vec<&Secret> = keys.iter().flat_map(|keys| keys.secrets()).collect();
        let hint = hint(refusal.status, code, keys.is_some());
        Ok(match complaint.error(&refusal, hint, &secrets) {
            Some(error) => Verdict::Means(error),
            None => Verdict::Plain,
        })
    }
}

/// True if new keys of the same source may be accepted where these were not.
fn is_about_time(status: u16, code: &str) -> bool {
    match code {
        "ExpiredToken"
        | "ExpiredTokenException"
        | "TokenRefreshRequired"
        | "InvalidToken"
        | "RequestExpired" => true,
        // Some stores know no code for it, and forget keys that ran out.
        "InvalidAccessKeyId" | "InvalidClientTokenId" | "" => matches!(status, 401 | 403),
        _ => false,
    }
}

fn hint(status: u16, code: &str, has_keys: bool) -> &'static str {
    match code {
        "SignatureDoesNotMatch" => ": check the secret key",
        "InvalidAccessKeyId" => ": check the access key",
        "RequestTimeTooSkewed" => ": the clock of this machine is wrong",
        "AccessDenied" if has_keys => {
            ": the keys do not allow it, or there is no such object and they do not allow to know that"
        }
        "NoSuchKey" | "NoSuchBucket" | "NoSuchVersion" => ": check bucket and key",
        "ExpiredToken" => ": the session token has run out",
        _ if matches!(status, 401 | 403) && !has_keys => {
            ": it was asked without keys, for none were found (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a role)"
        }
        _ if matches!(status, 401 | 403) => ": the keys do not allow it",
        _ => "",
    }
}

impl Passport for S3Passport {
    fn stamp<'a>(&'a self, url: &'a Url, headers: &'a HeaderMap) -> Pending<'a, HeaderMap> {
        Box::pin(async move {
            let mut papers = HeaderMap::new();
            if let Some(lease) = self.lease() {
                let keys = lease.papers().await?;
                papers = sign::sign(&keys, &self.region, url, headers, SystemTime::now());
            }
            // S3 knows no If-Range, and would send a part of whatever is there now. What does not know these
            // either is found out by the answer's ETag.
            if let Some(state) = headers.get(IF_RANGE) {
                papers.insert(precondition(state), state.clone());
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
}

/// What asks for this state of the content, and nothing else.
fn precondition(state: &HeaderValue) -> HeaderName {
    if state.as_bytes().starts_with(b"\"") {
        IF_MATCH
    } else {
        IF_UNMODIFIED_SINCE
    }
}
