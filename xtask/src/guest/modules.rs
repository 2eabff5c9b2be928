//! Which kernel modules the guest loads, and in which order: worked out here, so that the guest
//! needs no `modprobe` and no `depmod`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::shell::Run;

/// Without one of these the guest is of no use: disk, file systems, the power button.
const NEEDED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "isofs",
    "button",
    "evdev",
];

/// Good to have where the kernel has them: other disks and their file systems, the network, random
/// numbers.
const WELCOME: &[&str] = &[
    "crc32c_generic",
    "virtio_net",
    "virtio_rng",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "ahci",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "virtio_console",
];

/// A kernel's modules, as they lie unpacked.
#[derive(Debug)]
pub(super) struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// One to load: its name and the bytes of its `.ko`.
pub(super) type Module = (String, Vec<u8>);

impl Modules {
    /// Reads a `/lib/modules/VERSION` folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let builtin = paths::read(&folder.join("modules.builtin"))?;
        let builtin = builtin
            .lines()
            .map(|line| name_of(Path::new(line)))
            .collect();
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.join("kernel")];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder)
                .with_context(|| format!("reading the folder {}", folder.display()))?;
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(name_of(&path), path);
                }
            }
        }
        Ok(Self { files, builtin })
    }

    /// The modules to load, each after those it needs.
    pub(super) fn in_order(&self) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        for name in NEEDED {
            self.add(name, &mut order)?;
        }
        for name in WELCOME
            .iter()
            .filter(|name| self.files.contains_key(**name))
        {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<Module>) -> Result<()> {
        if self.builtin.contains(name) || order.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            bail!("the kernel package has no module {name}");
        };
        let bytes = load(path)?;
        for needed in dependencies(&bytes) {
            self.add(&needed, order)?;
        }
        order.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// `net/virtio-rng.ko.xz` is the module `virtio_rng`.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

fn load(path: &Path) -> Result<Vec<u8>> {
    let unpacker = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("reading {}", path.display())),
    };
    Run::new(unpacker)
        .args(["--decompress", "--stdout"])
        .arg(path)
        .quiet()
        .capture_bytes()
}

/// What a module needs, out of the `depends=a,b` among its NUL-separated notes.
fn dependencies(module: &[u8]) -> Vec<String> {
    const MARK: &[u8] = b"depends=";
    let mut notes = module.split(|byte| *byte == 0);
    let list = notes
        .find_map(|note| note.strip_prefix(MARK))
        .unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)], builtin: &[&str], folder: &Path) -> Modules {
        let mut known = BTreeMap::new();
        for (name, needs) in files {
            let path = folder.join(format!("{name}.ko"));
            fs::write(
                &path,
                format!("\x7fELF\0name={name}\0depends={needs}\0license=GPL\0"),
            )
            .unwrap();
            known.insert((*name).to_owned(), path);
        }
        Modules {
            files: known,
            builtin: builtin.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn a_module_comes_after_what_it_needs_and_only_once() {
        let folder = std::env::temp_dir().join(format!("longshore-modules-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = [
            ("virtio_pci", "virtio-ring,virtio"),
            ("virtio_blk", "virtio,virtio_ring"),
            ("virtio", "virtio_ring"),
            ("virtio_ring", ""),
            ("isofs", "cdrom"),
            ("evdev", ""),
            ("virtio_net", "cdrom"),
        ];
        let order = modules(&files, &["ext4", "button", "cdrom"], &folder)
            .in_order()
            .unwrap();
        let names: Vec<&str> = order.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "virtio_ring",
            "virtio",
            "virtio_pci",
            "virtio_blk",
            "isofs",
            "evdev",
            "virtio_net",
        ];
        assert_eq!(names, expected);
        let error = modules(&files, &["button", "cdrom"], &folder)
            .in_order()
            .unwrap_err();
        assert!(error.to_string().contains("ext4"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_are_those_that_the_kernel_uses() {
        assert_eq!(
            name_of(Path::new("kernel/drivers/char/virtio-rng.ko.xz")),
            "virtio_rng"
        );
        assert_eq!(name_of(Path::new("isofs.ko")), "isofs");
    }

    #[test]
    fn a_module_without_notes_needs_nothing() {
        assert_eq!(
            dependencies(b"\x7fELF no notes depends=not,at,start\0"),
            Vec::<String>::new()
        );
        assert_eq!(dependencies(b"x\0depends=\0"), Vec::<String>::new());
    }
}
