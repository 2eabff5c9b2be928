//! Disks and CD-ROM drives: block nodes and the devices on them.

use std::{collections::BTreeSet, path::PathBuf};

use longshore_crds::{
    FieldPath,
    virtual_machine_instance::{
        Disk, DiskBus, VirtualMachineInstanceSpec,
        devices::{DiskCache, DiskErrorPolicy, DiskIo, DiskTarget, TrayState},
    },
};

use super::{
    DiskKind, PlannedDisk,
    argv::{Argv, Properties},
    names,
    pci::{self, Slots},
    problem::ProblemKind,
    report::Report,
    volumes::{Backing, Volumes},
};

/// Ports of the AHCI controller that is part of the chipset.
const SATA_PORTS: usize = 6;
/// Targets of a virtio SCSI controller.
const SCSI_TARGETS: usize = 255;
/// Bytes of a serial number that virtio and ATA carry.
const SHORT_SERIAL: usize = 20;
/// Bytes of a serial number that SCSI carries.
const LONG_SERIAL: usize = 36;
const TARGETS: &str = "disk, lun or cdrom";

#[derive(Debug)]
pub(super) struct Disks {
    planned: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    name: String,
    backing: Backing,
    target: Target,
    boot_index: Option<u32>,
    serial: Option<String>,
    cache: DiskCache,
    native_io: bool,
    shareable: bool,
    errors: DiskErrorPolicy,
    block_size: Option<(u32, u32)>,
}

/// Buses a disk can be on here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bus {
    Virtio,
    Sata,
    Scsi,
}

pub(super) fn plan(
    spec: &VirtualMachineInstanceSpec,
    at: &FieldPath,
    volumes: &Volumes,
    report: &mut Report,
) -> Disks {
    let disks_at = at.key("domain").key("devices").key("disks");
    let mut disks: Vec<(Disk, FieldPath)> = Vec::new();
    for (index, disk) in spec.domain.devices.disks.iter().enumerate() {
        disks.push((disk.clone(), disks_at.index(index)));
    }
    let names_at = disks
        .iter()
        .map(|(disk, path)| (disk.name.as_str(), path.key("name")));
    names::check_unique(names_at, report);
    // As in a cluster, a volume without a disk or a file system gets a disk.
    let shared = |name: &str| {
        spec.domain
            .devices
            .filesystems
            .iter()
            .any(|fs| fs.name == name)
    };
    for (index, volume) in spec.volumes.iter().enumerate() {
        if !shared(&volume.name) && !disks.iter().any(|(disk, _)| disk.name == volume.name) {
            let disk = Disk {
                name: volume.name.clone(),
                disk: Some(DiskTarget::default()),
                ..Disk::default()
            };
            disks.push((disk, at.key("volumes").index(index)));
        }
    }
    check_boot_order(spec, at, &disks, report);
    let volume_names: Vec<&str> = spec
        .volumes
        .iter()
        .map(|volume| volume.name.as_str())
        .collect();
    let mut planned = Vec::new();
    for (disk, path) in &disks {
        if disk.name.is_empty() {
            report.problem(&path.key("name"), ProblemKind::Required);
        } else if !volume_names.contains(&disk.name.as_str()) {
            let name = disk.name.clone();
            report.problem(
                &path.key("name"),
                ProblemKind::NoCounterpart {
                    what: "volume",
                    name,
                },
            );
        }
        let backing = volumes.found.get(&disk.name);
        planned.extend(plan_disk(disk, path, backing, report));
    }
    let ordered = planned.iter().any(|disk| disk.boot_index.is_some())
        || spec
            .domain
            .devices
            .interfaces
            .iter()
            .any(|interface| interface.boot_order.is_some());
    if !ordered {
        default_boot_order(&mut planned);
    }
    check_room(&planned, &disks_at, report);
    Disks { planned }
}

