//! Warm imports: a stage for each checkpoint, by a data volume and by annotations alone.

use serde_json::{Value, json};

use super::rig::{Namespace, namespace};

const DONE: &str = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.checkpoint\\.done";

/// A disk that goes on being used.
pub(super) fn source() -> Value {
    json!({"imageio": {
        "url": "https://engine.example.org/ovirt-engine/api", "diskId": "disk-1",
        "secretRef": "keys", "insecureSkipVerify": true,
    }})
}

fn claim_spec() -> Value {
    json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
        "resources": {"requests": {"storage": "1Gi"}},
    })
}

fn volume(name: &str, checkpoints: &Value) -> Value {
    json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
        "metadata": {"name": name},
        "spec": {
            "source": source(), "pvc": claim_spec(), "checkpoints": checkpoints,
            "finalCheckpoint": false,
        },
    })
}

pub(super) fn variable(pod: &Value, name: &str) -> Value {
    let all = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let found = all.iter().find(|variable| variable["name"] == name);
    found.map_or(Value::Null, |variable| variable["value"].clone())
}

/// Waits for the pod of a stage and says that it has copied it.
fn copied(namespace: &Namespace, pod: &str) -> Value {
    namespace.wait_for(&format!("pod/{pod}"), "create");
    let made = namespace.get(&format!("pod/{pod}"));
    namespace.pod_status(pod, &json!({"phase": "Succeeded"}));
    made
}

#[test]
fn a_data_volume_is_copied_checkpoint_by_checkpoint_and_rests_in_between() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("warm");
    let first = json!({"previous": "", "current": "snap-1"});
    namespace.apply(&volume("warm", &json!([first])));
    let pod = copied(&namespace, "importer-warm-checkpoint-snap-1");
    assert_eq!(variable(&pod, "IMPORTER_CURRENT_CHECKPOINT"), "snap-1");
    assert_eq!(variable(&pod, "IMPORTER_PREVIOUS_CHECKPOINT"), Value::Null);
    namespace.wait("dv/warm", ".status.phase", "Paused");
    namespace.wait_for("pod/importer-warm-checkpoint-snap-1", "delete");
    let ready = ".status.conditions[?(@.type==\"Ready\")].reason";
    namespace.wait("dv/warm", ready, "Paused");
    let claim = namespace.get("pvc/warm");
    let noted = &claim["metadata"]["annotations"];
    let copy = &noted["cdi.kubevirt.io/storage.checkpoint.copied.snap-1"];
    assert_eq!(*copy, pod["metadata"]["uid"]);
    // A controller that comes anew does not begin anew.
    namespace.restart_controller();
    let second = json!({"previous": "snap-1", "current": "snap-2"});
    let third = json!({"previous": "snap-2", "current": "snap-3"});
    let more = json!({"spec": {"checkpoints": [first, second, third], "finalCheckpoint": true}});
    namespace.patch("dv/warm", &more);
    let pod = copied(&namespace, "importer-warm-checkpoint-snap-2");
    assert_eq!(variable(&pod, "IMPORTER_PREVIOUS_CHECKPOINT"), "snap-1");
    let last = "importer-warm-checkpoint-snap-3";
    namespace.wait_for(&format!("pod/{last}"), "create");
    assert!(!namespace.exists("pod/importer-warm-checkpoint-snap-2"));
    let pod = copied(&namespace, last);
    assert_eq!(variable(&pod, "IMPORTER_FINAL_CHECKPOINT"), "true");
    namespace.wait("dv/warm", ".status.phase", "Succeeded");
    namespace.wait("pvc/warm", DONE, "true");
    namespace.wait_for(&format!("pod/{last}"), "delete");
    let claim = namespace.get("pvc/warm")["metadata"]["annotations"].to_string();
    assert!(!claim.contains("checkpoint.copied"), "{claim}");
    assert!(!namespace.exists("pod/importer-warm-checkpoint-snap-1"));
    let events = namespace.ask(&["get", "events", "-o", "json"]);
    assert!(events.contains("is paused"), "{events}");
    assert!(!events.contains("SpecChangeIgnored"), "{events}");
}

#[test]
fn a_volume_that_rests_at_its_last_checkpoint_ends_without_another_pod() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("rests");
    let only = json!([{"previous": "", "current": "snap-1"}]);
    namespace.apply(&volume("rests", &only));
    copied(&namespace, "importer-rests-checkpoint-snap-1");
    namespace.wait("dv/rests", ".status.phase", "Paused");
    namespace.wait_for("pod/importer-rests-checkpoint-snap-1", "delete");
    namespace.patch("dv/rests", &json!({"spec": {"finalCheckpoint": true}}));
    namespace.wait("dv/rests", ".status.phase", "Succeeded");
    let pods = namespace.ask(&["get", "pods", "-o", "name"]);
    assert_eq!(pods.trim(), "");
}

#[test]
fn annotations_alone_name_one_checkpoint_after_the_other() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("plain");
    let name = |what: &str| format!("cdi.kubevirt.io/storage.{what}");
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "plain", "annotations": {
            name("import.source"): "imageio",
            name("import.endpoint"): "https://engine.example.org/ovirt-engine/api",
            name("import.diskId"): "disk-1",
            name("import.secretName"): "keys",
            name("checkpoint.current"): "snap-1",
        }},
        "spec": claim_spec(),
    }));
    copied(&namespace, "importer-plain-checkpoint-snap-1");
    namespace.wait_for("pod/importer-plain-checkpoint-snap-1", "delete");
    let why = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.condition\\.running\\.message";
    namespace.wait("pvc/plain", why, "checkpoint snap-1 is copied");
    namespace.patch(
        "pvc/plain",
        &json!({"metadata": {"annotations": {
            name("checkpoint.current"): "snap-2",
            name("checkpoint.previous"): "snap-1",
            name("checkpoint.final"): "true",
        }}}),
    );
    let pod = copied(&namespace, "importer-plain-checkpoint-snap-2");
    assert_eq!(variable(&pod, "IMPORTER_PREVIOUS_CHECKPOINT"), "snap-1");
    namespace.wait("pvc/plain", DONE, "true");
    let phase = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.pod\\.phase";
    namespace.wait("pvc/plain", phase, "Succeeded");
    namespace.wait_for("pod/importer-plain-checkpoint-snap-2", "delete");
}
