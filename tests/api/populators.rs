//! Claims that come filled: by a volume of a class with a driver, or because they name what fills them.
//! There is no driver, so each test says what one would, and binding is the cluster's own.

use longshore_tests::program::run;
use serde_json::{Value, json};

use super::imports::{data_volume, running};
use super::rig::{Namespace, namespace};
use super::stages;

const PRIME: &str = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.populator\\.pvcPrime";
const PHASE: &str = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.pod\\.phase";
const REASON: &str =
    ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.condition\\.running\\.reason";
const NODE: &str = "volume.kubernetes.io/selected-node";

/// A storage class with a driver of its own, for one test.
struct Class<'a> {
    namespace: &'a Namespace,
    name: String,
    driver: String,
}

impl<'a> Class<'a> {
    fn new(namespace: &'a Namespace, mode: &str) -> Self {
        let class = Self::without_driver(namespace, mode);
        class.add_driver();
        class
    }

    fn without_driver(namespace: &'a Namespace, mode: &str) -> Self {
        let name = format!("{}-{}", namespace.name, mode.to_ascii_lowercase());
        let driver = format!("{name}.example.org");
        namespace.apply(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": driver, "volumeBindingMode": mode,
        }));
        Self {
            namespace,
            name,
            driver,
        }
    }

    fn add_driver(&self) {
        self.namespace.apply(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": self.driver},
            "spec": {"attachRequired": false},
        }));
    }

    /// A claim that names what fills it.
    fn claim(&self, name: &str, kind: &str, source: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": self.name,
                "resources": {"requests": {"storage": "1Gi"}},
                "dataSourceRef": {"apiGroup": "cdi.kubevirt.io", "kind": kind, "name": source},
            },
        })
    }

    fn data_volume(&self, name: &str) -> Value {
        let mut volume = data_volume(name);
        volume["spec"]["pvc"]["storageClassName"] = json!(self.name);
        volume
    }

    /// The same as soon as the controller is known to know the driver.
    fn apply_data_volume(&self, name: &str) {
        self.namespace.apply(&source("probe"));
        self.namespace
            .apply(&self.claim("probe", "VolumeImportSource", "probe"));
        let node = format!("{NODE}=probe");
        self.namespace.ask(&["annotate", "pvc", "probe", &node]);
        prime(self.namespace, "probe");
        self.namespace
            .ask(&["delete", "pvc", "probe", "--wait=false"]);
        self.namespace.apply(&self.data_volume(name));
    }

    /// Makes the volume that a claim waits for, as a driver would, and gives its name.
    fn provision(&self, claim: &str) -> String {
        let name = format!("{}-{claim}", self.namespace.name);
        self.namespace.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": self.name, "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": "/nonexistent"},
                "claimRef": {"namespace": self.namespace.name, "name": claim},
            },
        }));
        self.namespace
            .wait(&format!("pvc/{claim}"), ".status.phase", "Bound");
        name
    }
}

impl Drop for Class<'_> {
    fn drop(&mut self) {
        for what in [
            format!("storageclass/{}", self.name),
            format!("csidriver/{}", self.driver),
        ] {
            let delete = ["delete", &what, "--wait=false", "--ignore-not-found"];
            drop(self.namespace.kubectl().args(delete).output());
        }
    }
}

fn source(name: &str) -> Value {
    json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "VolumeImportSource",
        "metadata": {"name": name},
        "spec": {"source": {"http": {"url": "https://images.example.org/disk.qcow2"}}},
    })
}

fn uid(namespace: &Namespace, what: &str) -> String {
    let object = namespace.get(what);
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Waits for the claim that is filled in another one's place, and gives its name.
fn prime(namespace: &Namespace, claim: &str) -> String {
    let name = format!("prime-{}", uid(namespace, &format!("pvc/{claim}")));
    namespace.wait_for(&format!("pvc/{name}"), "create");
    namespace.wait(&format!("pvc/{claim}"), PRIME, &name);
    name
}

/// Says that the importer of `prime` is done, and waits until `claim` has its volume.
fn finish(namespace: &Namespace, prime: &str, claim: &str) {
    namespace.pod_status(&format!("importer-{prime}"), &json!({"phase": "Succeeded"}));
    let claim = format!("pvc/{claim}");
    namespace.wait(&claim, PHASE, "Succeeded");
    namespace.wait(&claim, ".status.phase", "Bound");
    namespace.wait_for(&format!("pvc/{prime}"), "delete");
    assert!(!namespace.exists(&format!("pod/importer-{prime}")));
}

/// Reasons and messages of the events about an object.
fn events(namespace: &Namespace, about: &str) -> Vec<String> {
    let selector = format!("--field-selector=involvedObject.name={about}");
    let list: Value =
        serde_json::from_str(&namespace.ask(&["get", "events", &selector, "-o", "json"])).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|event| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("reason"), text("message"))
        })
        .collect()
}

