//! From disks that are ready to a machine that has ended.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::Instant;

use longshore_crds::Manifest;
use longshore_launcher::accel;
use longshore_launcher::plan::imports::DataVolumeImport;
use longshore_launcher::plan::{DiskKind, DiskPath, Host, Plan, plan};
use longshore_launcher::supervisor::{self, ConsoleMode, Options, RunError};

use super::disk::{self, Disk};
use super::state::State;
use super::{Limit, RunConfig};
use crate::failure::Failure;
use crate::output;

/// Found by its name, as a shell would.
const QEMU: &str = "qemu-system-x86_64";

/// Plans the machine before its disks are there: what cannot run is refused before an import that
/// takes hours, not after it.
pub(super) fn prepare(
    config: &RunConfig,
    manifest: &Manifest,
    state: &State,
    volumes: &[DataVolumeImport],
) -> Result<Plan, Failure> {
    find(QEMU)?;
    let verdict = accel::resolve(config.accel, accel::cache::default_path().as_deref())?;
    let host = Host {
        accelerator: verdict.accelerator,
        qemu: PathBuf::from(QEMU),
        state_dir: state.dir().to_owned(),
        cpus: std::thread::available_parallelism()
            .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        disks: paths(config, manifest, state, volumes),
        allow_host_disks: config.allow_host_disks,
        forwards: Vec::new(),
    };
    let plan = plan(manifest, &host)?;
    for notice in &plan.notices {
        output::say(&format!("note: {notice}"));
    }
    output::say(&verdict.to_string());
    Ok(plan)
}

/// Runs the machine to its end.
pub(super) fn boot(plan: Plan, disks: &[Disk], limit: Option<Limit>) -> Result<(), Failure> {
    for disk in disks {
        disk.mark_used()?;
    }
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    // A terminal that types to the guest is raw: it does not go back to the left margin by itself.
    let end_of_line = if interactive { "\r" } else { "" };
    let options = Options {
        console: if interactive {
            ConsoleMode::Interactive
        } else {
            ConsoleMode::Stdout
        },
        timeout: limit.map(|limit| limit.at.saturating_duration_since(Instant::now())),
        signals: true,
        on_event: Box::new(move |notice| output::say(&format!("{notice}{end_of_line}"))),
    };
    let outcome = supervisor::run(&plan, options)?;
    if outcome.end.is_success() {
        output::say(&outcome.to_string());
        return Ok(());
    }
    Err(Failure::Ended {
        text: outcome.to_string(),
        end: outcome.end,
        log: plan.serial_log.filter(|log| log.exists()),
    })
}

/// Looks for a program as a shell would.
fn find(program: &str) -> Result<(), RunError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|directory| directory.join(program).is_file()) {
        return Ok(());
    }
    Err(RunError::NoQemu {
        program: program.into(),
        source: std::io::Error::new(std::io::ErrorKind::NotFound, "it is not in PATH"),
    })
}

/// Where the content of each volume is, or will be.
fn paths(
    config: &RunConfig,
    manifest: &Manifest,
    state: &State,
    data_volumes: &[DataVolumeImport],
) -> BTreeMap<String, DiskPath> {
    let mut paths = BTreeMap::new();
    for data_volume in data_volumes {
        for volume in &data_volume.volumes {
            let path = DiskPath {
                path: disk::path_of(state.disks(), &data_volume.name),
                kind: DiskKind::File,
            };
            paths.insert(volume.clone(), path);
        }
    }
    if !config.allow_host_disks {
        return paths;
    }
    for volume in &manifest.vm.spec.template.spec.volumes {
        let Some(source) = &volume.host_disk else {
            continue;
        };
        // One that is not there is not provided, and the plan says so.
        if let Ok(found) = std::fs::metadata(&source.path) {
            let kind = if found.file_type().is_block_device() {
                DiskKind::Block
            } else {
                DiskKind::File
            };
            let path = PathBuf::from(&source.path);
            paths.insert(volume.name.clone(), DiskPath { path, kind });
        }
    }
    paths
}
