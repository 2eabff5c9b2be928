//! The importer's metrics. docs/metrics.md has a table of them; a test compares it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use longshore_telemetry::{Exposition, Kind};
use longshore_transfer::{Meter, Snapshot};

/// What an importer is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The source is asked.
    Connecting,
    /// Bytes move.
    Copying,
    /// All bytes are there, and are being made durable.
    Finishing,
    /// Done.
    Complete,
    /// Given up.
    Failed,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::Connecting,
        Self::Copying,
        Self::Finishing,
        Self::Complete,
        Self::Failed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Copying => "copying",
            Self::Finishing => "finishing",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Connecting => 0,
            Self::Copying => 1,
            Self::Finishing => 2,
            Self::Complete => 3,
            Self::Failed => 4,
        }
    }
}

/// Upstream's: percent, and a counter all the same.
const PROGRESS: &str = "kubevirt_cdi_import_progress_total";
const PHASE: &str = "kubevirt_cdi_import_phase_info";
const READ: &str = "cdi_importer_read_bytes_total";
const WRITTEN: &str = "cdi_importer_written_bytes_total";
const SPILLED: &str = "cdi_importer_spilled_bytes_total";
const RATE: &str = "cdi_importer_read_rate_bytes";
const SIZE: &str = "cdi_importer_disk_size_bytes";
const RETRIES: &str = "cdi_importer_retries_total";
const PASSES: &str = "cdi_importer_passes_total";
const ETA: &str = "cdi_importer_eta_seconds";
const ELAPSED: &str = "cdi_importer_elapsed_seconds";

/// All metrics: name, kind, what it tells.
pub(super) const ALL: [(&str, Kind, &str); 11] = [
    (PROGRESS, Kind::Counter, "The import progress in percentage"),
    (
        PHASE,
        Kind::Gauge,
        "The current processing phase of the import",
    ),
    (
        READ,
        Kind::Counter,
        "Bytes read from the source, repeated ones included",
    ),
    (WRITTEN, Kind::Counter, "Bytes written to the target"),
    (
        SPILLED,
        Kind::Counter,
        "Bytes that waited in a file for the tables that place them",
    ),
    (RATE, Kind::Gauge, "Bytes read in a second, smoothed"),
    (
        SIZE,
        Kind::Gauge,
        "Size of the image's disk, once it is known",
    ),
    (
        RETRIES,
        Kind::Counter,
        "Requests that failed and were made again",
    ),
    (
        PASSES,
        Kind::Counter,
        "How often the source was read from its beginning",
    ),
    (
        ETA,
        Kind::Gauge,
        "Seconds left at the pace so far, once that can be told",
    ),
    (ELAPSED, Kind::Gauge, "Seconds since the import began"),
];

/// What is served beside the engine's own counters. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Gauges(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    owner: String,
    phase: AtomicU8,
    retries: longshore_transfer::Tally,
    meter: Mutex<Meter>,
}

impl Gauges {
    /// For the import of `owner`.
    pub(super) fn new(owner: &str) -> Self {
        Self(Arc::new(Inner {
            owner: owner.to_owned(),
            phase: AtomicU8::new(Phase::Connecting.number()),
            retries: longshore_transfer::Tally::default(),
            meter: Mutex::new(Meter::new(Instant::now())),
        }))
    }

    /// What counts retries.
    pub(super) fn retries(&self) -> longshore_transfer::Tally {
        self.0.retries.clone()
    }

    /// The importer is at `phase` now.
    pub(super) fn enter(&self, phase: Phase) {
        self.0.phase.store(phase.number(), Ordering::Relaxed);
    }

    /// The page.
    pub(super) fn render(&self, snapshot: &Snapshot) -> String {
        let mut meter = self.0.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = meter.read(snapshot, Instant::now());
        drop(meter);
        let owner = ("ownerUID", self.0.owner.as_str());
        let number = self.0.phase.load(Ordering::Relaxed);
        let entered = Phase::ALL.into_iter().find(|p| p.number() == number);
        let phase = match entered {
            Some(Phase::Copying) if snapshot.is_finishing() => Phase::Finishing,
            Some(phase) => phase,
            None => Phase::Failed,
        };
        let mut page = Exposition::new();
        for (name, kind, help) in ALL {
            page.family(name, kind, help);
            let value = match name {
                // What is not known yet is not told: 0 would be wrong.
                PROGRESS => reading.fraction.map(|share| (share * 1e4).floor() / 1e2),
                PHASE => {
                    page.sample(name, &[owner, ("phase", phase.name())], 1.0);
                    continue;
                }
                READ => Some(float(snapshot.read)),
                WRITTEN => Some(float(snapshot.written)),
                SPILLED => Some(float(snapshot.spilled)),
                RATE => Some(reading.rate.round()),
                SIZE => snapshot.size.map(float),
                RETRIES => Some(float(self.0.retries.count())),
                ETA => reading.eta.map(|left| left.as_secs_f64().ceil()),
                ELAPSED => Some(reading.elapsed.as_secs_f64().floor()),
                _ => Some(f64::from(snapshot.pass)),
            };
            if let Some(value) = value {
                page.sample(name, &[owner], value);
            }
        }
        page.into_text()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric is a float; nobody sees the seventeenth digit"
)]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_transfer::Progress;

    #[test]
    fn the_page_has_every_metric() {
        let gauges = Gauges::new("u\"id");
        let page = gauges.render(&Progress::default().snapshot());
        for (name, _, _) in ALL {
            assert!(page.contains(&format!("# TYPE {name} ")), "{name}: {page}");
        }
        assert!(
            page.contains(
                "kubevirt_cdi_import_phase_info{ownerUID=\"u\\\"id\",phase=\"connecting\"} 1\n"
            ),
            "{page}"
        );
        assert!(!page.contains("import_progress_total{"), "{page}");
    }

    #[test]
    fn the_documentation_has_this_table() {
        let labels = |name| match name {
            PHASE => "ownerUID, phase",
            _ => "ownerUID",
        };
        let mut table =
            String::from("| metric | type | labels | what it tells |\n|---|---|---|---|\n");
        for (name, kind, help) in ALL {
            let row = format!(
                "| `{name}` | {} | {} | {help} |\n",
                kind.name(),
                labels(name)
            );
            table.push_str(&row);
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let (before, after) = ("<!-- importer -->\n", "<!-- /importer -->");
        let page = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = page.split_once(before).unwrap();
        let (known, tail) = rest.split_once(after).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, format!("{head}{before}{table}{after}{tail}")).unwrap();
        } else {
            assert_eq!(known, table, "UPDATE_GOLDEN=1 writes docs/metrics.md anew");
        }
    }
}
