//! Requests other than for parts of an image: to the interfaces that manage images.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use tokio::sync::oneshot;
use url::Url;

use super::agent::{Agent, USER_AGENT};
use super::answer::Identity;
use super::call::call;
use super::error::{Cause, HttpError};
use super::location::{Location, host};
use super::net::{Net, lost};
use super::pipe::{Feed, pipe};
use super::random::Fetch;
use super::retry::Policy;
use super::trust;
use crate::{Result, SourceOptions};

/// A client for the host of `url`. It follows no redirects.
pub(crate) fn client_for(url: &Url, options: &SourceOptions) -> Result<Client> {
    trust::client(url, options, USER_AGENT)
}

impl Fetch {
    /// Ranges of `url`, which has `len` bytes if that is known.
    pub(crate) fn of(url: &Url, len: Option<u64>, options: &SourceOptions) -> Result<Self> {
        let agent = Agent::new(Location::parse(url.as_str())?, None, options)?;
        let identity = Identity {
            len,
            ..Identity::default()
        };
        let policy = Policy {
            retries: options.retries,
            first_pause: options.backoff,
        };
        Ok(Self::new(&Arc::new(agent), &identity, policy))
    }
}

async fn send(request: RequestBuilder, stall: Duration) -> Result<(String, Response), HttpError> {
    let (client, request) = request.build_split();
    let request = request.map_err(|e| HttpError::from_request(&e, String::new()))?;
    let host = host(request.url());
    match tokio::time::timeout(stall, client.execute(request)).await {
        Ok(Ok(response)) => Ok((host, response)),
        Ok(Err(e)) => Err(HttpError::from_request(&e, host)),
        Err(_) => Err(HttpError::Stalled { host, after: stall }),
    }
}

/// Sends `request`; its answer, of any status, has `most` bytes at the most.
pub(crate) async fn exchange(
    request: RequestBuilder,
    stall: Duration,
    most: usize,
) -> Result<(u16, Vec<u8>), HttpError> {
    let (client, request) = request.build_split();
    let request = request.map_err(|e| HttpError::from_request(&e, String::new()))?;
    let reply = call(&client, request, stall, most).await?;
    Ok((reply.status, reply.body.to_vec()))
}

/// Sends `request`; the answer's body is read as it comes.
pub(crate) fn read_through(
    net: &Arc<Net>,
    request: RequestBuilder,
    stall: Duration,
) -> Result<(u16, impl Read + use<>), HttpError> {
    let (sender, status) = oneshot::channel();
    let body = pipe(Arc::clone(net), |mut feed: Feed| async move {
        let (host, mut response) = match send(request, stall).await {
            Ok(answered) => answered,
            Err(e) => {
                let _ = sender.send(Err(e));
                return;
            }
        };
        let _ = sender.send(Ok(response.status().as_u16()));
        loop {
            match next(&host, &mut response, stall).await {
                Ok(Some(chunk)) => {
                    if feed.send(&chunk).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return feed.end(Ok(())),
                Err(e) => return feed.end(Err(e)),
            }
        }
    });
    let status = net.wait(async move { status.await.map_err(|_| lost())? })?;
    Ok((status, body))
}

async fn next(
    host: &str,
    response: &mut Response,
    stall: Duration,
) -> Result<Option<bytes::Bytes>, HttpError> {
    match tokio::time::timeout(stall, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|e| HttpError::Broken {
            host: host.to_owned(),
            source: Cause::of(&e),
        }),
        Err(_) => Err(HttpError::Stalled {
            host: host.to_owned(),
            after: stall,
        }),
    }
}
