//! The node tier, from inside: what runs as the first processes of namespaces of its own.
//!
//! `up` starts [`run`] under `unshare`, so interfaces, mounts, packet filters and process numbers are the
//! cluster's alone, and end with it. The one thing that leads in is a listener on the host's loopback,
//! which comes as standard input: what connects to it is passed on to the API server.

use std::fs;
use std::io::{self, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::control::{self, Api, Control, Programs};
use super::pki::Pki;
use super::place::{Place, Process};
use super::{addons, csi, image, power, volumes};
use crate::gotools::{self, KUBERNETES};
use crate::paths;
use crate::shell::Run;

pub(super) const NAME: &str = "node-1";
/// The node's address. Nobody outside its namespace sees it.
pub(super) const ADDRESS: &str = "192.168.127.2";
/// Where the API server listens.
const PORT: u16 = 6443;
/// What the pods get their addresses from.
const PODS: &str = "10.244.0.0/24";
/// Where the name server for pods is.
pub(super) const DNS: &str = "10.96.0.10";
const PAUSE: &str = "longshore.test/pause:1";

/// The programs of a node.
struct Tools {
    kubelet: PathBuf,
    proxy: PathBuf,
    scheduler: PathBuf,
}

/// Where the node's programs keep what cannot be put elsewhere: of a cluster's own, in its mounts.
pub(super) const KEPT_BY_OTHERS: [&str; 5] = [
    "/run/netns",
    "/run/containerd",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
];

/// Starts everything, says so in the file `ready`, and starts again what ends.
pub(super) fn run(place: &Place) -> Result<()> {
    let programs = Programs::build()?;
    let names = ["kubelet", "kube-proxy", "kube-scheduler"];
    let [kubelet, proxy, scheduler] = gotools::build(&KUBERNETES, names)?;
    let tools = Tools {
        kubelet,
        proxy,
        scheduler,
    };
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let outside = listener
        .local_addr()
        .context("standard input is no listener")?;
    network()?;
    mounts(place)?;
    thread::spawn(move || pass_on(&listener));

    let pki = Pki::make(place, ADDRESS, Some((NAME, ADDRESS)))?;
    let api = Api {
        address: ADDRESS.to_owned(),
        port: PORT,
        advertised: ADDRESS.to_owned(),
    };
    let control = Control::new(place, &programs, &pki, &api)?;
    let mut services = control.start()?;
    // From outside it is reached through the listener.
    pki.kubeconfig(
        "admin",
        &format!("https://{outside}"),
        &place.file("kubeconfig"),
    )?;
    for name in ["scheduler", "kubelet", "proxy"] {
        pki.kubeconfig(name, &api.url(), &config(place, name))?;
    }

    let node = Node {
        place,
        programs: &programs,
        tools,
        pki: &pki,
        control: &control,
    };
    services.extend(node.start()?);
    // Objects of the one are made while pods of the other start.
    thread::scope(|scope| {
        let storage = scope.spawn(|| -> Result<()> {
            csi::apply(place, &programs)?;
            volumes::make(place, &programs)
        });
        addons::apply(place, &programs)?;
        let ended = storage.join();
        ended.unwrap_or_else(|_| bail!("making the storage classes panicked"))
    })?;
    for name in csi::SNAPSHOTS {
        services.push(node.service(name)?);
    }
    csi::ready(place, &programs)?;
    paths::write(&place.file("ready"), "")?;
    loop {
        thread::sleep(Duration::from_millis(500));
        if power::is_to_be_cut(place) {
            power::cut(place, &services)?;
        }
        for service in &mut services {
            if !service.runs() {
                *service = node.service(&service.name.clone())?;
            }
        }
    }
}

fn config(place: &Place, name: &str) -> PathBuf {
    place.file(&format!("{name}.kubeconfig"))
}

/// Loopback, and an address that is not loopback's for whoever insists on one.
fn network() -> Result<()> {
    for words in [
        "link set lo up",
        "link add node0 type bridge",
        "link set node0 up",
        &format!("address add {ADDRESS}/32 dev node0"),
        // Packets to services need a route before they are sent elsewhere.
        "route add default dev node0",
    ] {
        Run::new("ip").args(words.split(' ')).quiet().capture()?;
    }
    paths::write(Path::new("/proc/sys/net/ipv4/ip_forward"), "1")
}

/// Volumes are mounted in one place and seen in another, which takes mounts that are shared, among us.
fn mounts(place: &Place) -> Result<()> {
    Run::new("mount")
        .args(["--make-rshared", "/"])
        .quiet()
        .capture()?;
    for (number, kept) in KEPT_BY_OTHERS.iter().enumerate() {
        let own = place.file(&format!("kept-{number}"));
        paths::make_dir(&own)?;
        paths::make_dir(Path::new(kept))?;
        let mut mount = Run::new("mount");
        mount = mount.arg("--bind").arg(&own).arg(kept);
        mount.quiet().capture()?;
    }
    for hierarchy in cgroups()? {
        let own = hierarchy.join(cgroup(place));
        paths::make_dir(&own)?;
        // A group without processors and memory can't hold anything.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read_to_string(hierarchy.join(file)) {
                paths::write(&own.join(file), all)?;
            }
        }
    }
    Ok(())
}

