//! The guest's disk: an MBR, a FAT partition with the boot loader and the kernel, an ext4 partition
//! with known files. Built from files by ordinary tools; no root, no loop devices.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::paths;
use crate::shell::Run;

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// Where the partitions are. The FAT one is FAT16, which syslinux boots with the least code.
const BOOT: Partition = Partition {
    kind: 0x0e,
    start: MIB,
    size: 32 * MIB,
    active: true,
};
const ROOT: Partition = Partition {
    kind: 0x83,
    start: 33 * MIB,
    size: 30 * MIB,
    active: false,
};
/// What the disk ends at, with a free mebibyte at the end as partitioning tools leave it.
pub(super) const SIZE: u64 = 64 * MIB;

/// The label that the guest finds its root file system by.
const ROOT_LABEL: &str = "longshore-root";
const ROOT_UUID: &str = "6c6f6e67-7368-4f72-a500-726f6f746673";

/// All times in the image: 2024-01-01, so that two builds are alike.
pub(super) const TIME: u64 = 1_704_067_200;

const _: () = assert!(BOOT.start >= SECTOR && BOOT.start + BOOT.size <= ROOT.start);
const _: () = assert!(ROOT.start + ROOT.size <= SIZE);

struct Partition {
    kind: u8,
    start: u64,
    size: u64,
    active: bool,
}

/// What goes on the disk.
pub(super) struct Contents<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    pub(super) loader_config: &'a Path,
    /// The folder that becomes the ext4 partition.
    pub(super) root: &'a Path,
}

/// Builds the raw disk; `work` is a folder for what lies between.
pub(super) fn build(contents: &Contents<'_>, disk: &Path, work: &Path) -> Result<()> {
    let boot = work.join("boot.img");
    boot_partition(contents, &boot)?;
    let root = work.join("root.img");
    root_partition(contents.root, &root)?;
    let out = File::create(disk).with_context(|| format!("creating {}", disk.display()))?;
    out.set_len(SIZE)
        .with_context(|| format!("sizing {}", disk.display()))?;
    out.write_all_at(&boot_record()?, 0)
        .with_context(|| format!("writing {}", disk.display()))?;
    for (image, partition) in [(&boot, BOOT), (&root, ROOT)] {
        let bytes = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
        copy_sparsely(&bytes, &out, partition.start)?;
        fs::remove_file(image).with_context(|| format!("removing {}", image.display()))?;
    }
    Ok(())
}

fn boot_partition(contents: &Contents<'_>, image: &Path) -> Result<()> {
    sized(image, BOOT.size)?;
    let epoch = TIME.to_string();
    Run::new("mformat")
        .arg("-i")
        .arg(image)
        .args([
            "-T",
            &(BOOT.size / SECTOR).to_string(),
            "-h",
            "64",
            "-s",
            "32",
        ])
        .args([
            "-H",
            &(BOOT.start / SECTOR).to_string(),
            "-N",
            "4c4f4e47",
            "-v",
            "LONGSHORE",
            "::",
        ])
        .check()?;
    let files = [
        (contents.kernel, "vmlinuz"),
        (contents.initramfs, "initrd.img"),
        (contents.loader_config, "syslinux.cfg"),
    ];
    for (file, name) in files {
        Run::new("mcopy")
            .args(["-m", "-i"])
            .arg(image)
            .arg(file)
            .arg(format!("::{name}"))
            .env("SOURCE_DATE_EPOCH", &epoch)
            .check()?;
    }
    Run::new("syslinux").arg("--install").arg(image).check()
}

fn root_partition(folder: &Path, image: &Path) -> Result<()> {
    sized(image, ROOT.size)?;
    let tool = paths::program("mke2fs").context("mke2fs is missing: run `cargo xtask install`")?;
    Run::new(tool)
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-m",
            "0",
            "-O",
            "^has_journal",
        ])
        .args(["-L", ROOT_LABEL, "-U", ROOT_UUID, "-E"])
        .arg(format!(
            "hash_seed={ROOT_UUID},root_owner=0:0,lazy_itable_init=0"
        ))
        .arg("-d")
        .arg(folder)
        .arg(image)
        .env("E2FSPROGS_FAKE_TIME", TIME.to_string())
        .env("SOURCE_DATE_EPOCH", TIME.to_string())
        .check()
}

fn sized(image: &Path, size: u64) -> Result<()> {
    let file = File::create(image).with_context(|| format!("creating {}", image.display()))?;
    file.set_len(size)
        .with_context(|| format!("sizing {}", image.display()))
}

/// The first sector: syslinux's loader code, which starts the active partition, and the table.
fn boot_record() -> Result<[u8; 512]> {
    let path = Path::new("/usr/lib/syslinux/mbr/mbr.bin");
    let code = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let mut sector = [0; 512];
    let room = code.len().min(440);
    sector[..room].copy_from_slice(&code[..room]);
    sector[440..444].copy_from_slice(b"LONG");
    for (slot, partition) in [BOOT, ROOT].iter().enumerate() {
        let at = 446 + 16 * slot;
        sector[at..at + 16].copy_from_slice(&table_entry(partition));
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(sector)
}

/// An entry of the table. Cylinders, heads and sectors say "see the other address", as they must
/// past 8 GB anyway.
fn table_entry(partition: &Partition) -> [u8; 16] {
    let sectors = |bytes: u64| {
        u32::try_from(bytes / SECTOR)
            .expect("the disk is small")
            .to_le_bytes()
    };
    let mut entry = [0xff; 16];
    entry[0] = if partition.active { 0x80 } else { 0 };
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = partition.kind;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&sectors(partition.start));
    entry[12..].copy_from_slice(&sectors(partition.size));
    entry
}

/// Writes what is not zero, so that the raw disk has holes like one that a tool made.
fn copy_sparsely(bytes: &[u8], out: &File, start: u64) -> Result<()> {
    let mut at = start;
    for block in bytes.chunks(4096) {
        if block.iter().any(|byte| *byte != 0) {
            out.write_all_at(block, at).context("writing a partition")?;
        }
        at += block.len() as u64;
    }
    Ok(())
}

/// Gives every file under `folder`, and the folder, the one time.
pub(super) fn set_times(path: &Path) -> Result<()> {
    let error = || format!("setting the time of {}", path.display());
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(error)? {
            set_times(&entry.with_context(error)?.path())?;
        }
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(TIME);
    File::open(path)
        .and_then(|file| file.set_modified(time))
        .with_context(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_entry_has_kind_start_and_length_where_the_bios_looks() {
        let entry = table_entry(&BOOT);
        assert_eq!((entry[0], entry[4]), (0x80, 0x0e));
        assert_eq!(entry[8..12], 2048_u32.to_le_bytes());
        assert_eq!(entry[12..], 65536_u32.to_le_bytes());
        assert_eq!(table_entry(&ROOT)[0], 0);
    }
}
