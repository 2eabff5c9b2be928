//! What an object says of itself: a list of conditions, each of a type of its own.

use serde::{Deserialize, Serialize};

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the status became what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// When anything of it was last found to be another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_time: Option<String>,
}

impl Condition {
    /// One without times.
    pub fn new(kind: &str, is: bool, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            status: if is { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: None,
            last_heartbeat_time: None,
        }
    }

    /// This one with times: `now` where something differs from what `before` says of the same type, else
    /// those of before. So a condition that says the same is the same.
    #[must_use]
    pub fn since(mut self, before: &[Self], now: &str) -> Self {
        let old = before.iter().find(|old| old.kind == self.kind);
        let kept = old.filter(|old| old.status == self.status);
        let same = kept.filter(|old| old.reason == self.reason && old.message == self.message);
        let time = |old: Option<&Self>, of: fn(&Self) -> Option<String>| {
            old.and_then(of).or_else(|| Some(now.to_owned()))
        };
        self.last_transition_time = time(kept, |old| old.last_transition_time.clone());
        self.last_heartbeat_time = time(same, |old| old.last_heartbeat_time.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_change_with_what_they_are_about_and_not_otherwise() {
        let first = Condition::new("Ready", false, "Waiting", "for it").since(&[], "1");
        let known = [first.clone()];
        assert_eq!(
            Condition::new("Ready", false, "Waiting", "for it").since(&known, "2"),
            first
        );
        let other = Condition::new("Ready", false, "Waiting", "for more").since(&known, "2");
        assert_eq!(other.last_transition_time.as_deref(), Some("1"));
        assert_eq!(other.last_heartbeat_time.as_deref(), Some("2"));
        let turned = Condition::new("Ready", true, "Waiting", "for it").since(&known, "2");
        assert_eq!(turned.last_transition_time.as_deref(), Some("2"));
    }
}
