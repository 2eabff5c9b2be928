//! Where devices sit on the PCI bus.
//!
//! Guests name interfaces and disks by their slot, so a slot depends only on what a device is and
//! on its number among its own kind: a disk added at the end moves nothing. The layout is:
//!
//! | slots | devices |
//! | --- | --- |
//! | 1 | graphics |
//! | 2 to 7 | network interfaces |
//! | 8 | random numbers |
//! | 9 | SCSI controller |
//! | 10 to 30 | virtio disks |
//!
//! 0 and 31 belong to the chipset, AHCI among it.

/// Slots for network interfaces.
pub(super) const INTERFACES: usize = 6;
/// Slots for virtio disks.
pub(super) const VIRTIO_DISKS: usize = 21;

/// The slots handed out so far.
#[derive(Debug, Default)]
pub(super) struct Slots {
    interfaces: usize,
    disks: usize,
}

impl Slots {
    pub(super) const GRAPHICS: &'static str = "0x1";
    pub(super) const RNG: &'static str = "0x8";
    pub(super) const SCSI: &'static str = "0x9";

    /// The slot of the next interface.
    pub(super) fn interface(&mut self) -> String {
        self.interfaces += 1;
        format!("{:#x}", 1 + self.interfaces)
    }

    /// The slot of the next virtio disk.
    pub(super) fn disk(&mut self) -> String {
        self.disks += 1;
        format!("{:#x}", 9 + self.disks)
    }
}