#[test]
fn a_claim_that_names_a_source_comes_filled_whatever_becomes_of_the_source() {
    let Some(namespace) = namespace() else { return };
    let class = Class::new(&namespace, "Immediate");
    let mut wanted = class.claim("disk", "VolumeImportSource", "source");
    wanted["metadata"]["labels"] = json!({"team": "a"});
    namespace.apply(&wanted);
    namespace.wait("pvc/disk", REASON, "AwaitingVolumeImportSource");
    namespace.apply(&source("source"));
    let prime = prime(&namespace, "disk");
    let made = namespace.get(&format!("pvc/{prime}"));
    assert_eq!(made["spec"]["dataSourceRef"], Value::Null);
    assert_eq!(made["spec"]["storageClassName"], json!(class.name));
    assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "disk");
    let labels = &made["metadata"]["labels"];
    assert_eq!(labels["velero.io/exclude-from-backup"], "true");
    assert_eq!(labels["team"], "a");

    let volume = class.provision(&prime);
    let pod = format!("importer-{prime}");
    namespace.wait_for(&format!("pod/{pod}"), "create");
    let worker = namespace.get(&format!("pod/{pod}"));
    assert_eq!(worker["metadata"]["labels"]["team"], "a");
    namespace.ask(&["delete", "volumeimportsource", "source"]);
    namespace.pod_status(&pod, &running());
    namespace.wait("pvc/disk", PHASE, "Running");
    assert_eq!(namespace.get("pvc/disk")["status"]["phase"], "Pending");
    finish(&namespace, &prime, "disk");

    let claim = namespace.get("pvc/disk");
    assert_eq!(claim["spec"]["volumeName"], json!(volume));
    let progress = "cdi.kubevirt.io/storage.populator.progress";
    assert_eq!(claim["metadata"]["annotations"][progress], "100.0%");
    let volume = namespace.get(&format!("pv/{volume}"));
    assert_eq!(volume["spec"]["claimRef"]["uid"], claim["metadata"]["uid"]);
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    let told = events(&namespace, "disk");
    for words in [
        "CreatedPVCPrimeSuccessfully PVC Prime created successfully".to_owned(),
        "importSucceeded Successfully imported into disk".to_owned(),
        format!("ImportSucceeded [{prime}] : Import Successful"),
    ] {
        assert!(told.contains(&words), "{words}: {told:#?}");
    }
}

#[test]
fn a_data_volume_of_a_class_with_a_driver_is_filled_by_a_populator() {
    let Some(namespace) = namespace() else { return };
    let class = Class::new(&namespace, "Immediate");
    class.apply_data_volume("disk");
    namespace.wait_for("pvc/disk", "create");
    let volume = namespace.get("dv/disk");
    let stamp = &volume["metadata"]["annotations"]["cdi.kubevirt.io/storage.usePopulator"];
    assert_eq!(stamp, "true");
    let source = format!("volume-import-source-{}", uid(&namespace, "dv/disk"));
    let claim = namespace.get("pvc/disk");
    assert_eq!(claim["spec"]["dataSourceRef"]["name"], json!(source));
    let source = format!("volumeimportsource/{source}");
    namespace.wait_for(&source, "create");

    let prime = prime(&namespace, "disk");
    class.provision(&prime);
    let pod = format!("importer-{prime}");
    namespace.wait_for(&format!("pod/{pod}"), "create");
    namespace.wait("dv/disk", ".status.phase", "ImportScheduled");
    namespace.pod_status(&pod, &running());
    namespace.wait("dv/disk", ".status.phase", "ImportInProgress");
    // It may die in the midst of it.
    namespace.restart_controller();
    finish(&namespace, &prime, "disk");
    namespace.wait("dv/disk", ".status.phase", "Succeeded");
    namespace.wait("dv/disk", ".status.progress", "100.0%");
    namespace.wait_for(&source, "delete");
}

