//! How far an import is: the JSON of the annotation `longshore.dev/progress` of its claim.
//!
//! The controller writes it, with a change of one percent or every ten seconds; commands read it. Amounts
//! are bytes, times seconds. What is not known is not there.

use serde::{Deserialize, Serialize};

/// It.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Share of the whole, once the whole is known; below 100 until the disk is durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// Bytes read from the source by this run.
    #[serde(default)]
    pub read: u64,
    /// Bytes written to the disk by this run.
    #[serde(default)]
    pub written: u64,
    /// Bytes of the disk, zeros included, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes read in a second, smoothed.
    #[serde(default)]
    pub rate: u64,
    /// Seconds left at the pace so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// Requests that were made again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u64,
    /// When it was so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Why nothing is known: the pod does not answer, and this is what was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Progress {
    /// Reads an annotation; what is no such JSON tells nothing.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl std::fmt::Display for Progress {
    /// As the annotation has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = serde_json::to_string(self).map_err(|_| std::fmt::Error)?;
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_not_known_is_not_there() {
        let progress = Progress {
            percent: Some(12.5),
            read: 1000,
            written: 2000,
            rate: 300,
            eta_seconds: Some(7),
            ..Progress::default()
        };
        let text = progress.to_string();
        assert_eq!(
            text,
            "{\"percent\":12.5,\"read\":1000,\"written\":2000,\"rate\":300,\"etaSeconds\":7}"
        );
        assert_eq!(Progress::parse(&text), Some(progress));
        // Of an older version.
        let old = "{\"percent\":12.5,\"read\":1,\"written\":2,\"rate\":3}";
        assert_eq!(Progress::parse(old).and_then(|it| it.percent), Some(12.5));
        assert_eq!(Progress::parse("no"), None);
    }
}
