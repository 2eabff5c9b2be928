//! The node, what tests do on it, and how a disk is compared with its source.

use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use longshore_tests::cluster::Namespace;
use longshore_tests::data;
use longshore_tests::eventually;
use longshore_tests::http::{Authority, Page, Server};
use longshore_tests::node::{self, Node, folder_of, processes_of};
use longshore_tests::program::run;
use serde_json::{Value, json};

fn node() -> Option<&'static Node> {
    static NODE: OnceLock<Option<Node>> = OnceLock::new();
    NODE.get_or_init(Node::given).as_ref()
}

/// Held by every test that needs Longshore installed; taken whole by those that remove it.
static INSTALLED: RwLock<()> = RwLock::new(());

/// What of the installation a test relies on.
enum Turn {
    Shared(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

/// A test's namespace on the node.
pub(crate) struct Case {
    space: Namespace,
    pub(crate) node: &'static Node,
    _turn: Turn,
}

impl Deref for Case {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.space
    }
}

/// A test, unless there is no node to run it on.
pub(crate) fn case() -> Option<Case> {
    let turn = || Turn::Shared(INSTALLED.read().unwrap_or_else(PoisonError::into_inner));
    begin(turn)
}

/// One beside which no other runs.
pub(crate) fn case_alone() -> Option<Case> {
    let turn = || Turn::Alone(INSTALLED.write().unwrap_or_else(PoisonError::into_inner));
    begin(turn)
}

fn begin(turn: impl FnOnce() -> Turn) -> Option<Case> {
    let node = node()?;
    let turn = turn();
    Some(Case {
        space: Namespace::new(&node.cluster),
        node,
        _turn: turn,
    })
}

impl Case {
    /// The address by which pods reach servers of a test.
    pub(crate) fn address(&self) -> &'static str {
        &self.node.address
    }

    /// A server that pods can reach.
    pub(crate) fn serve(&self, page: Page) -> Server {
        Server::start_on(&self.node.address, None, [("/disk", page)])
    }

    /// The same over TLS.
    pub(crate) fn serve_tls(&self, authority: &Authority, page: Page) -> Server {
        Server::start_on(&self.node.address, Some(authority), [("/disk", page)])
    }

    /// `kubectl` with these arguments, for what is in no namespace or in another one.
    pub(crate) fn everywhere(&self, args: &[&str]) -> String {
        let said = run(self.node.cluster.kubectl().args(args));
        String::from_utf8(said).unwrap()
    }

    /// A folder of the node as the volume of a claim that is yet to come.
    pub(crate) fn folder_for(&self, claim: &str) -> PathBuf {
        self.folder_on(claim, "node-1")
    }

    /// The same, said to be on another node.
    pub(crate) fn folder_on(&self, claim: &str, node: &str) -> PathBuf {
        let name = format!("{}-{claim}", self.name);
        let path = self.node.folder.join("folders").join(&name);
        std::fs::create_dir_all(&path).unwrap();
        self.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": "local", "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": path},
                "claimRef": {"namespace": self.name, "name": claim},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
                ]}]}},
            },
        }));
        path
    }

    /// Where one of the volumes is that every node of ours has. It can be used again if a run before has.
    pub(crate) fn static_volume(&self, name: &str) -> PathBuf {
        let volume = format!("pv/{name}");
        self.patch(&volume, &json!({"spec": {"claimRef": null}}));
        folder_of(&self.get(&volume)).unwrap()
    }

    /// `ctr` on the images of the node's pods.
    pub(crate) fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address")
            .arg(self.node.folder.join("containerd.sock"));
        ctr.args(["--namespace", "k8s.io"]);
        ctr
    }

    /// Kills the controller, wherever it is in its work.
    pub(crate) fn kill_controller(&self) {
        let selector = "cdi.kubevirt.io=cdi-deployment";
        let get = ["-n", "cdi", "get", "pods", "-o", "json", "-l", selector];
        // One that was killed a moment ago is still said to run.
        let processes = eventually("a controller", || {
            let pods: Value = serde_json::from_str(&self.everywhere(&get)).unwrap();
            let found = processes_of(&pods["items"][0]);
            (!found.is_empty()).then_some(found)
        });
        kill(&processes);
    }

    /// Kills a program of the node, which is started again by whoever watches it.
    pub(crate) fn kill_service(&self, name: &str) {
        kill(&[self.node.service(name).unwrap()]);
    }

    /// Cuts the node's power: all that runs on it is gone at once. Ends when it starts again.
    pub(crate) fn cut_power(&self) {
        let asked = self.node.folder.join("reboot");
        std::fs::write(&asked, "").unwrap();
        eventually("power", || (!asked.exists()).then_some(()));
    }

    /// The volume of a claim, for `kubectl`.
    pub(crate) fn volume_of(&self, claim: &str) -> String {
        let claim = self.get(&format!("pvc/{claim}"));
        format!("pv/{}", claim["spec"]["volumeName"].as_str().unwrap())
    }

    /// The folder that a provisioner made for a claim.
    pub(crate) fn provisioned(&self, claim: &str) -> PathBuf {
        folder_of(&self.get(&self.volume_of(claim))).unwrap()
    }

    /// Waits until a data volume is filled.
    pub(crate) fn succeeded(&self, volume: &str) {
        self.wait(&format!("dv/{volume}"), ".status.phase", "Succeeded");
    }

    /// The same for a claim that was annotated.
    pub(crate) fn filled(&self, claim: &str) {
        let phase = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.pod\\.phase";
        self.wait(&format!("pvc/{claim}"), phase, "Succeeded");
    }

    /// Waits for what a condition of a data volume says.
    pub(crate) fn condition(&self, volume: &str, kind: &str, field: &str, value: &str) {
        let path = format!(".status.conditions[?(@.type==\"{kind}\")].{field}");
        self.wait(&format!("dv/{volume}"), &path, value);
    }
}

