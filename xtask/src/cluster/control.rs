//! etcd and the control plane: their arguments, and when they are ready.

use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::pki::Pki;
use super::place::{Place, Process};
use crate::gotools::{self, KUBERNETES};
use crate::shell::Run;

/// What the services of a cluster get their addresses from; the API server has the first.
pub(super) const SERVICES: &str = "10.96.0.0/16";

/// How long a component may take on two cores that do other things too.
const PATIENCE: Duration = Duration::from_mins(2);

/// The programs of the control plane.
#[derive(Debug)]
pub(super) struct Programs {
    etcd: PathBuf,
    api_server: PathBuf,
    controller_manager: PathBuf,
    pub(super) kubectl: PathBuf,
}

impl Programs {
    pub(super) fn build() -> Result<Self> {
        let names = [
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kubectl",
        ];
        let [etcd, api_server, controller_manager, kubectl] = gotools::build(&KUBERNETES, names)?;
        Ok(Self {
            etcd,
            api_server,
            controller_manager,
            kubectl,
        })
    }
}

/// Where the API server listens, and what it calls itself.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) address: String,
    pub(super) port: u16,
    /// What pods are told to find it at.
    pub(super) advertised: String,
}

impl Api {
    pub(super) fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }
}

/// Ports that neither the kernel gives to whoever asks for any, nor a cluster to its services.
const PORTS: Range<u16> = 20_000..30_000;

/// A port of the loopback that was free a moment ago. By chance nobody takes it before who asked does, as it
/// happened with those that the kernel chooses: each connection to somewhere has one of them.
pub(super) fn free_port() -> Result<u16> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let ports = usize::from(PORTS.end - PORTS.start);
    // Another cluster of this machine looks elsewhere first.
    let first = std::process::id() as usize * 64;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..ports)
        .map(|_| (first + NEXT.fetch_add(1, Ordering::Relaxed)) % ports)
        .filter_map(|at| PORTS.clone().nth(at))
        .find(is_free)
        .with_context(|| format!("no port of {PORTS:?} is free"))
}

/// Arguments that one cluster's components have and others' do not.
#[derive(Debug, Default)]
pub(super) struct More {
    pub(super) etcd: Vec<String>,
    pub(super) api_server: Vec<String>,
    pub(super) controller_manager: Vec<String>,
}

/// The programs of a control plane, each with all it takes to start it once more.
pub(super) struct Control<'a> {
    place: &'a Place,
    programs: &'a Programs,
    pki: &'a Pki,
    api: &'a Api,
    etcd: Etcd,
    manager_port: u16,
    more: More,
}

/// Where etcd listens.
struct Etcd {
    client: String,
    peer: String,
}

const ETCD: &str = "etcd";
const API_SERVER: &str = "kube-apiserver";
const MANAGER: &str = "kube-controller-manager";

impl<'a> Control<'a> {
    pub(super) fn new(
        place: &'a Place,
        programs: &'a Programs,
        pki: &'a Pki,
        api: &'a Api,
    ) -> Result<Self> {
        let local = |port| format!("http://127.0.0.1:{port}");
        Ok(Self {
            place,
            programs,
            pki,
            api,
            etcd: Etcd {
                client: local(free_port()?),
                peer: local(free_port()?),
            },
            manager_port: free_port()?,
            more: More::default(),
        })
    }

    /// The same with more arguments.
    pub(super) fn with(self, more: More) -> Self {
        Self { more, ..self }
    }

    /// Starts etcd, the API server and the controller manager, each when the one before it is ready.
    pub(super) fn start(&self) -> Result<Vec<Process>> {
        let place = self.place;
        let mut processes = Vec::new();
        for name in [ETCD, API_SERVER] {
            processes.push(self.service(name)?);
        }
        self.pki
            .kubeconfig("admin", &self.api.url(), &place.kubeconfig())?;
        wait(place, "the API server", &processes, || {
            kubectl(self.programs, place)
                .args(["get", "--raw", "/readyz"])
                .capture()
                .is_ok_and(|answer| answer == "ok")
        })?;
        self.pki.kubeconfig(
            "controller-manager",
            &self.api.url(),
            &self.manager_config(),
        )?;
        processes.push(self.service(MANAGER)?);
        // The first thing it does that others wait for.
        wait(place, "the controller manager", &processes, || {
            kubectl(self.programs, place)
                .args(["get", "serviceaccount", "default", "-o", "name"])
                .capture()
                .is_ok()
        })?;
        Ok(processes)
    }

    /// How one of them is started, if it is one of them.
    pub(super) fn run(&self, name: &str) -> Option<Run> {
        let programs = self.programs;
        Some(match name {
            ETCD => {
                let data = self.place.file("etcd");
                etcd(&programs.etcd, &data, &self.etcd).args(&self.more.etcd)
            }
            API_SERVER => api_server(&programs.api_server, self.pki, self.api, &self.etcd.client)
                .args(&self.more.api_server),
            MANAGER => controller_manager(
                &programs.controller_manager,
                self.pki,
                &self.manager_config(),
                self.manager_port,
            )
            .args(&self.more.controller_manager),
            _ => return None,
        })
    }

