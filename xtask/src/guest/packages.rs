//! Distribution packages that are unpacked into the cache and never installed: a kernel beside the
//! machine's own would change how it boots, and `busybox-static` would push `busybox` off it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::install::apt::Shelf;
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

/// nbdkit's plugin for VMware's library, which belongs into no release's main part since it is of no use without
/// that. Debian 12 has none at all; that of the next release fits its nbdkit.
pub(crate) fn vddk_plugin() -> Result<Unpacked> {
    let package = "nbdkit-plugin-vddk";
    let choose = |_: &[String]| vec![package.to_owned()];
    if System::read().family == Family::Ubuntu {
        return unpacked(package, choose);
    }
    unpacked_from(&Shelf::of("trixie", "contrib")?, package, choose)
}

/// The shared libraries that a package takes, and those that these take, but for the C library. `wanted` are
/// the beginnings of the names of those to begin with.
pub(crate) fn libraries(package: &str, wanted: &[&str]) -> Result<Vec<Unpacked>> {
    let mut names = Vec::new();
    let begins = |name: &String| wanted.iter().any(|wanted| name.starts_with(wanted));
    let mut next: Vec<String> = dependencies(&describe(&Shelf::Usual, package)?)
        .filter(begins)
        .collect();
    while let Some(name) = next.pop() {
        if names.contains(&name) || name == "libc6" || name == "libgcc-s1" {
            continue;
        }
        next.extend(dependencies(&describe(&Shelf::Usual, &name)?));
        names.push(name);
    }
    names.sort();
    names.iter().map(|name| plain(name)).collect()
}

/// The libraries among a package's dependencies.
fn dependencies(described: &str) -> impl Iterator<Item = String> {
    let depends = described
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))
        .unwrap_or_default();
    let names = depends
        .split(',')
        .filter_map(|one| one.split_whitespace().next());
    names
        .filter(|name| name.starts_with("lib"))
        .map(str::to_owned)
}

/// The web server that imports are measured against: installed, it would serve the machine's port 80.
pub(crate) fn nginx() -> Result<Unpacked> {
    unpacked("nginx", |_| vec!["nginx".to_owned()])
}

/// What is in the cache, or else a download. `choose` gets the versioned packages behind a meta
/// package.
fn unpacked(package: &str, choose: impl Fn(&[String]) -> Vec<String>) -> Result<Unpacked> {
    unpacked_from(&Shelf::Usual, package, choose)
}

/// The same of what stands elsewhere.
fn unpacked_from(
    shelf: &Shelf,
    package: &str,
    choose: impl Fn(&[String]) -> Vec<String>,
) -> Result<Unpacked> {
    let folder = paths::cache("packages")?.join(package);
    let note = folder.join("VERSION");
    if let Ok(version) = fs::read_to_string(&note) {
        return Ok(Unpacked { folder, version });
    }
    let described = describe(shelf, package)?;
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
        .args(shelf.options())
        .args(["--quiet", "--option=Acquire::Retries=3", "download"])
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
fn describe(shelf: &Shelf, package: &str) -> Result<String> {
    let show = || {
        Run::new("apt-cache")
            .args(shelf.options())
            .args(["show", "--no-all-versions", package])
            .quiet()
            .capture()
    };
    match show() {
        Ok(text) if !text.trim().is_empty() => Ok(text),
        _ => {
            shelf.update()?;
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
    use super::{behind, dependencies};

    #[test]
    fn the_libraries_of_a_package_are_its_first_choices() {
        let text = "Package: x\nDepends: libc6 (>= 2.34), libgnutls30 (>= 3.7) | libother, zlib1g, libselinux1\n";
        let found: Vec<String> = dependencies(text).collect();
        assert_eq!(found, ["libc6", "libgnutls30", "libselinux1"]);
    }

    #[test]
    fn the_kernel_is_found_behind_its_meta_package() {
        let debian = "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nSize: 1\n";
        assert_eq!(behind(debian), ["linux-image-6.1.0-56-cloud-amd64"]);
        let ubuntu = "Depends: linux-image-6.8.0-60-generic, linux-image-extra, intel-microcode\n";
        assert_eq!(behind(ubuntu), ["linux-image-6.8.0-60-generic"]);
        assert_eq!(behind("Package: x\n"), Vec::<String>::new());
    }
}
