//! Types and schemas must say the same: for every field of a schema, an object that has it comes out of
//! its type as it went in.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{
    Cdi, CdiConfig, DataVolume, StorageProfile, VolumeCloneSource, VolumeImportSource,
    VolumeUploadSource,
};

/// The schema of a definition's one version.
fn schema(definition: &str) -> Value {
    let definition: Value = serde_json::from_str(definition).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// A value with all that `schema` allows.
fn full(schema: &Value) -> Value {
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed[0].clone();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return json!("1500m");
    }
    if schema["pattern"].is_string() {
        return json!("0.055");
    }
    match schema["type"].as_str() {
        Some("string") if schema["format"] == "date-time" => json!("2026-11-21T00:00:00Z"),
        Some("string") => json!("text"),
        Some("boolean") => json!(true),
        Some("integer") => json!(3),
        Some("array") => json!([full(&schema["items"])]),
        Some("object") => {
            let mut object = Map::new();
            if let Some(fields) = schema["properties"].as_object() {
                for (name, field) in fields {
                    object.insert(name.clone(), full(field));
                }
            }
            if schema["additionalProperties"].is_object() {
                object.insert("key".to_owned(), full(&schema["additionalProperties"]));
            }
            Value::Object(object)
        }
        other => panic!("what is a {other:?}? {schema}"),
    }
}

/// Paths of all that `value` holds, each with what is left of `value` when only that is set.
fn each(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                let mut inner = Vec::new();
                each(field, &format!("{path}.{name}"), &mut inner);
                found.extend(inner.into_iter().map(|(p, v)| (p, json!({ name: v }))));
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let mut inner = Vec::new();
            each(&items[0], &format!("{path}[]"), &mut inner);
            found.extend(inner.into_iter().map(|(p, v)| (p, json!([v]))));
        }
        scalar => found.push((path.to_owned(), scalar.clone())),
    }
}

fn metadata() -> Value {
    json!({
        "name": "config", "generateName": "c", "uid": "1-2", "resourceVersion": "7", "generation": 3,
        "creationTimestamp": "2026-11-21T00:00:00Z", "deletionTimestamp": "2026-11-21T00:00:00Z",
        "deletionGracePeriodSeconds": 0, "finalizers": ["operator.cdi.kubevirt.io"], "selfLink": "/x",
        "labels": {"operator.cdi.kubevirt.io": ""},
        "annotations": {"cdi.kubevirt.io/configAuthority": ""},
        "ownerReferences": [{
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "CDI", "name": "cdi", "uid": "1",
            "controller": true, "blockOwnerDeletion": true,
        }],
        "managedFields": [{"manager": "virt-cdi-operator", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}],
    })
}

fn again<T: Serialize + DeserializeOwned>(value: &Value) -> Value {
    let typed: T =
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}\n{value:#}"));
    serde_json::to_value(typed).unwrap()
}

/// The whole of it at once, and each field by itself, which no neighbour holds up.
fn survives<T: Serialize + DeserializeOwned>(kind: &str, definition: &str) {
    let mut whole = full(&schema(definition));
    whole["apiVersion"] = json!("cdi.kubevirt.io/v1beta1");
    whole["kind"] = json!(kind);
    whole["metadata"] = metadata();
    assert_eq!(again::<T>(&whole), whole);
    let mut paths = Vec::new();
    for part in ["spec", "status"] {
        each(&json!({ part: whole[part] }), "", &mut paths);
    }
    assert!(paths.len() > 2, "{paths:?}");
    for (path, only) in paths {
        let mut object = json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": kind, "metadata": {"name": "x"}, "spec": {},
        });
        for (part, value) in only.as_object().unwrap() {
            object[part] = value.clone();
        }
        let kept = again::<T>(&object);
        assert!(
            holds(&kept, &object),
            "{path} is lost:\n{object:#}\n{kept:#}"
        );
    }
}

/// Whether all of `wanted` is in `value`. A type may add what its schema requires.
fn holds(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| {
            let inner = value.get(name);
            inner.is_some_and(|value| holds(value, wanted))
        }),
        (Value::Array(value), Value::Array(wanted)) => {
            value.len() == wanted.len() && value.iter().zip(wanted).all(|(v, w)| holds(v, w))
        }
        _ => value == wanted,
    }
}

#[test]
fn every_field_of_a_data_volume_survives_its_type() {
    survives::<DataVolume>("DataVolume", include_str!("../schema/datavolume.json"));
}

#[test]
fn every_field_of_a_storage_profile_survives_its_type() {
    survives::<StorageProfile>(
        "StorageProfile",
        include_str!("../schema/storageprofile.json"),
    );
}

#[test]
fn every_field_of_what_claims_are_filled_from_survives_its_type() {
    survives::<VolumeImportSource>(
        "VolumeImportSource",
        include_str!("../schema/volumeimportsource.json"),
    );
    survives::<VolumeUploadSource>(
        "VolumeUploadSource",
        include_str!("../schema/volumeuploadsource.json"),
    );
    survives::<VolumeCloneSource>(
        "VolumeCloneSource",
        include_str!("../schema/volumeclonesource.json"),
    );
}

#[test]
fn every_field_of_a_configuration_survives_its_type() {
    survives::<CdiConfig>("CDIConfig", include_str!("../schema/cdiconfig.json"));
}

#[test]
fn every_field_of_an_installation_survives_its_type() {
    survives::<Cdi>("CDI", include_str!("../schema/cdi.json"));
}

/// As `kubectl get cdi -o json` prints one that upstream's operator wrote, and what its users put into it.
#[test]
fn an_installation_of_upstream_is_read_and_written_without_loss() {
    let written = json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "CDI",
        "metadata": metadata(),
        "spec": {
            "cloneStrategyOverride": "snapshot",
            "config": {
                "featureGates": ["HonorWaitForFirstConsumer"],
                "filesystemOverhead": {"global": "0.08", "storageClass": {"nfs": "0"}},
                "importProxy": {"HTTPProxy": "http://user:word@proxy:3128", "noProxy": ".svc"},
                "insecureRegistries": ["registry:5000"],
                "podResourceRequirements": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "scratchSpaceStorageClass": "local",
                "tlsSecurityProfile": {"type": "Custom", "custom": {
                    "ciphers": ["ECDHE-RSA-AES128-GCM-SHA256"], "minTLSVersion": "VersionTLS12",
                }},
                "uploadProxyURLOverride": "https://upload.example.org",
            },
            "imagePullPolicy": "IfNotPresent",
            "infra": {
                "nodeSelector": {"kubernetes.io/os": "linux"}, "deploymentReplicas": 2,
                "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
            },
            "workload": {"nodeSelector": {"kubernetes.io/os": "linux"}, "affinity": {"nodeAffinity": {}}},
        },
        "status": {
            "phase": "Deployed", "operatorVersion": "v1.65.0", "targetVersion": "v1.65.0",
            "observedVersion": "v1.65.0",
            "conditions": [{
                "type": "Available", "status": "True", "reason": "DeployCompleted",
                "message": "Deployment Completed", "lastTransitionTime": "2026-11-21T00:00:00Z",
                "lastHeartbeatTime": "2026-11-21T00:00:00Z",
            }],
        },
    });
    assert_eq!(again::<Cdi>(&written), written);
    let typed: Cdi = serde_json::from_value(written).unwrap();
    let shown = format!("{typed:?}");
    assert!(!shown.contains("word@"), "{shown}");
}