/// Where everything the node starts is accounted.
pub(super) fn cgroup(place: &Place) -> String {
    format!("longshore-{}", place.name)
}

/// The cgroup hierarchies of this host.
fn cgroups() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(root).context("looking for cgroups")? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            all.push(path);
        }
    }
    Ok(all)
}

/// Removes the groups that a cluster leaves behind.
pub(super) fn remove_cgroups(place: &Place) -> Result<()> {
    for hierarchy in cgroups()? {
        let group = hierarchy.join(cgroup(place));
        let until = Instant::now() + Duration::from_secs(10);
        // Processes that were killed are not gone at once.
        while let Err(error) = remove_group(&group) {
            if Instant::now() > until {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn remove_group(group: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(group) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            remove_group(&path)?;
        }
    }
    fs::remove_dir(group).with_context(|| format!("removing the cgroup {}", group.display()))
}

/// Passes connections from the host on to the API server.
fn pass_on(listener: &TcpListener) {
    for outer in listener.incoming().flatten() {
        thread::spawn(move || {
            let inner = TcpStream::connect((ADDRESS, PORT))?;
            let (outer_too, inner_too) = (outer.try_clone()?, inner.try_clone()?);
            thread::spawn(move || relay(outer_too, inner_too));
            relay(inner, outer);
            io::Result::Ok(())
        });
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream) {
    // Either end may go whenever it likes; the other is told.
    drop(copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}

struct Node<'a> {
    place: &'a Place,
    programs: &'a Programs,
    tools: Tools,
    pki: &'a Pki,
    control: &'a Control<'a>,
}

impl Node<'_> {
    /// Starts what a node has, and waits until it is one.
    fn start(&self) -> Result<Vec<Process>> {
        let place = self.place;
        let mut services = vec![self.service("kube-scheduler")?];
        let driver = self.service(csi::DRIVER)?;
        csi::listens(place, &driver)?;
        services.push(driver);
        let sidecars = csi::SIDECARS.map(|name| self.service(name));
        self.configure()?;
        let containerd = self.service("containerd")?;
        services.push(containerd.clone());
        control::wait(place, "containerd", &[containerd], || {
            self.ctr().args(["version"]).capture().is_ok()
        })?;
        self.import(&self.pause()?)?;
        let mut archives = addons::images(place)?;
        for entry in fs::read_dir(place.make("images")?).context("looking for our images")? {
            archives.push(entry?.path());
        }
        for archive in archives {
            self.import(&archive)?;
        }
        services.push(self.service("kubelet")?);
        services.push(self.service("kube-proxy")?);
        control::wait(place, "the node", &services, || {
            control::kubectl(self.programs, place)
                .args(["get", "node", NAME, "-o"])
                .arg("jsonpath={.status.conditions[?(@.type=='Ready')].status}")
                .capture()
                .is_ok_and(|ready| ready == "True")
        })?;
        for sidecar in sidecars {
            services.push(sidecar?);
        }
        Ok(services)
    }

    fn service(&self, name: &str) -> Result<Process> {
        let place = self.place;
        let run = match name {
            "containerd" => Run::new("containerd")
                .arg("--config")
                .arg(place.file("containerd.toml")),
            "kubelet" => Run::new(&self.tools.kubelet)
                .arg(format!("--config={}", place.file("kubelet.yaml").display()))
                .arg(format!(
                    "--kubeconfig={}",
                    config(place, "kubelet").display()
                ))
                .arg(format!("--root-dir={}", place.make("kubelet")?.display()))
                .arg(format!(
                    "--cert-dir={}",
                    place.make("kubelet-pki")?.display()
                ))
                .arg(format!("--hostname-override={NAME}"))
                .arg(format!("--node-ip={ADDRESS}")),
            "kube-proxy" => Run::new(&self.tools.proxy)
                .arg(format!("--kubeconfig={}", config(place, "proxy").display()))
                .args(["--proxy-mode=iptables", "--conntrack-max-per-core=0"])
                .arg("--cluster-cidr=10.244.0.0/16")
                .arg(format!("--hostname-override={NAME}")),
            "kube-scheduler" => {
                control::component(&self.tools.scheduler, &config(place, "scheduler"))
            }
            _ => match self.control.run(name) {
                Some(run) => run,
                None => csi::service(place, name)?,
            },
        };
        place.start(name, run.quiet())
    }

    fn ctr(&self) -> Run {
        Run::new("ctr")
            .arg("--address")
            .arg(self.place.file("containerd.sock"))
            .args(["--namespace", "k8s.io"])
            .quiet()
    }

    fn import(&self, archive: &Path) -> Result<()> {
        self.ctr()
            .args(["images", "import", "--no-unpack"])
            .arg(archive)
            .capture()
            .map(drop)
    }

    /// The image of the process that holds a pod's namespaces.
    fn pause(&self) -> Result<PathBuf> {
        let program = self.place.file("pause");
        Run::new("cc")
            .args(["-static", "-Os", "-o"])
            .arg(&program)
            .arg(paths::root().join("xtask/src/cluster/pause.c"))
            .quiet()
            .capture()?;
        let root = image::Root::new(self.place.file("pause-root"))?;
        root.program(&program, "pause")?;
        let archive = self.place.file("pause.tar");
        let entry = image::Entry {
            command: &["/pause"],
            user: "65535:65535",
        };
        root.pack(PAUSE, &entry, &archive)?;
        Ok(archive)
    }

    fn configure(&self) -> Result<()> {
        let place = self.place;
        let network = place.make("cni")?;
        // Point to point rather than a bridge: what a pod sends to a service that is on the same
        // bridge comes back past the packet filter.
        paths::write(
            &network.join("10-pods.conflist"),
            format!(
                r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [{{"type": "ptp", "ipMasq": false,
"ipam": {{"type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "{PODS}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}
"#,
                place.make("cni-data")?.display()
            ),
        )?;
        paths::write(
            &place.file("containerd.toml"),
            format!(
                r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
device_ownership_from_security_context = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{network}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "runc"
SystemdCgroup = false
"#,
                root = place.make("containerd")?.display(),
                state = place.make("containerd-state")?.display(),
                socket = place.file("containerd.sock").display(),
                network = network.display(),
            ),
        )?;
        paths::write(&place.file("resolv.conf"), "")?;
        paths::write(
            &place.file("kubelet.yaml"),
            format!(
                r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {ADDRESS}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: "{ca}"}}
authorization: {{mode: Webhook}}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
clusterDNS: [{DNS}]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://{socket}
failCgroupV1: false
# What is killed, or fails, is started again soon: tests do so often.
featureGates: {{KubeletCrashLoopBackOffMax: true}}
crashLoopBackOff: {{maxContainerRestartPeriod: 2s}}
failSwapOn: false
resolvConf: "{resolv}"
tlsCertFile: "{certificate}"
tlsPrivateKeyFile: "{key}"
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
imageGCHighThresholdPercent: 100
syncFrequency: 5s
fileCheckFrequency: 5s
nodeStatusUpdateFrequency: 5s
volumeStatsAggPeriod: 10s
"#,
                ca = self.pki.certificate("ca").display(),
                cgroup = cgroup(place),
                socket = place.file("containerd.sock").display(),
                resolv = place.file("resolv.conf").display(),
                certificate = self.pki.certificate("kubelet-server").display(),
                key = self.pki.key("kubelet-server").display(),
            ),
        )
    }
}
