//! How far a pod is: its metrics, read every few seconds while it runs.
//!
//! A pod's certificate is its own, so it proves nothing and nothing depends on what comes: numbers for
//! people, bounded in time, size and number of scrapes at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::sync::Semaphore;

/// What a claim's pod says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Reading {
    /// Percent, once the pod knows the whole.
    pub(crate) percent: Option<f64>,
    pub(crate) read: u64,
    pub(crate) written: u64,
    /// Bytes read in a second.
    pub(crate) rate: u64,
}

/// Between two questions to one pod.
const PAUSE: Duration = Duration::from_millis(1900);
/// A pod that does not answer by then has nothing to say this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// What comes beyond this is not read.
const MOST: usize = 64 << 10;
/// Scrapes at the same time.
const AT_ONCE: usize = 32;

/// Reads metrics.
#[derive(Debug, Clone)]
pub(crate) struct Scraper {
    client: Client,
    room: Arc<Semaphore>,
    /// When each pod was asked last: what is written of an answer brings us here again at once.
    asked: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Scraper {
    /// `None` where no client can be made: then there is no progress to show.
    pub(crate) fn new() -> Option<Self> {
        let client = Client::builder()
            .tls_certs_only([])
            .tls_danger_accept_invalid_certs(true)
            .timeout(PATIENCE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        match client {
            Ok(client) => Some(Self {
                client,
                room: Arc::new(Semaphore::new(AT_ONCE)),
                asked: Arc::default(),
            }),
            Err(error) => {
                tracing::warn!(%error, "there will be no progress to show");
                None
            }
        }
    }

    /// What the pod at `address` says, if it says anything and was not asked a moment ago.
    pub(crate) async fn read(&self, address: &str) -> Option<Reading> {
        if !self.is_due(address, Instant::now()) {
            return None;
        }
        let _permit = self.room.acquire().await.ok()?;
        // Brackets are for addresses of the longer kind only.
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let asked = self.client.get(format!("https://{host}:8443/metrics"));
        let mut answer = asked.send().await.ok()?.error_for_status().ok()?;
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.ok()? {
            text.extend_from_slice(&chunk);
            if text.len() > MOST {
                return None;
            }
        }
        Some(parse(&String::from_utf8_lossy(&text)))
    }
}

impl Scraper {
    fn is_due(&self, address: &str, now: Instant) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| now.duration_since(*at) < PAUSE);
        if asked.contains_key(address) {
            return false;
        }
        asked.insert(address.to_owned(), now);
        true
    }
}

/// Reads the text format of Prometheus, as far as it is ours.
fn parse(text: &str) -> Reading {
    let mut reading = Reading::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((metric, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = metric.split('{').next().unwrap_or_default();
        let number: Option<f64> = value.parse().ok().filter(|n: &f64| n.is_finite());
        let whole = value.parse().unwrap_or(0);
        match name {
            "kubevirt_cdi_import_progress_total" => {
                reading.percent = number.map(|percent| percent.clamp(0.0, 100.0));
            }
            "cdi_importer_read_bytes_total" => reading.read = whole,
            "cdi_importer_written_bytes_total" => reading.written = whole,
            "cdi_importer_read_rate_bytes" => reading.rate = whole,
            _ => {}
        }
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_not_asked_again_at_once() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let scraper = Scraper::new().unwrap();
        let start = Instant::now();
        assert!(scraper.is_due("a", start));
        assert!(!scraper.is_due("a", start + Duration::from_secs(1)));
        assert!(scraper.is_due("b", start + Duration::from_secs(1)));
        assert!(scraper.is_due("a", start + Duration::from_secs(2)));
    }

    #[test]
    fn metrics_of_ours_are_read_and_all_else_is_passed_over() {
        let text = "# HELP x y\nkubevirt_cdi_import_progress_total{ownerUID=\"a b\"} 12.5\n\
                    cdi_importer_read_bytes_total{ownerUID=\"a b\"} 1000\n\
                    cdi_importer_written_bytes_total{ownerUID=\"a b\"} 2000\n\
                    cdi_importer_read_rate_bytes{ownerUID=\"a b\"} 300\nnonsense\nother 1 2\n";
        let reading = Reading {
            percent: Some(12.5),
            read: 1000,
            written: 2000,
            rate: 300,
        };
        assert_eq!(parse(text), reading);
        assert_eq!(
            parse("kubevirt_cdi_import_progress_total NaN"),
            Reading::default()
        );
        assert_eq!(parse(""), Reading::default());
    }
}
