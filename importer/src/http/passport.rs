//! Papers for servers that want a signature made for each request, or a token that runs out.
//!
//! [`SourceOptions`](crate::SourceOptions) has what a user gives once and for all; here is what object
//! stores and registries make of it, request by request. Papers are shown to the origin of the first URL
//! only: where a redirect leads elsewhere (a registry's storage), the URL itself is the permission.

use std::fmt;
use std::pin::Pin;

use reqwest::header::HeaderMap;
use url::Url;

use super::agent::USER_AGENT;
use super::error::HttpError;

/// What takes a request of its own to find out, perhaps.
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, HttpError>> + Send + 'a>>;

/// An answer that is not the content.
#[derive(Debug)]
pub(crate) struct Refusal<'a> {
    /// Host and port it came from.
    pub(crate) host: &'a str,
    pub(crate) status: u16,
    pub(crate) headers: &'a HeaderMap,
    /// What [`Passport::stamp`] had given.
    pub(crate) papers: &'a HeaderMap,
    /// There was an attempt with other papers already: there will be none after this.
    pub(crate) retried: bool,
    /// The first [`MOST_SAID`] bytes of the body.
    pub(crate) body: &'a [u8],
}

/// No server needs more to say what is wrong.
pub(crate) const MOST_SAID: usize = 16 << 10;

/// What becomes of a refusal.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// What [`Passport::stamp`] gives now is something else, and worth one more attempt.
    Again,
    /// It means no more than its status does.
    Plain,
    /// It means this.
    Means(HttpError),
}

/// Makes requests acceptable.
pub(crate) trait Passport: Send + Sync + fmt::Debug {
    /// The headers to add to a GET of `url` that has `headers`. Called for each attempt, so that a
    /// signature carries the time of its request. Secret values are marked sensitive.
    fn stamp<'a>(&'a self, url: &'a Url, headers: &'a HeaderMap) -> Pending<'a, HeaderMap>;

    /// The server answered 401 or 403 with these headers. True: what [`Passport::stamp`] gives now is
    /// something else, and worth one more attempt.
    fn refused<'a>(&'a self, status: u16, headers: &'a HeaderMap) -> Pending<'a, bool>;

    /// What a refusal means. Servers of one kind put it into the body.
    fn judge<'a>(&'a self, refusal: Refusal<'a>) -> Pending<'a, Verdict> {
        Box::pin(async move {
            match refusal.status {
                401 | 403
                    if !refusal.retried
                        && self.refused(refusal.status, refusal.headers).await? =>
                {
                    Ok(Verdict::Again)
                }
                _ => Ok(Verdict::Plain),
            }
        })
    }

    /// Who requests say that they come from. Servers of one kind know their clients by it.
    fn user_agent(&self) -> &'static str {
        USER_AGENT
    }

    /// The content is about to come, with these headers. An error if it is not the content that came
    /// before, as far as only this kind of server tells.
    fn admitted(&self, _headers: &HeaderMap) -> Result<(), HttpError> {
        Ok(())
    }
}
