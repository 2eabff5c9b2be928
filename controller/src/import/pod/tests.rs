//! Pods, whole: what each kind of claim gets, compared with the files in `golden/`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p longshore-controller` rewrites them.

use std::path::Path;

use k8s_openapi::api::core::v1::{LocalObjectReference, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use longshore_crds::contract::Overhead;
use longshore_crds::names::annotation;
use serde_json::{Value, json};

use super::super::source::request;
use super::{Workload, pod};

fn claim(mode: &str, annotations: &Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {
            "name": "disk", "namespace": "ns", "uid": "claim-1", "labels": {"team": "a"},
            "annotations": annotations,
            "ownerReferences": [{"apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
                "name": "disk", "uid": "volume-1", "controller": true}],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": mode,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }))
    .unwrap()
}

fn workload() -> Workload {
    let mut workload = Workload {
        image: "example.org/importer:1".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: vec![LocalObjectReference {
            name: "pull".to_owned(),
        }],
        overhead: Overhead::USUAL,
        node_selector: [("kubernetes.io/os".to_owned(), "linux".to_owned())].into(),
        ..Workload::default()
    };
    let limits = [("memory".to_owned(), Quantity("600M".to_owned()))];
    workload.resources.limits = Some(limits.into());
    workload
}

fn made(mode: &str, annotations: &Value) -> Value {
    let claim = claim(mode, annotations);
    let request = request(&claim, None).unwrap().unwrap();
    serde_json::to_value(pod(&claim, &request, &workload())).unwrap()
}

/// With all that a claim can ask of its pod.
fn own() -> Value {
    made(
        "Filesystem",
        &json!({
            annotation::IMPORT_ENDPOINT: "https://h/disk.qcow2",
            annotation::POD_NODE_SELECTOR: r#"{"disk": "fast"}"#,
            annotation::POD_TOLERATIONS: r#"[{"key": "storage", "operator": "Exists"}]"#,
            annotation::POD_AFFINITY: r#"{"nodeAffinity": {}}"#,
            annotation::POD_RESOURCES: r#"{"limits": {"cpu": "4"}, "requests": {"cpu": "1"}}"#,
            "v1.multus-cni.io/default-network": "storage-net",
            "linkerd.io/inject": "enabled",
        }),
    )
}

/// An image that the node pulls, with a Secret for it.
fn pulled_by_node() -> Value {
    made(
        "Filesystem",
        &json!({
            annotation::IMPORT_SOURCE: "registry",
            annotation::IMPORT_ENDPOINT: "docker://example.org/fedora:42",
            annotation::IMPORT_METHOD: "node",
            annotation::IMPORT_ARCHITECTURE: "arm64",
            annotation::IMPORT_SECRET: "registry-login",
        }),
    )
}

/// An image that the cluster knows by the name of a stream and a tag.
fn of_a_stream() -> Value {
    made(
        "Filesystem",
        &json!({
            annotation::IMPORT_SOURCE: "registry",
            annotation::IMPORT_ENDPOINT: "fedora:42",
            annotation::IMPORT_IMAGE_STREAM: "true",
            annotation::IMPORT_METHOD: "node",
        }),
    )
}

fn cases() -> Vec<(&'static str, Value)> {
    let numbered = |name: &str| format!("{name}0");
    vec![
        (
            "http",
            made(
                "Filesystem",
                &json!({
                    annotation::IMPORT_ENDPOINT: "https://h/disk.qcow2",
                    annotation::IMPORT_SECRET: "login",
                    annotation::IMPORT_CERTIFICATES: "ca",
                    annotation::IMPORT_CHECKSUM: format!("md5:{}", "0".repeat(32)),
                    numbered(annotation::IMPORT_EXTRA_HEADER): "A: 1",
                    numbered(annotation::IMPORT_SECRET_HEADER): "headers",
                    annotation::POD_PRIORITY_CLASS: "high",
                    annotation::POD_SERVICE_ACCOUNT: "worker",
                    "k8s.v1.cni.cncf.io/networks": "net",
                    "sidecar.istio.io/inject": "true",
                }),
            ),
        ),
        (
            "block",
            made(
                "Block",
                &json!({
                    annotation::IMPORT_SOURCE: "s3",
                    annotation::IMPORT_ENDPOINT: "https://s3.example.org/bucket/disk.raw.xz",
                    annotation::IMPORT_SECRET: "keys",
                    annotation::PREALLOCATION_REQUESTED: "true",
                }),
            ),
        ),
        (
            "gcs",
            made(
                "Filesystem",
                &json!({
                    annotation::IMPORT_SOURCE: "gcs",
                    annotation::IMPORT_ENDPOINT: "gs://bucket/disk.tar",
                    annotation::IMPORT_SECRET: "google",
                    annotation::CONTENT_TYPE: "archive",
                }),
            ),
        ),
        (
            "registry",
            made(
                "Filesystem",
                &json!({
                    annotation::IMPORT_SOURCE: "registry",
                    annotation::IMPORT_ENDPOINT: "docker://example.org/fedora:42",
                    annotation::IMPORT_ARCHITECTURE: "arm64",
                }),
            ),
        ),
        ("own", own()),
        ("node-pull", pulled_by_node()),
        ("image-stream", of_a_stream()),
        (
            "blank",
            made("Block", &json!({annotation::IMPORT_SOURCE: "none"})),
        ),
        (
            "imageio",
            made(
                "Filesystem",
                &json!({
                    annotation::IMPORT_SOURCE: "imageio",
                    annotation::IMPORT_ENDPOINT: "https://engine/ovirt-engine/api",
                    annotation::IMPORT_SECRET: "ovirt",
                    annotation::IMPORT_DISK_ID: "disk-1",
                }),
            ),
        ),
        (
            "vddk",
            made(
                "Filesystem",
                &json!({
                    annotation::IMPORT_SOURCE: "vddk",
                    annotation::IMPORT_ENDPOINT: "https://vcenter.example.org",
                    annotation::IMPORT_SECRET: "vmware",
                    annotation::IMPORT_UUID: "uuid-1",
                    annotation::IMPORT_BACKING_FILE: "[store] vm/vm.vmdk",
                    annotation::IMPORT_THUMBPRINT: "AA:BB",
                    annotation::VDDK_IMAGE: "example.org/vddk:8",
                    annotation::VDDK_ARGS: "args",
                }),
            ),
        ),
    ]
}

#[test]
fn pods_are_what_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import/pod/golden");
    for (name, pod) in cases() {
        let path = folder.join(format!("{name}.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&pod).unwrap());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
            continue;
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, golden, "{name}: UPDATE_GOLDEN=1 writes it anew");
    }
}

#[test]
fn settings_of_a_pod_that_make_no_sense_are_refused_by_name() {
    for (name, text) in [
        (annotation::POD_NODE_SELECTOR, "disk=fast"),
        (annotation::POD_NODE_SELECTOR, r#"{"disk": 1}"#),
        (annotation::POD_TOLERATIONS, r#"{"key": "x"}"#),
        (annotation::POD_RESOURCES, "[]"),
    ] {
        let asked = json!({annotation::IMPORT_ENDPOINT: "https://h/disk", name: text});
        let refusal = request(&claim("Filesystem", &asked), None)
            .unwrap()
            .unwrap_err();
        assert_eq!(refusal.reason(), "InvalidPodSettings");
        assert!(refusal.to_string().contains(name), "{refusal}");
    }
}

/// As the pod security standard "restricted" has it; the API tests ask a server about it.
#[test]
fn every_container_of_every_pod_is_restricted_and_holds_no_secret() {
    for (name, pod) in cases() {
        let spec = &pod["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(
            spec["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["enableServiceLinks"], false);
        assert_eq!(spec["restartPolicy"], "OnFailure");
        let lists = [&spec["containers"], &spec["initContainers"]];
        let containers = lists.into_iter().filter_map(Value::as_array).flatten();
        for container in containers {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
            assert_eq!(context["runAsNonRoot"], true);
            let variables = container["env"].as_array().map(Vec::as_slice);
            for variable in variables.unwrap_or_default() {
                assert!(variable["valueFrom"].is_null(), "{name}: {variable}");
            }
        }
    }
}
