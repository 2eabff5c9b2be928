//! Disks of virtual machines on VMware vSphere, by VMware's own library (VDDK) in nbdkit's `vddk` plugin.
//!
//! The plugin runs as a child process that serves one disk on a unix socket in a private directory, and is
//! read by the NBD client of `nbd`. VDDK is proprietary: neither the library nor the plugin comes with
//! Longshore, nothing here was ever tried against the real ones, and the tests put nbdkit's file plugin in
//! the plugin's place. Without them the error is one of its own ([`VddkError::reason`]: `AwaitingVDDK`).
//!
//! What vSphere itself has to be asked for, it is asked for by [`vsphere`]: which machine has a uuid, what a
//! disk's file was called in a snapshot, and what changed between two checkpoints. Of changes only they are
//! read, and applied in place; a [`ChangedBlocks`] of one's own can tell them, too.

mod address;
mod child;
mod error;
mod lookup;
mod served;
mod vsphere;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longshore_transfer::Source;

use self::child::Child;
pub use self::error::VddkError;
use self::lookup::Tracked;
pub use self::served::Served;
use self::vsphere::Vsphere;
pub use self::vsphere::VsphereError;
use crate::nbd::areas::ChangedBlocks;
use crate::nbd::{Address, Keeper, NbdSource, Place};
use crate::{BasicAuth, Error, Result, SourceOptions};

/// Where the library is put by those who package it.
pub const VDDK_LIBRARY: &str = "/opt/vmware-vix-disklib-distrib";
/// The library takes its time with extents of large disks.
const PATIENCE: u32 = 5;

/// A disk of a virtual machine, and how to reach it.
#[derive(Clone)]
pub struct VddkDisk {
    /// Host name or address of the vCenter or hypervisor.
    pub server: String,
    /// Its port, if not 443.
    pub port: Option<u16>,
    /// Name and password for it.
    pub auth: BasicAuth,
    /// SHA-1 (or SHA-256) fingerprint of its certificate, `AA:BB:...`. With it nobody needs to have signed
    /// the certificate.
    pub thumbprint: Option<String>,
    /// The machine's managed object reference, such as `vm-123`, or its uuid.
    pub vm: String,
    /// The disk, such as `[datastore1] web/web.vmdk`.
    pub file: String,
    /// A snapshot's managed object reference, or its name, if the disk is to be read as it was then.
    pub snapshot: Option<String>,
    /// What the target has already, if only what changed up to `snapshot` is to be read: an earlier
    /// snapshot, or the `changeId` that the disk had in one.
    pub previous: Option<String>,
    /// Ways to read it, such as `nbdssl:nbd`.
    pub transports: Option<String>,
    /// How the library compresses what it sends: `none`, `zlib`, `fastlz` or `skipz`.
    pub compression: Option<String>,
    /// A configuration file of the library.
    pub config: Option<PathBuf>,
    /// The directory of the library.
    pub libdir: PathBuf,
    /// The nbdkit program.
    pub nbdkit: PathBuf,
    /// A plugin in place of `vddk`, which is told the same and takes no library. Upstream's tests have one.
    pub plugin: Option<PathBuf>,
    /// How long nbdkit may take to start.
    pub start: Duration,
    /// What the library tells once it serves the disk.
    pub served: Served,
}

impl VddkDisk {
    /// The disk `file` of the machine `vm` on `server`; all else as usual.
    pub fn new(server: &str, auth: BasicAuth, vm: &str, file: &str) -> Self {
        Self {
            server: server.to_owned(),
            port: None,
            auth,
            thumbprint: None,
            vm: vm.to_owned(),
            file: file.to_owned(),
            snapshot: None,
            previous: None,
            transports: None,
            compression: None,
            config: None,
            libdir: VDDK_LIBRARY.into(),
            nbdkit: "nbdkit".into(),
            plugin: None,
            start: Duration::from_mins(1),
            served: Served::default(),
        }
    }

    /// The disk for people.
    pub fn name(&self) -> String {
        format!("vddk://{}/{}/{}", self.server, self.vm, self.file)
    }
}

impl fmt::Debug for VddkDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VddkDisk")
            .field("name", &self.name())
            .field("snapshot", &self.snapshot)
            .field("previous", &self.previous)
            .finish_non_exhaustive()
    }
}

/// Starts nbdkit for `disk` and connects to it. With `changes` the source is what they tell of, to be
/// applied to a target that has the rest.
pub fn vddk_source(
    disk: &VddkDisk,
    changes: Option<Box<dyn ChangedBlocks>>,
    options: &SourceOptions,
) -> Result<Box<dyn Source>> {
    let fail = |source| Error::Vddk {
        name: disk.name(),
        source,
    };
    if disk.plugin.is_none() {
        child::has_library(&disk.libdir).map_err(fail)?;
    }
    let (disk, tracked) = resolved(disk, options)?;
    let changes = changes.or(tracked);
    let child = Arc::new(Child::start(&disk, &options.cancel).map_err(fail)?);
    let address = Address {
        place: Place::Unix(child.socket()),
        export: String::new(),
    };
    let options = SourceOptions {
        stall_timeout: options.stall_timeout.saturating_mul(PATIENCE),
        ..options.clone()
    };
    let keeper: Arc<dyn Keeper> = Arc::clone(&child) as Arc<dyn Keeper>;
    let source = match NbdSource::at(address, &disk.name(), Some(keeper), &options) {
        Err(Error::Nbd { source, .. }) => return Err(fail(child.failed(source))),
        source => source?,
    };
    // Of a machine that may run, only a snapshot stays what it is.
    let source = match &disk.snapshot {
        Some(snapshot) => source.in_state(format!("snapshot {snapshot}")),
        None => source,
    };
    Ok(Box::new(match changes {
        Some(changes) => source.with_changes(changes),
        None => source,
    }))
}

/// The disk as VMware's library wants it told, and what changed of it, if that is asked for.
fn resolved(
    disk: &VddkDisk,
    options: &SourceOptions,
) -> Result<(VddkDisk, Option<Box<dyn ChangedBlocks>>)> {
    let mut resolved = disk.clone();
    if !lookup::is_needed(disk) {
        return Ok((resolved, None));
    }
    let vsphere = Vsphere::log_in(disk, options)?;
    let found = lookup::look_up(&vsphere, disk).map_err(|e| Error::Vddk {
        name: disk.name(),
        source: e.into(),
    })?;
    tracing::info!(
        machine = found.machine.value,
        file = found.file,
        snapshot = found.snapshot.as_ref().map(|s| s.value.as_str()),
        since = found.since,
        "vSphere knows the disk"
    );
    resolved.vm.clone_from(&found.machine.value);
    resolved.file = found.file;
    resolved.snapshot = found.snapshot.as_ref().map(|s| s.value.clone());
    let tracked = match (found.snapshot, found.since) {
        (Some(snapshot), Some(since)) => {
            let tracked = Tracked {
                vsphere,
                machine: found.machine,
                snapshot,
                key: found.key,
                since,
            };
            let tracked: Box<dyn ChangedBlocks> = Box::new(tracked);
            Some(tracked)
        }
        _ => None,
    };
    Ok((resolved, tracked))
}

/// The same for a `vddk://` address.
pub(crate) fn open(spec: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    let disk = address::parse(spec, options).map_err(|source| Error::Vddk {
        name: "the vddk:// address".to_owned(),
        source,
    })?;
    vddk_source(&disk, None, options)
}
