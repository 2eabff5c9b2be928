//! `run`: a manifest's disks, then its machine.
//!
//! ```text
//! manifest -> state directory (locked) -> accelerator -> plan -> disks (imported or kept) -> QEMU -> exit code
//! ```
//!
//! What is on disk when we die, at each step, is described where it is written: `disk` for the disks,
//! the launcher for everything of QEMU.

mod boot;
mod decide;
mod disk;
mod record;
mod state;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longshore_crds::Manifest;
use longshore_crds::manifest::{MAX_BYTES, Override};
use longshore_launcher::accel::Accel;
use longshore_launcher::plan::imports::imports;

use crate::failure::Failure;
use crate::output;
use crate::progress::Mode;
use crate::signals::Signals;

pub(crate) use self::state::{StateError, default_base as state_directory};

/// What to run, and how.
#[derive(Debug)]
pub(crate) struct RunConfig {
    pub(crate) manifest: PathBuf,
    pub(crate) state: Option<PathBuf>,
    pub(crate) accel: Accel,
    pub(crate) timeout: Option<Duration>,
    pub(crate) overrides: Vec<Override>,
    pub(crate) reimport: Vec<String>,
    pub(crate) allow_host_disks: bool,
    pub(crate) progress: Mode,
}

/// When everything must be over.
#[derive(Debug, Clone, Copy)]
struct Limit {
    whole: Duration,
    at: Instant,
}

/// Runs it to its end.
pub(crate) fn run(config: &RunConfig) -> Result<(), Failure> {
    let limit = config.timeout.and_then(|whole| {
        let at = Instant::now().checked_add(whole)?;
        Some(Limit { whole, at })
    });
    let manifest = load(&config.manifest, &config.overrides)?;
    let wanted = imports(&manifest)?;
    for notice in &wanted.notices {
        output::say(&format!("note: {notice}"));
    }
    for name in &config.reimport {
        if !wanted
            .data_volumes
            .iter()
            .any(|volume| volume.name == *name)
        {
            let known = wanted
                .data_volumes
                .iter()
                .map(|volume| volume.name.as_str());
            return Err(Failure::Field {
                field: format!("--reimport {name}"),
                why: format!(
                    "the machine uses no data volume of this name, only: {}",
                    known.collect::<Vec<_>>().join(", ")
                ),
            });
        }
    }
    let state = state::State::claim(config.state.as_deref(), &manifest.vm)?;
    let plan = boot::prepare(config, &manifest, &state, &wanted.data_volumes)?;
    let mut disks = Vec::new();
    {
        let signals = Signals::take()?;
        for volume in wanted.data_volumes {
            let reimport = config.reimport.contains(&volume.name);
            let importer = disk::Importer {
                directory: state.disks(),
                progress: config.progress,
                deadline: limit.map(|limit| limit.at),
                signals: &signals,
            };
            let name = volume.name.clone();
            let disk = importer
                .provide(volume, reimport)
                .map_err(|failure| match limit {
                    Some(limit) if is_late(&failure, limit, &signals) => Failure::TimedOut {
                        seconds: limit.whole.as_secs(),
                    },
                    _ => Failure::Disk {
                        name,
                        source: Box::new(failure),
                    },
                })?;
            disks.push(disk);
        }
        if signals.received() > 0 {
            return Err(longshore_transfer::Error::Interrupted.into());
        }
    }
    boot::boot(plan, &disks, limit)
}

/// The copy was interrupted by our limit and by nobody else.
fn is_late(failure: &Failure, limit: Limit, signals: &Signals) -> bool {
    signals.received() == 0 && failure.reason() == "Interrupted" && Instant::now() >= limit.at
}

fn load(path: &Path, overrides: &[Override]) -> Result<Manifest, Failure> {
    let bytes = read(path).map_err(|source| Failure::ManifestFile {
        path: path.to_owned(),
        source,
    })?;
    let manifest = Manifest::parse(&bytes, overrides).map_err(|source| Failure::Manifest {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    for field in &manifest.unknown {
        output::say(&format!(
            "note: {}: {} is not known here and has no effect",
            field.object, field.path
        ));
    }
    for other in &manifest.others {
        output::say(&format!("note: {other} is of no use here and is left out"));
    }
    Ok(manifest)
}

/// One byte more than is allowed tells that there is more.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let limit = u64::try_from(MAX_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?
            .take(limit)
            .read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