#[test]
fn a_prime_is_filled_checkpoint_by_checkpoint_and_handed_over_after_the_last() {
    let Some(namespace) = namespace() else { return };
    let class = Class::new(&namespace, "Immediate");
    // The controller is known to know the driver once this one has a prime.
    class.apply_data_volume("whole");
    let mut warm = class.data_volume("disk");
    warm["spec"]["source"] = stages::source();
    let first = json!({"previous": "", "current": "snap-1"});
    warm["spec"]["checkpoints"] = json!([first]);
    namespace.apply(&warm);
    namespace.wait_for("pvc/disk", "create");
    let source = format!(
        "volumeimportsource/volume-import-source-{}",
        uid(&namespace, "dv/disk")
    );
    namespace.wait_for(&source, "create");
    assert_eq!(namespace.get(&source)["spec"]["targetClaim"], "disk");
    let prime = prime(&namespace, "disk");
    let volume = class.provision(&prime);
    let pod = |checkpoint: &str| format!("importer-{prime}-checkpoint-{checkpoint}");
    let copied = |checkpoint: &str| {
        let pod = pod(checkpoint);
        namespace.wait_for(&format!("pod/{pod}"), "create");
        let made = namespace.get(&format!("pod/{pod}"));
        namespace.pod_status(&pod, &json!({"phase": "Succeeded"}));
        made
    };
    let made = copied("snap-1");
    assert_eq!(
        stages::variable(&made, "IMPORTER_CURRENT_CHECKPOINT"),
        "snap-1"
    );
    namespace.wait("dv/disk", ".status.phase", "Paused");
    namespace.wait_for(&format!("pod/{}", pod("snap-1")), "delete");
    let claim = namespace.get("pvc/disk");
    assert_eq!(claim["status"]["phase"], "Pending");
    let said = claim["metadata"]["annotations"].as_object().unwrap();
    assert!(
        !said.contains_key("cdi.kubevirt.io/storage.pod.phase"),
        "{said:?}"
    );
    let noted = &said["cdi.kubevirt.io/storage.checkpoint.copied.snap-1"];
    assert_eq!(*noted, made["metadata"]["uid"]);
    namespace.restart_controller();
    let second = json!({"previous": "snap-1", "current": "snap-2"});
    let more = json!({"spec": {"checkpoints": [first, second], "finalCheckpoint": true}});
    namespace.patch("dv/disk", &more);
    let made = copied("snap-2");
    assert_eq!(
        stages::variable(&made, "IMPORTER_PREVIOUS_CHECKPOINT"),
        "snap-1"
    );
    assert_eq!(stages::variable(&made, "IMPORTER_FINAL_CHECKPOINT"), "true");
    namespace.wait("dv/disk", ".status.phase", "Succeeded");
    let claim = namespace.get("pvc/disk");
    assert_eq!(claim["spec"]["volumeName"], json!(volume));
    let said = claim["metadata"]["annotations"].to_string();
    assert!(
        !said.contains("checkpoint.copied") && !said.contains("checkpoint.current"),
        "{said}"
    );
    namespace.wait_for(&source, "delete");
    namespace.wait_for(&format!("pvc/{prime}"), "delete");
}

#[test]
fn a_source_names_checkpoints_for_the_claim_that_it_is_for() {
    let Some(namespace) = namespace() else { return };
    let class = Class::new(&namespace, "Immediate");
    let mut warm = source("warm");
    warm["spec"]["source"] = stages::source();
    warm["spec"]["checkpoints"] = json!([{"previous": "", "current": "snap-1"}]);
    namespace.apply(&warm);
    namespace.apply(&class.claim("disk", "VolumeImportSource", "warm"));
    namespace.wait("pvc/disk", REASON, "ErrSourceNotValid");
    namespace.patch(
        "volumeimportsource/warm",
        &json!({"spec": {"targetClaim": "disk"}}),
    );
    let prime = prime(&namespace, "disk");
    class.provision(&prime);
    let pod = format!("importer-{prime}-checkpoint-snap-1");
    namespace.wait_for(&format!("pod/{pod}"), "create");
    namespace.pod_status(&pod, &json!({"phase": "Succeeded"}));
    let copied =
        "{.metadata.annotations.cdi\\.kubevirt\\.io/storage\\.checkpoint\\.copied\\.snap-1}";
    namespace.wait_for("pvc/disk", &format!("jsonpath={copied}"));
    // It ends where it rests, without another pod.
    namespace.patch(
        "volumeimportsource/warm",
        &json!({"spec": {"finalCheckpoint": true}}),
    );
    namespace.wait("pvc/disk", PHASE, "Succeeded");
    namespace.wait("pvc/disk", ".status.phase", "Bound");
    namespace.wait_for(&format!("pvc/{prime}"), "delete");
}

#[test]
fn a_class_that_binds_late_waits_for_the_node_and_the_volume_is_made_there() {
    let Some(namespace) = namespace() else { return };
    let class = Class::new(&namespace, "WaitForFirstConsumer");
    class.apply_data_volume("disk");
    namespace.wait("dv/disk", ".status.phase", "PendingPopulation");
    let prime_name = format!("prime-{}", uid(&namespace, "pvc/disk"));
    assert!(!namespace.exists(&format!("pvc/{prime_name}")));
    // As the scheduler does for the pod that uses it.
    let node = format!("{NODE}=far-away");
    namespace.ask(&["annotate", "pvc", "disk", &node]);
    let prime = prime(&namespace, "disk");
    let made = namespace.get(&format!("pvc/{prime}"));
    assert_eq!(made["metadata"]["annotations"][NODE], "far-away");
    class.provision(&prime);
    namespace.wait_for(&format!("pod/importer-{prime}"), "create");
    finish(&namespace, &prime, "disk");
    namespace.wait("dv/disk", ".status.phase", "Succeeded");
}

