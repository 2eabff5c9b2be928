//! The cluster that tests are given, the controller under test, and a namespace for each test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use longshore_tests::program::{controller, run};
use serde_json::{Value, json};

/// Longest wait for what the controller does. Only a failure takes as long.
const PATIENCE: &str = "--timeout=60s";

/// How to reach the API server.
struct Cluster {
    kubectl: PathBuf,
    config: PathBuf,
}

/// The API server whose kubeconfig is in `LONGSHORE_KUBECONFIG`.
fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        Some(Cluster {
            kubectl: variable("LONGSHORE_KUBECTL")?,
            config: variable("LONGSHORE_KUBECONFIG")?,
        })
    });
    if cluster.is_none() {
        let why = "LONGSHORE_KUBECONFIG and LONGSHORE_KUBECTL name no API server: run `cargo xtask test --only api`";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("skipped: {why}");
    }
    cluster.as_ref()
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

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Cluster {
    fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.config);
        command
    }

    fn start_controller(&self) -> Running {
        let log = std::env::var_os("LONGSHORE_CONTROLLER_LOG");
        let log = log.map_or_else(Stdio::null, |path| {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path);
            file.unwrap().into()
        });
        let child = Command::new(controller())
            .env("KUBECONFIG", &self.config)
            .env("IMPORTER_IMAGE", "longshore.test/importer:1")
            // The same name each time: a lease of one that was killed is its successor's at once.
            .env("POD_NAME", "under-test")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Running(child.unwrap())
    }
}

/// A namespace of its own, with the controller at work. It goes with the test.
pub(crate) struct Namespace {
    cluster: &'static Cluster,
    pub(crate) name: String,
}

/// A namespace for a test, unless there is no cluster to run it on.
pub(crate) fn namespace() -> Option<Namespace> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let cluster = cluster()?;
    {
        let mut shared = shared();
        shared.users += 1;
        if shared.running.is_none() {
            // It may be there from a run before.
            drop(
                cluster
                    .kubectl()
                    .args(["create", "namespace", "cdi"])
                    .output(),
            );
            shared.running = Some(cluster.start_controller());
        }
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("test-{}-{number}", std::process::id());
    run(cluster.kubectl().args(["create", "namespace", &name]));
    Some(Namespace { cluster, name })
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut delete = self.cluster.kubectl();
        drop(
            delete
                .args(["delete", "namespace", &self.name, "--wait=false"])
                .output(),
        );
        let mut shared = shared();
        shared.users -= 1;
        if shared.users == 0 {
            shared.running = None;
        }
    }
}

impl Namespace {
    /// `kubectl` in this namespace.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = self.cluster.kubectl();
        command.args(["--namespace", &self.name]);
        command
    }

    /// Applies an object.
    pub(crate) fn apply(&self, object: &Value) {
        let mut apply = self.kubectl();
        let output = longshore_tests::program::fed(
            apply.args(["apply", "-f", "-"]),
            object.to_string().as_bytes(),
        );
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// An object as it is now.
    pub(crate) fn get(&self, what: &str) -> Value {
        let text = run(self.kubectl().args(["get", what, "-o", "json"]));
        serde_json::from_slice(&text).unwrap()
    }

    /// Whether there is such an object.
    pub(crate) fn exists(&self, what: &str) -> bool {
        let text = run(self
            .kubectl()
            .args(["get", what, "-o", "name", "--ignore-not-found"]));
        !text.is_empty()
    }

    /// Waits until a field of an object, as a JSON path, has a value.
    pub(crate) fn wait(&self, what: &str, field: &str, value: &str) {
        let condition = format!("--for=jsonpath={{{field}}}={value}");
        run(self.kubectl().args(["wait", PATIENCE, &condition, what]));
    }

    /// Waits until an object is there, or until it is not.
    pub(crate) fn wait_for(&self, what: &str, event: &str) {
        let condition = format!("--for={event}");
        run(self.kubectl().args(["wait", PATIENCE, &condition, what]));
    }

    /// A volume that the claim `name` is bound to, as a provisioner would have made it.
    pub(crate) fn volume_for(&self, name: &str) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": format!("{}-{name}", self.name)},
            "spec": {
                "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": "manual", "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": "/nonexistent"},
                "claimRef": {"namespace": self.name, "name": name},
            },
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
        shared.running = Some(self.cluster.start_controller());
    }
}
