//! Monitor, screen, serial console and random numbers.

use std::path::{Path, PathBuf};

use longshore_crds::{FieldPath, virtual_machine_instance::VirtualMachineInstanceSpec};

use super::{
    Sockets,
    argv::{Argv, Properties},
    pci::Slots,
    problem::ProblemKind,
    report::Report,
};

/// File names in the state directory; QEMU gets them relative to it.
const QMP_SOCKET: &str = "qmp.sock";
const SERIAL_SOCKET: &str = "serial.sock";
const VNC_SOCKET: &str = "vnc.sock";
const SERIAL_LOG: &str = "serial.log";

#[derive(Debug)]
pub(super) struct Devices {
    graphics: bool,
    serial: Serial,
    rng: bool,
}

/// The serial console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serial {
    Absent,
    Unlogged,
    Logged,
}

pub(super) fn plan(
    spec: &VirtualMachineInstanceSpec,
    at: &FieldPath,
    report: &mut Report,
) -> Devices {
    let devices = &spec.domain.devices;
    let at = at.key("domain").key("devices");
    if !devices.filesystems.is_empty() {
        report.problem(
            &at.key("filesystems"),
            ProblemKind::Unsupported {
                what: "a directory shared with the guest",
                remedy: "remove the filesystem and its volume",
            },
        );
    }
    if devices.autoattach_mem_balloon == Some(true) {
        report.notice(
            &at.key("autoattachMemBalloon"),
            "there is no memory balloon",
        );
    }
    let serial = match (
        devices.autoattach_serial_console,
        devices.log_serial_console,
    ) {
        (Some(false), _) => Serial::Absent,
        (_, Some(false)) => Serial::Unlogged,
        _ => Serial::Logged,
    };
    Devices {
        graphics: devices.autoattach_graphics_device != Some(false),
        serial,
        rng: devices.rng.is_some(),
    }
}

impl Devices {
    /// Where what the guest writes to its serial console is to be kept.
    pub(super) fn serial_log(&self, dir: &Path) -> Option<PathBuf> {
        (self.serial == Serial::Logged).then(|| dir.join(SERIAL_LOG))
    }

    pub(super) fn arguments(&self, dir: &Path, argv: &mut Argv) -> Sockets {
        let Self {
            graphics,
            serial,
            rng,
        } = *self;
        argv.option(
            "-chardev",
            format!("socket,id=qmp,path={QMP_SOCKET},server=on,wait=off"),
        );
        argv.option("-mon", "chardev=qmp,mode=control");
        // Without this QEMU would open a window where it can.
        argv.option("-display", "none");
        if graphics {
            argv.option("-vnc", format!("unix:{VNC_SOCKET}"));
            let vga = Properties::of("driver", "VGA").with("id", "video0");
            argv.json(
                "-device",
                &vga.with("bus", "pcie.0").with("addr", Slots::GRAPHICS),
            );
        }
        let has_serial = serial != Serial::Absent;
        if has_serial {
            // Not QEMU's own logfile, which grows for ever: the supervisor keeps a bounded log.
            argv.option(
                "-chardev",
                format!("socket,id=serial0,path={SERIAL_SOCKET},server=on,wait=off"),
            );
            let isa = Properties::of("driver", "isa-serial").with("id", "console0");
            argv.json("-device", &isa.with("chardev", "serial0"));
        }
        if rng {
            let source = Properties::of("qom-type", "rng-random").with("id", "rng0");
            argv.json("-object", &source.with("filename", "/dev/urandom"));
            let device = Properties::of("driver", "virtio-rng-pci")
                .with("id", "random0")
                .with("rng", "rng0");
            argv.json(
                "-device",
                &device.with("bus", "pcie.0").with("addr", Slots::RNG),
            );
        }
        Sockets {
            qmp: dir.join(QMP_SOCKET),
            serial: has_serial.then(|| dir.join(SERIAL_SOCKET)),
            vnc: graphics.then(|| dir.join(VNC_SOCKET)),
        }
    }
}
