//! How far a pod is: its metrics, read every few seconds while it runs.
//!
//! A pod's certificate is its own, so it proves nothing and nothing depends on what comes: numbers for
//! people, bounded in time, size and number of scrapes at once. A pod that does not answer is asked less
//! and less often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use longshore_telemetry::error_chain;
use reqwest::Client;
use tokio::sync::Semaphore;

use crate::{metrics, rounds};

/// What a claim's pod says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Reading {
    /// Percent, once the pod knows the whole.
    pub(crate) percent: Option<f64>,
    pub(crate) read: u64,
    pub(crate) written: u64,
    /// Bytes of the disk, once they are known.
    pub(crate) size: Option<u64>,
    /// Bytes read in a second.
    pub(crate) rate: u64,
    /// Seconds left at the pace so far.
    pub(crate) eta_seconds: Option<u64>,
    /// Requests that were made again.
    pub(crate) retries: u64,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    Said(Reading),
    /// No answer, and this is what was tried.
    Silent(String),
}

/// Between two questions to one pod.
const PAUSE: Duration = Duration::from_millis(1900);
/// The same for one that does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A pod that does not answer by then has nothing to say this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// What comes beyond this is not read.
const MOST: usize = 64 << 10;
/// Scrapes at the same time: half of the rounds that there can be.
const AT_ONCE: usize = rounds::AT_ONCE as usize / 2;

/// Reads metrics.
#[derive(Debug, Clone)]
pub(crate) struct Scraper {
    client: Client,
    room: Arc<Semaphore>,
    /// When each pod was asked last: what is written of an answer brings us here again at once.
    asked: Arc<Mutex<HashMap<String, Asked>>>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    pause: Duration,
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

    /// What the pod at `address` says, unless it was asked a moment ago or many others are being asked.
    pub(crate) async fn read(&self, address: &str) -> Option<Heard> {
        // Whoever finds no room comes again: a round that waited here would keep others from being made.
        let _permit = self.room.try_acquire().ok()?;
        if !self.is_due(address, Instant::now()) {
            return None;
        }
        let heard = match self.ask(address).await {
            Ok(reading) => Heard::Said(reading),
            Err(why) => Heard::Silent(format!(
                "the controller does not reach the pod at {address}, port 8443 (a NetworkPolicy may be in the way): {why}"
            )),
        };
        self.heard(address, &heard);
        Some(heard)
    }

    async fn ask(&self, address: &str) -> Result<Reading, String> {
        // Brackets are for addresses of the longer kind only.
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let told = |error: reqwest::Error| error_chain(&error.without_url());
        let asked = self.client.get(format!("https://{host}:8443/metrics"));
        let answer = asked.send().await.map_err(told)?;
        let mut answer = answer.error_for_status().map_err(told)?;
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(told)? {
            text.extend_from_slice(&chunk);
            if text.len() > MOST {
                return Err("what answers there is not an importer".to_owned());
            }
        }
        Ok(parse(&String::from_utf8_lossy(&text)))
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<String, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, address: &str, now: Instant) -> bool {
        let mut asked = self.asked();
        // Who is not asked any more has ended.
        asked.retain(|_, it| now.duration_since(it.at) < LONGEST_PAUSE * 2);
        let last = asked.get(address).copied();
        if last.is_some_and(|last| now.duration_since(last.at) < last.pause) {
            return false;
        }
        let pause = last.map_or(PAUSE, |last| last.pause);
        asked.insert(address.to_owned(), Asked { at: now, pause });
        true
    }

    fn heard(&self, address: &str, heard: &Heard) {
        if let Some(asked) = self.asked().get_mut(address) {
            asked.pause = match heard {
                Heard::Said(_) => PAUSE,
                Heard::Silent(_) => (asked.pause * 2).min(LONGEST_PAUSE),
            };
        }
        metrics::scraped(address, heard);
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
        let whole = value.parse().ok();
        match name {
            "kubevirt_cdi_import_progress_total" => {
                reading.percent = number.map(|percent| percent.clamp(0.0, 100.0));
            }
            "cdi_importer_read_bytes_total" => reading.read = whole.unwrap_or(0),
            "cdi_importer_written_bytes_total" => reading.written = whole.unwrap_or(0),
            "cdi_importer_disk_size_bytes" => reading.size = whole,
            "cdi_importer_read_rate_bytes" => reading.rate = whole.unwrap_or(0),
            "cdi_importer_eta_seconds" => reading.eta_seconds = whole,
            "cdi_importer_retries_total" => reading.retries = whole.unwrap_or(0),
            _ => {}
        }
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scraper() -> Scraper {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Scraper::new().unwrap()
    }

    #[test]
    fn a_pod_is_not_asked_again_at_once() {
        let scraper = scraper();
        let start = Instant::now();
        assert!(scraper.is_due("a", start));
        assert!(!scraper.is_due("a", start + Duration::from_secs(1)));
        assert!(scraper.is_due("b", start + Duration::from_secs(1)));
        assert!(scraper.is_due("a", start + Duration::from_secs(2)));
    }

    #[test]
    fn a_pod_that_does_not_answer_is_asked_less_and_less_often() {
        let scraper = scraper();
        let start = Instant::now();
        let silent = Heard::Silent(String::new());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(scraper.is_due("a", start));
        scraper.heard("a", &silent);
        assert!(!scraper.is_due("a", at(3)));
        assert!(scraper.is_due("a", at(4)));
        for _ in 0..10 {
            scraper.heard("a", &silent);
        }
        assert!(!scraper.is_due("a", at(33)));
        assert!(scraper.is_due("a", at(34)));
        scraper.heard("a", &Heard::Said(Reading::default()));
        assert!(scraper.is_due("a", at(36)));
    }

    #[tokio::test]
    async fn nobody_at_the_other_end_is_silence_with_its_reason() {
        // Nothing listens at this port of an address of the loopback that nobody has.
        let heard = scraper().read("127.55.44.33").await.unwrap();
        let Heard::Silent(why) = heard else {
            panic!("{heard:?}");
        };
        assert!(why.contains("127.55.44.33, port 8443"), "{why}");
        assert!(why.contains("NetworkPolicy"), "{why}");
    }

    #[test]
    fn metrics_of_ours_are_read_and_all_else_is_passed_over() {
        let text = "# HELP x y\nkubevirt_cdi_import_progress_total{ownerUID=\"a b\"} 12.5\n\
                    cdi_importer_read_bytes_total{ownerUID=\"a b\"} 1000\n\
                    cdi_importer_written_bytes_total{ownerUID=\"a b\"} 2000\n\
                    cdi_importer_disk_size_bytes{ownerUID=\"a b\"} 5000\n\
                    cdi_importer_eta_seconds{ownerUID=\"a b\"} 9\n\
                    cdi_importer_retries_total{ownerUID=\"a b\"} 1\n\
                    cdi_importer_read_rate_bytes{ownerUID=\"a b\"} 300\nnonsense\nother 1 2\n";
        let reading = Reading {
            percent: Some(12.5),
            read: 1000,
            written: 2000,
            size: Some(5000),
            rate: 300,
            eta_seconds: Some(9),
            retries: 1,
        };
        assert_eq!(parse(text), reading);
        assert_eq!(
            parse("kubevirt_cdi_import_progress_total NaN"),
            Reading::default()
        );
        assert_eq!(parse(""), Reading::default());
    }
}
