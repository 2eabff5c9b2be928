//! From a manifest and a host to everything that is needed to start QEMU.
//!
//! [`plan`] is pure: it sees no file, clock, environment or network, so the same input gives the
//! same [`Plan`], byte for byte. It validates on the way, and answers a machine that cannot run
//! here with all its [`Problem`]s at once. What it changes without refusing is a [`Notice`].
//! Which imports must be done first is [`imports`]' to say.
//!
//! Not decided here: whether KVM is any good (`accel`), when processes start and stop
//! (`supervisor`), and what is on the disks.
//!
//! Texts of the manifest reach QEMU inside JSON where QEMU takes JSON, and through
//! `argv::escape` where it does not; neither lets a value end its option.

mod argv;
mod compute;
mod devices;
mod disks;
mod files;
mod identity;
pub mod imports;
mod names;
mod network;
mod pci;
mod problem;
mod report;
mod run;
mod seed;
mod volumes;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use longshore_crds::{
    FieldPath, Manifest,
    virtual_machine_instance::{StartStrategy, VirtualMachineInstanceSpec},
};

pub use files::{Content, StateFile};
pub use network::PortForward;
pub use problem::{PlanError, Problem, ProblemKind};
pub use report::Notice;

use crate::accel::Accelerator;
use argv::Argv;
use report::Report;

/// Seconds between the power button and the end where the manifest names none.
const DEFAULT_GRACE: u64 = 30;
/// The longest grace, a year: sums of times stay far from overflow.
const MAX_GRACE: u64 = 365 * 24 * 3600;

/// What the machine runs on.
#[derive(Clone, Debug)]
pub struct Host {
    /// How processors are virtualised.
    pub accelerator: Accelerator,
    /// QEMU's system emulator.
    pub qemu: PathBuf,
    /// Absolute path of a directory for this machine alone. QEMU starts in it. Only its owner
    /// may get in: whoever can connect to the sockets there controls the machine.
    pub state_dir: PathBuf,
    /// Processors of the host that may be used.
    pub cpus: u32,
    /// Where the content of data volumes, claims and host disks is, by name of the volume.
    pub disks: BTreeMap<String, DiskPath>,
    /// Whether volumes of kind `hostDisk` may be used: they name any file of the host.
    pub allow_host_disks: bool,
    /// Ports of the guest's first interface to be reached through 127.0.0.1.
    pub forwards: Vec<PortForward>,
}

/// A disk on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPath {
    /// Absolute path of the file or device.
    pub path: PathBuf,
    /// What is at that path.
    pub kind: DiskKind,
}

/// What a disk on the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// A regular file with a raw image.
    File,
    /// A block device.
    Block,
}

/// Everything needed to start and to end a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the machine.
    pub name: String,
    /// Its identity, which the guest sees too.
    pub uuid: String,
    /// QEMU's system emulator.
    pub program: PathBuf,
    /// Its arguments. QEMU comes up with the processors stopped, always: whoever supervises it
    /// connects to the console first and resumes then, unless `start_paused`.
    pub args: Vec<OsString>,
    /// The working directory QEMU must be started in: sockets are named relative to it, since
    /// the kernel takes at most 107 bytes for the name of one.
    pub dir: PathBuf,
    /// Sockets QEMU listens on.
    pub sockets: Sockets,
    /// Where whoever supervises keeps what the guest writes to its serial console.
    pub serial_log: Option<PathBuf>,
    /// Files to be made before QEMU starts, in this order.
    pub files: Vec<StateFile>,
    /// Disks of the guest, in the order of the manifest.
    pub disks: Vec<PlannedDisk>,
    /// How long the guest may take to power off when asked.
    pub grace: Duration,
    /// Whether the manifest wants the processors to stay stopped.
    pub start_paused: bool,
    /// What is done differently from what the manifest says.
    pub notices: Vec<Notice>,
}

/// Absolute paths of the sockets QEMU listens on. They may be too long to connect to directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// QEMU's monitor protocol.
    pub qmp: PathBuf,
    /// The serial console, unless the manifest has none.
    pub serial: Option<PathBuf>,
    /// The screen, unless the manifest has none.
    pub vnc: Option<PathBuf>,
}

/// A disk of the guest, as events of QEMU name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDisk {
    /// Name in the manifest.
    pub name: String,
    /// Name of the block node.
    pub node: String,
    /// Name of the device.
    pub device: String,
    /// File or device behind it.
    pub path: PathBuf,
}

/// Plans how to run the machine of a manifest on a host.
pub fn plan(manifest: &Manifest, host: &Host) -> Result<Plan, PlanError> {
    let vm = &manifest.vm;
    let spec = &vm.spec.template.spec;
    let at = &manifest.instance_path;
    let mut report = Report::default();
    run::check(vm, &mut report)?;

    let identity = identity::identity(manifest, &mut report);
    let compute = compute::compute(spec, at, host, &mut report);
    let volumes = volumes::resolve(manifest, &identity, host, &mut report);
    let network = network::plan(spec, at, &identity, host, &mut report);
    let disks = disks::plan(spec, at, &volumes, &mut report);
    let devices = devices::plan(spec, at, &mut report);
    let mut slots = pci::Slots::default();

    let mut argv = Argv::default();
    identity.arguments(&mut argv);
    compute.arguments(host.accelerator, &mut argv);
    let sockets = devices.arguments(&host.state_dir, &mut argv);
    network.arguments(&mut slots, &mut argv);
    let planned = disks.arguments(&mut slots, &mut argv);

    let grace = grace(spec, at, &mut report);
    report.finish(|notices| Plan {
        name: vm.name().to_owned(),
        uuid: identity.uuid.clone(),
        program: host.qemu.clone(),
        args: argv.into_args(),
        dir: host.state_dir.clone(),
        serial_log: devices.serial_log(&host.state_dir),
        sockets,
        files: volumes.files,
        disks: planned,
        grace,
        start_paused: spec.start_strategy == Some(StartStrategy::Paused),
        notices,
    })
}

fn grace(spec: &VirtualMachineInstanceSpec, at: &FieldPath, report: &mut Report) -> Duration {
    let seconds = spec
        .termination_grace_period_seconds
        .unwrap_or(DEFAULT_GRACE);
    if seconds > MAX_GRACE {
        let value = seconds.to_string();
        let expected = "a number of seconds of at most a year";
        let path = at.key("terminationGracePeriodSeconds");
        report.problem(&path, ProblemKind::Invalid { value, expected });
    }
    Duration::from_secs(seconds.min(MAX_GRACE))
}

#[cfg(test)]
mod tests;
