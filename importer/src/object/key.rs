//! Keys of objects in URLs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

/// Everything but what signatures leave as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The object `key` below `base`, with `bucket` in front of it unless that is in the host's name.
pub(crate) fn url(base: &Url, bucket: Option<&str>, key: &str) -> Result<Url, String> {
    // To a URL these are steps, however they are encoded.
    if let Some(step) = key.split('/').find(|part| matches!(*part, "." | "..")) {
        return Err(format!(
            "its key has the part `{step}`, which no URL can have: copy the object to another key"
        ));
    }
    let mut path = base.path().trim_end_matches('/').to_owned();
    for part in bucket.into_iter().chain([key]) {
        path.push('/');
        path.extend(utf8_percent_encode(part, ENCODED));
    }
    let mut url = base.clone();
    url.set_path(&path);
    if url.path() != path {
        return Err("its key cannot be written as a URL".to_owned());
    }
    Ok(url)
}

/// Takes `bucket/key` apart.
pub(crate) fn split(text: &str) -> Result<(String, String), String> {
    let (bucket, key) = text.split_once('/').unwrap_or((text, ""));
    if !is_bucket(bucket) {
        return Err(
            "it names no bucket: 3 to 222 letters, digits, dots, dashes and underscores".to_owned(),
        );
    }
    if key.is_empty() {
        return Err("it names a bucket, and no object in it".to_owned());
    }
    Ok((bucket.to_owned(), key.to_owned()))
}

/// Of both kinds, old and dotted ones included. A name and a password in front of an `@` never are.
fn is_bucket(name: &str) -> bool {
    (3..=222).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// `bucket/key` in the path of a URL, where it is encoded. `bucket` is in the host's name if it is given.
pub(crate) fn in_url(url: &Url, bucket: Option<&str>) -> Result<(String, String), String> {
    let path = url.path().trim_start_matches('/');
    let decoded = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| "its key is not UTF-8".to_owned())?;
    match bucket {
        Some(bucket) => split(&format!("{bucket}/{decoded}")),
        None => split(&decoded),
    }
}

/// The base that a host, `host:port` or URL stands for.
pub(crate) fn base(text: &str, scheme: &str) -> Result<Url, String> {
    let text = text.trim();
    let spelled = if text.contains("://") {
        text.to_owned()
    } else {
        format!("{scheme}://{text}")
    };
    let mut url = Url::parse(&spelled).map_err(|e| e.to_string())?;
    if !crate::http::location::is_web(&url) {
        return Err("it has no host, or is neither http nor https".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err("it has a user or a query, which no store takes".to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(base: &str, bucket: Option<&str>, key: &str) -> Result<String, String> {
        let base = Url::parse(base).map_err(|e| e.to_string())?;
        url(&base, bucket, key).map(String::from)
    }

    #[test]
    fn keys_are_encoded_as_signatures_have_them() {
        for (key, expected) in [
            ("disk.qcow2", "disk.qcow2"),
            ("a b+c/d", "a%20b%2Bc/d"),
            ("a//b/", "a//b/"),
            ("/lead", "/lead"),
            (".hidden/..x/...", ".hidden/..x/..."),
            ("f\u{fc}\u{1f600}", "f%C3%BC%F0%9F%98%80"),
            ("a?b#c%d&e=f", "a%3Fb%23c%25d%26e%3Df"),
            ("%2e%2e/x", "%252e%252e/x"),
            ("a\\b:c@d;e", "a%5Cb%3Ac%40d%3Be"),
            ("~-_.!*'()", "~-_.%21%2A%27%28%29"),
        ] {
            let by_path = made("http://h:9000", Some("buck"), key).unwrap();
            assert_eq!(by_path, format!("http://h:9000/buck/{expected}"));
            let by_host = made("https://buck.h/", None, key).unwrap();
            assert_eq!(by_host, format!("https://buck.h/{expected}"));
        }
        let below = made("http://h/s3/", Some("buck"), "k").unwrap();
        assert_eq!(below, "http://h/s3/buck/k");
    }

    #[test]
    fn keys_that_would_lead_elsewhere_are_refused() {
        for key in [".", "..", "a/../b", "./a", "a/."] {
            assert!(made("http://h", Some("buck"), key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_bucket_and_a_key_are_needed() {
        let both = |bucket: &str, key: &str| Ok((bucket.to_owned(), key.to_owned()));
        assert_eq!(split("buck/a/b"), both("buck", "a/b"));
        assert_eq!(split("buck//a"), both("buck", "/a"));
        for bad in [
            "",
            "buck",
            "buck/",
            "/k",
            "b/k",
            "id:s3cret@buck/k",
            "-buck/k",
        ] {
            let why = split(bad).unwrap_err();
            assert!(!why.contains("s3cret"), "{why}");
        }
        let url = Url::parse("http://h:1/buck/a%20b+c//%2Bd").unwrap();
        assert_eq!(in_url(&url, None), both("buck", "a b+c//+d"));
        assert_eq!(in_url(&url, Some("host")), both("host", "buck/a b+c//+d"));
    }

    #[test]
    fn an_endpoint_is_a_host_or_a_url() {
        let base = |text| base(text, "https").map(String::from);
        assert_eq!(base("h:9000"), Ok("https://h:9000/".to_owned()));
        assert_eq!(base("http://h/s3"), Ok("http://h/s3".to_owned()));
        for bad in ["", "ftp://h", "http://u:p@h", "http://h/?q"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
