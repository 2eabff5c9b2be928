//! One request and the redirects it leads to; and who is told the secrets on the way.
//!
//! Redirects are followed here rather than by the client: credentials and extra headers stay with the
//! host they were given for, and nothing leads from https to http.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use longshore_transfer::Tally;
use reqwest::Response;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, IF_RANGE, LOCATION, RANGE,
};
use url::Url;

use super::answer::{Answer, text};
use super::call::wait_of;
use super::error::HttpError;
use super::location::{Location, host, is_web, same_origin, without_user};
use super::passport::{MOST_SAID, Passport, Refusal, Verdict};
use super::trust::Clients;
use crate::{BasicAuth, Error, Result, SourceOptions};

/// The first word is what upstream's importer sends: proxies and servers have rules for it, and its
/// tests look for it in their logs. The second says who asks in truth.
pub(crate) const USER_AGENT: &str =
    concat!("cdi-golang-importer longshore/", env!("CARGO_PKG_VERSION"));

const MOST_REDIRECTS: usize = 10;

/// Headers that we set, or that would change what a request means.
const OURS: [&str; 11] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "if-match",
    "if-none-match",
    "if-range",
    "range",
    "te",
    "transfer-encoding",
];

/// Asks for one URL, or a part of what is there.
#[derive(Debug)]
pub(crate) struct Agent {
    clients: Clients,
    url: Url,
    /// Only for the origin of `url`.
    secrets: HeaderMap,
    /// The same, made anew for each request.
    passport: Option<Arc<dyn Passport>>,
    stall: Duration,
    /// Counts requests that are made again.
    pub(crate) tally: Tally,
    /// Microseconds until the quickest answer.
    delay: AtomicU64,
    /// An odd content type was told of.
    odd: AtomicBool,
    /// Where redirects led last, so that a thousand small reads do not take a thousand redirects.
    landed: Mutex<Option<Hop>>,
}

/// A URL on the way, and whether every hop before it was on the first URL's origin.
#[derive(Debug, Clone)]
struct Hop {
    url: Url,
    at_home: bool,
}

/// Bytes asked for: from, and up to and with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) first: u64,
    pub(crate) last: Option<u64>,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-", self.first)?;
        self.last.map_or(Ok(()), |last| write!(f, "{last}"))
    }
}

impl Agent {
    /// Asks for `location` with what `options` has for it, and the papers of `passport`.
    pub(crate) fn new(
        location: Location,
        passport: Option<Arc<dyn Passport>>,
        options: &SourceOptions,
    ) -> Result<Self> {
        let auth = options.basic_auth.as_ref().or(location.basic_auth.as_ref());
        let user_agent = passport.as_ref().map_or(USER_AGENT, |p| p.user_agent());
        Ok(Self {
            clients: Clients::new(&location.url, options, user_agent)?,
            secrets: secrets(&options.headers, auth)?,
            passport,
            url: location.url,
            stall: options.stall_timeout,
            tally: options.tally.clone(),
            delay: AtomicU64::new(u64::MAX),
            odd: AtomicBool::new(false),
            landed: Mutex::new(None),
        })
    }

    /// Sends a request. Only 200, 206 and 416 are answers, all else is an error.
    pub(crate) async fn ask(
        &self,
        asked: Option<Asked>,
        if_range: Option<&HeaderValue>,
    ) -> Result<Answer, HttpError> {
        self.ask_by(&self.clients, asked, if_range).await
    }

    /// Clients that believe and are refused as ours are, with connections of their own.
    pub(crate) fn other_clients(&self) -> Result<Clients> {
        self.clients.others()
    }

    /// The same by other clients.
    pub(crate) async fn ask_by(
        &self,
        clients: &Clients,
        asked: Option<Asked>,
        if_range: Option<&HeaderValue>,
    ) -> Result<Answer, HttpError> {
        let landed = self.landed().clone();
        if let Some(hop) = landed {
            match self.follow(clients, hop, asked, if_range).await {
                // A signed URL runs out, a mirror goes away: the first URL knows a new one.
                Err(error) => tracing::debug!(%error, "asking the first URL again"),
                answer => return answer,
            }
            *self.landed() = None;
        }
        let home = Hop {
            url: self.url.clone(),
            at_home: true,
        };
        self.follow(clients, home, asked, if_range).await
    }

    fn has_papers(&self) -> bool {
        !self.secrets.is_empty() || self.passport.is_some()
    }

