//! Papers for servers that want a signature made for each request, or a token that runs out.
//!
//! [`SourceOptions`](crate::SourceOptions) has what a user gives once and for all; here is what object
//! stores and registries make of it, request by request. Papers are shown to the origin of the first URL
//! only: where a redirect leads elsewhere (a registry's storage), the URL itself is the permission.

use std::fmt;
use std::pin::Pin;

use reqwest::header::HeaderMap;
use url::Url;

use super::error::HttpError;

/// What takes a request of its own to find out, perhaps.
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, HttpError>> + Send + 'a>>;

/// Makes requests acceptable.
pub(crate) trait Passport: Send + Sync + fmt::Debug {
    /// The headers to add to a GET of `url` that has `headers`. Called for each attempt, so that a
    /// signature carries the time of its request. Secret values are marked sensitive.
    fn stamp<'a>(&'a self, url: &'a Url, headers: &'a HeaderMap) -> Pending<'a, HeaderMap>;

    /// The server answered 401 or 403 with these headers. True: what [`Passport::stamp`] gives now is
    /// something else, and worth one more attempt.
    fn refused<'a>(&'a self, status: u16, headers: &'a HeaderMap) -> Pending<'a, bool>;
}
