//! `cargo xtask images`: our container images, without a container engine.
//!
//! An image is one layer: what our programs need of the distribution, unpacked and not installed, and the
//! programs. The same files give the same bytes. The importer's has nbdkit too, with the plugin that reads disks of
//! VMware machines once somebody brings VMware's library.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cluster::image::{Entry, Root};
use crate::guest::packages;
use crate::shell::Run;
use crate::{cargo, paths, say};

mod check;

pub(crate) use self::check::check;

/// What to make.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Push them to this registry, as REGISTRY/cdi-importer:TAG and so on
    #[arg(long, value_name = "REGISTRY")]
    push: Option<String>,
    /// Make OCI layouts of them too, as DIR/cdi-importer and so on
    #[arg(long, value_name = "DIR")]
    oci: Option<PathBuf>,
    /// The tag that they get
    #[arg(long, default_value = "dev")]
    tag: String,
    /// Build the programs with optimisation
    #[arg(long)]
    release: bool,
    /// Make them twice and compare, push them to a registry of this machine, read them with skopeo, and run what
    /// is in them (as root)
    #[arg(long, conflicts_with_all = ["push", "oci"])]
    check: bool,
}

const IMPORTER: &str = "cdi-importer";
/// Upstream's names, which manifests and mirrors know.
const IMAGES: [(&str, &str, &str); 2] = [
    (IMPORTER, "longshore-importer", "longshore-importer"),
    (
        "cdi-controller",
        "longshore-controller",
        "longshore-controller",
    ),
];

/// The user that everything runs as: that of QEMU on the distributions that know one.
const USER: &str = "107:107";

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check(args.release).map(drop);
    }
    for (name, archive) in make(&args.tag, args.release)? {
        let size = fs::metadata(&archive)?.len();
        say::line(&format!(
            "{name}  {}  {}",
            say::bytes(size),
            archive.display()
        ));
        if let Some(folder) = &args.oci {
            paths::make_dir(folder)?;
            copy(&archive, &in_layout(folder, &name))?;
        }
        if let Some(registry) = &args.push {
            copy(&archive, &in_registry(registry, &name))?;
        }
    }
    Ok(())
}

/// For skopeo.
fn in_layout(folder: &Path, name: &str) -> String {
    format!("oci:{}/{name}", folder.display())
}

fn in_registry(registry: &str, name: &str) -> String {
    format!("docker://{registry}/{name}")
}

fn copy(archive: &Path, to: &str) -> Result<()> {
    let mut run = Run::new("skopeo").args(["copy", "--insecure-policy"]);
    // A registry on this machine has no certificate; all others need one.
    if to.starts_with("docker://localhost") || to.starts_with("docker://127.") {
        run = run.arg("--dest-tls-verify=false");
    }
    run.arg(format!("docker-archive:{}", archive.display()))
        .arg(to)
        .check()
}

/// Builds the programs and packs them: pairs of a reference and a docker-archive.
pub(crate) fn make(tag: &str, release: bool) -> Result<Vec<(String, PathBuf)>> {
    make_in(&paths::target().join("images"), tag, release)
}

fn make_in(folder: &Path, tag: &str, release: bool) -> Result<Vec<(String, PathBuf)>> {
    let programs = if release {
        let packages = IMAGES
            .iter()
            .flat_map(|(_, package, _)| ["--package", package]);
        let build = cargo::locked("build").arg("--release").args(packages);
        build.check()?;
        paths::target().join("release")
    } else {
        cargo::programs()?
    };
    paths::make_dir(folder)?;
    // Two of us would take each other's files away.
    let lock = File::create(folder.join(".lock")).context("making a lock for the images")?;
    lock.lock().context("waiting for who else makes images")?;
    let mut made = Vec::new();
    for (image, _, program) in IMAGES {
        let root = base(&root_of(folder, image))?;
        if image == IMPORTER {
            nbdkit(&root)?;
        }
        let path = folder.join(program);
        strip(&programs.join(program), &path)?;
        root.program(&path, &format!("usr/bin/{program}"))?;
        let reference = format!("{image}:{tag}");
        let archive = folder.join(format!("{image}.tar"));
        let command = format!("/usr/bin/{program}");
        let entry = Entry {
            command: &[&command],
            user: USER,
        };
        root.pack(&format!("longshore.dev/{reference}"), &entry, &archive)?;
        made.push((reference, archive));
    }
    Ok(made)
}

/// The folder that an image is made of.
fn root_of(folder: &Path, image: &str) -> PathBuf {
    folder.join(format!("root-{image}"))
}

/// Where Debian has its libraries, below `lib` and `usr/lib`.
const LIBRARIES: &str = "x86_64-linux-gnu";

/// nbdkit with its plugin for VMware's library, and what these two and that library take.
fn nbdkit(root: &Root) -> Result<()> {
    let program = packages::plain("nbdkit")?.folder.join("usr/bin/nbdkit");
    root.program(&program, "usr/bin/nbdkit")?;
    let plugins = format!("usr/lib/{LIBRARIES}/nbdkit/plugins");
    let from = packages::vddk_plugin()?.folder.join(&plugins);
    root.matching(&from, &plugins, |name| name == "nbdkit-vddk-plugin.so")?;
    // The C++ library, and the one for passwords, are for VMware's.
    let mut all = packages::libraries("nbdkit", &["libgnutls", "libselinux", "libstdc++"])?;
    all.push(packages::plain("libcrypt1")?);
    let is_library = |name: &str| name.starts_with("lib") && name.contains(".so");
    for package in all {
        for part in ["lib", "usr/lib"] {
            let from = package.folder.join(part).join(LIBRARIES);
            if from.exists() {
                root.matching(&from, &format!("usr/lib/{LIBRARIES}"), is_library)?;
            }
        }
    }
    Ok(())
}

/// Without what only a debugger reads.
fn strip(from: &Path, to: &Path) -> Result<()> {
    Run::new("strip")
        .arg("-o")
        .arg(to)
        .arg(from)
        .quiet()
        .capture()
        .map(drop)
}

/// The C library, certificates, a shell, and names for users.
fn base(folder: &Path) -> Result<Root> {
    let root = Root::new(folder.to_owned())?;
    for package in ["libc6", "libgcc-s1", "busybox-static"] {
        let unpacked = packages::plain(package)?;
        for part in ["lib", "lib64", "bin"] {
            let part = unpacked.folder.join(part);
            if part.exists() {
                root.tree(&part)?;
            }
        }
    }
    for name in ["sh", "ls", "cat", "df", "dd", "sha256sum", "stat", "sleep"] {
        root.link("busybox", &format!("bin/{name}"))?;
    }
    root.file("etc/ssl/certs/ca-certificates.crt", &authorities()?)?;
    root.file(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nqemu:x:107:107:qemu:/:/bin/sh\n",
    )?;
    root.file("etc/group", "root:x:0:\nqemu:x:107:\n")?;
    root.file("etc/nsswitch.conf", "hosts: files dns\n")?;
    for name in ["tmp", "data", "proc", "sys", "dev"] {
        root.folder(name)?;
    }
    root.open_to_all("tmp")?;
    Ok(root)
}

/// All authorities of the distribution's package, one after the other.
fn authorities() -> Result<String> {
    let folder = packages::plain("ca-certificates")?.folder;
    let folder = folder.join("usr/share/ca-certificates/mozilla");
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        files.push(entry?.path());
    }
    files.sort();
    let mut all = String::new();
    for file in files {
        all += &paths::read(&file)?;
    }
    Ok(all)
}