/// Without an order, disks are tried as they are written; a firmware would try just the first.
fn default_boot_order(planned: &mut [Planned]) {
    let bootable = planned.iter_mut().filter(|disk| disk.backing.bootable);
    for (disk, place) in bootable.zip(1..) {
        disk.boot_index = Some(place);
    }
}

fn check_boot_order(
    spec: &VirtualMachineInstanceSpec,
    at: &FieldPath,
    disks: &[(Disk, FieldPath)],
    report: &mut Report,
) {
    let interfaces_at = at.key("domain").key("devices").key("interfaces");
    let interfaces = spec.domain.devices.interfaces.iter().enumerate();
    let of_interfaces = interfaces.map(|(i, it)| (it.boot_order, interfaces_at.index(i)));
    let of_disks = disks
        .iter()
        .map(|(disk, path)| (disk.boot_order, path.clone()));
    let mut seen = BTreeSet::new();
    for (order, path) in of_disks.chain(of_interfaces) {
        let Some(order) = order else { continue };
        let path = path.key("bootOrder");
        if order == 0 || i32::try_from(order).is_err() {
            let value = order.to_string();
            report.problem(
                &path,
                ProblemKind::Invalid {
                    value,
                    expected: "a place in an order that starts with 1",
                },
            );
        } else if !seen.insert(order) {
            report.problem(
                &path,
                ProblemKind::Duplicate {
                    value: order.to_string(),
                },
            );
        }
    }
}

fn check_room(planned: &[Planned], at: &FieldPath, report: &mut Report) {
    let buses = [
        (Bus::Virtio, "virtio disks", pci::VIRTIO_DISKS),
        (Bus::Sata, "SATA disks", SATA_PORTS),
        (Bus::Scsi, "SCSI disks", SCSI_TARGETS),
    ];
    for (bus, what, limit) in buses {
        let count = planned.iter().filter(|disk| disk.target.bus == bus).count();
        if count > limit {
            report.problem(at, ProblemKind::TooMany { what, count, limit });
        }
    }
}

/// `None` where the volume has a problem of its own, which is reported there.
fn plan_disk(
    disk: &Disk,
    at: &FieldPath,
    backing: Option<&Backing>,
    report: &mut Report,
) -> Option<Planned> {
    let target = target(disk, at, report)?;
    check_serial(disk, target.bus, at, report);
    let (cache, native_io) = cache(disk, at, report);
    let block_size = block_size(disk, at, report);
    let backing = backing?;
    let read_only = target.read_only || backing.read_only;
    Some(Planned {
        name: disk.name.clone(),
        backing: backing.clone(),
        target: Target {
            read_only,
            ..target
        },
        boot_index: disk.boot_order,
        serial: disk.serial.clone(),
        cache,
        native_io,
        shareable: disk.shareable == Some(true),
        errors: disk.error_policy.unwrap_or(DiskErrorPolicy::Stop),
        block_size,
    })
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug)]
struct Target {
    bus: Bus,
    cdrom: bool,
    read_only: bool,
}

