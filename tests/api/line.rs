//! Imports that wait for their turn.

use serde_json::{Value, json};

use super::rig::{Namespace, alone};

fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": {
            "cdi.kubevirt.io/storage.import.endpoint": "https://one.example.org:8443/disk",
        }},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

/// As many imports from one source as this, until it is dropped.
struct Limit<'a>(&'a Namespace);

impl<'a> Limit<'a> {
    fn of(namespace: &'a Namespace, most: &str) -> Self {
        let limit = Self(namespace);
        limit.patch(&json!(most));
        limit
    }

    fn patch(&self, most: &Value) {
        let annotations = json!({"longshore.dev/imports-per-source": most});
        let change = json!({"metadata": {"annotations": annotations}});
        self.0.patch("cdi/cdi", &change);
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        self.patch(&Value::Null);
    }
}

#[test]
fn imports_from_one_source_wait_for_each_other_and_say_so() {
    let Some(namespace) = alone() else { return };
    let controller = namespace.controller(&[]);
    namespace.wait("cdi/cdi", ".status.phase", "Deployed");
    let _limit = Limit::of(&namespace, "1");
    // One that comes anew begins with the settings, and later with what is at work.
    drop(controller);
    let controller = namespace.controller(&[]);
    namespace.volume_for("first");
    namespace.apply(&claim("first"));
    namespace.wait_for("pod/importer-first", "create");
    drop(controller);
    let _controller = namespace.controller(&[]);
    namespace.volume_for("second");
    namespace.apply(&claim("second"));
    let noted = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.condition\\.running";
    namespace.wait("pvc/second", &format!("{noted}\\.reason"), "ImportQueued");
    let claim = namespace.get("pvc/second");
    let annotations = &claim["metadata"]["annotations"];
    let message = &annotations["cdi.kubevirt.io/storage.condition.running.message"];
    let message = message.as_str().unwrap();
    assert!(message.contains("from one.example.org:8443"), "{message}");
    assert!(!namespace.exists("pod/importer-second"));
    namespace.pod_status("importer-first", &json!({"phase": "Succeeded"}));
    namespace.wait_for("pod/importer-second", "create");
}
