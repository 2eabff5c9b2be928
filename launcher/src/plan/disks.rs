//! Disks and CD-ROM drives: block nodes and the devices on them.

mod arguments;

use std::collections::BTreeSet;

use longshore_crds::{
    FieldPath,
    virtual_machine_instance::{
        Disk, DiskBus, VirtualMachineInstanceSpec,
        devices::{DiskCache, DiskErrorPolicy, DiskIo, DiskTarget, TrayState},
    },
};

use super::{
    names, pci,
    problem::ProblemKind,
    report::Report,
    volumes::{Backing, Origin, Volumes},
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
    let bootable = planned
        .iter_mut()
        .filter(|disk| disk.backing.origin.is_bootable());
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
    let sata_disk = target.bus == Bus::Sata && !target.cdrom;
    let read_only = match backing.origin {
        Origin::Lasting | Origin::Empty => target.read_only,
        Origin::Seed => target.read_only || !sata_disk,
        Origin::ReadOnly => {
            if sata_disk && !target.read_only {
                refuse_read_only_sata(at, report);
            }
            true
        }
    };
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
        refuse_read_only_sata(&at, report);
    }
    Some(Target {
        bus,
        cdrom,
        read_only,
    })
}

/// ATA has no such thing, and QEMU no such device.
fn refuse_read_only_sata(at: &FieldPath, report: &mut Report) {
    report.problem(
        at,
        ProblemKind::Unsupported {
            what: "a read-only disk on the bus sata",
            remedy: "use the bus virtio or scsi, or a cdrom",
        },
    );
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