#[test]
fn a_claim_that_is_deleted_midway_takes_its_prime_with_it_and_is_filled_anew() {
    let Some(namespace) = namespace() else { return };
    let class = Class::new(&namespace, "Immediate");
    class.apply_data_volume("disk");
    namespace.wait_for("pvc/disk", "create");
    let first = prime(&namespace, "disk");
    class.provision(&first);
    namespace.wait_for(&format!("pod/importer-{first}"), "create");
    namespace.ask(&["delete", "pvc", "disk", "--wait=false"]);
    namespace.wait_for(&format!("pvc/{first}"), "delete");
    namespace.wait_for(&format!("pod/importer-{first}"), "delete");
    namespace.wait_for("pvc/disk", "create");
    let second = prime(&namespace, "disk");
    assert_ne!(first, second);
    class.provision(&second);
    namespace.wait_for(&format!("pod/importer-{second}"), "create");
    finish(&namespace, &second, "disk");

    // And nothing is left of one that goes with its volume.
    namespace.apply(&class.data_volume("gone"));
    namespace.wait_for("pvc/gone", "create");
    let prime = prime(&namespace, "gone");
    namespace.ask(&["delete", "dv", "gone", "--wait=false"]);
    namespace.wait_for(&format!("pvc/{prime}"), "delete");
    namespace.wait_for("pvc/gone", "delete");
}

#[test]
fn a_prime_counts_and_a_used_up_quota_is_told_and_waited_out() {
    let Some(namespace) = namespace() else { return };
    let class = Class::new(&namespace, "Immediate");
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one"},
        "spec": {"hard": {"persistentvolumeclaims": "1"}},
    }));
    namespace.wait("quota/one", ".status.hard.persistentvolumeclaims", "1");
    namespace.apply(&source("source"));
    namespace.apply(&class.claim("disk", "VolumeImportSource", "source"));
    namespace.wait("pvc/disk", REASON, "ErrExceededQuota");
    let told = events(&namespace, "disk");
    assert!(
        told.iter().any(|it| it.starts_with("ErrCreatingPVCPrime")),
        "{told:?}"
    );
    run(namespace.kubectl().args(["delete", "quota", "one"]));
    prime(&namespace, "disk");
}

#[test]
fn what_nobody_fills_yet_and_what_nobody_can_wait_for_is_told() {
    let Some(namespace) = namespace() else { return };
    let class = Class::without_driver(&namespace, "WaitForFirstConsumer");
    namespace.apply(&source("source"));
    namespace.apply(&class.claim("eager", "VolumeImportSource", "source"));
    namespace.wait("pvc/eager", REASON, "NoCSIDriver");
    namespace.apply(&json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "VolumeUploadSource",
        "metadata": {"name": "upload"}, "spec": {"contentType": "kubevirt"},
    }));
    namespace.apply(&class.claim("upload", "VolumeUploadSource", "upload"));
    namespace.wait("pvc/upload", REASON, "UnsupportedSource");
    namespace.apply(&json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "VolumeCloneSource",
        "metadata": {"name": "clone"},
        "spec": {"source": {"kind": "PersistentVolumeClaim", "name": "eager"}},
    }));
    namespace.apply(&class.claim("clone", "VolumeCloneSource", "clone"));
    namespace.wait("pvc/clone", REASON, "UnsupportedSource");
    // The driver comes, and the user too.
    class.add_driver();
    let node = format!("{NODE}=near");
    namespace.ask(&["annotate", "pvc", "eager", &node]);
    prime(&namespace, "eager");
}

#[test]
fn a_claim_that_somebody_else_binds_is_not_called_filled() {
    let Some(namespace) = namespace() else { return };
    let class = Class::new(&namespace, "Immediate");
    namespace.apply(&source("source"));
    namespace.apply(&class.claim("disk", "VolumeImportSource", "source"));
    let prime = prime(&namespace, "disk");
    class.provision("disk");
    namespace.wait("pvc/disk", REASON, "BoundUnpopulated");
    namespace.wait_for(&format!("pvc/{prime}"), "delete");
    let phase =
        &namespace.get("pvc/disk")["metadata"]["annotations"]["cdi.kubevirt.io/storage.pod.phase"];
    assert_ne!(phase, "Succeeded");
}
