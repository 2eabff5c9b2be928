//! What an answer says about the content: its length, its identity, and which part came.

use std::fmt;

use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED,
    TRANSFER_ENCODING,
};

use super::error::HttpError;

/// What tells one state of the content from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) len: Option<u64>,
    /// Strong ones only: a weak tag promises the same meaning, not the same bytes.
    pub(crate) etag: Option<HeaderValue>,
    pub(crate) modified: Option<HeaderValue>,
}

impl Identity {
    /// Reads headers. `len` is the length of the whole content.
    pub(crate) fn of(headers: &HeaderMap, len: Option<u64>) -> Self {
        let etag = headers.get(ETAG).filter(|tag| is_strong(tag)).cloned();
        // What was modified in the second of the answer may change again within it, unseen.
        let modified = headers
            .get(LAST_MODIFIED)
            .filter(|m| Some(*m) != headers.get(DATE))
            .cloned();
        Self {
            len,
            etag,
            modified,
        }
    }

    /// What to give in `If-Range`.
    pub(crate) fn validator(&self) -> Option<&HeaderValue> {
        self.etag.as_ref().or(self.modified.as_ref())
    }

    /// The state in words, to tell it from others later on.
    pub(crate) fn state(&self) -> Option<String> {
        let named = |name: &str, value: &HeaderValue| {
            format!("{name} {}", String::from_utf8_lossy(value.as_bytes()))
        };
        match (&self.etag, &self.modified) {
            (Some(etag), _) => Some(named("ETag", etag)),
            (None, Some(modified)) => Some(named("Last-Modified", modified)),
            (None, None) => None,
        }
    }

    /// Says whether `now` has what [`Self::check`] compares.
    pub(crate) fn can_check(&self, now: &Self) -> bool {
        if self.etag.is_some() {
            now.etag.is_some()
        } else {
            self.modified.is_none() || now.modified.is_some()
        }
    }

    /// Fails unless `now` is the same content, as far as the server tells.
    pub(crate) fn check(&self, now: &Self) -> Result<(), HttpError> {
        if let (Some(was), Some(now)) = (self.len, now.len)
            && was != now
        {
            return Err(HttpError::Changed {
                what: "its length",
                was: was.to_string(),
                now: now.to_string(),
            });
        }
        let (what, was, now) = if self.etag.is_some() {
            ("its ETag", &self.etag, &now.etag)
        } else if self.modified.is_some() {
            ("its Last-Modified", &self.modified, &now.modified)
        } else {
            return Ok(());
        };
        if was == now {
            return Ok(());
        }
        Err(HttpError::Changed {
            what,
            was: readable(was.as_ref()),
            now: readable(now.as_ref()),
        })
    }
}

pub(crate) fn readable(value: Option<&HeaderValue>) -> String {
    value.map_or_else(
        || "missing".to_owned(),
        |v| String::from_utf8_lossy(v.as_bytes()).into_owned(),
    )
}

fn is_strong(tag: &HeaderValue) -> bool {
    tag.as_bytes().starts_with(b"\"")
}

/// Which bytes came: the first, the last, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) total: u64,
}

impl ContentRange {
    /// Reads `bytes 5-9/10`. A range of unknown length is of no use and no range to us.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (range, total) = bytes_unit(text)?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let range = Self {
            first: number(first)?,
            last: number(last)?,
            total: number(total)?,
        };
        (range.first <= range.last && range.last < range.total).then_some(range)
    }

    /// The byte after the last.
    pub(crate) fn end(self) -> u64 {
        // `last < total`, so it does not overflow.
        self.last + 1
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/{}", self.first, self.last, self.total)
    }
}

/// The length in `bytes */10`, which comes with 416.
fn unsatisfied(text: &str) -> Option<u64> {
    number(bytes_unit(text)?.strip_prefix("*/")?)
}

fn bytes_unit(text: &str) -> Option<&str> {
    let (unit, rest) = text.trim().split_once([' ', '='])?;
    unit.eq_ignore_ascii_case("bytes").then(|| rest.trim())
}

/// Digits and nothing else: `u64::from_str` would take a plus sign.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// What came in answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Everything from the start.
    Whole,
    /// One range.
    Part(ContentRange),
    /// The range starts after the end, which is here.
    PastEnd(Option<u64>),
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: reqwest::Response,
    pub(crate) content: Content,
    pub(crate) identity: Identity,
    /// Host and port it came from.
    pub(crate) host: String,
}

