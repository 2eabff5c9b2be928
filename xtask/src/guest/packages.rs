//! Distribution packages that are unpacked into the cache and never installed: a kernel beside the
//! machine's own would change how it boots, and `busybox-static` would push `busybox` off it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::install::apt::Apt;
use crate::install::system::{Family, System};
use crate::shell::Run;
use crate::{paths, say};

/// A package's files, unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) folder: PathBuf,
    /// Which packages in which versions these are: part of the guest's identity.
    pub(super) version: String,
}

/// The kernel that the distribution makes for virtual machines, with its modules.
pub(super) fn kernel() -> Result<Unpacked> {
    if System::read().family == Family::Ubuntu {
        unpacked("linux-image-virtual", |names| {
            let modules = names
                .iter()
                .filter_map(|name| name.strip_prefix("linux-image-"));
            let modules: Vec<String> = modules
                .map(|rest| format!("linux-modules-{rest}"))
                .collect();
            [names.to_vec(), modules].concat()
        })
    } else {
        unpacked("linux-image-cloud-amd64", <[String]>::to_vec)
    }
}

pub(super) fn busybox() -> Result<Unpacked> {
    unpacked("busybox-static", |_| vec!["busybox-static".to_owned()])
}

/// A package as it is, for a container image.
pub(crate) fn plain(package: &str) -> Result<Unpacked> {
    unpacked(package, |_| vec![package.to_owned()])
}

/// The web server that imports are measured against: installed, it would serve the machine's port 80.
pub(crate) fn nginx() -> Result<Unpacked> {
    unpacked("nginx", |_| vec!["nginx".to_owned()])
}

/// What is in the cache, or else a download. `choose` gets the versioned packages behind a meta
/// package.
fn unpacked(package: &str, choose: impl Fn(&[String]) -> Vec<String>) -> Result<Unpacked> {
    let folder = paths::cache("packages")?.join(package);
    let note = folder.join("VERSION");
    if let Ok(version) = fs::read_to_string(&note) {
        return Ok(Unpacked { folder, version });
    }
    let described = describe(package)?;
    let chosen = choose(&behind(&described));
    if chosen.is_empty() {
        bail!("{package} does not say which package has the kernel itself");
    }
    let draft = folder.with_file_name(format!(".{package}.{}", std::process::id()));
    paths::make_dir(&draft)?;
    say::line(&format!(
        "downloading {} to unpack into {}",
        chosen.join(" and "),
        folder.display()
    ));
    Run::new("apt-get")
        .args(["--quiet", "download"])
        .args(&chosen)
        .dir(&draft)
        .check()?;
    let mut versions = Vec::new();
    for deb in debs(&draft)? {
        versions.push(
            deb.file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        );
        Run::new("dpkg-deb")
            .arg("--extract")
            .arg(&deb)
            .arg(&draft)
            .check()?;
        fs::remove_file(&deb).with_context(|| format!("removing {}", deb.display()))?;
    }
    let version = versions.join(" ");
    paths::write(&draft.join("VERSION"), &version)?;
    drop(fs::remove_dir_all(&folder));
    fs::rename(&draft, &folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(Unpacked { folder, version })
}

/// What apt knows of a package; fetches apt's lists where a fresh machine has none.
fn describe(package: &str) -> Result<String> {
    let show = || {
        Run::new("apt-cache")
            .args(["show", "--no-all-versions", package])
            .quiet()
            .capture()
    };
    match show() {
        Ok(text) if !text.trim().is_empty() => Ok(text),
        _ => {
            Apt::new()?.update()?;
            show().with_context(|| format!("apt knows no package {package}"))
        }
    }
}

/// The versioned kernel packages among a meta package's dependencies.
fn behind(described: &str) -> Vec<String> {
    let depends = described
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))
        .unwrap_or_default();
    let names = depends
        .split(',')
        .filter_map(|one| one.split_whitespace().next());
    let versioned = |name: &&str| {
        name.strip_prefix("linux-image-")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    names.filter(versioned).map(str::to_owned).collect()
}

fn debs(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn the_kernel_is_found_behind_its_meta_package() {
        let debian = "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nSize: 1\n";
        assert_eq!(behind(debian), ["linux-image-6.1.0-56-cloud-amd64"]);
        let ubuntu = "Depends: linux-image-6.8.0-60-generic, linux-image-extra, intel-microcode\n";
        assert_eq!(behind(ubuntu), ["linux-image-6.8.0-60-generic"]);
        assert_eq!(behind("Package: x\n"), Vec::<String>::new());
    }
}
