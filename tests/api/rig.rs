//! The cluster that tests are given, the controller under test, and a namespace for each test.

use std::ops::Deref;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use longshore_tests::cluster::{self, Cluster};
use longshore_tests::program::{controller, run};
use serde_json::{Value, json};

/// The API server that tests are given.
fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::given("api")).as_ref()
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

fn start_controller(cluster: &Cluster) -> Running {
    let log = std::env::var_os("LONGSHORE_CONTROLLER_LOG");
    let log = log.map_or_else(Stdio::null, |path| {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        file.unwrap().into()
    });
    let child = std::process::Command::new(controller())
        .env("KUBECONFIG", cluster.config())
        .env("IMPORTER_IMAGE", "longshore.test/importer:1")
        // The same name each time: a lease of one that was killed is its successor's at once.
        .env("POD_NAME", "under-test")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Running(child.unwrap())
}

/// A namespace of its own, with the controller at work.
pub(crate) struct Namespace {
    cluster: &'static Cluster,
    space: cluster::Namespace,
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
            shared.running = Some(start_controller(cluster));
        }
    }
    let space = cluster::Namespace::new(cluster);
    Some(Namespace { cluster, space })
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut shared = shared();
        shared.users -= 1;
        if shared.users == 0 {
            shared.running = None;
        }
    }
}

impl Namespace {
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
        shared.running = Some(start_controller(self.cluster));
    }
}