/// Kills processes as the kernel does when memory is short.
pub(crate) fn kill(processes: &[u32]) {
    assert!(!processes.is_empty(), "there is nothing to kill");
    // One of several may have gone with another.
    node::kill(processes);
}

/// A data volume of 32 MiB in the volume that [`Case::folder_for`] made.
pub(crate) fn data_volume(name: &str, source: &Value) -> Value {
    json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
        "metadata": {"name": name},
        "spec": {"source": source, "pvc": claim_spec("local")},
    })
}

/// The same whose pod stays when it is done, for what it says.
pub(crate) fn kept(name: &str, source: &Value) -> Value {
    let mut volume = data_volume(name, source);
    volume["metadata"]["annotations"] =
        json!({"cdi.kubevirt.io/storage.pod.retainAfterCompletion": "true"});
    volume
}

/// From a web server.
pub(crate) fn http(server: &Server) -> Value {
    json!({"http": {"url": server.url("/disk")}})
}

/// An annotated claim of that size.
pub(crate) fn claim(name: &str, server: &Server) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": {
            "cdi.kubevirt.io/storage.import.endpoint": server.url("/disk"),
        }},
        "spec": claim_spec("local"),
    })
}

/// What they ask for.
pub(crate) fn claim_spec(class: &str) -> Value {
    json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "resources": {"requests": {"storage": "32Mi"}},
    })
}

/// A disk of 10 MiB: noise, zeros and text in turns, a large hole, and noise at the end.
pub(crate) fn disk(seed: u64) -> Vec<u8> {
    let mut disk = data::disk(6 << 20, seed);
    disk.resize(9 << 20, 0);
    disk.extend(data::disk(1 << 20, seed + 1));
    disk
}

/// Demands that a file or a device begins with this disk, and goes on with one and the same byte.
pub(crate) fn holds(path: &Path, disk: &[u8], then: u8) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(bytes.len() >= disk.len(), "{} bytes", bytes.len());
    let (front, rest) = bytes.split_at(disk.len());
    let differs = front.iter().zip(disk).position(|(is, should)| is != should);
    assert_eq!(differs, None, "{} differs there", path.display());
    let dirty = rest.iter().position(|&byte| byte != then);
    assert_eq!(dirty, None, "{} goes on otherwise", path.display());
}

/// What a filesystem needs besides for what the disk holds: its own maps of the file.
const SLACK: u64 = 128 << 10;

/// The same of `disk.img` in a volume's folder, which takes no more room than what is in the disk.
pub(crate) fn holds_sparse(folder: &Path, disk: &[u8]) {
    let path = folder.join("disk.img");
    holds(&path, disk, 0);
    let used = disk
        .chunks(4096)
        .filter(|block| block.iter().any(|&b| b != 0));
    let used = used.count() as u64 * 4096;
    let allocated = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(
        (used..=used + SLACK).contains(&allocated),
        "{allocated} bytes are set aside for {used}"
    );
    // Neither a journal nor what was begun is left.
    let names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lost+found")
        .collect();
    assert_eq!(names, ["disk.img"]);
}
