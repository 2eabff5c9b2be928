//! A Kubernetes cluster that somebody else started, spoken to by its own `kubectl`, and namespaces in it.
//!
//! Waiting is `kubectl wait`'s, which watches. It knows nothing of what runs on the cluster.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::program::{fed, run, said};

/// Longest wait for anything on a cluster. Only a failure takes as long.
const PATIENCE: &str = "--timeout=120s";

/// How to reach the API server, as its administrator.
#[derive(Debug)]
pub struct Cluster {
    kubectl: PathBuf,
    config: PathBuf,
}

impl Cluster {
    /// The one that `LONGSHORE_KUBECONFIG` and `LONGSHORE_KUBECTL` tell of. None is a failure in CI, and
    /// elsewhere a skip that names the `stage` of `cargo xtask test` that starts one.
    pub fn given(stage: &str) -> Option<Self> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let (kubectl, config) = (
            variable("LONGSHORE_KUBECTL"),
            variable("LONGSHORE_KUBECONFIG"),
        );
        if let (Some(kubectl), Some(config)) = (kubectl, config) {
            return Some(Self { kubectl, config });
        }
        let why = format!(
            "LONGSHORE_KUBECONFIG and LONGSHORE_KUBECTL name no API server: run `cargo xtask test --only {stage}`"
        );
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("skipped: {why}");
        None
    }

    /// The file that says how to reach it.
    pub fn config(&self) -> &PathBuf {
        &self.config
    }

    /// `kubectl`, in no namespace.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.config);
        command
    }
}

/// A namespace of its own. It goes when it is dropped, without anybody waiting for that.
#[derive(Debug)]
pub struct Namespace {
    cluster: &'static Cluster,
    /// Its name.
    pub name: String,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut delete = self.cluster.kubectl();
        let delete = delete.args(["delete", "namespace", &self.name, "--wait=false"]);
        drop(delete.output());
    }
}

impl Namespace {
    /// A new one.
    pub fn new(cluster: &'static Cluster) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        run(cluster.kubectl().args(["create", "namespace", &name]));
        Self { cluster, name }
    }

    /// `kubectl` in this namespace.
    pub fn kubectl(&self) -> Command {
        let mut command = self.cluster.kubectl();
        command.args(["--namespace", &self.name]);
        command
    }

    /// `kubectl` with these arguments, which must succeed.
    pub fn ask(&self, args: &[&str]) -> String {
        let said = run(self.kubectl().args(args));
        String::from_utf8(said).unwrap()
    }

    /// Applies an object.
    pub fn apply(&self, object: &Value) {
        // Some objects have another place than the test's.
        let elsewhere = object["metadata"]["namespace"].is_string();
        let mut apply = if elsewhere {
            self.cluster.kubectl()
        } else {
            self.kubectl()
        };
        let apply = apply.args(["apply", "-f", "-"]);
        let output = fed(apply, object.to_string().as_bytes());
        assert!(output.status.success(), "{object}: {}", said(&output));
    }

    /// An object as it is now.
    pub fn get(&self, what: &str) -> Value {
        let text = run(self.kubectl().args(["get", what, "-o", "json"]));
        serde_json::from_slice(&text).unwrap()
    }

    /// Merges a change into an object, which need be in no namespace.
    pub fn patch(&self, what: &str, change: &Value) {
        self.ask(&["patch", what, "--type=merge", "-p", &change.to_string()]);
    }

    /// Whether there is such an object.
    pub fn exists(&self, what: &str) -> bool {
        let args = ["get", what, "-o", "name", "--ignore-not-found"];
        !self.ask(&args).is_empty()
    }

    /// Waits until a field of an object, as a JSON path, has a value. It need not be there yet.
    pub fn wait(&self, what: &str, field: &str, value: &str) {
        self.until(what, "create");
        self.until(what, &format!("jsonpath={{{field}}}={value}"));
    }

    /// Waits until an object is there (`create`), or until it is not (`delete`).
    pub fn wait_for(&self, what: &str, event: &str) {
        self.until(what, event);
    }

    fn until(&self, what: &str, condition: &str) {
        let condition = format!("--for={condition}");
        let output = self
            .kubectl()
            .args(["wait", PATIENCE, &condition, what])
            .output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{what} in {}: waited in vain for {condition}: {}\n{}",
            self.name,
            said(&output),
            self.story()
        );
    }

    /// What there is and what happened, for whoever reads why a test failed.
    fn story(&self) -> String {
        let tell = |args: &[&str]| {
            let output = self.kubectl().args(args).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        [
            tell(&["get", "dv,pvc,pods", "-o", "wide"]),
            tell(&["describe", "dv,pvc,pods"]),
        ]
        .concat()
    }
}
