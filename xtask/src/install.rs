//! Installing what the distribution provides: looks first, and touches apt only for what is
//! missing. What it does not provide and is small ([`pytools`]) goes into the cache.
//!
//! Nothing is installed that changes how the machine itself boots or runs: the guest's kernel and
//! busybox are only unpacked, into our cache (see [`crate::guest`]).

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::install::apt::Apt;
use crate::install::system::{Family, System};
use crate::shell::Run;
use crate::{paths, pytools, say};

pub(crate) mod apt;
pub(crate) mod system;

/// What to install.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only say what is missing, and fail if anything is
    #[arg(long)]
    check: bool,
}

/// Something a package provides and how we see that it is there.
struct Need {
    package: &'static str,
    /// A program's name, or a file's absolute path.
    proof: &'static str,
}

const fn need(package: &'static str, proof: &'static str) -> Need {
    Need { package, proof }
}

/// Compilers for the C parts of our dependencies, makers and readers of test images, and what boots
/// a guest.
const NEEDS: &[Need] = &[
    need("gcc", "cc"),
    need("g++", "c++"),
    need("libc6-dev", "/usr/include/stdio.h"),
    need("make", "make"),
    need("pkg-config", "pkg-config"),
    need("e2fsprogs", "mke2fs"),
    need("xfsprogs", "mkfs.xfs"),
    need("btrfs-progs", "mkfs.btrfs"),
    need("genisoimage", "genisoimage"),
    need("xorriso", "xorriso"),
    need("nbdkit", "nbdkit"),
    need("libnbd-bin", "nbdcopy"),
    need("python3-venv", "/var/lib/dpkg/info/python3-venv.list"),
    need("python3-dev", "/var/lib/dpkg/info/python3-dev.list"),
    need("pigz", "pigz"),
    need("time", "time"),
    need("curl", "curl"),
    need("gzip", "gzip"),
    need("openssl", "openssl"),
    need("binutils", "strip"),
    need("strace", "strace"),
    need("valgrind", "valgrind"),
    need("docker-registry", "docker-registry"),
    need("skopeo", "skopeo"),
    need("zstd", "zstd"),
    need("xz-utils", "xz"),
    need("bzip2", "bzip2"),
    need("pbzip2", "pbzip2"),
    need("cpio", "cpio"),
    need("strace", "strace"),
    need("mtools", "mcopy"),
    need("syslinux", "syslinux"),
    need("syslinux-common", "/usr/lib/syslinux/mbr/mbr.bin"),
];

/// The two halves of QEMU, which must be of one version: Debian's newer and older ones refuse to
/// share a machine.
const QEMU: &[Need] = &[
    need("qemu-system-x86", "qemu-system-x86_64"),
    need("qemu-utils", "qemu-img"),
];

/// What runs a node of the test cluster.
const NODE: &[Need] = &[
    need("containerd", "containerd"),
    need("runc", "runc"),
    need("containernetworking-plugins", "/usr/lib/cni/ptp"),
    need("iproute2", "ip"),
    need("iptables", "iptables"),
    need("conntrack", "conntrack"),
    need("ethtool", "ethtool"),
    need("socat", "socat"),
    need("util-linux", "unshare"),
    need("mount", "losetup"),
    need("e2fsprogs", "mke2fs"),
    need("xfsprogs", "mkfs.xfs"),
    need("openssl", "openssl"),
    need("gcc", "cc"),
    need("libc6-dev", "/usr/include/stdio.h"),
    need("binutils", "strip"),
];

/// Installs what a node of the test cluster takes.
pub(crate) fn for_a_node() -> Result<()> {
    let missing: Vec<&str> = NODE
        .iter()
        .filter(|need| !present(need.proof))
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let apt = Apt::new()?;
    apt.update()?;
    apt.install(&missing, None)
}

/// What of all this is not there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Missing {
    packages: Vec<&'static str>,
    qemu: Vec<&'static str>,
}

impl Missing {
    fn look(system: &System) -> Self {
        let absent = |needs: &[Need]| -> Vec<&'static str> {
            needs
                .iter()
                .filter(|need| !present(need.proof))
                .map(|need| need.package)
                .collect()
        };
        let mut qemu = absent(QEMU);
        if qemu.is_empty()
            && QEMU
                .iter()
                .any(|need| version(need.proof) < system.qemu_wanted())
        {
            qemu = QEMU.iter().map(|need| need.package).collect();
        }
        Self {
            packages: absent(NEEDS),
            qemu,
        }
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.qemu.is_empty()
    }

    fn names(&self) -> String {
        let all: Vec<&str> = self.packages.iter().chain(&self.qemu).copied().collect();
        all.join(" ")
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let system = System::read();
    let missing = Missing::look(&system);
    if missing.is_empty() {
        say::line("every package that Longshore needs is installed already");
        return built(args);
    }
    say::line(&format!("missing or too old: {}", missing.names()));
    if args.check {
        bail!("missing packages: {}", missing.names());
    }
    if system.family == Family::Other {
        bail!(
            "this is neither Debian nor Ubuntu ({}): install the equivalents of these packages by hand: {}",
            system.name,
            missing.names()
        );
    }
    let apt = Apt::new()?;
    let backports = system.qemu_backports().filter(|_| !missing.qemu.is_empty());
    if let Some(suite) = &backports {
        apt.add_suite(&system.codename, suite)?;
    }
    apt.update()?;
    if !missing.packages.is_empty() {
        apt.install(&missing.packages, None)?;
    }
    if !missing.qemu.is_empty() {
        // Both halves, even if one is there: an old one left behind conflicts with the other's new
        // files.
        let pair: Vec<&str> = QEMU.iter().map(|need| need.package).collect();
        apt.install(&pair, backports.as_deref())?;
    }
    let still = Missing::look(&system);
    if !still.is_empty() {
        bail!(
            "still missing or too old after the installation: {}",
            still.names()
        );
    }
    built(args)
}

/// What no package provides.
fn built(args: &Args) -> Result<()> {
    if !args.check {
        pytools::imageio()?;
    }
    Ok(())
}

fn present(proof: &str) -> bool {
    if proof.starts_with('/') {
        Path::new(proof).exists()
    } else {
        paths::program(proof).is_some()
    }
}

/// The first `N.N` in what `PROGRAM --version` prints.
fn version(program: &str) -> (u32, u32) {
    let run = Run::new(program).arg("--version").quiet();
    run.capture()
        .ok()
        .and_then(|text| first_version(&text))
        .unwrap_or_default()
}

fn first_version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

/// How long an apt run may wait for another one, as on a machine that updates itself after boot.
const LOCK_WAIT: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_qemu_prints() {
        let text = "qemu-img version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright (c) 2003-2025";
        assert_eq!(first_version(text), Some((10, 0)));
        assert_eq!(
            first_version("QEMU emulator version 7.2.17 (Debian)"),
            Some((7, 2))
        );
        assert_eq!(first_version("no numbers"), None);
    }

    #[test]
    fn a_program_that_does_not_exist_has_no_version_and_is_not_present() {
        assert_eq!(version("longshore-no-such-program"), (0, 0));
        assert!(!present("longshore-no-such-program"));
        assert!(!present("/nonexistent/file"));
        assert!(present("sh") && present("/"));
    }
}