    fn service(&self, name: &str) -> Result<Process> {
        let run = self.run(name);
        let run = run.with_context(|| format!("{name} is not of the control plane"))?;
        self.place.start(name, run)
    }

    fn manager_config(&self) -> PathBuf {
        self.place.file("controller-manager.kubeconfig")
    }
}

/// `kubectl` as the cluster's administrator.
pub(super) fn kubectl(programs: &Programs, place: &Place) -> Run {
    Run::new(&programs.kubectl)
        .arg("--kubeconfig")
        .arg(place.kubeconfig())
        // On a busy machine the server takes its time for the schema that `apply` asks for.
        .arg("--request-timeout=30s")
        .quiet()
}

/// Waits until `ready`, unless one of the processes it takes is gone.
pub(super) fn wait(
    place: &Place,
    what: &str,
    takes: &[Process],
    ready: impl Fn() -> bool,
) -> Result<()> {
    wait_for(PATIENCE, place, what, takes, ready)
}

/// The same for what takes several of them, one after the other.
pub(super) fn wait_for(
    patience: Duration,
    place: &Place,
    what: &str,
    takes: &[Process],
    ready: impl Fn() -> bool,
) -> Result<()> {
    let until = Instant::now() + patience;
    loop {
        if ready() {
            return Ok(());
        }
        for process in takes {
            if !process.runs() {
                let said = place.tail(&process.name);
                bail!("{} ended before {what} was ready:\n{said}", process.name);
            }
        }
        if Instant::now() > until {
            let said: Vec<String> = takes.iter().map(|p| place.tail(&p.name)).collect();
            bail!(
                "{what} was not ready after {} s:\n{}",
                patience.as_secs(),
                said.join("\n")
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn etcd(program: &Path, data: &Path, at: &Etcd) -> Run {
    let Etcd { client, peer } = at;
    Run::new(program)
        .arg("--data-dir")
        .arg(data)
        // The cluster ends with the machine; nothing in it is worth a disk's latency.
        .arg("--unsafe-no-fsync")
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
        .quiet()
}

fn api_server(program: &Path, pki: &Pki, api: &Api, etcd: &str) -> Run {
    let mut run = Run::new(program);
    for (flag, file) in [
        ("client-ca-file", pki.certificate("ca")),
        ("tls-cert-file", pki.certificate("apiserver")),
        ("tls-private-key-file", pki.key("apiserver")),
        ("kubelet-certificate-authority", pki.certificate("ca")),
        (
            "kubelet-client-certificate",
            pki.certificate("apiserver-kubelet"),
        ),
        ("kubelet-client-key", pki.key("apiserver-kubelet")),
        (
            "requestheader-client-ca-file",
            pki.certificate("front-proxy-ca"),
        ),
        ("proxy-client-cert-file", pki.certificate("front-proxy")),
        ("proxy-client-key-file", pki.key("front-proxy")),
        ("service-account-key-file", pki.key("service-accounts")),
        (
            "service-account-signing-key-file",
            pki.key("service-accounts"),
        ),
    ] {
        run = run.arg(format!("--{flag}={}", file.display()));
    }
    run.arg(format!("--etcd-servers={etcd}"))
        .arg(format!("--bind-address={}", api.address))
        .arg(format!("--secure-port={}", api.port))
        .arg(format!("--advertise-address={}", api.advertised))
        .arg(format!("--service-cluster-ip-range={SERVICES}"))
        .args([
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            // Nothing resolves the names of nodes.
            "--kubelet-preferred-address-types=InternalIP",
            "--enable-aggregator-routing=true",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--profiling=false",
        ])
        .quiet()
}

fn controller_manager(program: &Path, pki: &Pki, config: &Path, port: u16) -> Run {
    let run = component(program, config);
    run.arg(format!(
        "--root-ca-file={}",
        pki.certificate("ca").display()
    ))
    .arg(format!(
        "--cluster-signing-cert-file={}",
        pki.certificate("ca").display()
    ))
    .arg(format!(
        "--cluster-signing-key-file={}",
        pki.key("ca").display()
    ))
    .arg(format!(
        "--service-account-private-key-file={}",
        pki.key("service-accounts").display()
    ))
    .arg(format!("--secure-port={port}"))
    .args([
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=true",
        "--cluster-cidr=10.244.0.0/16",
        // Claims and garbage are collected as soon as tests look for it.
        "--pvclaimbinder-sync-period=2s",
    ])
    .arg(format!("--service-cluster-ip-range={SERVICES}"))
}

/// The scheduler, and what the controller manager begins with: there is one of each, so nobody is elected.
pub(super) fn component(program: &Path, config: &Path) -> Run {
    let mut run = Run::new(program);
    for flag in [
        "kubeconfig",
        "authentication-kubeconfig",
        "authorization-kubeconfig",
    ] {
        run = run.arg(format!("--{flag}={}", config.display()));
    }
    run.args(["--leader-elect=false", "--bind-address=127.0.0.1"])
        .quiet()
}
