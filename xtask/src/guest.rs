//! The guest: a small Linux that boots by BIOS from a virtio disk, looks at its disks and its
//! cloud-init data, tells what it saw on the serial console and powers off. A distribution kernel,
//! a static busybox and the script in `guest/init.sh`; the disk's known files let both the guest
//! and a test on the host say that an import was right.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::guest::cpio::Archive;
use crate::guest::modules::Modules;
use crate::guest::packages::Unpacked;
use crate::shell::Run;
use crate::{install, paths, say};

mod cpio;
mod disk;
mod modules;
pub(crate) mod packages;

/// Where to put it.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Also copy the files there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The variable that tells tests where the guest is.
pub(crate) const VARIABLE: &str = "LONGSHORE_GUEST_DIR";

/// What the guest prints, in this order, when all is as it should be.
pub(crate) const SAYS: &[&str] = &[
    "Longshore guest is up",
    "guest: root disk verified",
    "guest: cloud-init disk",
    "guest: powering off",
];

/// The files of a finished guest.
pub(crate) const QCOW2: &str = "guest.qcow2";
const FILES: &[&str] = &[QCOW2, "guest.raw", "guest.json", "vmlinuz", "initrd.img"];

const INIT: &str = include_str!("guest/init.sh");
const LEASE: &str = include_str!("guest/udhcpc.sh");
const POWER: &str = include_str!("guest/power.sh");
const LOADER: &str = include_str!("guest/syslinux.cfg");

/// Raised when the way of building changes, not the inputs.
const RECIPE: u32 = 1;

pub(crate) fn run(args: &Args) -> Result<()> {
    install::run(&install::Args::default())?;
    let folder = make()?;
    let shown = match &args.out {
        Some(out) => {
            paths::make_dir(out)?;
            for name in FILES {
                // Keeps the holes of the raw disk.
                let copy = Run::new("cp").args(["--sparse=always", "--"]).quiet();
                copy.arg(folder.join(name)).arg(out).check()?;
            }
            out
        }
        None => &folder,
    };
    for name in FILES {
        let path = shown.join(name);
        let size = fs::metadata(&path)
            .with_context(|| format!("looking at {}", path.display()))?
            .len();
        say::line(&format!("{:>9}  {}", say::bytes(size), path.display()));
    }
    Ok(())
}

/// Makes the guest unless the cache has it; gives its folder.
pub(crate) fn make() -> Result<PathBuf> {
    let kernel = packages::kernel()?;
    let busybox = packages::busybox()?;
    let folder = paths::cache("guest")?.join(key(&kernel, &busybox));
    if FILES.iter().all(|name| folder.join(name).is_file()) {
        return Ok(folder);
    }
    say::line(&format!("making the guest in {}", folder.display()));
    let draft = folder.with_extension(format!("partial-{}", std::process::id()));
    drop(fs::remove_dir_all(&draft));
    paths::make_dir(&draft)?;
    build(&kernel, &busybox, &draft)?;
    drop(fs::remove_dir_all(&folder));
    fs::rename(&draft, &folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// What the guest is made of, in a short name: other inputs make another guest.
fn key(kernel: &Unpacked, busybox: &Unpacked) -> String {
    let inputs = [
        &kernel.version,
        &busybox.version,
        INIT,
        LEASE,
        POWER,
        LOADER,
    ]
    .join("\0");
    // FNV-1a: a name, not a proof.
    let hash = inputs
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    format!("{RECIPE}-{hash:016x}")
}

fn build(kernel: &Unpacked, busybox: &Unpacked, folder: &Path) -> Result<()> {
    let (release, modules) = modules_of(kernel)?;
    let root = folder.join("root");
    let sums = known_files(&root, &release)?;
    disk::set_times(&root)?;

    let vmlinuz = folder.join("vmlinuz");
    let packed = kernel
        .folder
        .join("boot")
        .join(format!("vmlinuz-{release}"));
    fs::copy(&packed, &vmlinuz).with_context(|| format!("copying {}", packed.display()))?;
    let initramfs = folder.join("initrd.img");
    let archive = initramfs_of(busybox, &modules.in_order()?, &sums)?;
    let unpacked = folder.join("initrd");
    paths::write(&unpacked, archive)?;
    let packed = Run::new("gzip")
        .args(["--no-name", "--best", "--stdout"])
        .arg(&unpacked)
        .quiet();
    paths::write(&initramfs, packed.capture_bytes()?)?;
    let config = folder.join("syslinux.cfg");
    paths::write(&config, LOADER)?;
    for file in [&vmlinuz, &initramfs, &config] {
        disk::set_times(file)?;
    }

    let raw = folder.join("guest.raw");
    let contents = disk::Contents {
        kernel: &vmlinuz,
        initramfs: &initramfs,
        loader_config: &config,
        root: &root,
    };
    disk::build(&contents, &raw, folder)?;
    let qcow2 = folder.join(QCOW2);
    Run::new("qemu-img")
        .args(["convert", "-c", "-O", "qcow2"])
        .arg(&raw)
        .arg(&qcow2)
        .check()?;
    let facts = json!({
        "kernel": release,
        "virtualSize": disk::SIZE,
        "rawSha256": sha256(&raw)?,
        "qcow2Sha256": sha256(&qcow2)?,
    });
    paths::write(&folder.join("guest.json"), format!("{facts:#}\n"))?;
    for leftover in [&unpacked, &config] {
        fs::remove_file(leftover).with_context(|| format!("removing {}", leftover.display()))?;
    }
    fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))
}

