//! What becomes of data volumes and of annotated claims.

use serde_json::{Value, json};

use super::rig::{Namespace, namespace};

const URL: &str = "https://images.example.org/disk.qcow2";

pub(crate) fn data_volume(name: &str) -> Value {
    json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
        "metadata": {"name": name},
        "spec": {
            "source": {"http": {"url": URL, "secretRef": "keys"}},
            "pvc": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    })
}

fn container(restarts: u32, state: &Value) -> Value {
    json!([{
        "name": "importer", "restartCount": restarts, "ready": false, "image": "", "imageID": "",
        "state": state,
    }])
}

pub(crate) fn running() -> Value {
    let state = json!({"running": {"startedAt": "2026-11-21T00:00:00Z"}});
    json!({"phase": "Running", "containerStatuses": container(0, &state)})
}

fn condition(volume: &Value, kind: &str) -> Value {
    let conditions = volume["status"]["conditions"].as_array().unwrap();
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind);
    found.unwrap().clone()
}

/// Applies a volume and waits for its importer.
pub(crate) fn started(namespace: &Namespace, name: &str) -> String {
    namespace.volume_for(name);
    namespace.apply(&data_volume(name));
    let pod = format!("pod/importer-{name}");
    namespace.wait_for(&pod, "create");
    pod
}

#[test]
fn a_data_volume_gets_a_claim_a_pod_and_a_status_at_each_step() {
    let Some(namespace) = namespace() else { return };
    namespace.apply(&data_volume("disk"));
    namespace.wait("dv/disk", ".status.phase", "Pending");
    namespace.volume_for("disk");
    namespace.wait_for("pod/importer-disk", "create");
    let volume = namespace.get("dv/disk");
    assert_eq!(
        volume["metadata"]["annotations"]["cdi.kubevirt.io/storage.usePopulator"],
        "false"
    );
    let claim = namespace.get("pvc/disk");
    let owner = &claim["metadata"]["ownerReferences"][0];
    assert_eq!(owner["kind"], "DataVolume");
    assert_eq!(owner["uid"], volume["metadata"]["uid"]);
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(annotations["cdi.kubevirt.io/storage.import.endpoint"], URL);
    assert_eq!(
        annotations["cdi.kubevirt.io/storage.import.secretName"],
        "keys"
    );
    namespace.wait("dv/disk", ".status.phase", "ImportScheduled");

    namespace.pod_status("importer-disk", &running());
    namespace.wait("dv/disk", ".status.phase", "ImportInProgress");
    let crashed = json!({"terminated": {"exitCode": 1, "message": "{\"message\":\"it broke\"}"}});
    let crashed = json!({"phase": "Running", "containerStatuses": container(2, &crashed)});
    namespace.pod_status("importer-disk", &crashed);
    namespace.wait("dv/disk", ".status.restartCount", "2");
    let verdict = condition(&namespace.get("dv/disk"), "Running");
    assert_eq!(
        (&verdict["status"], &verdict["message"]),
        (&json!("False"), &json!("it broke"))
    );

    let done = json!({"phase": "Succeeded", "containerStatuses": null});
    namespace.pod_status("importer-disk", &done);
    namespace.wait("dv/disk", ".status.phase", "Succeeded");
    namespace.wait_for("pod/importer-disk", "delete");
    let volume = namespace.get("dv/disk");
    assert_eq!(volume["status"]["progress"], "100.0%");
    assert_eq!(volume["status"]["restartCount"], 2);
    assert_eq!(condition(&volume, "Ready")["status"], "True");
}

#[test]
fn a_claim_without_a_data_volume_is_imported_too() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("plain");
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "plain", "annotations": {"cdi.kubevirt.io/storage.import.endpoint": URL}},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }));
    namespace.wait_for("pod/importer-plain", "create");
    let pod = namespace.get("pod/importer-plain");
    assert_eq!(
        pod["metadata"]["ownerReferences"][0]["kind"],
        "PersistentVolumeClaim"
    );
    namespace.pod_status("importer-plain", &json!({"phase": "Succeeded"}));
    let done = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.pod\\.phase";
    namespace.wait("pvc/plain", done, "Succeeded");
    namespace.wait_for("pod/importer-plain", "delete");
}

