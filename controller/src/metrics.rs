//! The controller's metrics: what there is, and what counts it.
//!
//! They are the process's, so they are reached from anywhere without being handed around. What the cluster
//! says of itself is not counted but read when somebody asks ([`page`]). docs/metrics.md has a table made
//! of [`ALL`].

mod page;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kube::api::DynamicObject;
use kube::runtime::reflector::Store;
use longshore_telemetry::{Histogram, Kind};

pub(crate) use self::page::render;
use crate::import::scrape::Heard;
use crate::known::Known;

/// Upper bounds of reconciliations, in seconds.
const ROUNDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Those of phases.
const PHASES: &[f64] = &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];
/// Reasons that are counted each; what comes beyond is `other`.
const MOST_REASONS: usize = 64;
/// Volumes whose phase is timed. Those that nobody saw for a day make room.
const MOST_TIMED: usize = 20_000;
const DAY: Duration = Duration::from_hours(24);
/// A pod that was not heard for so long has ended.
const HEARD: Duration = Duration::from_secs(70);

pub(super) const PROFILE: &str = "kubevirt_cdi_storageprofile_info";
pub(super) const PENDING: &str = "kubevirt_cdi_datavolume_pending";
pub(super) const READY: &str = "kubevirt_cdi_cr_ready";
pub(super) const VOLUMES: &str = "cdi_controller_data_volumes";
pub(super) const PHASE_TIME: &str = "cdi_controller_phase_seconds";
pub(super) const ROUND_TIME: &str = "cdi_controller_reconcile_seconds";
pub(super) const FAILED_ROUNDS: &str = "cdi_controller_reconcile_errors_total";
pub(super) const EVENTS: &str = "cdi_controller_events_total";
pub(super) const SCRAPES: &str = "cdi_controller_scrapes_total";
pub(super) const TRANSFERS: &str = "cdi_controller_transfers";
pub(super) const RATE: &str = "cdi_controller_read_rate_bytes";
pub(super) const LEADER: &str = "cdi_controller_leader";

/// A metric: name, kind, labels, what it tells.
pub(super) type Metric = (&'static str, Kind, &'static str, &'static str);

/// All of them, in the order of the page.
pub(super) const ALL: [Metric; 12] = [
    (
        PROFILE,
        Kind::Gauge,
        "storageclass, provisioner, complete, default, virtdefault, rwx, smartclone, degraded",
        "Always 1: what is known of a StorageClass. complete: claims can be made without saying how; degraded: no volumes of many nodes, or no clones by the storage",
    ),
    (
        PENDING,
        Kind::Gauge,
        "",
        "DataVolumes that wait for a default StorageClass",
    ),
    (
        READY,
        Kind::Gauge,
        "",
        "1 if the CDI object is available, 0 if it is not, -1 if there is none",
    ),
    (VOLUMES, Kind::Gauge, "phase", "DataVolumes by phase"),
    (
        PHASE_TIME,
        Kind::Histogram,
        "phase",
        "Seconds that DataVolumes were in a phase, once they have left it",
    ),
    (
        ROUND_TIME,
        Kind::Histogram,
        "controller",
        "Seconds that a reconciliation took",
    ),
    (
        FAILED_ROUNDS,
        Kind::Counter,
        "controller, reason",
        "Reconciliations that failed and are tried again; somebody else's write in between (Conflict) is one, too",
    ),
    (
        EVENTS,
        Kind::Counter,
        "reason",
        "Events told; ErrImportFailed counts attempts that failed, ImportSucceeded imports that are done (of DataVolume and claim)",
    ),
    (
        SCRAPES,
        Kind::Counter,
        "outcome",
        "Questions to importer pods how far they are: answered or silent",
    ),
    (
        TRANSFERS,
        Kind::Gauge,
        "",
        "Importer pods that answered within the last minute",
    ),
    (
        RATE,
        Kind::Gauge,
        "",
        "Bytes that all of these read in a second",
    ),
    (
        LEADER,
        Kind::Gauge,
        "",
        "1 while this process works, 0 while it stands by",
    ),
];

/// What is counted.
#[derive(Default)]
pub(super) struct Numbers {
    pub(super) rounds: BTreeMap<&'static str, Histogram>,
    pub(super) failed: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) events: BTreeMap<String, u64>,
    pub(super) answered: u64,
    pub(super) silent: u64,
    pub(super) phases: BTreeMap<String, Histogram>,
    /// Since when volumes, by uid, are in their phase.
    since: HashMap<String, Instant>,
    /// When each pod answered last, and its rate.
    pub(super) transfers: HashMap<String, (Instant, u64)>,
}

/// What is read.
#[derive(Default)]
struct Sources {
    known: OnceLock<Known>,
    volumes: OnceLock<Store<DynamicObject>>,
}

static NUMBERS: OnceLock<Mutex<Numbers>> = OnceLock::new();
static SOURCES: Sources = Sources {
    known: OnceLock::new(),
    volumes: OnceLock::new(),
};