/// The kernel's release and its modules; some distributions put them under `/usr`.
fn modules_of(kernel: &Unpacked) -> Result<(String, Modules)> {
    for base in ["lib/modules", "usr/lib/modules"] {
        let Ok(entries) = fs::read_dir(kernel.folder.join(base)) else {
            continue;
        };
        for entry in entries.flatten() {
            let release = entry.file_name().to_string_lossy().into_owned();
            if entry.path().join("modules.builtin").is_file() {
                return Ok((release, Modules::read(&entry.path())?));
            }
        }
    }
    bail!("{} has no kernel modules", kernel.folder.display())
}

/// The files of the root partition; gives their sums as `sha256sum -c` reads them.
fn known_files(root: &Path, release: &str) -> Result<String> {
    for folder in ["etc", "data"] {
        paths::make_dir(&root.join(folder))?;
    }
    let words = "Longshore brings virtual machine disks into Kubernetes and boots them.\n";
    paths::write(
        &root.join("etc/longshore-release"),
        format!("This file is on the imported disk. It was built for kernel {release}.\n"),
    )?;
    paths::write(&root.join("data/compressible"), words.repeat(120_000))?;
    paths::write(&root.join("data/incompressible"), noise(6 << 20))?;
    let names = [
        "etc/longshore-release",
        "data/compressible",
        "data/incompressible",
    ];
    Run::new("sha256sum")
        .args(names)
        .dir(root)
        .quiet()
        .capture()
}

/// Bytes that no codec makes smaller, the same every time (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x6c6f_6e67_7368_6f72_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn initramfs_of(busybox: &Unpacked, modules: &[modules::Module], sums: &str) -> Result<Vec<u8>> {
    let program = ["bin/busybox", "usr/bin/busybox"].map(|path| busybox.folder.join(path));
    let program = program
        .iter()
        .find(|path| path.is_file())
        .context("the busybox package has no busybox")?;
    let program = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let mut archive = Archive::default();
    for folder in [
        "bin",
        "dev",
        "etc",
        "etc/acpi",
        "etc/acpi/PWRF",
        "lib",
        "lib/modules",
    ] {
        archive.directory(folder);
    }
    // What the kernel opens for the first process, before devtmpfs is there.
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, &program);
    archive.symlink("bin/sh", "busybox");
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("etc/udhcpc.sh", 0o755, LEASE.as_bytes());
    archive.file("etc/acpi/PWRF/00000080", 0o755, POWER.as_bytes());
    archive.file("etc/longshore.sha256", 0o644, sums.as_bytes());
    for (number, (name, bytes)) in modules.iter().enumerate() {
        archive.file(&format!("lib/modules/{number:02}-{name}.ko"), 0o644, bytes);
    }
    Ok(archive.finish())
}

fn sha256(path: &Path) -> Result<String> {
    let line = Run::new("sha256sum").arg(path).quiet().capture()?;
    Ok(line
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_inputs_make_another_guest() {
        let of = |version: &str| Unpacked {
            folder: PathBuf::new(),
            version: version.to_owned(),
        };
        assert_eq!(
            key(&of("kernel_1"), &of("busybox_1")),
            key(&of("kernel_1"), &of("busybox_1"))
        );
        assert_ne!(
            key(&of("kernel_1"), &of("busybox_1")),
            key(&of("kernel_2"), &of("busybox_1"))
        );
        assert_ne!(
            key(&of("kernel_1"), &of("busybox_1")),
            key(&of("kernel_1"), &of("busybox_2"))
        );
    }

    #[test]
    fn noise_is_the_same_every_time_and_has_the_length_asked_for() {
        assert_eq!(noise(1003), noise(1003));
        assert_eq!(noise(1003).len(), 1003);
    }

    #[test]
    fn the_guest_says_what_the_demo_looks_for() {
        for text in SAYS {
            let source = text
                .strip_prefix("guest: ")
                .map_or_else(|| format!("echo \"{text}"), |text| format!("say \"{text}"));
            assert!(INIT.contains(&source), "{source}");
        }
    }
}
