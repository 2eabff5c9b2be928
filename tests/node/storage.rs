//! The node's CSI storage itself, under Kubernetes' own sidecars: what imports are tested on has to be
//! what it claims to be.

use longshore_tests::eventually;
use serde_json::{Value, json};

use super::rig::{Case, case};

/// A claim of these MiB.
fn claim(name: &str, class: &str, mode: &str, size: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class, "volumeMode": mode,
            "resources": {"requests": {"storage": format!("{size}Mi")}},
        },
    })
}

/// A pod of a user who is not root, with claims at `/NAME`.
pub(crate) fn pod(name: &str, claims: &[&str], mode: &str, script: &str) -> Value {
    let volumes = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}));
    let (field, path) = match mode {
        "Block" => ("volumeDevices", "devicePath"),
        _ => ("volumeMounts", "mountPath"),
    };
    let places = claims
        .iter()
        .map(|claim| json!({"name": claim, path: format!("/{claim}")}));
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 107, "runAsGroup": 107, "fsGroup": 107,
            },
            "containers": [{
                "name": "shell", "image": "longshore.test/helper:1", "imagePullPolicy": "Never",
                "command": ["sh", "-ec", script],
                field: places.collect::<Vec<_>>(),
            }],
            "volumes": volumes.collect::<Vec<_>>(),
        },
    })
}

/// Where a claim's data is, in a pod.
fn file(claim: &str, mode: &str) -> String {
    match mode {
        "Block" => format!("/{claim}"),
        _ => format!("/{claim}/file"),
    }
}

/// A script that writes 8 MiB of noise.
fn noise(mode: &str) -> String {
    let file = file("data", mode);
    format!("dd if=/dev/urandom of={file} bs=1M count=8 conv=notrunc,fsync 2>/dev/null")
}

/// A script that tells what these 8 MiB are.
fn sum(claim: &str, mode: &str) -> String {
    let file = file(claim, mode);
    format!("dd if={file} bs=1M count=8 2>/dev/null | sha256sum")
}

/// A script that succeeds if so many MiB fit into the volume, and leaves what the sum is of.
fn fits(mode: &str, size: u32) -> String {
    match mode {
        // It begins within: there is nowhere to go to beyond the end of a device.
        "Block" => format!(
            "dd if=/dev/zero of=/data bs=1M seek={} count=12 conv=notrunc,fsync",
            size - 12
        ),
        _ => format!(
            "dd if=/dev/zero of=/data/more bs=1M count={} conv=fsync",
            size - 8
        ),
    }
}

/// A copy of a claim or a snapshot.
fn copy(name: &str, class: &str, mode: &str, source: &Value) -> Value {
    let mut copy = claim(name, class, mode, 48);
    copy["spec"]["dataSource"] = source.clone();
    copy
}

impl Case {
    /// What a script says in the pod `writer`.
    fn within(&self, script: &str) -> String {
        self.ask(&["exec", "writer", "--", "sh", "-ec", script])
    }

    /// Asks for a claim to be so many MiB large, and waits until its user has them.
    fn expand(&self, claim: &str, size: u32) {
        let (claim, size) = (format!("pvc/{claim}"), format!("{size}Mi"));
        let more = json!({"spec": {"resources": {"requests": {"storage": size}}}});
        self.patch(&claim, &more);
        self.wait(&claim, ".status.capacity.storage", &size);
    }
}

/// Everything that a volume has to be able to do.
fn works(class: &str, mode: &str) {
    let Some(case) = case() else { return };
    case.apply(&claim("data", class, mode, 32));
    if class == "csi" {
        // Nobody uses it yet.
        case.wait("pvc/data", ".status.phase", "Bound");
    } else {
        assert_eq!(case.get("pvc/data")["status"]["phase"], "Pending");
    }
    case.apply(&pod("writer", &["data"], mode, "sleep 1000"));
    case.wait_for("pod/writer", "condition=Ready");
    let write = format!("{}; {}", noise(mode), sum("data", mode));
    let first = case.within(&write);
    let full = case.within(&format!("{} 2>&1 || echo no", fits(mode, 40)));
    assert!(
        full.contains("No space left") && full.ends_with("no\n"),
        "{full}"
    );
    case.apply(&json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": "moment"},
        "spec": {
            "volumeSnapshotClassName": "csi", "source": {"persistentVolumeClaimName": "data"},
        },
    }));
    case.wait("volumesnapshot/moment", ".status.readyToUse", "true");
    if mode == "Filesystem" {
        case.within("rm /data/more");
    }
    let second = case.within(&write);
    assert_ne!(first, second);
    case.expand("data", 48);
    case.within(&fits(mode, 40));
    let snapshot = json!({
        "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "moment",
    });
    case.apply(&copy("restored", class, mode, &snapshot));
    let source = json!({"kind": "PersistentVolumeClaim", "name": "data"});
    case.apply(&copy("cloned", class, mode, &source));
    let sums = format!("{}; {}", sum("restored", mode), sum("cloned", mode));
    case.apply(&pod("reader", &["restored", "cloned"], mode, &sums));
    case.wait("pod/reader", ".status.phase", "Succeeded");
    assert_eq!(case.ask(&["logs", "reader"]), format!("{first}{second}"));
    let volume = case.volume_of("data");
    case.ask(&[
        "delete",
        "pod/writer",
        "pod/reader",
        "pvc/data",
        "pvc/restored",
        "pvc/cloned",
    ]);
    case.wait_for(&volume, "delete");
}

#[test]
fn a_filesystem_is_provisioned_at_once() {
    works("csi", "Filesystem");
}

#[test]
fn a_filesystem_is_provisioned_for_its_first_user() {
    works("csi-wffc", "Filesystem");
}

#[test]
fn a_device_is_provisioned_at_once() {
    works("csi", "Block");
}

#[test]
fn a_device_is_provisioned_for_its_first_user() {
    works("csi-wffc", "Block");
}

#[test]
fn a_driver_that_is_killed_is_there_again_for_those_who_use_it_and_for_others() {
    let Some(case) = case() else { return };
    case.apply(&claim("data", "csi", "Filesystem", 32));
    case.apply(&pod("writer", &["data"], "Filesystem", "sleep 1000"));
    case.wait_for("pod/writer", "condition=Ready");
    let first = case.within(&format!(
        "{}; {}",
        noise("Filesystem"),
        sum("data", "Filesystem")
    ));
    case.kill_service("csi-driver");
    case.apply(&claim("other", "csi", "Block", 16));
    case.wait("pvc/other", ".status.phase", "Bound");
    assert_eq!(case.within(&sum("data", "Filesystem")), first);
    case.expand("data", 48);
    let volume = case.volume_of("data");
    case.ask(&["delete", "pod/writer", "pvc/data"]);
    case.wait_for(&volume, "delete");
}

#[test]
fn a_class_may_fail_as_often_as_it_is_told_to() {
    let Some(case) = case() else { return };
    let class = format!("fails-{}", case.name);
    case.apply(&json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
        "provisioner": "csi.longshore.test",
        "parameters": {"fail": "RESOURCE_EXHAUSTED", "failures": "2"},
    }));
    case.apply(&claim("data", &class, "Block", 16));
    case.wait("pvc/data", ".status.phase", "Bound");
    let said = eventually("an event", || {
        let args = ["get", "events", "-o", "jsonpath={.items[*].message}"];
        let said = case.ask(&args);
        said.contains("ResourceExhausted").then_some(said)
    });
    assert!(
        said.contains("the class asks for RESOURCE_EXHAUSTED"),
        "{said}"
    );
    case.everywhere(&["delete", "storageclass", &class]);
}
