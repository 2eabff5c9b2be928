//! Driving apt: as root, through sudo when we are not, every command shown before it runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::install::LOCK_WAIT;
use crate::shell::Run;
use crate::{paths, say};

/// Where packages stand that are unpacked and never installed.
#[derive(Debug)]
pub(crate) enum Shelf {
    /// Among the machine's own.
    Usual,
    /// In a release or a part of one that the machine does not use. Its lists are in a folder of ours, and the
    /// machine's apt does not see them.
    Own(PathBuf),
}

impl Shelf {
    /// A part of a release of Debian, from the mirror that the machine uses.
    pub(crate) fn of(release: &str, part: &str) -> Result<Self> {
        let folder = paths::cache("apt")?.join(format!("{release}-{part}"));
        paths::make_dir(&folder.join("lists/partial"))?;
        let targets = targets()?;
        let mirror = ["bookworm", "trixie"]
            .iter()
            .find_map(|suite| site_of(&targets, suite))
            .unwrap_or("http://deb.debian.org/debian");
        let line = format!("deb {}{mirror} {release} {part}\n", signed());
        paths::write(&folder.join("sources.list"), line)?;
        Ok(Self::Own(folder))
    }

    /// For apt's programs.
    pub(crate) fn options(&self) -> Vec<String> {
        let Self::Own(folder) = self else {
            return Vec::new();
        };
        let folder = folder.display();
        vec![
            format!("--option=Dir::Etc::SourceList={folder}/sources.list"),
            "--option=Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("--option=Dir::State::Lists={folder}/lists"),
            "--option=Dir::Cache::pkgcache=".to_owned(),
            "--option=Dir::Cache::srcpkgcache=".to_owned(),
        ]
    }

    /// Fetches the lists of what there is.
    pub(crate) fn update(&self) -> Result<()> {
        match self {
            Self::Usual => Apt::new()?.update(),
            Self::Own(_) => Run::new("apt-get")
                .args(self.options())
                .args(["--quiet", "--option=Acquire::Retries=3", "update"])
                .check(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Apt {
    sudo: bool,
}

impl Apt {
    pub(crate) fn new() -> Result<Self> {
        let root = Run::new("id").arg("-u").quiet().capture()?.trim() == "0";
        if !root && paths::program("sudo").is_none() {
            bail!(
                "packages are missing, and installing them needs root or sudo: run `cargo xtask install` as root once"
            );
        }
        Ok(Self { sudo: !root })
    }

    pub(crate) fn update(&self) -> Result<()> {
        self.get().arg("update").check()
    }

    /// Installs packages, out of `suite` if one is named.
    pub(crate) fn install(&self, packages: &[&str], suite: Option<&str>) -> Result<()> {
        let run = self
            .get()
            .args(["install", "--yes", "--no-install-recommends"]);
        let run = match suite {
            Some(suite) => run.arg("--target-release").arg(suite),
            None => run,
        };
        run.args(packages).check()
    }

    /// Adds a suite to apt's sources, in a file of its own, unless some file has it already. The
    /// mirror is that of the release's own suite, so that a machine with a local mirror stays on
    /// it.
    pub(crate) fn add_suite(&self, release: &str, suite: &str) -> Result<()> {
        let targets = targets()?;
        if site_of(&targets, suite).is_some() {
            return Ok(());
        }
        let mirror = site_of(&targets, release).with_context(|| {
            format!("apt has no source for {release} to derive the one of {suite} from")
        })?;
        let line = format!("deb {}{mirror} {suite} main\n", signed());
        let draft = paths::cache("apt")?.join("longshore-backports.list");
        paths::write(&draft, &line)?;
        say::line(&format!("adding to apt's sources: {}", line.trim_end()));
        let target = "/etc/apt/sources.list.d/longshore-backports.list";
        self.root("install")
            .args(["-m", "644"])
            .arg(&draft)
            .arg(target)
            .check()
    }

    fn get(&self) -> Run {
        self.root("env")
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o"])
            .arg(format!("DPkg::Lock::Timeout={}", LOCK_WAIT.as_secs()))
    }

    fn root(&self, program: &str) -> Run {
        if self.sudo {
            Run::new("sudo").arg(program)
        } else {
            Run::new(program)
        }
    }
}

/// What apt knows of, as lines `SUITE COMPONENT SITE`.
fn targets() -> Result<String> {
    Run::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(RELEASE) $(COMPONENT) $(SITE)",
            "Created-By: Packages",
        ])
        .quiet()
        .capture()
}

/// Who vouches for a suite of Debian, for a line of apt's sources.
fn signed() -> String {
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if Path::new(keys).exists() {
        format!("[signed-by={keys}] ")
    } else {
        String::new()
    }
}

/// The mirror that serves a suite's main component, out of `SUITE COMPONENT SITE` lines.
fn site_of<'a>(targets: &'a str, suite: &str) -> Option<&'a str> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(suite) && words.next() == Some("main"))
            .then(|| words.next())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::site_of;

    #[test]
    fn the_mirror_of_a_suite_is_found_by_its_exact_name() {
        let targets = "bookworm-updates main http://one/debian\nbookworm contrib http://two/debian\nbookworm main http://three/debian\n";
        assert_eq!(site_of(targets, "bookworm"), Some("http://three/debian"));
        assert_eq!(site_of(targets, "bookworm-backports"), None);
        assert_eq!(site_of("", "bookworm"), None);
    }
}
