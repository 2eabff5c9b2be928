//! The node, what tests do on it, and how a disk is compared with its source.

use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use longshore_tests::cluster::{Cluster, Namespace};
use longshore_tests::data;
use longshore_tests::http::{Authority, Page, Server};
use longshore_tests::program::run;
use serde_json::{Value, json};

/// What tests are given.
struct Node {
    cluster: Cluster,
    /// The folder of the cluster, with the volumes.
    folder: PathBuf,
    /// Where pods find servers.
    address: String,
}

fn node() -> Option<&'static Node> {
    static NODE: OnceLock<Option<Node>> = OnceLock::new();
    NODE.get_or_init(|| {
        let cluster = Cluster::given("node")?;
        let variable = |name| std::env::var(name).unwrap();
        Some(Node {
            cluster,
            folder: variable("LONGSHORE_NODE").into(),
            address: variable("LONGSHORE_NODE_ADDRESS"),
        })
    })
    .as_ref()
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
    node: &'static Node,
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
                    {"key": "kubernetes.io/hostname", "operator": "Exists"},
                ]}]}},
            },
        }));
        path
    }

    /// The folder that a provisioner made for a claim.
    pub(crate) fn provisioned(&self, claim: &str) -> PathBuf {
        let claim = self.get(&format!("pvc/{claim}"));
        let volume = claim["spec"]["volumeName"].as_str().unwrap();
        let volume = self.get(&format!("pv/{volume}"));
        let source = &volume["spec"];
        let path = source["hostPath"]["path"].as_str();
        path.or_else(|| source["local"]["path"].as_str())
            .unwrap()
            .into()
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

/// A data volume of 32 MiB in the volume that [`Case::folder_for`] made.
pub(crate) fn data_volume(name: &str, source: &Value) -> Value {
    json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
        "metadata": {"name": name},
        "spec": {"source": source, "pvc": claim_spec("local")},
    })
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

/// It as an image that a program makes of the file `disk.raw`, as the file `image`.
pub(crate) fn image(disk: &[u8], program: &str, args: &[&str]) -> Vec<u8> {
    let folder = data::quick_dir();
    std::fs::write(folder.path().join("disk.raw"), disk).unwrap();
    run(Command::new(program).current_dir(folder.path()).args(args));
    std::fs::read(folder.path().join("image")).unwrap()
}

/// Demands that a file or a device holds this disk, and nothing after it.
pub(crate) fn holds(path: &Path, disk: &[u8]) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(bytes.len() >= disk.len(), "{} bytes", bytes.len());
    let (front, rest) = bytes.split_at(disk.len());
    let differs = front.iter().zip(disk).position(|(is, should)| is != should);
    assert_eq!(differs, None, "{} differs there", path.display());
    let dirty = rest.iter().position(|&byte| byte != 0);
    assert_eq!(dirty, None, "{} goes on after the disk", path.display());
}

/// What a filesystem needs besides for what the disk holds: its own maps of the file.
const SLACK: u64 = 128 << 10;

/// The same of `disk.img` in a volume's folder, which takes no more room than what is in the disk.
pub(crate) fn holds_sparse(folder: &Path, disk: &[u8]) {
    let path = folder.join("disk.img");
    holds(&path, disk);
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
