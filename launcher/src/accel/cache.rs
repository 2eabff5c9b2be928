//! The memory of the probe's verdict: one small JSON file, good for one boot of the host.
//!
//! What it holds is a measurement, so a file that is missing, torn, or about another boot or another
//! device is simply no answer.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::probe::Outcome;

/// Far more than the file can be; what is longer is not ours.
const MAX_LENGTH: u64 = 4096;

/// What a verdict holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    boot_id: String,
    /// The device node: reloading the module or passing another device in makes a new one.
    device: u64,
    inode: u64,
}

impl Key {
    /// `None` where the host does not say which boot this is, or has no such device.
    pub fn of(device: &Path) -> Option<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let node = std::fs::metadata(device).ok()?;
        Some(Self {
            boot_id: boot_id.trim().to_owned(),
            device: node.rdev(),
            inode: node.ino(),
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: Key,
    outcome: Outcome,
}

/// Where a user's processes share the verdict, if there is such a place.
///
/// Never a directory that others may write: a planted file would choose the accelerator.
pub fn default_path() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    base.is_absolute()
        .then(|| base.join("longshore").join("kvm-probe.json"))
}

/// The outcome remembered for `key`, if any.
pub fn load(file: &Path, key: &Key) -> Option<Outcome> {
    use io::Read as _;

    let mut text = String::new();
    std::fs::File::open(file)
        .ok()?
        .take(MAX_LENGTH)
        .read_to_string(&mut text)
        .ok()?;
    let entry: Entry = serde_json::from_str(&text).ok()?;
    (entry.key == *key).then_some(entry.outcome)
}

/// Remembers an outcome; readers see the old file or the new one, never a part.
pub fn store(file: &Path, key: Key, outcome: Outcome) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let text = serde_json::to_string(&Entry { key, outcome })?;
    let partial = file.with_extension("partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, file).inspect_err(|_| drop(std::fs::remove_file(&partial)))
}