impl Answer {
    /// Reads the headers of a 200, 206 or 416. `asked` is for the error.
    pub(crate) fn read(
        response: reqwest::Response,
        host: String,
        asked: &str,
    ) -> Result<Self, HttpError> {
        let headers = response.headers();
        let range = text(headers, &CONTENT_RANGE);
        let content = match response.status().as_u16() {
            206 => match range.and_then(ContentRange::parse) {
                Some(range) => Content::Part(range),
                None => {
                    return Err(HttpError::Range {
                        asked: asked.to_owned(),
                        found: range.unwrap_or("a part it does not name").to_owned(),
                    });
                }
            },
            416 => Content::PastEnd(range.and_then(unsatisfied)),
            _ => Content::Whole,
        };
        let len = match content {
            Content::Whole => content_length(headers),
            Content::Part(range) => Some(range.total),
            Content::PastEnd(total) => total,
        };
        let identity = Identity::of(headers, len);
        Ok(Self {
            response,
            content,
            identity,
            host,
        })
    }

    /// True if only the end of the connection ends the body, so that a lost one looks complete.
    pub(crate) fn ends_with_connection(&self) -> bool {
        let headers = self.response.headers();
        content_length(headers).is_none() && !headers.contains_key(TRANSFER_ENCODING)
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    number(text(headers, &CONTENT_LENGTH)?)
}

/// A header as text, if it is text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        let range = ContentRange::parse("bytes 5-9/10").unwrap();
        assert_eq!((range.first, range.last, range.total), (5, 9, 10));
        assert_eq!(range.end(), 10);
        assert_eq!(ContentRange::parse("Bytes  5-9/10"), Some(range));
        for bad in [
            "",
            "bytes",
            "bytes 5-9",
            "bytes 5-9/*",
            "bytes */10",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes +5-9/10",
            "bytes 5--9/10",
            "lines 5-9/10",
            "bytes 0-18446744073709551615/18446744073709551616",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
        let largest = format!("bytes 0-{}/{}", u64::MAX - 1, u64::MAX);
        assert_eq!(ContentRange::parse(&largest).unwrap().end(), u64::MAX);
    }

    #[test]
    fn the_length_that_comes_with_416_is_read() {
        assert_eq!(unsatisfied("bytes */10"), Some(10));
        assert_eq!(unsatisfied("bytes */*"), None);
        assert_eq!(unsatisfied("bytes 1-2/3"), None);
    }

    #[test]
    fn weak_tags_and_times_of_this_second_identify_nothing() {
        let weak = Identity::of(&headers(&[("etag", "W/\"a\"")]), None);
        assert_eq!(weak.validator(), None);
        let now = "Sat, 21 Nov 2026 11:00:00 GMT";
        let fresh = Identity::of(&headers(&[("last-modified", now), ("date", now)]), None);
        assert_eq!(fresh.validator(), None);
        let old = Identity::of(
            &headers(&[
                ("last-modified", now),
                ("date", "Sat, 21 Nov 2026 11:00:09 GMT"),
            ]),
            None,
        );
        assert_eq!(old.validator().unwrap(), now);
    }

    #[test]
    fn a_tag_a_time_or_a_length_gives_a_change_away() {
        let tag = |t| Identity::of(&headers(&[("etag", t)]), Some(5));
        assert!(tag("\"a\"").check(&tag("\"a\"")).is_ok());
        assert!(matches!(
            tag("\"a\"").check(&tag("\"b\"")),
            Err(HttpError::Changed {
                what: "its ETag",
                ..
            })
        ));
        let untagged = Identity::of(&headers(&[]), Some(5));
        assert!(tag("\"a\"").check(&untagged).is_err());
        assert!(!tag("\"a\"").can_check(&untagged));
        let longer = Identity::of(&headers(&[("etag", "\"a\"")]), Some(6));
        assert!(matches!(
            tag("\"a\"").check(&longer),
            Err(HttpError::Changed {
                what: "its length",
                ..
            })
        ));
        let time = |t| Identity::of(&headers(&[("last-modified", t)]), None);
        assert!(time("x").check(&time("x")).is_ok());
        assert!(time("x").check(&time("y")).is_err());
    }

    #[test]
    fn a_chunked_answer_has_no_length() {
        let both = headers(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        assert_eq!(content_length(&both), None);
        assert_eq!(
            content_length(&headers(&[("content-length", "5")])),
            Some(5)
        );
        assert_eq!(content_length(&headers(&[("content-length", "-5")])), None);
    }
}
