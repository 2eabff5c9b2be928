//! A control group of its own for one run: what it may use, and what it used. Versions 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::case::Limit;

const NAME: &str = "longshore-bench";
/// What `cpu.cfs_quota_us` and `cpu.max` are counted in.
const PERIOD: u32 = 100_000;

/// Removed when dropped: by then the run is over.
#[derive(Debug)]
pub(super) struct Cgroup {
    version: Version,
    /// Version 1 has one for each controller; the one of memory is the last.
    folders: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    /// Makes it. Without `limit` it only counts.
    pub(super) fn new(limit: Option<Limit>) -> Result<Self> {
        Self::under(Path::new("/sys/fs/cgroup"), limit)
            .context("making a cgroup (root is needed, and cgroup v1 or v2 in /sys/fs/cgroup)")
    }

    fn under(root: &Path, limit: Option<Limit>) -> Result<Self> {
        let version = if root.join("cgroup.controllers").is_file() {
            Version::Two
        } else {
            Version::One
        };
        let folders: Vec<PathBuf> = match version {
            Version::One => ["cpu", "memory"]
                .map(|controller| root.join(controller).join(NAME))
                .into(),
            Version::Two => {
                let path = root.join("cgroup.subtree_control");
                put(&path, "+cpu +memory")?;
                vec![root.join(NAME)]
            }
        };
        // A killed run leaves its own behind, with its counts.
        for folder in &folders {
            drop(fs::remove_dir(folder));
        }
        let this = Self { version, folders };
        for folder in &this.folders {
            fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        if let Some(limit) = limit {
            this.limit(limit)?;
        }
        Ok(this)
    }

    fn limit(&self, limit: Limit) -> Result<()> {
        let (cpu, memory) = (self.folders.first(), self.folders.last());
        let (Some(cpu), Some(memory)) = (cpu, memory) else {
            return Ok(());
        };
        let quota = limit.cpu.map(|share| PERIOD / 1000 * share);
        match self.version {
            Version::One => {
                if let Some(quota) = quota {
                    put(&cpu.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
                    put(&cpu.join("cpu.cfs_quota_us"), &quota.to_string())?;
                }
                if let Some(bytes) = limit.memory {
                    put(&memory.join("memory.limit_in_bytes"), &bytes.to_string())?;
                }
            }
            Version::Two => {
                if let Some(quota) = quota {
                    put(&cpu.join("cpu.max"), &format!("{quota} {PERIOD}"))?;
                }
                if let Some(bytes) = limit.memory {
                    put(&memory.join("memory.max"), &bytes.to_string())?;
                    // Without swap, as a pod.
                    drop(fs::write(memory.join("memory.swap.max"), "0"));
                }
            }
        }
        Ok(())
    }

    /// The files that a process writes its number to, to be in it.
    pub(super) fn doors(&self) -> Vec<PathBuf> {
        let door = |folder: &PathBuf| folder.join("cgroup.procs");
        self.folders.iter().map(door).collect()
    }

    fn memory(&self) -> &Path {
        self.folders
            .last()
            .map_or_else(|| Path::new("/"), PathBuf::as_path)
    }

    /// Bytes that wait to be written, and are being written, right now.
    pub(super) fn unwritten(&self) -> u64 {
        let stat = fs::read_to_string(self.memory().join("memory.stat")).unwrap_or_default();
        let names = match self.version {
            Version::One => ["dirty", "writeback"],
            Version::Two => ["file_dirty", "file_writeback"],
        };
        names.iter().filter_map(|name| field(&stat, name)).sum()
    }

    /// The most bytes it ever had, page cache included.
    pub(super) fn peak(&self) -> Result<u64> {
        let file = match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        };
        let text = get(&self.memory().join(file))?;
        text.trim()
            .parse()
            .context("reading the peak of the cgroup")
    }

    /// Processes that the kernel ended for want of memory.
    pub(super) fn killed(&self) -> Result<u64> {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = get(&self.memory().join(file))?;
        field(&text, "oom_kill").context("the cgroup does not count OOM kills")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in &self.folders {
            drop(fs::remove_dir(folder));
        }
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

fn put(path: &Path, text: &str) -> Result<()> {
    ensure!(path.exists(), "there is no {}", path.display());
    fs::write(path, text).with_context(|| format!("writing {text} to {}", path.display()))
}

fn get(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let stat = "cache 5\nfile_dirty 4096\nfile_dirty_else 1\nwriteback 7\n";
        assert_eq!(field(stat, "file_dirty"), Some(4096));
        assert_eq!(field(stat, "writeback"), Some(7));
        assert_eq!(field(stat, "dirty"), None);
    }

    #[test]
    fn without_the_kernels_folders_the_error_says_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let error = Cgroup::under(root.path(), None).unwrap_err();
        assert!(format!("{error:#}").contains("making"), "{error:#}");
        // Version 2, where the controllers cannot be handed on.
        fs::write(root.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let error = Cgroup::under(root.path(), None).unwrap_err();
        assert!(
            format!("{error:#}").contains("subtree_control"),
            "{error:#}"
        );
    }
}
