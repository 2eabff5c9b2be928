//! Container images without a container engine: one layer of files, as an archive that `ctr` and skopeo
//! read.
//!
//! The bytes depend on nothing but the files: names are sorted, times and owners fixed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::paths;
use crate::shell::Run;

/// What an image runs.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) command: &'a [&'a str],
    /// `UID:GID`, or nothing for root.
    pub(crate) user: &'a str,
}

/// A folder that becomes the root of an image.
#[derive(Debug)]
pub(crate) struct Root {
    folder: PathBuf,
}

impl Root {
    /// An empty one at `folder`, whatever was there before.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("removing {}", folder.display()))?;
        }
        paths::make_dir(&folder)?;
        Ok(Self { folder })
    }

    /// Copies a program to a path within.
    pub(crate) fn program(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.folder.join(to);
        if let Some(parent) = to.parent() {
            paths::make_dir(parent)?;
        }
        fs::copy(from, &to)
            .map(drop)
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))
    }

    /// Copies a folder with all that is in it, beside what is there.
    pub(crate) fn tree(&self, from: &Path) -> Result<()> {
        Run::new("cp")
            .args(["--archive", "--no-preserve=ownership"])
            .arg(from)
            .arg(&self.folder)
            .quiet()
            .capture()
            .map(drop)
    }

    /// Copies what matches in a folder, links as links, into a folder within.
    pub(crate) fn matching(
        &self,
        from: &Path,
        to: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let to = self.folder.join(to);
        paths::make_dir(&to)?;
        for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() || !wanted(&name) {
                continue;
            }
            Run::new("cp")
                .args(["--archive", "--no-preserve=ownership"])
                .args([&path, &to])
                .quiet()
                .capture()?;
        }
        Ok(())
    }

    /// Writes a text file within.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            paths::make_dir(parent)?;
        }
        paths::write(&path, text)
    }

    /// Lets every user write into a folder within, as into `/tmp`.
    pub(crate) fn open_to_all(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777))
            .with_context(|| format!("opening {} to all", path.display()))
    }

    /// Makes a symbolic link within.
    pub(crate) fn link(&self, target: &str, name: &str) -> Result<()> {
        let name = self.folder.join(name);
        std::os::unix::fs::symlink(target, &name)
            .with_context(|| format!("linking {}", name.display()))
    }

    /// Makes an empty folder within.
    pub(crate) fn folder(&self, name: &str) -> Result<()> {
        paths::make_dir(&self.folder.join(name))
    }

    /// Packs it as `reference` (`name:tag`) into the docker-archive `archive`.
    pub(crate) fn pack(&self, reference: &str, entry: &Entry<'_>, archive: &Path) -> Result<()> {
        let parts = archive.with_extension("parts");
        if parts.exists() {
            fs::remove_dir_all(&parts)?;
        }
        paths::make_dir(&parts)?;
        tar(&self.folder, ".", &parts.join("layer.tar"))?;
        let layer = digest(&parts.join("layer.tar"))?;
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": entry.command,
                "User": entry.user,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        });
        paths::write(&parts.join("config.json"), config.to_string())?;
        let config = format!("{}.json", digest(&parts.join("config.json"))?);
        fs::rename(parts.join("config.json"), parts.join(&config))?;
        let manifest = json!([{
            "Config": config,
            "RepoTags": [reference],
            "Layers": ["layer.tar"],
        }]);
        paths::write(&parts.join("manifest.json"), manifest.to_string())?;
        // Whoever reads one meanwhile reads the old one or the new one.
        let draft = archive.with_extension("draft");
        tar(&parts, ".", &draft)?;
        fs::rename(&draft, archive).with_context(|| format!("making {}", archive.display()))?;
        fs::remove_dir_all(&parts).context("removing the parts of an image")
    }
}

/// The same bytes for the same files.
fn tar(folder: &Path, what: &str, archive: &Path) -> Result<()> {
    Run::new("tar")
        .args(["--create", "--sort=name", "--mtime=@0", "--format=gnu"])
        .args(["--owner=0", "--group=0", "--numeric-owner", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(folder)
        // Without the `./` in front, which some readers take for part of the name.
        .args(["--transform=s,^\\./,,", what])
        .quiet()
        .capture()
        .map(drop)
}

fn digest(file: &Path) -> Result<String> {
    let said = Run::new("sha256sum").arg(file).quiet().capture()?;
    let digest = said.split_whitespace().next();
    digest.map(str::to_owned).context("sha256sum said nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_image_whenever_and_wherever_they_are_packed() {
        let folder = std::env::temp_dir().join(format!("longshore-image-{}", std::process::id()));
        let made = [("one", 1_u64), ("two", 1_000_000_000)].map(|(name, time)| {
            let root = Root::new(folder.join(name)).unwrap();
            // In another order, too.
            let mut files = ["bin/a", "bin/b", "etc/c"];
            if name == "two" {
                files.reverse();
            }
            for file in files {
                root.file(file, file).unwrap();
                let path = folder.join(name).join(file);
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time);
                fs::File::open(path).unwrap().set_modified(time).unwrap();
            }
            root.link("a", "bin/d").unwrap();
            root.folder("data").unwrap();
            let archive = folder.join(format!("{name}.tar"));
            let entry = Entry {
                command: &["/bin/a"],
                user: "107:107",
            };
            root.pack("longshore.dev/x:1", &entry, &archive).unwrap();
            fs::read(archive).unwrap()
        });
        fs::remove_dir_all(&folder).unwrap();
        assert!(made[0] == made[1], "the archives differ");
        let text = String::from_utf8_lossy(&made[0]);
        assert!(text.contains("longshore.dev/x:1") && text.contains("107:107"));
    }
}