#[test]
fn a_spec_that_makes_no_sense_is_explained_and_creates_nothing() {
    let Some(namespace) = namespace() else { return };
    let mut volume = data_volume("odd");
    volume["spec"]["source"]["http"]["url"] = json!("ftp://h/disk");
    namespace.apply(&volume);
    namespace.wait(
        "dv/odd",
        ".status.conditions[?(@.type==\"Bound\")].reason",
        "ErrClaimNotValid",
    );
    assert!(!namespace.exists("pvc/odd"));
    let verdict = condition(&namespace.get("dv/odd"), "Bound");
    assert!(
        verdict["message"].as_str().unwrap().contains("scheme"),
        "{verdict}"
    );
}

#[test]
fn a_claim_of_somebody_else_is_left_as_it_is() {
    let Some(namespace) = namespace() else { return };
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "taken"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }));
    namespace.apply(&data_volume("taken"));
    namespace.wait(
        "dv/taken",
        ".status.conditions[?(@.type==\"Bound\")].reason",
        "ErrResourceExists",
    );
    let claim = namespace.get("pvc/taken");
    assert_eq!(claim["metadata"]["ownerReferences"], Value::Null);
    let annotations = claim["metadata"]["annotations"].to_string();
    assert!(!annotations.contains("storage.import"), "{annotations}");
}

#[test]
fn a_disk_in_use_is_not_written_to_again_when_its_done_mark_is_lost() {
    let Some(namespace) = namespace() else { return };
    started(&namespace, "used");
    namespace.pod_status("importer-used", &json!({"phase": "Succeeded"}));
    namespace.wait("dv/used", ".status.phase", "Succeeded");
    namespace.wait_for("pod/importer-used", "delete");
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "vm"},
        "spec": {
            "containers": [{"name": "vm", "image": "vm"}],
            "volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": "used"}}],
        },
    }));
    let annotate = [
        "annotate",
        "pvc",
        "used",
        "cdi.kubevirt.io/storage.pod.phase-",
    ];
    longshore_tests::program::run(namespace.kubectl().args(annotate));
    let why = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.condition\\.running\\.reason";
    namespace.wait("pvc/used", why, "ImportTargetInUse");
    assert!(!namespace.exists("pod/importer-used"));
}

#[test]
fn deleting_a_data_volume_ends_its_pod_and_its_claim_at_once() {
    let Some(namespace) = namespace() else { return };
    let pod = started(&namespace, "gone");
    namespace.pod_status("importer-gone", &running());
    namespace.wait("dv/gone", ".status.phase", "ImportInProgress");
    let delete = ["delete", "dv", "gone", "--wait=false"];
    longshore_tests::program::run(namespace.kubectl().args(delete));
    namespace.wait_for(&pod, "delete");
    namespace.wait_for("pvc/gone", "delete");
}

#[test]
fn a_claim_that_is_deleted_comes_back_and_is_imported_again() {
    let Some(namespace) = namespace() else { return };
    started(&namespace, "again");
    namespace.pod_status("importer-again", &json!({"phase": "Succeeded"}));
    namespace.wait("dv/again", ".status.phase", "Succeeded");
    namespace.wait_for("pod/importer-again", "delete");
    let first = namespace.get("pvc/again")["metadata"]["uid"].clone();
    // Not waited for by kubectl: it may take the claim that comes for the one that goes.
    let delete = ["delete", "pvc", "again", "--wait=false"];
    longshore_tests::program::run(namespace.kubectl().args(delete));
    namespace.wait("dv/again", ".status.phase", "Pending");
    let second = namespace.get("pvc/again")["metadata"]["uid"].clone();
    assert_ne!(first, second);
}

#[test]
fn a_controller_that_is_killed_at_any_phase_goes_on_where_it_was() {
    let Some(namespace) = namespace() else { return };
    namespace.restart_controller();
    namespace.apply(&data_volume("killed"));
    namespace.restart_controller();
    namespace.volume_for("killed");
    namespace.restart_controller();
    namespace.wait_for("pod/importer-killed", "create");
    let first = namespace.get("pod/importer-killed")["metadata"]["uid"].clone();
    namespace.restart_controller();
    namespace.pod_status("importer-killed", &running());
    namespace.wait("dv/killed", ".status.phase", "ImportInProgress");
    // One pod for all of it.
    assert_eq!(
        namespace.get("pod/importer-killed")["metadata"]["uid"],
        first
    );
    namespace.restart_controller();
    namespace.pod_status("importer-killed", &json!({"phase": "Succeeded"}));
    namespace.wait("dv/killed", ".status.phase", "Succeeded");
    namespace.wait_for("pod/importer-killed", "delete");
}