fn target(disk: &Disk, at: &FieldPath, report: &mut Report) -> Option<Target> {
    let set = [
        ("disk", disk.disk.is_some()),
        ("lun", disk.lun.is_some()),
        ("cdrom", disk.cdrom.is_some()),
    ];
    let found: Vec<_> = set
        .into_iter()
        .filter_map(|(name, is_set)| is_set.then_some(name))
        .collect();
    // None at all is a plain disk, as in a cluster.
    if found.len() > 1 {
        report.problem(
            at,
            ProblemKind::ExactlyOne {
                choices: TARGETS,
                found,
            },
        );
        return None;
    }
    if disk.lun.is_some() {
        report.problem(
            &at.key("lun"),
            ProblemKind::Unsupported {
                what: "a SCSI device passed through",
                remedy: "use disk with the bus scsi",
            },
        );
        return None;
    }
    let (asked, cdrom, read_only, at) = if let Some(cdrom) = &disk.cdrom {
        let at = at.key("cdrom");
        if cdrom.tray == Some(TrayState::Open) {
            report.notice(&at.key("tray"), "the tray starts closed");
        }
        if cdrom.readonly == Some(false) {
            report.notice(
                &at.key("readonly"),
                "the guest cannot write to a CD-ROM drive",
            );
        }
        (cdrom.bus, true, true, at)
    } else {
        let target = disk.disk.clone().unwrap_or_default();
        (
            target.bus,
            false,
            target.readonly == Some(true),
            at.key("disk"),
        )
    };
    let bus = match asked {
        Some(DiskBus::Virtio) if cdrom => {
            report.problem(
                &at.key("bus"),
                ProblemKind::Invalid {
                    value: "virtio".to_owned(),
                    expected: "a bus of a CD-ROM drive (sata or scsi)",
                },
            );
            return None;
        }
        Some(DiskBus::Usb) => {
            report.problem(
                &at.key("bus"),
                ProblemKind::Unsupported {
                    what: "USB storage",
                    remedy: "use the bus virtio, sata or scsi",
                },
            );
            return None;
        }
        Some(DiskBus::Virtio) => Bus::Virtio,
        Some(DiskBus::Scsi) => Bus::Scsi,
        None | Some(DiskBus::Sata) => Bus::Sata,
    };
    if read_only && !cdrom && bus == Bus::Sata {
        // QEMU has no such thing; the guest would find a disk that fails to write.
        report.problem(
            &at.key("readonly"),
            ProblemKind::Unsupported {
                what: "a read-only disk on the bus sata",
                remedy: "use the bus virtio or scsi, or a cdrom",
            },
        );
    }
    Some(Target {
        bus,
        cdrom,
        read_only,
    })
}

fn check_serial(disk: &Disk, bus: Bus, at: &FieldPath, report: &mut Report) {
    let Some(serial) = &disk.serial else { return };
    let limit = if bus == Bus::Scsi {
        LONG_SERIAL
    } else {
        SHORT_SERIAL
    };
    if !names::is_word(serial, b"-_.+") || serial.len() > limit {
        report.problem(
            &at.key("serial"),
            ProblemKind::Invalid {
                value: serial.clone(),
                expected: if bus == Bus::Scsi {
                    "a serial number of 1 to 36 letters, digits and -_.+"
                } else {
                    "a serial number of 1 to 20 letters, digits and -_.+"
                },
            },
        );
    }
}

/// How the page cache is used, and whether requests go to the kernel's own queue.
fn cache(disk: &Disk, at: &FieldPath, report: &mut Report) -> (DiskCache, bool) {
    let native = disk.io == Some(DiskIo::Native);
    let cache = match (disk.cache, native) {
        (Some(cache), _) => cache,
        (None, true) => DiskCache::None,
        (None, false) => DiskCache::WriteBack,
    };
    if native && cache != DiskCache::None {
        report.problem(
            &at.key("io"),
            ProblemKind::Contradicts {
                other: "cache: native requests go past the page cache (cache: none)",
            },
        );
    }
    (cache, native)
}

fn block_size(disk: &Disk, at: &FieldPath, report: &mut Report) -> Option<(u32, u32)> {
    let size = disk.block_size.as_ref()?;
    let at = at.key("blockSize");
    if size.match_volume.is_some() {
        report.notice(
            &at.key("matchVolume"),
            "the guest sees sectors of 512 bytes",
        );
    }
    let custom = size.custom.as_ref()?;
    let at = at.key("custom");
    let valid = |size: u32| size.is_power_of_two() && (512..=2 << 20).contains(&size);
    for (name, value) in [("logical", custom.logical), ("physical", custom.physical)] {
        if !valid(value) {
            let value = value.to_string();
            report.problem(
                &at.key(name),
                ProblemKind::Invalid {
                    value,
                    expected: "a power of two from 512 to 2097152",
                },
            );
        }
    }
    if custom.logical > custom.physical {
        report.problem(
            &at.key("logical"),
            ProblemKind::Contradicts {
                other: "physical, which must not be smaller",
            },
        );
    }
    Some((custom.logical, custom.physical))
}

