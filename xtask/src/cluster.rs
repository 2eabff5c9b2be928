//! `cargo xtask cluster`: a real Kubernetes on this machine, from packages and Go modules alone.
//!
//! Two tiers. `api` is etcd, the API server and the controller manager as plain processes on loopback:
//! everything about objects, nothing that runs a pod. `up` is a whole node as well, in namespaces of its
//! own, so that the host keeps its interfaces, mounts and packet filters.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use self::control::{Api, Control, More, Programs};
use self::pki::Pki;
use self::place::{Place, State};
use crate::gotools::{self, COREDNS, CSI, KUBERNETES, LOCAL_PATH};
use crate::shell::Run;
use crate::{images, paths, say};

mod addons;
mod control;
pub(crate) mod crowd;
mod csi;
mod demo;
pub(crate) mod image;
mod node;
mod pki;
mod place;
mod power;
mod report;
mod volumes;
mod watched;

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole cluster with one node, in namespaces of its own (as root)
    Up(Which),
    /// Start etcd, kube-apiserver and kube-controller-manager
    Api(Which),
    /// Tell which clusters there are and what of them runs
    Status(Which),
    /// End a cluster and remove everything of it
    Down(Which),
    /// Cut the power of a cluster's node, and start it again
    Reboot(Which),
    /// Import an image by a data volume, with a live view and where the time went
    Demo(demo::Args),
    /// Measure how long each step of an import takes, and write it down
    Report(report::Args),
    /// Only build what the others start, into the cache
    Build,
    /// What `demo` starts in the node's network
    #[command(hide = true)]
    Serve {
        /// The file to serve
        file: PathBuf,
    },
    /// What `up` starts in the node's namespaces
    #[command(hide = true)]
    Node(Which),
}

/// Which cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// Its name; clusters of different names stand side by side
    #[arg(long, default_value = "default")]
    name: String,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Api(which) => api(&Place::of(&which.name)?),
        Command::Status(which) => status(&Place::of(&which.name)?),
        Command::Down(which) => down(&Place::of(&which.name)?),
        Command::Up(which) => up(&Place::of(&which.name)?),
        Command::Reboot(which) => power::ask(&Place::of(&which.name)?),
        Command::Node(which) => node::run(&Place::of(&which.name)?.inside()),
        Command::Demo(args) => demo::run(args),
        Command::Report(args) => report::run(args),
        Command::Serve { file } => demo::serve(file),
        Command::Build => build(),
    }
}

/// An API server for tests, which goes with this.
#[derive(Debug)]
pub(crate) struct Running {
    place: Place,
    kubectl: PathBuf,
}

impl Running {
    /// Starts the control plane, with our definitions.
    pub(crate) fn api(name: &str) -> Result<Self> {
        let programs = Programs::build()?;
        let running = Self {
            place: Place::of(name)?,
            kubectl: programs.kubectl.clone(),
        };
        begin(&running.place, &programs, More::default())?;
        definitions(&running.place, &programs)?;
        Ok(running)
    }

    /// Starts a whole node.
    pub(crate) fn node(name: &str) -> Result<Self> {
        let place = Place::of(name)?;
        up(&place)?;
        Ok(Self {
            place,
            kubectl: Programs::build()?.kubectl,
        })
    }

