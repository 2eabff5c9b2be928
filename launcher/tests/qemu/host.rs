//! What the machine has that these tests need.

use std::path::Path;
use std::process::{Command, Stdio};

use longshore_launcher::accel::{Accel, Accelerator, DEVICE, resolve};

pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// Whether a tool is there. Under CI it must be; elsewhere the caller's test is skipped by name.
pub(crate) fn has(tool: &str) -> bool {
    let mut command = Command::new(tool);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
    eprintln!("skipped: {tool} is missing");
    false
}

/// TCG, and KVM where its device exists: boot sectors are short enough even for one that emulates.
pub(crate) fn accelerators() -> Vec<Accelerator> {
    let kvm = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new(DEVICE));
    match kvm {
        Ok(_) => vec![Accelerator::Tcg, Accelerator::Kvm],
        Err(error) => {
            eprintln!("skipped under kvm: {DEVICE}: {error}");
            vec![Accelerator::Tcg]
        }
    }
}

/// TCG, and KVM where it is what it claims to be.
pub(crate) fn fast_accelerators() -> Vec<Accelerator> {
    let verdict = resolve(Accel::Auto, None).unwrap();
    match verdict.accelerator {
        Accelerator::Kvm => vec![Accelerator::Tcg, Accelerator::Kvm],
        Accelerator::Tcg => {
            eprintln!("skipped under kvm: {verdict}");
            vec![Accelerator::Tcg]
        }
    }
}
