//! What a journal depends on, by name, so that what differs can be said.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::checksum::hex;

/// Longer texts are cut, and end in a digest of all of them.
const MOST_TEXT: usize = 1024;

/// Names and what they stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts(Vec<(String, String)>);

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    what: String,
    was: Option<String>,
    now: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said =
            |text: &Option<String>| text.clone().unwrap_or_else(|| "not recorded".to_owned());
        write!(
            f,
            "the {} was {} and is {}",
            self.what,
            said(&self.was),
            said(&self.now)
        )
    }
}

impl Facts {
    pub(crate) fn add(&mut self, name: &str, value: String) {
        self.0.push((name.to_owned(), bounded(value)));
    }

    fn get(&self, name: &str) -> Option<&String> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value)
    }

    /// The first thing of `now` that is not as here. Here there may be nothing else either.
    pub(crate) fn difference(&self, now: &Self) -> Option<Difference> {
        if self == now {
            return None;
        }
        let names = now.0.iter().chain(&self.0).map(|(name, _)| name);
        for name in names {
            let (was, is) = (self.get(name), now.get(name));
            if was != is {
                return Some(Difference {
                    what: name.clone(),
                    was: was.cloned(),
                    now: is.cloned(),
                });
            }
        }
        Some(Difference {
            what: "order of the facts".to_owned(),
            was: None,
            now: None,
        })
    }
}

fn bounded(text: String) -> String {
    if text.len() <= MOST_TEXT {
        return text;
    }
    let digest = sha2::Sha256::digest(text.as_bytes());
    let mut cut: String = text.chars().take(MOST_TEXT / 8).collect();
    cut.push_str("... ");
    cut + &hex(&digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        let mut facts = Facts::default();
        for (name, value) in pairs {
            facts.add(name, (*value).to_owned());
        }
        facts
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let was = facts(&[
            ("source", "http://h/d"),
            ("state of the source", "ETag \"a\""),
        ]);
        for (now, expected) in [
            (was.clone(), None),
            (
                facts(&[
                    ("source", "http://h/d"),
                    ("state of the source", "ETag \"b\""),
                ]),
                Some("the state of the source was ETag \"a\" and is ETag \"b\""),
            ),
            (
                facts(&[
                    ("source", "http://h/e"),
                    ("state of the source", "ETag \"b\""),
                ]),
                Some("the source was http://h/d and is http://h/e"),
            ),
            (
                facts(&[("source", "http://h/d")]),
                Some("the state of the source was ETag \"a\" and is not recorded"),
            ),
            (
                facts(&[
                    ("source", "http://h/d"),
                    ("state of the source", "ETag \"a\""),
                    ("target", "inode 1"),
                ]),
                Some("the target was not recorded and is inode 1"),
            ),
        ] {
            let found = was.difference(&now).map(|d| d.to_string());
            assert_eq!(found.as_deref(), expected);
        }
    }

    #[test]
    fn long_texts_are_cut_and_still_told_apart() {
        let long = |end: &str| bounded("é".repeat(5000) + end);
        assert!(long("a").len() < MOST_TEXT);
        assert_ne!(long("a"), long("b"));
        assert_eq!(long("a"), long("a"));
    }
}