impl Disks {
    pub(super) fn arguments(&self, slots: &mut Slots, argv: &mut Argv) -> Vec<PlannedDisk> {
        if self.planned.iter().any(|disk| disk.target.bus == Bus::Scsi) {
            let controller = Properties::of("driver", "virtio-scsi-pci").with("id", "scsi0");
            argv.json(
                "-device",
                &controller.with("bus", "pcie.0").with("addr", Slots::SCSI),
            );
        }
        let (mut sata_ports, mut scsi_targets) = (0.., 0..);
        let mut disks = Vec::new();
        for (index, disk) in self.planned.iter().enumerate() {
            let node = format!("disk{index}");
            argv.json("-blockdev", &disk.node(&node));
            let id = format!("ua-{}", disk.name);
            let device = Properties::of("driver", disk.driver()).with("id", id.as_str());
            let device = match disk.target.bus {
                Bus::Virtio => device.with("bus", "pcie.0").with("addr", slots.disk()),
                Bus::Sata => {
                    device.with("bus", format!("ide.{}", sata_ports.next().unwrap_or(0_u32)))
                }
                Bus::Scsi => device
                    .with("bus", "scsi0.0")
                    .with("scsi-id", scsi_targets.next().unwrap_or(0_u32))
                    .with("lun", 0),
            };
            argv.json("-device", &disk.device(device.with("drive", node.as_str())));
            let path = PathBuf::from(&disk.backing.path);
            disks.push(PlannedDisk {
                name: disk.name.clone(),
                node,
                device: id,
                path,
            });
        }
        disks
    }
}

impl Planned {
    fn driver(&self) -> &'static str {
        match (self.target.bus, self.target.cdrom) {
            (Bus::Virtio, _) => "virtio-blk-pci",
            (Bus::Sata, false) => "ide-hd",
            (Bus::Sata, true) => "ide-cd",
            (Bus::Scsi, false) => "scsi-hd",
            (Bus::Scsi, true) => "scsi-cd",
        }
    }

    /// The format is always said and never probed: a guest could write a header that names
    /// another file of the host.
    fn node(&self, name: &str) -> Properties {
        let driver = match self.backing.kind {
            DiskKind::File => "file",
            DiskKind::Block => "host_device",
        };
        let protocol = Properties::of("driver", driver)
            .with("filename", self.backing.path.as_str())
            .with("locking", "on")
            .with("aio", if self.native_io { "native" } else { "threads" });
        let cache = Properties::default()
            .with("direct", self.cache == DiskCache::None)
            .with("no-flush", false);
        Properties::of("driver", "raw")
            .with("node-name", name)
            .with("read-only", self.target.read_only)
            .with("discard", "unmap")
            .with("detect-zeroes", "off")
            .with_nested("cache", cache)
            .with_nested("file", protocol)
    }

    fn device(&self, device: Properties) -> Properties {
        let on_error = |policy| match policy {
            DiskErrorPolicy::Stop => "stop",
            DiskErrorPolicy::Ignore => "ignore",
            DiskErrorPolicy::Report => "report",
            DiskErrorPolicy::Enospace => "enospc",
        };
        // Space cannot run out while reading.
        let reading = match self.errors {
            DiskErrorPolicy::Enospace => DiskErrorPolicy::Report,
            other => other,
        };
        let mut device = device
            .with_some("bootindex", self.boot_index)
            .with_some("serial", self.serial.as_deref())
            .with_some(
                "logical_block_size",
                self.block_size.map(|(logical, _)| logical),
            )
            .with_some(
                "physical_block_size",
                self.block_size.map(|(_, physical)| physical),
            );
        if !self.target.cdrom {
            let write_back = self.cache != DiskCache::WriteThrough;
            device = device.with("write-cache", if write_back { "on" } else { "off" });
        }
        if self.shareable {
            device = device.with("share-rw", true);
        }
        device
            .with("werror", on_error(self.errors))
            .with("rerror", on_error(reading))
    }
}
