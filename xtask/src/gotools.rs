//! Programs written in Go that we test with or against, built from Go's module proxy.
//!
//! Each folder of `tools/` is a module that pins what it builds by `go.mod` and `go.sum`. What was built
//! lies in the cache outside the checkout, under a key of these two files, of the flags and of Go's own
//! version, so that it is built once per machine and never taken for something else.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell::Run;
use crate::{paths, say};

/// A folder of `tools/`.
#[derive(Debug)]
pub(crate) struct Module {
    folder: &'static str,
    /// What the linker is told besides leaving out symbols.
    ldflags: &'static str,
    programs: &'static [Program],
}

#[derive(Debug)]
struct Program {
    name: &'static str,
    package: &'static str,
    /// How its version starts; one with this version that is there already is taken.
    version: &'static str,
}

const fn program(name: &'static str, package: &'static str, version: &'static str) -> Program {
    Program {
        name,
        package,
        version,
    }
}

/// etcd, the control plane, kubelet, kube-proxy and kubectl.
pub(crate) const KUBERNETES: Module = Module {
    folder: "kubernetes",
    ldflags: "-X k8s.io/component-base/version.gitVersion=v1.34.4 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34",
    programs: &[
        program("etcd", "go.etcd.io/etcd/server/v3", "3.6."),
        program(
            "kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "v1.34.",
        ),
        program(
            "kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "v1.34.",
        ),
        program(
            "kube-scheduler",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "v1.34.",
        ),
        program("kubectl", "k8s.io/kubernetes/cmd/kubectl", "v1.34."),
        program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", "v1.34."),
        program("kubelet", "k8s.io/kubernetes/cmd/kubelet", "v1.34."),
    ],
};

/// The name server for pods.
pub(crate) const COREDNS: Module = Module {
    folder: "coredns",
    ldflags: "",
    programs: &[program(
        "coredns",
        "longshore.test/tools/coredns",
        "-1.12.4",
    )],
};

/// The provisioner of volumes that are folders of the node.
pub(crate) const LOCAL_PATH: Module = Module {
    folder: "local-path",
    ldflags: "",
    programs: &[program(
        "local-path-provisioner",
        "github.com/rancher/local-path-provisioner",
        "v0.0.30",
    )],
};

/// What stands between Kubernetes and a CSI driver. They do not tell their versions.
pub(crate) const CSI: Module = Module {
    folder: "csi",
    ldflags: "",
    programs: &[
        program(
            "csi-provisioner",
            "github.com/kubernetes-csi/external-provisioner/v5/cmd/csi-provisioner",
            "v5.1.0",
        ),
        program(
            "csi-resizer",
            "github.com/kubernetes-csi/external-resizer/cmd/csi-resizer",
            "v1.14.0",
        ),
        program(
            "csi-snapshotter",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
            "v8.2.0",
        ),
        program(
            "snapshot-controller",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
            "v8.2.0",
        ),
    ],
};

/// What plays the kubelet where thousands of pods are to run and none does. It does not tell its version.
pub(crate) const KWOK: Module = Module {
    folder: "kwok",
    ldflags: "",
    programs: &[program("kwok", "sigs.k8s.io/kwok/cmd/kwok", "v0.7.0")],
};

/// Object stores that the importer's tests read from.
pub(crate) const STORES: Module = Module {
    folder: "stores",
    ldflags: "",
    programs: &[
        program(
            "versitygw",
            "github.com/versity/versitygw/cmd/versitygw",
            "1.8.0",
        ),
        program(
            "fake-gcs-server",
            "github.com/fsouza/fake-gcs-server",
            "1.56.1",
        ),
    ],
};

/// The vCenter that the importer's tests ask.
pub(crate) const VSPHERE: Module = Module {
    folder: "vsphere",
    ldflags: "",
    programs: &[program(
        "vsphere-simulator",
        "longshore.test/tools/vsphere",
        "0.52.0",
    )],
};

/// The giver of tokens for the tests of registries. It does not tell its version.
pub(crate) const TOKENS: Module = Module {
    folder: "tokens",
    ldflags: "",
    programs: &[program(
        "token-server",
        "github.com/docker/distribution/contrib/token-server",
        "2.8.3",
    )],
};

/// Builds what the tests run, in the order in which they need it.
pub(crate) fn run() -> Result<()> {
    let modules = [
        STORES, VSPHERE, TOKENS, KUBERNETES, COREDNS, LOCAL_PATH, CSI,
    ];
    modules.iter().try_for_each(build_all)
}

/// Paths are not trimmed from what is built: they are what modules with the same version of a library, one of
/// them by a replacement, would not have in common, and so each would compile it for itself. Nothing needs C:
/// with it, most of the standard library and all that is built on it is another one.
const FLAGS: [&str; 2] = ["-mod=readonly", "-buildvcs=false"];

/// Beyond what the largest takes on two busy cores.
const LIMIT: Duration = Duration::from_mins(45);

/// Builds what is missing of these programs of a module; gives their paths in the same order. What
/// `KUBEBUILDER_ASSETS` or the `PATH` has in the right version is not built.
pub(crate) fn build<const N: usize>(module: &Module, names: [&str; N]) -> Result<[PathBuf; N]> {
    let mut found = Vec::with_capacity(N);
    for name in names {
        let program = module
            .programs
            .iter()
            .find(|program| program.name == name)
            .with_context(|| format!("tools/{} does not build {name}", module.folder))?;
        let path = match present(program) {
            Some(path) => path,
            None => built(module, program)?,
        };
        found.push(path);
    }
    found
        .try_into()
        .map_err(|_| anyhow::anyhow!("every program has a path"))
}

