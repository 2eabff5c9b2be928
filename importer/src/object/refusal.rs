//! What stores say when they refuse, made fit to be shown.

use super::secret::Secret;
use super::xml;
use crate::http::call::wait_of;
use crate::http::error::{HttpError, Retry};
use crate::http::passport::Refusal;

/// A person reads this much.
const MOST_WORDS: usize = 200;

/// Code and message of a store's answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) code: String,
    message: String,
    /// Where the bucket is, if it says so.
    pub(crate) region: Option<String>,
}

impl Complaint {
    /// Reads the body. One that is no XML says nothing.
    pub(crate) fn read(body: &[u8]) -> Self {
        let mut found = xml::texts(body, &["Code", "Message", "Region"]);
        let mut take = |name| found.remove(name);
        Self {
            code: take("Code").unwrap_or_default(),
            message: take("Message").unwrap_or_default(),
            region: take("Region"),
        }
    }

    /// The same as an error, if it says anything.
    pub(crate) fn error(
        &self,
        refusal: &Refusal<'_>,
        hint: &'static str,
        secrets: &[&Secret],
    ) -> Option<HttpError> {
        if self.code.is_empty() && hint.is_empty() {
            return None;
        }
        let said = match (self.code.as_str(), self.message.as_str()) {
            ("", _) => "it does not say why".to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code} ({})", message.trim_end_matches('.')),
        };
        let status = refusal.status;
        Some(HttpError::Said {
            host: refusal.host.to_owned(),
            status,
            said: (presentable(&said, secrets) + hint).into(),
            retry: match self.code.as_str() {
                // What comes of slow lines, although its status says that we are to blame.
                "RequestTimeout" => Retry::Transient,
                _ => Retry::after(status),
            },
            wait: wait_of(refusal.headers),
        })
    }
}

/// A server's words on one line, not too many, and without what we told it in confidence.
pub(crate) fn presentable(words: &str, secrets: &[&Secret]) -> String {
    let mut words = words.to_owned();
    for secret in secrets.iter().filter(|s| !s.expose().is_empty()) {
        words = words.replace(secret.expose(), "***");
    }
    let mut shown: String = words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST_WORDS)
        .collect();
    if words.chars().nth(MOST_WORDS).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_short_and_lose_secrets_and_line_breaks() {
        let token = Secret::new("t0ken/+=");
        let words = format!("bad token t0ken/+=\n\x1b[31m{}", "x".repeat(1000));
        let shown = presentable(&words, &[&token, &Secret::new("")]);
        assert!(shown.starts_with("bad token ***  [31mxxx"), "{shown}");
        assert_eq!(shown.chars().count(), MOST_WORDS + 3);
        assert_eq!(presentable("fine", &[]), "fine");
    }

    #[test]
    fn a_complaint_tells_where_the_bucket_is() {
        let body =
            b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        let complaint = Complaint::read(body);
        assert_eq!(complaint.code, "AuthorizationHeaderMalformed");
        assert_eq!(complaint.region.as_deref(), Some("eu-west-1"));
        assert_eq!(Complaint::read(b"nothing"), Complaint::default());
    }
}