fn numbers() -> MutexGuard<'static, Numbers> {
    let numbers = NUMBERS.get_or_init(Mutex::default);
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of the cluster; from then on this process works.
pub(crate) fn works_with(known: &Known) {
    // The first one stays, and there is one in a process.
    let _ = SOURCES.known.set(known.clone());
}

/// All data volumes.
pub(crate) fn counts(volumes: &Store<DynamicObject>) {
    let _ = SOURCES.volumes.set(volumes.clone());
}

/// Times a reconciliation of `controller`.
pub(crate) async fn timed<T>(
    controller: &'static str,
    round: impl Future<Output = crate::error::Result<T>>,
) -> crate::error::Result<T> {
    let started = Instant::now();
    let outcome = round.await;
    let mut numbers = numbers();
    let times = numbers.rounds.entry(controller);
    times
        .or_insert_with(|| Histogram::new(ROUNDS))
        .observe(started.elapsed().as_secs_f64());
    if let Err(error) = &outcome {
        let reason = match error.status() {
            Some(crate::error::CONFLICT) => "Conflict",
            _ => error.reason(),
        };
        let count = numbers.failed.entry((controller, reason)).or_default();
        *count = count.saturating_add(1);
    }
    outcome
}

/// An event was told.
pub(crate) fn told(reason: &str) {
    numbers().tell(reason);
}

/// A pod was asked how far it is.
pub(crate) fn scraped(address: &str, heard: &Heard) {
    numbers().scrape(address, heard, Instant::now());
}

/// A volume goes from one phase to another.
pub(crate) fn enters(uid: &str, before: Option<&str>, next: Option<&str>) {
    numbers().enter(uid, before, next, Instant::now());
}

impl Numbers {
    fn tell(&mut self, reason: &str) {
        let known = self.events.contains_key(reason) || self.events.len() < MOST_REASONS;
        let reason = if known { reason } else { "other" };
        let count = self.events.entry(reason.to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    fn scrape(&mut self, address: &str, heard: &Heard, now: Instant) {
        match heard {
            Heard::Said(reading) => {
                self.answered = self.answered.saturating_add(1);
                let heard = (now, reading.rate);
                self.transfers.insert(address.to_owned(), heard);
            }
            Heard::Silent(_) => self.silent = self.silent.saturating_add(1),
        }
        self.forget(now);
    }

    /// What has ended counts no more.
    pub(super) fn forget(&mut self, now: Instant) {
        let heard = |at: &Instant| now.duration_since(*at) < HEARD;
        self.transfers.retain(|_, (at, _)| heard(at));
    }

    fn enter(&mut self, uid: &str, before: Option<&str>, next: Option<&str>, now: Instant) {
        if before == next {
            return;
        }
        // A controller that has just started does not know since when.
        if let (Some(since), Some(before)) = (self.since.remove(uid), before) {
            let times = self.phases.entry(before.to_owned());
            times
                .or_insert_with(|| Histogram::new(PHASES))
                .observe(now.duration_since(since).as_secs_f64());
        }
        if matches!(next, None | Some("Succeeded" | "Failed")) {
            return;
        }
        if self.since.len() >= MOST_TIMED {
            self.since.retain(|_, at| now.duration_since(*at) < DAY);
        }
        if self.since.len() < MOST_TIMED {
            self.since.insert(uid.to_owned(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::scrape::Reading;

    #[test]
    fn a_phase_is_timed_once_it_is_left_and_what_has_ended_is_not_kept() {
        let mut numbers = Numbers::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        numbers.enter("u", None, Some("Pending"), at(0));
        numbers.enter("u", Some("Pending"), Some("Pending"), at(1));
        numbers.enter("u", Some("Pending"), Some("ImportInProgress"), at(3));
        numbers.enter("u", Some("ImportInProgress"), Some("Succeeded"), at(9));
        // Of this one the beginning was not seen.
        numbers.enter("v", Some("Pending"), Some("Succeeded"), at(9));
        assert!(numbers.since.is_empty());
        let phases: Vec<&String> = numbers.phases.keys().collect();
        assert_eq!(phases, ["ImportInProgress", "Pending"]);
    }

    #[test]
    fn reasons_beyond_what_there_should_be_are_counted_together() {
        let mut numbers = Numbers::default();
        for n in 0..200 {
            numbers.tell(&format!("Reason{n}"));
        }
        numbers.tell("Reason0");
        assert_eq!(numbers.events.len(), MOST_REASONS + 1);
        assert_eq!(numbers.events["Reason0"], 2);
        assert_eq!(numbers.events["other"], 200 - 64);
    }

    #[test]
    fn pods_that_are_not_heard_any_more_have_no_rate() {
        let mut numbers = Numbers::default();
        let start = Instant::now();
        let said = Heard::Said(Reading {
            rate: 5,
            ..Reading::default()
        });
        numbers.scrape("a", &said, start);
        numbers.scrape("b", &said, start + Duration::from_mins(1));
        assert_eq!(numbers.transfers.len(), 2);
        let silent = Heard::Silent(String::new());
        numbers.scrape("a", &silent, start + Duration::from_secs(71));
        assert_eq!(numbers.transfers.len(), 1);
        assert_eq!((numbers.answered, numbers.silent), (2, 1));
    }
}
