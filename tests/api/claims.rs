//! What becomes of annotated claims, and when nothing may.

use longshore_tests::program::{fed, run};
use serde_json::{Value, json};

use super::rig::{Namespace, alone, namespace};

const URL: &str = "https://images.example.org/disk.qcow2";
const PHASE: &str = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.pod\\.phase";
const REASON: &str =
    ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.condition\\.running\\.reason";

fn claim(name: &str, mode: &str, annotations: &Value) -> Value {
    let mut all = json!({"cdi.kubevirt.io/storage.import.endpoint": URL});
    for (name, value) in annotations.as_object().unwrap() {
        all[format!("cdi.kubevirt.io/storage.{name}")] = value.clone();
    }
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": all},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "volumeMode": mode,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

fn machine(claim: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "vm"},
        "spec": {
            "containers": [{"name": "vm", "image": "vm"}],
            "volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": claim}}],
        },
    })
}

/// Reasons of the events about an object.
fn events(namespace: &Namespace, about: &str) -> Vec<String> {
    let selector = format!("--field-selector=involvedObject.name={about}");
    let text = run(namespace
        .kubectl()
        .args(["get", "events", &selector, "-o", "json"]));
    let list: Value = serde_json::from_slice(&text).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|event| event["reason"].as_str().unwrap().to_owned())
        .collect()
}

/// Takes the mark away that says that a disk is complete.
fn strip(namespace: &Namespace, claim: &str) {
    let mark = "cdi.kubevirt.io/storage.pod.phase-";
    run(namespace.kubectl().args(["annotate", "pvc", claim, mark]));
}

#[test]
fn no_worker_starts_while_a_pod_mounts_the_claim_and_one_does_afterwards() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("used");
    namespace.apply(&claim("used", "Filesystem", &json!({})));
    namespace.wait_for("pod/importer-used", "create");
    namespace.pod_status("importer-used", &json!({"phase": "Succeeded"}));
    namespace.wait("pvc/used", PHASE, "Succeeded");
    namespace.wait_for("pod/importer-used", "delete");
    namespace.apply(&machine("used"));
    strip(&namespace, "used");
    namespace.wait("pvc/used", REASON, "ImportTargetInUse");
    assert!(!namespace.exists("pod/importer-used"));
    assert!(events(&namespace, "used").contains(&"ImportTargetInUse".to_owned()));
    // The machine was what it waited for, and nothing else.
    run(namespace.kubectl().args(["delete", "pod", "vm", "--now"]));
    namespace.wait_for("pod/importer-used", "create");
}

/// As it is when somebody began to use the claim after the controller had looked, and it was killed then.
#[test]
fn an_importer_that_came_second_makes_way_before_it_runs() {
    let Some(namespace) = alone() else { return };
    namespace.volume_for("raced");
    namespace.apply(&claim("raced", "Filesystem", &json!({})));
    namespace.wait("pvc/raced", ".status.phase", "Bound");
    let uid = namespace.get("pvc/raced")["metadata"]["uid"].clone();
    namespace.apply(&machine("raced"));
    let mut pod = machine("raced");
    pod["metadata"] = json!({
        "name": "importer-raced", "labels": {"cdi.kubevirt.io": "importer"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "raced",
            "uid": uid, "controller": true}],
    });
    pod["spec"]["schedulingGates"] = json!([{"name": "longshore.dev/sole-user"}]);
    namespace.apply(&pod);
    let _controller = namespace.controller(&[]);
    namespace.wait_for("pod/importer-raced", "delete");
    namespace.wait("pvc/raced", REASON, "ImportTargetInUse");
    run(namespace.kubectl().args(["delete", "pod", "vm", "--now"]));
    namespace.wait("pvc/raced", PHASE, "Pending");
    let gates = namespace.get("pod/importer-raced")["spec"]["schedulingGates"].clone();
    assert!(gates.is_null(), "{gates}");
}

#[test]
fn pods_of_every_source_are_taken_where_only_restricted_ones_are() {
    let Some(namespace) = namespace() else { return };
    let label = "pod-security.kubernetes.io/enforce=restricted";
    run(namespace
        .kubectl()
        .args(["label", "namespace", &namespace.name, label]));
    let vddk = json!({
        "import.source": "vddk", "import.uuid": "u", "import.backingFile": "f",
        "import.vddk.thumbprint": "t", "pod.vddk.initimageurl": "example.org/vddk:8",
        "pod.vddk.extraargs": "args", "import.secretName": "keys",
    });
    let http = json!({
        "import.secretName": "keys", "import.certConfigMap": "ca",
        "import.secretExtraHeaders.0": "headers",
    });
    for (name, mode, annotations) in [
        ("http", "Filesystem", http),
        ("block", "Block", json!({"import.source": "s3"})),
        ("vddk", "Filesystem", vddk),
    ] {
        namespace.block_or_file_volume_for(name, mode);
        namespace.apply(&claim(name, mode, &annotations));
        namespace.wait_for(&format!("pod/importer-{name}"), "create");
    }
}

#[test]
fn a_used_up_quota_is_told_and_waited_out() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("late");
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }));
    namespace.wait("quota/none", ".status.hard.pods", "0");
    namespace.apply(&claim("late", "Filesystem", &json!({})));
    namespace.wait("pvc/late", REASON, "ErrExceededQuota");
    assert!(events(&namespace, "late").contains(&"ErrExceededQuota".to_owned()));
    run(namespace.kubectl().args(["delete", "quota", "none"]));
    namespace.wait_for("pod/importer-late", "create");
}

#[test]
fn what_keeps_a_pod_from_starting_is_taken_from_its_events() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("secret");
    namespace.apply(&claim(
        "secret",
        "Filesystem",
        &json!({"import.secretName": "keys"}),
    ));
    namespace.wait_for("pod/importer-secret", "create");
    // As a kubelet tells it.
    let message = "secret \"keys\" not found";
    namespace.warn("pod/importer-secret", "FailedMount", message, "kubelet");
    namespace.wait("pvc/secret", REASON, "FailedMount");
    // What was told before is known to a controller that begins, and what comes later replaces it.
    namespace.restart_controller();
    namespace.warn(
        "pod/importer-secret",
        "NetworkNotReady",
        "no network",
        "kubelet",
    );
    namespace.wait("pvc/secret", REASON, "NetworkNotReady");
}

#[test]
fn a_claim_that_is_deleted_ends_its_worker_at_once_even_on_a_node_that_is_silent() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("held");
    namespace.apply(&claim("held", "Filesystem", &json!({})));
    namespace.wait_for("pod/importer-held", "create");
    // It is told of a pod that was let go.
    namespace.wait("pvc/held", PHASE, "Pending");
    // Without a kubelet it would stay for as long as it is given to end, and longer.
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "importer-held"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "silent"},
    });
    let bound = fed(
        namespace.kubectl().args(["create", "-f", "-"]),
        binding.to_string().as_bytes(),
    );
    assert!(bound.status.success(), "{bound:?}");

    run(namespace
        .kubectl()
        .args(["delete", "pvc", "held", "--wait=false"]));
    namespace.wait_for("pod/importer-held", "delete");
    namespace.wait_for("pvc/held", "delete");
}
