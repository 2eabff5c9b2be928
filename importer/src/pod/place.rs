//! Where a pod's things are. In a pod these never differ; tests and people at a shell say otherwise.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use longshore_crds::Quantity;
use longshore_crds::contract::Termination;
use longshore_telemetry::{Format, Options, error_chain, init};

/// All of the pod's addresses.
const USUAL_METRICS: &str = "[::]:8443";

/// Paths, addresses, and what the log looks like.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Mount point of a filesystem volume.
    pub(super) data: PathBuf,
    /// Node of a block volume.
    pub(super) device: PathBuf,
    /// Where the termination message goes.
    pub(super) termination: PathBuf,
    /// Where metrics are served; `None`: nowhere.
    pub(super) metrics: Option<SocketAddr>,
    /// Progress goes to standard output.
    pub(super) progress: bool,
    /// The journal is written whenever so many more bytes are done.
    pub(super) journal_step: Option<u64>,
    log: Options,
    /// What of these variables made no sense.
    odd: Vec<&'static str>,
}

impl Place {
    /// Overridden by `LONGSHORE_*` variables. What makes no sense is not heeded, and said once there is
    /// a log.
    pub(super) fn from_env(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut odd = Vec::new();
        let path = |name: &str, usual: &str| {
            let set = get(name).filter(|value| !value.is_empty());
            set.map_or_else(|| usual.into(), PathBuf::from)
        };
        let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
        let metrics = match text("LONGSHORE_METRICS_ADDRESS").as_deref() {
            None | Some("") => USUAL_METRICS.parse().ok(),
            Some("off") => None,
            Some(address) => {
                let parsed = address.parse().ok();
                if parsed.is_none() {
                    odd.push("LONGSHORE_METRICS_ADDRESS");
                }
                parsed
            }
        };
        let progress = match text("LONGSHORE_PROGRESS").as_deref() {
            None | Some("" | "json") => true,
            Some("off") => false,
            Some(_) => {
                odd.push("LONGSHORE_PROGRESS");
                true
            }
        };
        let journal_step = match text("LONGSHORE_JOURNAL_STEP").as_deref() {
            None | Some("") => None,
            Some(step) => {
                let bytes = step.parse::<Quantity>().ok();
                let bytes = bytes
                    .and_then(|step| step.to_u64())
                    .filter(|step| *step > 0);
                if bytes.is_none() {
                    odd.push("LONGSHORE_JOURNAL_STEP");
                }
                bytes
            }
        };
        let mut log = Options::default();
        match text("LONGSHORE_LOG_FORMAT").map(|format| format.parse::<Format>()) {
            Some(Ok(format)) => log.format = format,
            Some(Err(_)) => odd.push("LONGSHORE_LOG_FORMAT"),
            None => {}
        }
        if let Some(filter) = text("LONGSHORE_LOG").filter(|filter| !filter.is_empty()) {
            log.filter = filter;
        }
        Self {
            data: path("LONGSHORE_DATA_DIR", "/data"),
            device: path("LONGSHORE_BLOCK_DEVICE", "/dev/cdi-block-volume"),
            termination: path("LONGSHORE_TERMINATION_LOG", "/dev/termination-log"),
            metrics,
            progress,
            journal_step,
            log,
            odd,
        }
    }

    /// Sets up the log.
    pub(super) fn log(&self) {
        if init(&self.log).is_err() {
            let usual = Options {
                format: self.log.format,
                ..Options::default()
            };
            // Only in tests is it set up already.
            drop(init(&usual));
            tracing::warn!(filter = self.log.filter, "this is no filter for a log");
        }
        for variable in &self.odd {
            tracing::warn!(variable, "the value of this variable makes no sense");
        }
    }

    /// Leaves the termination message. The file is the kubelet's, and is written in place.
    pub(super) fn leave(&self, end: &Termination) {
        if let Err(error) = std::fs::write(&self.termination, end.to_message()) {
            tracing::error!(
                path = %self.termination.display(),
                cause = error_chain(&error),
                "could not leave the termination message"
            );
        }
    }
}