    /// A command in the namespaces of the node, with what a test is told about it.
    pub(crate) fn within(&self, run: &Run) -> Result<Run> {
        let init = self.place.init()?;
        let inside = self.place.clone().inside();
        Ok(Run::new("nsenter")
            .arg(format!("--target={}", init.pid))
            .args(["--net", "--mount", "--pid", "--ipc"])
            // In other mounts it starts at their root.
            .args(["sh", "-c", r#"cd "$0" && exec "$@""#])
            .arg(paths::root())
            .then(run)
            .env("LONGSHORE_KUBECONFIG", inside.kubeconfig())
            .env("LONGSHORE_KUBECTL", &self.kubectl)
            .env("LONGSHORE_NODE", &self.place.folder)
            .env("LONGSHORE_NODE_ADDRESS", node::ADDRESS))
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.place.kubeconfig()
    }

    pub(crate) fn kubectl(&self) -> &Path {
        &self.kubectl
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = down(&self.place) {
            say::problem(&format!("{error:#}"));
        }
    }
}

/// Starts an API server for people.
fn api(place: &Place) -> Result<()> {
    let programs = Programs::build()?;
    fresh(place, "an API without nodes", &programs, || {
        begin(place, &programs, More::default()).map(drop)
    })
}

/// Starts a node, and the control plane beside it.
fn up(place: &Place) -> Result<()> {
    up_with(place, false)
}

/// The same with images of programs that are optimised, or not.
fn up_with(place: &Place, release: bool) -> Result<()> {
    if Run::new("id").arg("-u").quiet().capture()?.trim() != "0" {
        bail!("a node takes namespaces, mounts and cgroups: run it as root");
    }
    crate::install::for_a_node()?;
    build()?;
    let programs = Programs::build()?;
    let images = images::make("dev", release)?;
    fresh(place, "a node, with Longshore installed", &programs, || {
        let folder = place.make("images")?;
        for (_, archive) in &images {
            let name = archive.file_name().unwrap_or_default();
            fs::copy(archive, folder.join(name))
                .with_context(|| format!("copying {}", archive.display()))?;
        }
        csi::build(place)?;
        namespaces(place)?;
        install(place, &programs)
    })
}

/// Starts what is not there yet, and tells how to go on. Nothing of it is left if that fails.
fn fresh(
    place: &Place,
    what: &str,
    programs: &Programs,
    start: impl FnOnce() -> Result<()>,
) -> Result<()> {
    match place.state() {
        State::Up => bail!(
            "the cluster {} runs already; `cargo xtask cluster down --name {0}` ends it",
            place.name
        ),
        State::Starting(process) => bail!(
            "the cluster {} is being started by process {}",
            place.name,
            process.pid
        ),
        State::Interrupted => say::line(&format!(
            "what was begun of the cluster {} is removed: whoever started it was stopped midway",
            place.name
        )),
        State::Down => {}
    }
    down(place)?;
    paths::make_dir(&place.folder)?;
    let started = Instant::now();
    place.starts()?;
    let outcome = start().and_then(|()| place.has_started());
    if outcome.is_err() {
        // What it said is in the error; what is left of it would only be in the way.
        down(place)?;
    }
    outcome?;
    say::line(&format!(
        "the cluster {} is ready after {:.1} s: {what}. Try\n  export KUBECONFIG={}\n  {} get namespaces\n  cargo xtask cluster down --name {0}",
        place.name,
        started.elapsed().as_secs_f32(),
        place.kubeconfig().display(),
        programs.kubectl.display(),
    ));
    Ok(())
}

/// Makes the node's namespaces and waits until what runs in them is ready.
fn namespaces(place: &Place) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("opening a port for the cluster")?;
    let own = std::env::current_exe().context("finding xtask itself")?;
    // The first process of a process namespace buries all orphans in it; a shell knows how.
    let first = r#"exec 3<&0; "$@" <&3 3<&- & wait $!"#;
    let run = Run::new("unshare")
        .args(["--net", "--mount", "--pid", "--ipc", "--fork"])
        .args(["--kill-child", "--mount-proc", "sh", "-c", first, "node"])
        .arg(own)
        .args(["cluster", "node", "--name", &place.name])
        .quiet();
    let outer = place.start_with("node", run, Stdio::from(OwnedFd::from(listener)))?;
    let pid = outer.pid;
    // Whoever gives up first inside says what was not ready there.
    let patience = Duration::from_mins(10);
    control::wait_for(patience, place, "the node", &[outer], || {
        place.file("ready").exists()
    })?;
    let children = format!("/proc/{pid}/task/{pid}/children");
    let inner = paths::read(Path::new(&children))?;
    let inner = inner
        .trim()
        .parse()
        .context("finding the node's first process")?;
    place.note("init", inner).map(drop)
}

/// Installs the definitions of our objects, and waits until the API server serves them.
fn definitions(place: &Place, programs: &Programs) -> Result<()> {
    let file = paths::root().join("deploy/crds.yaml");
    let kubectl = || control::kubectl(programs, place);
    kubectl().args(["apply", "-f"]).arg(&file).capture()?;
    kubectl()
        .args(["wait", "--for=condition=Established", "--timeout=60s"])
        .args(["--request-timeout=0", "-f"])
        .arg(&file)
        .capture()
        .map(drop)
}

/// Installs Longshore as docs/cluster.md tells people to, and waits until it works.
fn install(place: &Place, programs: &Programs) -> Result<()> {
    definitions(place, programs)?;
    let kubectl = || control::kubectl(programs, place);
    let deploy = paths::root().join("deploy");
    kubectl()
        .args(["apply", "-f"])
        .arg(deploy.join("longshore.yaml"))
        .capture()?;
    kubectl()
        .args([
            "-n",
            "cdi",
            "wait",
            "--for=condition=Available",
            "--timeout=120s",
        ])
        .args(["--request-timeout=0", "deployment/cdi-deployment"])
        .capture()
        .map(drop)
}

/// Ends a cluster and removes what is left of it.
fn down(place: &Place) -> Result<()> {
    place.end()?;
    volumes::detach(place)?;
    node::remove_cgroups(place)?;
    place.remove()
}

/// Builds, or finds, all that `up` starts.
fn build() -> Result<()> {
    for module in [&KUBERNETES, &COREDNS, &LOCAL_PATH, &CSI] {
        gotools::build_all(module)?;
    }
    csi::definitions().map(drop)
}

/// Starts the control plane on loopback, and says what others need who are let in.
fn begin(place: &Place, programs: &Programs, more: More) -> Result<(Pki, Api)> {
    let api = Api {
        address: "127.0.0.1".to_owned(),
        port: control::free_port()?,
        advertised: "127.0.0.1".to_owned(),
    };
    let pki = Pki::make(place, &api.address, None)?;
    let control = Control::new(place, programs, &pki, &api)?;
    control.with(more).start()?;
    Ok((pki, api))
}

fn status(place: &Place) -> Result<()> {
    let running = place.running();
    match place.state() {
        State::Down => bail!("no cluster {} runs", place.name),
        State::Up => {}
        State::Starting(process) => {
            say::line(&format!("process {} is starting it", process.pid));
        }
        State::Interrupted => say::line("it is not whole: whoever started it was stopped midway"),
    }
    for process in &running {
        say::line(&format!("{:>8}  {}", process.pid, process.name));
    }
    say::line(&format!("KUBECONFIG={}", place.kubeconfig().display()));
    Ok(())
}
