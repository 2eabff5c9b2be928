//! One request with a small answer that is wanted whole: a token, a manifest, a listing.
//!
//! The content of an image never comes this way: see [`super::stream`] and [`super::random`].

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Request};

use super::answer::text;
use super::error::{Cause, HttpError};
use super::location::host;
use super::retry::{Attempts, PATIENCE, Policy, dice};

/// An answer of any status, and all of its body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Host and port it came from.
    pub(crate) host: String,
}

impl Reply {
    /// The answer, if it says that the request was carried out. `hint` is what to do about it otherwise.
    pub(crate) fn success(self, hint: &'static str) -> Result<Self, HttpError> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        Err(HttpError::Status {
            wait: wait_of(&self.headers),
            host: self.host,
            status: self.status,
            hint,
        })
    }
}

/// How long a server asks to be left alone.
pub(crate) fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    let seconds = text(headers, &RETRY_AFTER)?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Sends `request` and reads an answer of `most` bytes at the most. Redirects come back as they are.
/// `stall` is the longest wait for the answer, and for each piece of it; nobody gets more than ten times
/// that for all of it.
pub(crate) async fn call(
    client: &Client,
    request: Request,
    stall: Duration,
    most: usize,
) -> Result<Reply, HttpError> {
    let host = host(request.url());
    let all = exchange(client, request, stall, most, &host);
    match tokio::time::timeout(stall.saturating_mul(10), all).await {
        Ok(outcome) => outcome,
        Err(_) => Err(HttpError::Stalled { host, after: stall }),
    }
}

async fn exchange(
    client: &Client,
    request: Request,
    stall: Duration,
    most: usize,
    host: &str,
) -> Result<Reply, HttpError> {
    let stalled = |_| HttpError::Stalled {
        host: host.to_owned(),
        after: stall,
    };
    let answered = tokio::time::timeout(stall, client.execute(request)).await;
    let mut response = answered
        .map_err(stalled)?
        .map_err(|e| HttpError::from_request(&e, host.to_owned()))?;
    let mut body = BytesMut::new();
    loop {
        let chunk = tokio::time::timeout(stall, response.chunk()).await;
        let chunk = chunk.map_err(stalled)?.map_err(|e| HttpError::Broken {
            host: host.to_owned(),
            source: Cause::of(&e),
        })?;
        let Some(chunk) = chunk else { break };
        if body.len() + chunk.len() > most {
            return Err(HttpError::Overlong {
                expected: most as u64,
            });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply {
        status: response.status().as_u16(),
        headers: std::mem::take(response.headers_mut()),
        body: body.freeze(),
        host: host.to_owned(),
    })
}

/// Does `attempt` until it works or what is wrong will not pass, for [`PATIENCE`] at the most: before
/// the first byte of an image, whoever started us tries again.
pub(crate) async fn persist<T, F>(
    policy: Policy,
    mut attempt: impl FnMut() -> F,
) -> Result<T, HttpError>
where
    F: Future<Output = Result<T, HttpError>>,
{
    let until = Instant::now().checked_add(PATIENCE);
    let mut attempts = Attempts::new(policy, until);
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(e) => e,
        };
        let Some(pause) = attempts.pause(&error, Instant::now(), dice()) else {
            return Err(error.after(attempts.failed()));
        };
        tracing::warn!(
            attempt = attempts.failed(),
            pause = pause.as_secs_f32(),
            cause = &error as &dyn std::error::Error,
            "the server could not be asked and is asked again"
        );
        tokio::time::sleep(pause).await;
    }
}
