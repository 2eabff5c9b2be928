//! URLs: what is asked for, what may be shown of it, and whom secrets are meant for.

use percent_encoding::percent_decode_str;
use url::Url;

use super::digest::Hasher;
use crate::{BasicAuth, Error, Result};

/// Where a source is, without the secrets that came with the URL.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    /// Without user information and fragment. The query is kept: it may be a signature.
    pub(crate) url: Url,
    /// Name and password from the URL.
    pub(crate) basic_auth: Option<BasicAuth>,
}

impl Location {
    pub(crate) fn parse(spec: &str) -> Result<Self> {
        let refuse = |why: String| Error::Url {
            shown: shown_spec(spec),
            why,
        };
        let mut url = Url::parse(spec).map_err(|e| refuse(e.to_string()))?;
        if !is_web(&url) {
            return Err(refuse(
                "it has no host, or is neither http nor https".to_owned(),
            ));
        }
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(std::borrow::Cow::into_owned)
                .map_err(|_| refuse("its user name or password is not UTF-8".to_owned()))
        };
        let basic_auth = if url.username().is_empty() && url.password().is_none() {
            None
        } else {
            Some(BasicAuth {
                user: decoded(url.username())?,
                password: decoded(url.password().unwrap_or(""))?,
            })
        };
        without_user(&mut url);
        url.set_fragment(None);
        Ok(Self { url, basic_auth })
    }
}

/// Takes name and password out of a URL.
pub(crate) fn without_user(url: &mut Url) {
    // Both fail only for URLs that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
}

/// True if `url` is one that a web client can ask.
pub(crate) fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// The URL for people: no user information, no query, no fragment.
pub(crate) fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host(url), url.path())
}

/// The URL as it may be written down: as shown, and instead of its query, which may be a signature, what
/// tells it from others.
pub(crate) fn recorded(url: &Url) -> String {
    let shown = shown(url);
    match url.query() {
        None => shown,
        Some(query) => {
            let mut hasher = Hasher::default();
            hasher.update(query.as_bytes());
            let digest = hasher.hex();
            let digest = digest.get(..16).unwrap_or(&digest);
            format!("{shown} with a query of digest {digest}")
        }
    }
}

/// Host and port of a URL, for people.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// True if what is meant for `a` may be told to `b`: same scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// The same for text that may not even be a URL.
pub(crate) fn shown_spec(spec: &str) -> String {
    let plain = spec.split(['?', '#']).next().unwrap_or("");
    let Some((scheme, rest)) = plain.split_once("://") else {
        // `http:user:password@host` comes here: nothing after the scheme is safe to show.
        return plain.split(':').next().unwrap_or("").to_owned();
    };
    // A password may contain a slash that should have been escaped.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_information_query_and_fragment_are_not_shown() {
        let location =
            Location::parse("https://jane:s3cret@example.org:8443/a/b.qcow2?sig=hush#frag")
                .unwrap();
        assert_eq!(shown(&location.url), "https://example.org:8443/a/b.qcow2");
        assert_eq!(
            location.url.as_str(),
            "https://example.org:8443/a/b.qcow2?sig=hush"
        );
        let auth = location.basic_auth.clone().unwrap();
        assert_eq!(
            (auth.user.as_str(), auth.password.as_str()),
            ("jane", "s3cret")
        );
        assert!(!format!("{location:?}").contains("s3cret"));
    }

    #[test]
    fn user_information_is_decoded() {
        let location = Location::parse("http://a%40b:p%2Fw%3A@h/").unwrap();
        let auth = location.basic_auth.unwrap();
        assert_eq!(
            (auth.user.as_str(), auth.password.as_str()),
            ("a@b", "p/w:")
        );
        let alone = Location::parse("http://token@h/").unwrap();
        assert_eq!(alone.basic_auth.unwrap().password, "");
        assert!(Location::parse("http://h/").unwrap().basic_auth.is_none());
    }

    #[test]
    fn errors_about_a_url_do_not_show_its_secrets() {
        for spec in [
            "http://jane:s3cret@exa mple/x?y=s3cret",
            "http://jane:s3/s3cret@[::1/x",
            "http:jane:s3cret@",
            "http://jane:s3cret@:99999/",
            "https://jane:s3cret@/#s3cret",
            "http://%ff:s3cret@host/",
        ] {
            let error = Location::parse(spec).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.contains("s3cret"), "{text}");
            assert!(matches!(error, Error::Url { .. }));
        }
    }

    #[test]
    fn what_is_written_down_tells_queries_apart_and_shows_none() {
        let recorded = |text| recorded(&Location::parse(text).unwrap().url);
        let (a, b) = (
            recorded("http://u:hush@h/d?sig=hush"),
            recorded("http://h/d?id=2"),
        );
        assert!(!a.contains("hush") && a.starts_with("http://h/d "), "{a}");
        assert_ne!(a, b);
        assert_eq!(a, recorded("http://h/d?sig=hush#f"));
        assert_eq!(recorded("http://u:hush@h/d"), "http://h/d");
    }

    #[test]
    fn secrets_stay_with_scheme_host_and_port() {
        let url = |text| Url::parse(text).unwrap();
        let home = url("https://example.org/a");
        assert!(same_origin(&home, &url("https://example.org:443/b?c")));
        for other in [
            "http://example.org/a",
            "https://example.org:444/a",
            "https://www.example.org/a",
        ] {
            assert!(!same_origin(&home, &url(other)), "{other}");
        }
    }
}
