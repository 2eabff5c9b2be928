//! From disks that are ready to a machine that has ended.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::Instant;

use longshore_crds::Manifest;
use longshore_launcher::accel;
use longshore_launcher::plan::{DiskKind, DiskPath, Host, plan};
use longshore_launcher::supervisor::{self, ConsoleMode, Options};

use super::disk::Disk;
use super::state::State;
use super::{Limit, RunConfig};
use crate::failure::Failure;
use crate::output;

/// Found by its name, as a shell would.
const QEMU: &str = "qemu-system-x86_64";

/// Runs the machine to its end.
pub(super) fn boot(
    config: &RunConfig,
    manifest: &Manifest,
    state: &State,
    disks: &[Disk],
    limit: Option<Limit>,
) -> Result<(), Failure> {
    let verdict = accel::resolve(config.accel, accel::cache::default_path().as_deref())?;
    output::say(&format!("{verdict}"));
    let host = Host {
        accelerator: verdict.accelerator,
        qemu: PathBuf::from(QEMU),
        state_dir: state.dir().to_owned(),
        cpus: std::thread::available_parallelism()
            .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        disks: paths(config, manifest, disks),
        allow_host_disks: config.allow_host_disks,
        forwards: Vec::new(),
    };
    let plan = plan(manifest, &host)?;
    for notice in &plan.notices {
        output::say(&format!("note: {notice}"));
    }
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

/// Where the content of each volume is.
fn paths(config: &RunConfig, manifest: &Manifest, disks: &[Disk]) -> BTreeMap<String, DiskPath> {
    let mut paths = BTreeMap::new();
    for disk in disks {
        for volume in &disk.volumes {
            let path = DiskPath {
                path: disk.path.clone(),
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
