//! The cluster that tests are given, the controller under test, and a namespace for each test.

use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use longshore_tests::cluster::{self, Cluster};
use longshore_tests::program::{Running, controller, run};
use serde_json::{Value, json};

/// The API server that tests are given, with what a user installs.
struct Installed {
    cluster: Cluster,
    /// As whom the controller reaches it: with the rights that its deployment gives it and no others.
    account: PathBuf,
}

fn cluster() -> Option<&'static Installed> {
    static CLUSTER: OnceLock<Option<Installed>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::given("api").map(install));
    cluster.as_ref()
}

/// Nothing runs the deployment that this installs: there are no nodes.
fn install(cluster: Cluster) -> Installed {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/longshore.yaml");
    run(cluster.kubectl().args(["apply", "-f", file]));
    let token = [
        "create",
        "token",
        "cdi-sa",
        "--namespace=cdi",
        "--duration=2h",
    ];
    let token = String::from_utf8(run(cluster.kubectl().args(token))).unwrap();
    let view = ["config", "view", "--raw", "--minify", "-o", "json"];
    let mut config: Value = serde_json::from_slice(&run(cluster.kubectl().args(view))).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let name = format!("account-{}", std::process::id());
    let account = cluster.config().with_extension(name);
    std::fs::write(&account, config.to_string()).unwrap();
    Installed { cluster, account }
}

/// Tests run beside each other, but for those that the whole cluster is about.
static OTHERS: RwLock<()> = RwLock::new(());

/// Held for as long as a test runs.
enum Place {
    Shared {
        #[expect(dead_code, reason = "it is there to be dropped")]
        guard: RwLockReadGuard<'static, ()>,
    },
    Alone {
        #[expect(dead_code, reason = "it is there to be dropped")]
        guard: RwLockWriteGuard<'static, ()>,
    },
}

/// The one controller of this process. It is killed and started again in the middle of other tests:
/// that must be harmless.
static CONTROLLER: Mutex<Shared> = Mutex::new(Shared {
    users: 0,
    running: None,
});

/// Statics are never dropped, so whoever uses it last ends it.
struct Shared {
    users: usize,
    running: Option<Running>,
}

fn shared() -> MutexGuard<'static, Shared> {
    CONTROLLER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_controller(cluster: &Installed, variables: &[(&str, &str)]) -> Running {
    let log = std::env::var_os("LONGSHORE_CONTROLLER_LOG");
    let log = log.map_or_else(Stdio::null, |path| {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        file.unwrap().into()
    });
    let child = Command::new(controller())
        .env("KUBECONFIG", &cluster.account)
        .env("IMPORTER_IMAGE", "longshore.test/importer:1")
        // The same name each time: a lease of one that was killed is its successor's at once.
        .env("POD_NAME", "under-test")
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Running(child.unwrap())
}

/// A namespace of its own, with the controller at work.
pub(crate) struct Namespace {
    cluster: &'static Installed,
    space: cluster::Namespace,
    place: Place,
}

impl Deref for Namespace {
    type Target = cluster::Namespace;

    fn deref(&self) -> &Self::Target {
        &self.space
    }
}

/// A namespace for a test, unless there is no cluster to run it on.
pub(crate) fn namespace() -> Option<Namespace> {
    let cluster = cluster()?;
    let guard = OTHERS.read().unwrap_or_else(PoisonError::into_inner);
    let space = cluster::Namespace::new(&cluster.cluster);
    let mut shared = shared();
    shared.users += 1;
    if shared.running.is_none() {
        shared.running = Some(start_controller(cluster, &[]));
    }
    Some(Namespace {
        cluster,
        space,
        place: Place::Shared { guard },
    })
}

/// The same with no other test at work, and no controller.
pub(crate) fn alone() -> Option<Namespace> {
    let cluster = cluster()?;
    let guard = OTHERS.write().unwrap_or_else(PoisonError::into_inner);
    Some(Namespace {
        cluster,
        space: cluster::Namespace::new(&cluster.cluster),
        place: Place::Alone { guard },
    })
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if matches!(self.place, Place::Alone { .. }) {
            return;
        }
        let mut shared = shared();
        shared.users -= 1;
        if shared.users == 0 {
            shared.running = None;
        }
    }
}

impl Namespace {
    /// A controller of this test's own.
    pub(crate) fn controller(&self, variables: &[(&str, &str)]) -> Running {
        start_controller(self.cluster, variables)
    }

    /// How the cluster's administrator reaches it.
    pub(crate) fn config(&self) -> &PathBuf {
        self.cluster.cluster.config()
    }

    /// `kubectl` in no namespace.
    pub(crate) fn everywhere(&self) -> Command {
        self.cluster.cluster.kubectl()
    }

    /// A volume that the claim `name` is bound to, as a provisioner would have made it.
    pub(crate) fn volume_for(&self, name: &str) {
        self.block_or_file_volume_for(name, "Filesystem");
    }

    /// The same, as a folder or as a device.
    pub(crate) fn block_or_file_volume_for(&self, name: &str, mode: &str) {
        let source = match mode {
            "Block" => json!({"path": "/dev/nonexistent", "type": "BlockDevice"}),
            _ => json!({"path": "/nonexistent"}),
        };
        self.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": format!("{}-{name}", self.name)},
            "spec": {
                "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": "manual", "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": source, "volumeMode": mode,
                "claimRef": {"namespace": self.name, "name": name},
            },
        }));
    }

    /// A component of the cluster warns of an object.
    pub(crate) fn warn(&self, of: &str, reason: &str, message: &str, component: &str) {
        let about = self.get(of);
        let name = of.replace('/', "-");
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Event", "type": "Warning",
            "metadata": {"name": format!("{name}-{}", reason.to_lowercase())},
            "reason": reason, "message": message, "source": {"component": component},
            "lastTimestamp": "2026-11-22T00:00:00Z",
            "involvedObject": {"kind": about["kind"], "namespace": self.name,
                "name": about["metadata"]["name"], "uid": about["metadata"]["uid"]},
        }));
    }

    /// Says of a pod what a kubelet would.
    pub(crate) fn pod_status(&self, pod: &str, status: &Value) {
        let patch = json!({"status": status}).to_string();
        run(self.kubectl().args([
            "patch",
            "pod",
            pod,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ]));
    }

    /// Kills the controller without warning and starts another one.
    pub(crate) fn restart_controller(&self) {
        let mut shared = shared();
        // The old one is dead before the new one starts.
        shared.running = None;
        shared.running = Some(start_controller(self.cluster, &[]));
    }
}