    fn landed(&self) -> std::sync::MutexGuard<'_, Option<Hop>> {
        self.landed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(
        &self,
        clients: &Clients,
        mut hop: Hop,
        asked: Option<Asked>,
        if_range: Option<&HeaderValue>,
    ) -> Result<Answer, HttpError> {
        let mut renewed = false;
        for _ in 0..=MOST_REDIRECTS {
            let (mut response, papers) = self.send(clients, &hop, asked, if_range).await?;
            let status = response.status().as_u16();
            let host = host(&hop.url);
            match status {
                200 | 206 | 416 => {
                    self.check_content(&response, &hop)?;
                    if let (true, Some(passport)) = (hop.at_home, &self.passport) {
                        passport.admitted(response.headers())?;
                    }
                    let asked = asked.map_or_else(|| "0-".to_owned(), |a| a.to_string());
                    let answer = Answer::read(response, host, &asked)?;
                    if hop.url != self.url {
                        *self.landed() = Some(hop);
                    }
                    return Ok(answer);
                }
                _ => match self.judge(&hop, &mut response, &papers, renewed).await? {
                    Verdict::Again if !renewed => renewed = true,
                    Verdict::Means(error) => return Err(error),
                    _ if is_redirect(status) => hop = next_hop(&self.url, &hop, &response)?,
                    _ => {
                        return Err(HttpError::Status {
                            host,
                            status,
                            hint: hint(status, hop.at_home, self.has_papers()),
                            wait: wait_of(response.headers()),
                        });
                    }
                },
            }
        }
        Err(HttpError::Redirect {
            host: host(&self.url),
            why: format!("more than {MOST_REDIRECTS} times in a row"),
        })
    }

    async fn send(
        &self,
        clients: &Clients,
        hop: &Hop,
        asked: Option<Asked>,
        if_range: Option<&HeaderValue>,
    ) -> Result<(Response, HeaderMap), HttpError> {
        let client = clients.of(&hop.url);
        let mut request = client
            .get(hop.url.clone())
            .header(ACCEPT_ENCODING, "identity");
        if hop.at_home {
            request = request.headers(self.secrets.clone());
        }
        if let Some(asked) = asked {
            request = request.header(RANGE, format!("bytes={asked}"));
        }
        if let Some(validator) = if_range {
            request = request.header(IF_RANGE, validator);
        }
        let mut request = request
            .build()
            .map_err(|e| HttpError::from_request(&e, host(&hop.url)))?;
        let mut papers = HeaderMap::new();
        if let (true, Some(passport)) = (hop.at_home, &self.passport) {
            papers = passport.stamp(&hop.url, request.headers()).await?;
            request.headers_mut().extend(papers.clone());
        }
        let asked = Instant::now();
        match tokio::time::timeout(self.stall, client.execute(request)).await {
            Ok(Ok(response)) => {
                let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.delay.fetch_min(micros, Ordering::Relaxed);
                Ok((response, papers))
            }
            Ok(Err(e)) => Err(HttpError::from_request(&e, host(&hop.url))),
            Err(_) => Err(HttpError::Stalled {
                host: host(&hop.url),
                after: self.stall,
            }),
        }
    }

    /// What an answer that is not the content means to whoever made the papers, if it came from where
    /// they are shown.
    async fn judge(
        &self,
        hop: &Hop,
        response: &mut Response,
        papers: &HeaderMap,
        retried: bool,
    ) -> Result<Verdict, HttpError> {
        let Some(passport) = self.passport.as_ref().filter(|_| hop.at_home) else {
            return Ok(Verdict::Plain);
        };
        let status = response.status().as_u16();
        // Where a redirect leads is in its headers.
        let leads_on = is_redirect(status) && response.headers().contains_key(LOCATION);
        let body = if leads_on {
            Bytes::new()
        } else {
            self.said(response).await
        };
        let host = host(&hop.url);
        let verdict = passport.judge(Refusal {
            host: &host,
            status,
            headers: response.headers(),
            papers,
            retried,
            body: &body,
        });
        verdict.await
    }

    /// The beginning of a body, as far as it comes without trouble.
    async fn said(&self, response: &mut Response) -> Bytes {
        let mut body = BytesMut::new();
        let all = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                let room = MOST_SAID.saturating_sub(body.len());
                body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if body.len() >= MOST_SAID {
                    break;
                }
            }
        };
        // Half of it is worth having too.
        let _ = tokio::time::timeout(self.stall, all).await;
        body.freeze()
    }

    /// A server may label a stored `.gz` file as gzip-encoded: its bytes are what we came for. One that
    /// compresses on its own account is refused, for its bytes are not those of the image.
    fn check_content(&self, response: &Response, hop: &Hop) -> Result<(), HttpError> {
        let headers = response.headers();
        for encoding in headers.get_all(CONTENT_ENCODING) {
            let encoding = String::from_utf8_lossy(encoding.as_bytes()).to_ascii_lowercase();
            let stored = |url: &Url| is_stored_as(url.path(), encoding.trim());
            if !stored(&self.url) && !stored(&hop.url) {
                return Err(HttpError::Encoding { encoding });
            }
        }
        if let Some(kind) = text(headers, &CONTENT_TYPE)
            && kind.trim_start().to_ascii_lowercase().starts_with("text/")
            && !self.odd.swap(true, Ordering::Relaxed)
        {
            // Upstream's words: people search their logs for them.
            tracing::warn!(
                "Unexpected content type '{kind}'. Content might not be a KubeVirt image."
            );
        }
        Ok(())
    }

    /// About a round trip: the quickest answer there was. Nothing if there was none.
    pub(crate) fn delay(&self) -> Duration {
        match self.delay.load(Ordering::Relaxed) {
            u64::MAX => Duration::ZERO,
            micros => Duration::from_micros(micros),
        }
    }

    /// The longest wait for a byte.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }
}

