//! Asking for papers: small requests to token servers and to services of the machine we run on.

use std::fmt;
use std::time::Duration;

use reqwest::{Client, Method, Request};
use url::{Host, Url};

use crate::http::agent::USER_AGENT;
use crate::http::call::{Reply, call, persist};
use crate::http::error::{HttpError, Retry};
use crate::http::retry::Policy;
use crate::http::trust;
use crate::{Error, SourceOptions};

/// Papers are small. So is what is said instead.
const MOST: usize = 64 << 10;
/// A service of this machine answers at once, or is not there; the machine may be busy.
const NEARBY: Duration = Duration::from_secs(3);

/// One request, as often as it takes to send it.
#[derive(Clone)]
pub(crate) struct Form {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// Values may be secrets, and so may the body.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form").finish_non_exhaustive()
    }
}

impl Form {
    pub(crate) fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// Fields as a web form sends them.
    pub(crate) fn post(url: Url, fields: &[(&str, &str)]) -> Self {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        Self {
            method: Method::POST,
            url,
            headers: vec![(
                "content-type",
                "application/x-www-form-urlencoded".to_owned(),
            )],
            body: body.finish(),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn request(&self, client: &Client, host: &str) -> Result<Request, HttpError> {
        let mut request = client.request(self.method.clone(), self.url.clone());
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if !self.body.is_empty() {
            request = request.body(self.body.clone());
        }
        request
            .build()
            .map_err(|e| HttpError::from_request(&e, host.to_owned()))
    }
}

/// Who asks, and how patiently.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    options: SourceOptions,
}

impl Desk {
    pub(crate) fn new(options: &SourceOptions) -> Self {
        Self {
            options: options.clone(),
        }
    }

    /// Asks a server of the world, until it answers. The answer may have any status.
    pub(crate) async fn ask(&self, form: &Form) -> Result<Reply, HttpError> {
        let client = trust::client(&form.url, &self.options, USER_AGENT).map_err(unset)?;
        let host = crate::http::location::host(&form.url);
        let stall = self.options.stall_timeout;
        persist(Policy::of(&self.options), || async {
            let reply = call(&client, form.request(&client, &host)?, stall, MOST).await?;
            // What will pass is tried again; the rest is for whoever asked to read.
            match Retry::after(reply.status) {
                Retry::Transient => reply.success(""),
                _ => Ok(reply),
            }
        })
        .await
    }

    /// Asks a service of this machine, once and past all proxies.
    pub(crate) async fn ask_nearby(&self, form: &Form) -> Result<Reply, HttpError> {
        let client = trust::nearby(NEARBY, USER_AGENT).map_err(unset)?;
        let host = crate::http::location::host(&form.url);
        call(&client, form.request(&client, &host)?, NEARBY, MOST).await
    }
}

fn unset(error: Error) -> HttpError {
    HttpError::Papers {
        what: "a client to ask for credentials with".to_owned(),
        retry: Retry::Permanent,
        source: Box::new(error),
    }
}

/// True if what is sent to `url` stays secret: https, or this machine.
pub(crate) fn is_safe(url: &Url) -> bool {
    url.scheme() == "https"
        || match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        }
}

/// Why there are no papers.
pub(crate) fn refused(what: impl Into<String>, why: impl Into<String>, retry: Retry) -> HttpError {
    HttpError::Papers {
        what: what.into(),
        retry,
        source: why.into().into(),
    }
}

/// The same, because the server could not be asked.
pub(crate) fn unanswered(what: impl Into<String>, error: HttpError) -> HttpError {
    match error {
        HttpError::Cancelled => error,
        error => HttpError::Papers {
            what: what.into(),
            retry: error.retry(),
            source: Box::new(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_by_https_or_not_at_all() {
        let safe = |text| is_safe(&Url::parse(text).unwrap());
        for good in [
            "https://h/",
            "http://127.0.0.1:8/",
            "http://[::1]/",
            "http://localhost/",
        ] {
            assert!(safe(good), "{good}");
        }
        for bad in ["http://h/", "http://10.0.0.1/", "http://localhost.h/"] {
            assert!(!safe(bad), "{bad}");
        }
    }

    #[test]
    fn fields_are_encoded() {
        let form = Form::post(
            Url::parse("https://h").unwrap(),
            &[("a", "b c&d=e"), ("t", "+/")],
        );
        assert_eq!(form.body, "a=b+c%26d%3De&t=%2B%2F");
    }
}
