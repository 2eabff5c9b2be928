//! Which version of an object we wrote last: a round over an older one is made for nothing.
//!
//! What a controller writes comes back by its watch a moment later. A round in between, brought about by
//! something else, would decide on what was before: it asks, tells people once more, and its write is refused.
//! The watch brings what was written in any case, and with it another round.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// How soon to look again should the watch bring nothing.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// What has not come back for so long does not: a restored cluster counts from an earlier version again.
const LONGEST: Duration = Duration::from_secs(30);
/// Objects that are remembered. Beyond it all are forgotten, which costs rounds.
const MOST: usize = 20_000;

/// It, by uid.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<HashMap<String, Last>>);

/// The version that was written last, and when.
#[derive(Debug, Clone, Copy)]
struct Last {
    version: u64,
    at: Instant,
}

impl Written {
    /// An object was written, and this is what the server made of it.
    pub(crate) fn wrote(&self, meta: &ObjectMeta) {
        let Some((uid, version)) = version(meta) else {
            return;
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Last {
            version,
            at: Instant::now(),
        };
        if known.len() >= MOST {
            known.retain(|_, last| last.counts(now.at));
        }
        if known.len() >= MOST {
            known.clear();
        }
        let last = known.entry(uid.to_owned()).or_insert(now);
        if version >= last.version {
            *last = now;
        }
    }

    /// Whether an object, as a watch has brought it, is older than what was written.
    pub(crate) fn is_older(&self, seen: &ObjectMeta) -> bool {
        self.was_older(seen, Instant::now())
    }

    fn was_older(&self, seen: &ObjectMeta, now: Instant) -> bool {
        let Some((uid, version)) = version(seen) else {
            return false;
        };
        // Several watches bring the same object: that one has is no word of the others.
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = known.get(uid);
        last.is_some_and(|last| version < last.version && last.counts(now))
    }
}

impl Last {
    fn counts(&self, now: Instant) -> bool {
        now < self.at + LONGEST
    }
}

/// Versions are numbers that grow, as far as anybody has ever seen; what is none is not compared.
fn version(meta: &ObjectMeta) -> Option<(&str, u64)> {
    let version = meta.resource_version.as_deref()?.parse().ok()?;
    Some((meta.uid.as_deref()?, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(version: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some("u".to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn what_is_older_than_what_was_written_is_known_for_a_while() {
        let written = Written::default();
        assert!(!written.is_older(&meta("7")));
        written.wrote(&meta("10"));
        written.wrote(&meta("9"));
        assert!(written.is_older(&meta("9")));
        assert!(!written.is_older(&meta("10")));
        // Another watch may be further behind.
        assert!(written.is_older(&meta("9")));
        let later = Instant::now() + LONGEST;
        assert!(!written.was_older(&meta("9"), later));
        // Versions that are no numbers are never compared.
        assert!(!written.is_older(&meta("x")));
    }
}