/// Whether an answer says that what was asked for is elsewhere.
pub(crate) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

fn next_hop(home: &Url, hop: &Hop, response: &Response) -> Result<Hop, HttpError> {
    let url = redirected(&hop.url, response.headers())?;
    let at_home = hop.at_home && same_origin(home, &url);
    tracing::debug!(to = host(&url), at_home, "redirected");
    Ok(Hop { url, at_home })
}

/// Where a redirect leads, unless it must not be followed.
pub(crate) fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, HttpError> {
    let refuse = |why: String| HttpError::Redirect {
        host: host(from),
        why,
    };
    let target =
        text(headers, &LOCATION).ok_or_else(|| refuse("without saying where to".to_owned()))?;
    let mut url = from
        .join(target)
        .map_err(|e| refuse(format!("to something that is no URL ({e})")))?;
    without_user(&mut url);
    url.set_fragment(None);
    if !is_web(&url) {
        return Err(refuse(format!("to a {} URL", url.scheme())));
    }
    if from.scheme() == "https" && url.scheme() == "http" {
        return Err(refuse(format!(
            "from https to http ({}), where anyone on the way can change the image",
            host(&url)
        )));
    }
    Ok(url)
}

fn is_stored_as(path: &str, encoding: &str) -> bool {
    let suffixes: &[&str] = match encoding {
        "" | "identity" => return true,
        "gzip" | "x-gzip" => &["gz", "tgz"],
        "zstd" => &["zst"],
        "xz" | "x-xz" => &["xz", "txz"],
        "bzip2" | "x-bzip2" => &["bz2"],
        _ => return false,
    };
    let suffix = path.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    suffixes.iter().any(|s| s.eq_ignore_ascii_case(suffix))
}

fn hint(status: u16, at_home: bool, has_secrets: bool) -> &'static str {
    match status {
        401 | 403 if !at_home && has_secrets => {
            ": credentials are not sent on to another host or scheme, give its URL instead"
        }
        401 if has_secrets => ": check user name, password and headers",
        401 => ": it wants a user name and password, or a header with a token",
        403 => ": check that the credentials allow it, and that a signed URL has not run out",
        404 | 410 => ": check the URL",
        407 => ": the proxy wants a user name and password in its URL",
        _ => "",
    }
}

/// Extra headers and credentials, checked.
pub(crate) fn secrets(headers: &[(String, String)], auth: Option<&BasicAuth>) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let refuse = |why: &'static str| Error::Header {
            name: name.clone(),
            why,
        };
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| refuse("this is no name of a header"))?;
        if OURS.contains(&parsed.as_str()) {
            return Err(refuse("reading and resuming depend on it"));
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| refuse("its value has bytes that no header may have"))?;
        value.set_sensitive(true);
        map.append(parsed, value);
    }
    if let Some(auth) = auth {
        if map.contains_key(AUTHORIZATION) {
            return Err(Error::Header {
                name: AUTHORIZATION.to_string(),
                why: "a user name and password are given too",
            });
        }
        let pair = format!("{}:{}", auth.user, auth.password);
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        let mut value =
            HeaderValue::from_str(&format!("Basic {encoded}")).map_err(|_| Error::Header {
                name: AUTHORIZATION.to_string(),
                why: "its value has bytes that no header may have",
            })?;
        value.set_sensitive(true);
        map.insert(AUTHORIZATION, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn headers_that_would_break_reading_are_refused() {
        for name in [
            "Range",
            "if-range",
            "Accept-Encoding",
            "HOST",
            "bad name",
            "",
        ] {
            let refused = secrets(&pair(name, "x"), None);
            assert!(matches!(refused, Err(Error::Header { .. })), "{name}");
        }
        assert!(secrets(&pair("X-A", "line\nbreak"), None).is_err());
        assert!(secrets(&pair("X-A", "fine"), None).is_ok());
    }

    #[test]
    fn credentials_become_a_header_that_debug_does_not_show() {
        let auth = BasicAuth {
            user: "Aladdin".into(),
            password: "open sesame".into(),
        };
        let map = secrets(&pair("X-Token", "hush"), Some(&auth)).unwrap();
        assert_eq!(map[AUTHORIZATION], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let shown = format!("{map:?}");
        assert!(
            !shown.contains("QWxh") && !shown.contains("hush"),
            "{shown}"
        );
        let both = secrets(&pair("authorization", "Bearer x"), Some(&auth));
        assert!(matches!(both, Err(Error::Header { .. })));
    }

    #[test]
    fn an_encoding_that_the_name_tells_of_is_the_file_itself() {
        assert!(is_stored_as("/a/disk.raw.gz", "gzip"));
        assert!(is_stored_as("/a/DISK.GZ", "x-gzip"));
        assert!(is_stored_as("/a/disk.raw", "identity"));
        assert!(!is_stored_as("/a/disk.raw", "gzip"));
        assert!(!is_stored_as("/a/disk.gz", "br"));
    }
}
