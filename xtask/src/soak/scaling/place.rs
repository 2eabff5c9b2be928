//! Where images and disks are put.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::Run;
use crate::{paths, say};

const ZRAM: &str = "/sys/block/zram0";
const DEVICE: &str = "/dev/zram0";
/// Room for 20 GiB of data and the images; the device's own table takes 16 bytes for each 4 KiB of it.
const ZRAM_BYTES: u64 = 40 << 30;

/// A folder; what was made for it goes when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    zram: bool,
}

impl Place {
    pub(super) fn folder(path: &Path) -> Result<Self> {
        paths::make_dir(path)?;
        let path = path.to_owned();
        Ok(Self { path, zram: false })
    }

    /// A new filesystem on /dev/zram0.
    pub(super) fn zram() -> Result<Self> {
        let size = paths::read(&Path::new(ZRAM).join("disksize"))?;
        if size.trim() != "0" {
            bail!("{DEVICE} is in use");
        }
        let path = paths::target().join("soak-zram");
        paths::make_dir(&path)?;
        paths::write(&Path::new(ZRAM).join("disksize"), ZRAM_BYTES.to_string())?;
        // From here on whatever was done is undone on the way out.
        let place = Self { path, zram: true };
        // Copies are measured, and files of 64 TiB are made: XFS has room for those, ext4 has not.
        Run::new("mkfs.xfs")
            .args(["-q", "-m", "reflink=0", DEVICE])
            .check()?;
        Run::new("mount").arg(DEVICE).arg(&place.path).check()?;
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn describe(&self) -> String {
        if self.zram {
            return "XFS without reflink on zram (pages of one repeated word take no room)"
                .to_owned();
        }
        let kind = Run::new("stat")
            .args(["--file-system", "--format", "%T"])
            .arg(&self.path)
            .quiet()
            .capture()
            .context("asking for the filesystem");
        kind.map_or_else(|e| format!("{e:#}"), |kind| kind.trim().to_owned())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.zram {
            return;
        }
        let undone = Run::new("umount")
            .arg(&self.path)
            .check()
            .and_then(|()| paths::write(&Path::new(ZRAM).join("reset"), "1"));
        if let Err(e) = undone {
            say::problem(&format!("{DEVICE} is still set up: {e:#}"));
        }
    }
}
