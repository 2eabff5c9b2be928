//! Disks as QEMU's command line has them: a block node and a device for each.

use std::path::PathBuf;

use longshore_crds::virtual_machine_instance::devices::{DiskCache, DiskErrorPolicy};

use super::{Bus, Disks, Planned};
use crate::plan::{
    DiskKind, PlannedDisk,
    argv::{Argv, Properties},
    pci::Slots,
};

impl Disks {
    pub(in crate::plan) fn arguments(
        &self,
        slots: &mut Slots,
        argv: &mut Argv,
    ) -> Vec<PlannedDisk> {
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
