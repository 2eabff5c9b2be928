//! The importer pod's main: one import, as the environment says, and how it went.
//!
//! ```text
//! environment -> Import -> connect -> check the size -> copy -> mode, fsync -> termination message
//!                                          |
//!               :8443/metrics, JSON lines <-- Progress
//! ```
//!
//! The work runs on a thread of its own. This one shows progress and looks for signals, so that neither
//! waits for a source that does not answer. What is told to whom:
//!
//! | who | what |
//! | --- | --- |
//! | controller | the termination message, [`longshore_crds::contract::Termination`]; metrics while it works |
//! | kubelet | the exit code: 0 done, or no use in trying again (a wrong checksum); 1 try again; 143 told to end |
//! | people | the log on standard error, in upstream's words where those are searched for |
//! | programs | progress on standard output, one JSON object a line |
//!
//! What the environment means is `longshore_crds::contract`'s business, how bytes get to the target
//! `longshore_transfer`'s.

mod archive;
mod end;
mod metrics;
mod place;
mod pulled;
mod signals;
mod source;
mod volume;
mod work;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use longshore_crds::contract::{Credentials, Import, Termination};
use longshore_telemetry::{Endpoint, error_chain};
use longshore_transfer::{Cancel, Lines, Meter, Progress};

use self::end::PodError;
use self::metrics::{Gauges, Phase};
use self::place::Place;

/// How often progress is shown.
const INTERVAL: Duration = Duration::from_millis(500);
/// Work that was told to stop does so at its next piece. What waits for a source is left behind after
/// this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Does what the environment asks for.
pub fn main() -> ExitCode {
    let get = |name: &str| std::env::var_os(name);
    let place = Place::from_env(get);
    place.log();
    tracing::info!(build = %longshore_telemetry::build_info(), "starting importer");
    let started = Instant::now();
    let done = run(get, &place);
    let mut lines = place.progress.then(Lines::on_stdout);
    let (end, code) = match done {
        Ok(mut end) => {
            end.seconds = Some(seconds(started));
            let message = end.message.as_deref().unwrap_or_default();
            tracing::info!("{message}");
            if let Some(lines) = &mut lines {
                lines.print(&Done {
                    event: "done",
                    end: &end,
                });
            }
            (end, 0)
        }
        Err(error) => {
            let (message, code) = (error.message(), error.exit_code());
            tracing::error!(reason = error.reason(), "{message}");
            if let Some(lines) = &mut lines {
                lines.failed(error.reason(), &message, code, false);
            }
            let end = Termination {
                message: Some(message),
                reason: Some(error.reason().to_owned()),
                seconds: Some(seconds(started)),
                ..Termination::default()
            };
            (end, code)
        }
    };
    place.leave(&end);
    ExitCode::from(code)
}

/// The last line of progress.
#[derive(serde::Serialize)]
struct Done<'a> {
    event: &'static str,
    #[serde(flatten)]
    end: &'a Termination,
}

/// Rounded: nobody wants to read nanoseconds.
fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}

fn run(
    get: impl Fn(&str) -> Option<OsString> + Copy,
    place: &Place,
) -> Result<Termination, PodError> {
    let import = Import::from_env(get)?;
    let credentials = Credentials::from_env(get)?;
    let cancel = Cancel::default();
    signals::watch(&cancel)?;
    let (progress, gauges) = (Progress::default(), Gauges::new(&import.owner_uid));
    let _endpoint = serve(place, &progress, &gauges);
    let (sender, outcome) = sync_channel(1);
    let job = work::Job {
        import,
        credentials,
        place: place.clone(),
        progress: progress.clone(),
        gauges: gauges.clone(),
        cancel: cancel.clone(),
    };
    let started = std::thread::Builder::new()
        .name("import".to_owned())
        // The other end is gone only when nobody waits any more.
        .spawn(move || drop(sender.send(job.run())));
    started.map_err(|source| PodError::Host {
        action: "start a thread",
        source,
    })?;
    let mut lines = place.progress.then(Lines::on_stdout);
    let mut meter = Meter::new(Instant::now());
    let mut stopping = None;
    let ended = loop {
        match outcome.recv_timeout(INTERVAL) {
            // Asked to stop, each source has its own way of saying so.
            Ok(Err(_)) if cancel.is_cancelled() => break Err(PodError::Interrupted),
            Ok(ended) => break ended,
            Err(RecvTimeoutError::Disconnected) => break Err(PodError::Crashed),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Instant::now();
        if cancel.is_cancelled() {
            let since = *stopping.get_or_insert(now);
            if now.duration_since(since) >= PATIENCE {
                break Err(PodError::Interrupted);
            }
        } else if let Some(lines) = &mut lines {
            let snapshot = progress.snapshot();
            lines.progress(&snapshot, &meter.read(&snapshot, now));
        }
    };
    gauges.enter(match ended {
        Ok(_) => Phase::Complete,
        Err(_) => Phase::Failed,
    });
    ended
}

/// Metrics, if they can be had: an import does not fail for want of them.
fn serve(place: &Place, progress: &Progress, gauges: &Gauges) -> Option<Endpoint> {
    let address = place.metrics?;
    let (progress, gauges) = (progress.clone(), gauges.clone());
    let render: Arc<dyn Fn() -> String + Send + Sync> =
        Arc::new(move || gauges.render(&progress.snapshot()));
    let start = |address| {
        let render = Arc::clone(&render);
        Endpoint::start(address, move || render())
    };
    let started = match (start(address), address.ip()) {
        // A host may have no IPv6 at all.
        (Err(_), IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => {
            start((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        (started, _) => started,
    };
    match started {
        Ok(endpoint) => {
            tracing::info!(address = %endpoint.address(), "serving metrics");
            Some(endpoint)
        }
        Err(error) => {
            tracing::warn!(cause = error_chain(&error), "there are no metrics");
            None
        }
    }
}
