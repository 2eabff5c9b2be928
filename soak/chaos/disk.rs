//! Whether a claim's volume holds the disk that was imported, byte by byte, and nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use longshore_csi::host;
use longshore_tests::data;
use longshore_tests::device;
use longshore_tests::node::{attached_in, folder_of};
use longshore_tests::program::said;
use serde_json::Value;

use super::node::Node;

/// What is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Somebody uses the volume still.
    Busy,
    /// One of the disks that it may hold.
    Right,
    /// What differs.
    Wrong(String),
}

/// Looks at the volume of a claim.
pub(crate) fn look(node: &Node, claim: &Value, disks: &[&[u8]]) -> Result<Found> {
    let volume = node.volume(claim)?;
    if let Some(image) = node.image_of(&volume) {
        if !attached_in(&image).is_empty() {
            return Ok(Found::Busy);
        }
        if volume["spec"]["volumeMode"] == "Block" {
            return compared(&image, disks);
        }
        let at = data::quick_dir();
        tool("mount", &["-o", "loop,ro,nouuid"], &[&image, at.path()])?;
        let found = in_folder(at.path(), disks);
        device::unmount(at.path());
        return found;
    }
    let folder = folder_of(&volume).context("a volume of a strange kind")?;
    in_folder(&folder, disks)
}

/// Unmounts a volume that no pod has, and that the kubelet will not: one that was killed when it had taken a
/// volume from its pod and not yet from the node does not look for it when it is back. Whoever mounts it next
/// has it from there and lets go of it; here nobody does.
pub(crate) fn let_go(node: &Node, claim: &Value) -> Result<()> {
    let image = node.image_of(&node.volume(claim)?);
    unmount(&image.context("a volume of a strange kind")?)
}

fn unmount(image: &Path) -> Result<()> {
    let Some(device) = host::device_over(image)? else {
        return Ok(());
    };
    for mounted in host::mounts()? {
        // A device that is shown at another place has the name it has there.
        let is_file = fs::metadata(&mounted.at)
            .is_ok_and(|at| at.rdev() != 0 && Some(at.rdev()) == number(&device));
        if mounted.source == device || is_file {
            host::unmount(&mounted.at)?;
        }
    }
    // That of a filesystem goes with its mount.
    if host::device_over(image)?.is_some_and(|still| still == device) {
        host::detach(&device)?;
    }
    Ok(())
}

/// Which device a file is.
fn number(device: &Path) -> Option<u64> {
    Some(device.metadata().ok()?.rdev())
}

fn tool(program: &str, options: &[&str], paths: &[&Path]) -> Result<()> {
    let output = Command::new(program).args(options).args(paths).output()?;
    ensure!(output.status.success(), "{program}: {}", said(&output));
    Ok(())
}

fn in_folder(folder: &Path, disks: &[&[u8]]) -> Result<Found> {
    let mut names = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("looking into {}", folder.display()))?
    {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != "lost+found");
    if names != ["disk.img"] {
        return Ok(Found::Wrong(format!("the volume has {names:?}")));
    }
    compared(&folder.join("disk.img"), disks)
}

fn compared(file: &Path, disks: &[&[u8]]) -> Result<Found> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let mut said = Vec::new();
    for disk in disks {
        match differs(&bytes, disk) {
            None => return Ok(Found::Right),
            Some(at) => said.push(format!("byte {at} of {}", disk.len())),
        }
    }
    if said.is_empty() {
        bail!("nothing to compare with");
    }
    Ok(Found::Wrong(format!("it differs at {}", said.join(", "))))
}

/// Where a volume is not the disk and zeros after it.
fn differs(bytes: &[u8], disk: &[u8]) -> Option<usize> {
    if bytes.is_empty() || bytes.len() < disk.len() {
        return Some(bytes.len());
    }
    let (front, rest) = bytes.split_at(disk.len());
    if front != disk {
        return front.iter().zip(disk).position(|(is, should)| is != should);
    }
    let dirty = rest.iter().position(|&byte| byte != 0);
    dirty.map(|at| at + disk.len())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use longshore_csi::host;
    use longshore_tests::device::is_root;
    use longshore_tests::eventually;

    use super::{differs, unmount};

    #[test]
    fn a_volume_that_was_left_on_the_node_is_let_go() {
        if !is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("it.img"), folder.path().join("at"));
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        host::format(&image).unwrap();
        fs::create_dir(&at).unwrap();
        host::mount_file(&image, &at, &[]).unwrap();
        unmount(&image).unwrap();
        assert!(!host::is_mounted(&at).unwrap());
        // Whoever looks at new devices may have it open for a moment.
        let is_free = || host::device_over(&image).unwrap().is_none().then_some(());
        eventually("the device to go", is_free);

        let device = host::attach(&image).unwrap();
        let shown = folder.path().join("shown");
        File::create(&shown).unwrap();
        host::bind(&device, &shown, false).unwrap();
        unmount(&image).unwrap();
        assert!(!host::is_mounted(&shown).unwrap());
        eventually("the device to go", is_free);
        unmount(&image).unwrap();
    }

    #[test]
    fn a_volume_is_the_disk_and_zeros_and_not_less() {
        assert_eq!(differs(&[1, 2, 0, 0], &[1, 2]), None);
        assert_eq!(differs(&[1, 2, 0, 3], &[1, 2]), Some(3));
        assert_eq!(differs(&[1, 0, 0, 0], &[1, 2]), Some(1));
        assert_eq!(differs(&[1], &[1, 2]), Some(1));
        assert_eq!(differs(&[0, 0], &[]), None);
        assert_eq!(differs(&[], &[]), Some(0));
    }
}
