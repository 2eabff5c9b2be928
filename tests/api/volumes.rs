//! Volumes that wait, are edited, adopted, or deleted half-way.

use longshore_tests::program::run;
use serde_json::{Value, json};

use super::imports::{data_volume, running, started};
use super::rig::{Namespace, namespace};

fn with(mut volume: Value, path: &str, value: Value) -> Value {
    let mut at = &mut volume;
    for part in path.split('.') {
        at = &mut at[part];
    }
    *at = value;
    volume
}

/// Waits for the reason of a condition.
fn wait_for_reason(namespace: &Namespace, volume: &str, kind: &str, reason: &str) {
    let path = format!(".status.conditions[?(@.type==\"{kind}\")].reason");
    namespace.wait(&format!("dv/{volume}"), &path, reason);
}

fn annotated(name: &str, annotation: &str, value: &str) -> Value {
    let mut volume = data_volume(name);
    volume["metadata"]["annotations"] = json!({format!("cdi.kubevirt.io/{annotation}"): value});
    volume
}

#[test]
fn what_is_not_done_here_waits_with_its_reason_and_makes_nothing() {
    let Some(namespace) = namespace() else { return };
    let checkpoints = json!([{"previous": "", "current": "snap-1"}]);
    for (volume, reason) in [
        (
            with(data_volume("upload"), "spec.source", json!({"upload": {}})),
            "UnsupportedSource",
        ),
        (
            with(data_volume("warm"), "spec.checkpoints", checkpoints),
            "ErrClaimNotValid",
        ),
    ] {
        namespace.apply(&volume);
        let name = volume["metadata"]["name"].as_str().unwrap();
        wait_for_reason(&namespace, name, "Running", reason);
        assert!(!namespace.exists(&format!("pvc/{name}")));
    }
}

#[test]
fn what_keeps_a_claim_from_its_volume_is_taken_from_its_events() {
    let Some(namespace) = namespace() else { return };
    // Nobody made a volume for it by hand, and there is no such class.
    namespace.apply(&data_volume("unmade"));
    let bound = ".status.conditions[?(@.type==\"Bound\")].message";
    let text = "PVC unmade Pending: storageclass.storage.k8s.io \"manual\" not found";
    namespace.wait("dv/unmade", bound, text);
}

#[test]
fn a_filled_volume_stays_so_without_its_mark_and_an_edit_has_no_effect_but_a_warning() {
    let Some(namespace) = namespace() else { return };
    started(&namespace, "filled");
    namespace.pod_status("importer-filled", &json!({"phase": "Succeeded"}));
    namespace.wait("dv/filled", ".status.phase", "Succeeded");
    namespace.wait_for("pod/importer-filled", "delete");
    let mark = "cdi.kubevirt.io/storage.pod.phase-";
    run(namespace
        .kubectl()
        .args(["annotate", "pvc", "filled", mark]));
    let phase = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.pod\\.phase";
    namespace.wait("pvc/filled", phase, "Succeeded");
    assert!(!namespace.exists("pod/importer-filled"));

    let edit = json!({"spec": {"priorityClassName": "high"}});
    namespace.patch("dv/filled", &edit);
    let told = ".metadata.annotations.longshore\\.dev/spec-ignored";
    let condition = format!("--for=jsonpath={{{told}}}");
    run(namespace
        .kubectl()
        .args(["wait", "--timeout=60s", &condition, "pvc/filled"]));
    let selector = "--field-selector=reason=SpecChangeIgnored,involvedObject.name=filled";
    let events = run(namespace
        .kubectl()
        .args(["get", "events", selector, "-o", "name"]));
    assert!(!events.is_empty());
    assert_eq!(namespace.get("dv/filled")["status"]["phase"], "Succeeded");
}

#[test]
fn a_volume_that_waits_for_the_claim_becomes_its_own_and_nothing_is_imported() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("static");
    let name = format!("pv/{}-static", namespace.name);
    namespace.wait(&name, ".status.phase", "Available");
    let mut volume = data_volume("static");
    volume["metadata"]["annotations"] = json!({"cdi.kubevirt.io/storage.checkStaticVolume": ""});
    namespace.apply(&volume);
    namespace.wait("dv/static", ".status.phase", "Succeeded");
    let claim = namespace.get("pvc/static");
    assert_eq!(
        claim["spec"]["volumeName"],
        json!(format!("{}-static", namespace.name))
    );
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(
        annotations["cdi.kubevirt.io/storage.populatedFor"],
        "static"
    );
    assert!(annotations["cdi.kubevirt.io/storage.persistentVolumeList"].is_null());
    assert!(!namespace.exists("pod/importer-static"));
}

#[test]
fn a_claim_that_may_be_adopted_is_and_counts_as_filled() {
    let Some(namespace) = namespace() else { return };
    namespace.volume_for("mine");
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "mine"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }));
    namespace.apply(&annotated("mine", "allowClaimAdoption", "true"));
    namespace.wait("dv/mine", ".status.phase", "Succeeded");
    let owner = &namespace.get("pvc/mine")["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], namespace.get("dv/mine")["metadata"]["uid"]);
    assert!(!namespace.exists("pod/importer-mine"));
}

#[test]
fn a_volume_that_is_deleted_at_any_phase_takes_claim_and_pod_with_it() {
    let Some(namespace) = namespace() else { return };
    // In this order each is further than the one before.
    namespace.apply(&data_volume("unbound"));
    namespace.wait("dv/unbound", ".status.phase", "Pending");
    for name in ["scheduled", "running", "failing", "done"] {
        started(&namespace, name);
    }
    namespace.pod_status("importer-running", &running());
    let crashed = json!([{"name": "importer", "restartCount": 3, "ready": false, "image": "",
        "imageID": "", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "message": "{\"message\":\"it broke\"}"}}}]);
    let failing = json!({"phase": "Running", "containerStatuses": crashed});
    namespace.pod_status("importer-failing", &failing);
    namespace.pod_status("importer-done", &json!({"phase": "Succeeded"}));
    namespace.wait("dv/running", ".status.phase", "ImportInProgress");
    namespace.wait("dv/failing", ".status.restartCount", "3");
    namespace.wait("dv/done", ".status.phase", "Succeeded");
    run(namespace.kubectl().args([
        "delete",
        "dv",
        "--all",
        "--cascade=foreground",
        "--wait=false",
    ]));
    // It may die in the midst of it.
    namespace.restart_controller();
    for name in ["unbound", "scheduled", "running", "failing", "done"] {
        namespace.wait_for(&format!("dv/{name}"), "delete");
        assert!(!namespace.exists(&format!("pvc/{name}")), "{name}");
        assert!(!namespace.exists(&format!("pod/importer-{name}")), "{name}");
    }
}
