//! Signatures, version 4: <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
//!
//! Only for requests without a body and without a query that has to be sorted: what reads objects.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RANGE};
use sha2::{Digest, Sha256};
use url::Url;

use super::keys::Keys;
use crate::http::location;
use crate::object::clock;

/// SHA-256 of nothing, which is what a GET has for a body.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The headers that make a GET of `url` with `headers` acceptable in `region` at the time `now`.
pub(super) fn sign(
    keys: &Keys,
    region: &str,
    url: &Url,
    headers: &HeaderMap,
    now: SystemTime,
) -> HeaderMap {
    let time = clock::compact(now);
    let date = time.get(..8).unwrap_or_default();
    let mut papers = HeaderMap::new();
    papers.insert(DATE, value(&time));
    papers.insert(CONTENT, HeaderValue::from_static(NOTHING));
    if let Some(token) = &keys.token {
        papers.insert(TOKEN, secret(token.expose()));
    }
    // Servers want every header of theirs signed. What a proxy may rewrite is left out.
    let mut signed: BTreeMap<&str, String> = BTreeMap::new();
    signed.insert("host", location::host(url));
    for (name, value) in headers.iter().chain(&papers) {
        if *name != RANGE && !name.as_str().starts_with("x-amz-") {
            continue;
        }
        let text = String::from_utf8_lossy(value.as_bytes());
        let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let all = signed.entry(name.as_str()).or_default();
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(&text);
    }
    let names: Vec<&str> = signed.keys().copied().collect();
    let names = names.join(";");
    let query = url.query().unwrap_or_default();
    let mut request = format!("GET\n{}\n{query}\n", url.path());
    for (name, value) in &signed {
        let _ = writeln!(request, "{name}:{value}");
    }
    let _ = write!(request, "\n{names}\n{NOTHING}");
    let scope = format!("{date}/{region}/s3/aws4_request");
    let digest = hex(&Sha256::digest(request.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}");
    let mut key = format!("AWS4{}", keys.secret.expose()).into_bytes();
    for step in [date, region, "s3", "aws4_request"] {
        key = mac(&key, step);
    }
    let signature = hex(&mac(&key, &text));
    let id = &keys.id;
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope},SignedHeaders={names},Signature={signature}"
    );
    papers.insert(AUTHORIZATION, secret(&authorization));
    papers
}

/// True if these papers were made with `keys`.
pub(super) fn made_with(keys: &Keys, papers: &HeaderMap) -> bool {
    let id = format!("Credential={}/", keys.id);
    let shows = |name: HeaderName, text: &str| {
        papers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|value| value.contains(text))
    };
    shows(AUTHORIZATION, &id)
        && match &keys.token {
            Some(token) => shows(TOKEN, token.expose()),
            None => !papers.contains_key(TOKEN),
        }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn value(text: &str) -> HeaderValue {
    // Keys are checked when they are read: everything here is visible ASCII.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn secret(text: &str) -> HeaderValue {
    let mut value = value(text);
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn keys() -> Keys {
        Keys::new(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            None,
        )
        .unwrap()
    }

    fn signature(url: &str, headers: &HeaderMap) -> String {
        // 2013-05-24.
        let now = UNIX_EPOCH + Duration::from_hours(24 * 15_849);
        let url = Url::parse(url).unwrap();
        let papers = sign(&keys(), "us-east-1", &url, headers, now);
        papers[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    /// The examples of the specification that are GETs.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, value("bytes=0-9"));
        headers.insert("if-range", value("\"not signed\""));
        assert_eq!(
            signature("https://examplebucket.s3.amazonaws.com/test.txt", &headers),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        for (query, expected) in [
            (
                "lifecycle=",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "max-keys=2&prefix=J",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let url = format!("https://examplebucket.s3.amazonaws.com/?{query}");
            let signature = signature(&url, &HeaderMap::new());
            assert!(signature.ends_with(expected), "{signature}");
        }
    }

    #[test]
    fn every_header_of_the_store_is_signed() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-request-payer", value("requester"));
        let text = signature("https://b.s3.amazonaws.com/k", &headers);
        let names = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-request-payer,";
        assert!(text.contains(names), "{text}");
    }

    #[test]
    fn papers_do_not_show_what_they_are_made_of() {
        let keys = Keys::new("id", "s3cret", Some("t0ken")).unwrap();
        let url = Url::parse("https://h/b/k").unwrap();
        let papers = sign(&keys, "r", &url, &HeaderMap::new(), SystemTime::now());
        let shown = format!("{papers:?} {keys:?}");
        for hidden in ["s3cret", "t0ken", "Signature"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        assert!(made_with(&keys, &papers));
        for other in [
            Keys::new("id", "s3cret", None),
            Keys::new("id", "s3cret", Some("n3w")),
            Keys::new("other", "s3cret", Some("t0ken")),
        ] {
            assert!(!made_with(&other.unwrap(), &papers));
        }
    }
}