/// The same of all programs of a module.
pub(crate) fn build_all(module: &Module) -> Result<()> {
    for program in module.programs {
        build(module, [program.name])?;
    }
    Ok(())
}

/// Files of a module that one of ours names in its `go.mod`, out of the cache like all that is built.
pub(crate) fn files(module: &Module, of: &str, names: &[&str]) -> Result<Vec<PathBuf>> {
    let source = source(module);
    let bin = bin(module, &source)?;
    let file = |name: &&str| bin.join(name.rsplit('/').next().unwrap_or(name));
    let found: Vec<PathBuf> = names.iter().map(file).collect();
    if found.iter().all(|path| path.is_file()) {
        return Ok(found);
    }
    let said = Run::new("go")
        .args(["mod", "download", "-json", of])
        .dir(&source)
        .quiet()
        .capture()?;
    let said: serde_json::Value =
        serde_json::from_str(&said).with_context(|| format!("reading what go says of {of}"))?;
    let folder = said["Dir"].as_str().map(Path::new);
    let folder = folder.with_context(|| format!("go has no folder for {of}"))?;
    for (name, path) in names.iter().zip(&found) {
        // Under its name only when it is whole.
        let draft = bin.join(format!(".file-{}", std::process::id()));
        paths::write(&draft, paths::read(&folder.join(name))?)?;
        std::fs::rename(&draft, path).with_context(|| format!("making {}", path.display()))?;
    }
    Ok(found)
}

/// One that somebody else has put there.
fn present(program: &Program) -> Option<PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let candidates = assets
        .map(|folder| folder.join(program.name))
        .filter(|path| path.is_file())
        .into_iter()
        .chain(paths::program(program.name));
    candidates
        .into_iter()
        .find(|path| speaks_of(path, program.version))
}

/// Every one of them answers `--version` or `version`.
fn speaks_of(path: &Path, version: &str) -> bool {
    [&["--version"][..], &["version", "--client"][..]]
        .iter()
        .any(|args| {
            let answer = Run::new(path).args(*args).quiet().capture();
            answer.is_ok_and(|text| text.contains(version))
        })
}

fn built(module: &Module, program: &Program) -> Result<PathBuf> {
    let source = source(module);
    let bin = bin(module, &source)?;
    let path = bin.join(program.name);
    if path.is_file() {
        return Ok(path);
    }
    // Who else builds it at this time, ahead of the tests that need it, say, builds it for us, too.
    let lock = bin.join(format!(".{}.lock", program.name));
    let lock = File::create(&lock).with_context(|| format!("making {}", lock.display()))?;
    lock.lock()
        .with_context(|| format!("waiting for who else builds {}", program.name))?;
    if path.is_file() {
        return Ok(path);
    }
    if paths::program("go").is_none() {
        bail!(
            "{} is built from Go's module proxy, and there is no `go`: install Go 1.26, or 1.21 and later if it may fetch 1.26 itself (https://go.dev/dl)",
            program.name
        );
    }
    say::line(&format!(
        "building {} once, for the cache {}",
        program.name,
        bin.display()
    ));
    // Under its name only when it is whole.
    let draft = bin.join(format!(".{}-{}", program.name, std::process::id()));
    let started = Instant::now();
    let status = Run::new("go")
        .arg("build")
        .args(FLAGS)
        .arg("-ldflags")
        .arg(format!("-s -w {}", module.ldflags).trim_end())
        .arg("-o")
        .arg(&draft)
        .arg(program.package)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "")
        .dir(&source)
        .watch(LIMIT, |_| ())?;
    if !status.success() {
        bail!("go build of {} failed ({status})", program.name);
    }
    std::fs::rename(&draft, &path).with_context(|| format!("making {}", path.display()))?;
    say::line(&format!(
        "{} was built in {} s",
        program.name,
        started.elapsed().as_secs()
    ));
    Ok(path)
}

fn source(module: &Module) -> PathBuf {
    paths::root().join("tools").join(module.folder)
}

/// Where what is built of a module lies.
fn bin(module: &Module, source: &Path) -> Result<PathBuf> {
    let bin = paths::cache("go")?.join(format!("{}-{:016x}", module.folder, key(module, source)?));
    paths::make_dir(&bin)?;
    Ok(bin)
}

/// The same for the same sources, flags and compiler. What has no source of its own has no `main.go`.
fn key(module: &Module, source: &Path) -> Result<u64> {
    // Not the hasher of maps: this one has no secret, and gives the same every time.
    let mut hasher = DefaultHasher::new();
    for file in ["go.mod", "go.sum"] {
        paths::read(&source.join(file))?.hash(&mut hasher);
    }
    let own = source.join("main.go");
    if own.exists() {
        paths::read(&own)?.hash(&mut hasher);
    }
    FLAGS.hash(&mut hasher);
    module.ldflags.hash(&mut hasher);
    if let Ok(version) = Run::new("go").arg("version").quiet().capture() {
        version.hash(&mut hasher);
    }
    Ok(hasher.finish())
}
