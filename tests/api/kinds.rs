//! Profiles, the configuration, and what claims and pods are made of because of them.

use longshore_tests::program::run;
use serde_json::{Value, json};

use super::rig::{Namespace, alone, namespace};

fn class(namespace: &Namespace, name: &str, provisioner: &str) -> String {
    let name = format!("{}-{name}", namespace.name);
    namespace.apply(&json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer",
    }));
    name
}

fn gone(namespace: &Namespace, class: &str) {
    run(namespace.kubectl().args(["delete", "sc", class]));
}

fn blank(name: &str, class: &str, storage: &Value) -> Value {
    let mut storage = storage.clone();
    storage["storageClassName"] = json!(class);
    json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume", "metadata": {"name": name},
        "spec": {"source": {"blank": {}}, "storage": storage},
    })
}

fn size(size: &str) -> Value {
    json!({"resources": {"requests": {"storage": size}}})
}

#[test]
fn a_storage_class_has_a_profile_for_as_long_as_it_is_there() {
    let Some(namespace) = namespace() else { return };
    let name = class(&namespace, "local", "rancher.io/local-path");
    let profile = format!("storageprofile/{name}");
    let recognized = ".status.conditions[?(@.type==\"Recognized\")].reason";
    namespace.wait_for(&profile, "create");
    namespace.wait(&profile, recognized, "RecognizedProvisioner");
    let status = namespace.get(&profile)["status"].clone();
    assert_eq!(
        status["claimPropertySets"],
        json!([{"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}])
    );
    assert_eq!(
        (&status["storageClass"], &status["provisioner"]),
        (&json!(name), &json!("rancher.io/local-path"))
    );
    let set = json!({"accessModes": ["ReadWriteMany"], "volumeMode": "Block"});
    namespace.patch(&profile, &json!({"spec": {"claimPropertySets": [set]}}));
    namespace.wait(&profile, ".status.claimPropertySets[0].volumeMode", "Block");
    namespace.patch(&profile, &json!({"spec": {"claimPropertySets": null}}));
    namespace.wait(
        &profile,
        ".status.claimPropertySets[0].volumeMode",
        "Filesystem",
    );
    gone(&namespace, &name);
    namespace.wait_for(&profile, "delete");
}

#[test]
fn a_claim_is_made_of_what_the_profile_and_the_configuration_say() {
    let Some(namespace) = namespace() else { return };
    let name = class(&namespace, "local", "rancher.io/local-path");
    let share =
        json!({"spec": {"config": {"filesystemOverhead": {"storageClass": {&name: "0.5"}}}}});
    namespace.wait_for("cdi/cdi", "create");
    namespace.patch("cdi/cdi", &share);
    let field = format!(".status.filesystemOverhead.storageClass.{name}");
    namespace.wait("cdiconfig/config", &field, "0.5");
    namespace.apply(&blank("disk", &name, &size("1Gi")));
    namespace.wait("dv/disk", ".status.phase", "WaitForFirstConsumer");
    let spec = namespace.get("pvc/disk")["spec"].clone();
    assert_eq!(spec["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(spec["volumeMode"], "Filesystem");
    assert_eq!(spec["storageClassName"], json!(name));
    assert_eq!(spec["resources"]["requests"]["storage"], "1610612736");
    namespace.patch(
        "cdi/cdi",
        &json!({"spec": {"config": {"filesystemOverhead": null}}}),
    );
    gone(&namespace, &name);
}

#[test]
fn a_volume_of_an_unknown_class_waits_until_its_profile_is_filled_in() {
    let Some(namespace) = namespace() else { return };
    let name = class(&namespace, "odd", "example.org/odd");
    namespace.apply(&blank("disk", &name, &size("1Gi")));
    // Bound and Ready have upstream's word for it, which stands for other causes, too.
    for (kind, reason) in [
        ("Running", "StorageProfileIncomplete"),
        ("Ready", "ErrClaimNotValid"),
    ] {
        let why = format!(".status.conditions[?(@.type==\"{kind}\")].reason");
        namespace.wait("dv/disk", &why, reason);
    }
    assert!(!namespace.exists("pvc/disk"));
    let set = json!({"accessModes": ["ReadWriteMany"], "volumeMode": "Block"});
    let profile = format!("storageprofile/{name}");
    namespace.patch(&profile, &json!({"spec": {"claimPropertySets": [set]}}));
    namespace.wait_for("pvc/disk", "create");
    let spec = namespace.get("pvc/disk")["spec"].clone();
    assert_eq!(spec["volumeMode"], "Block");
    // A device has no filesystem that takes a part of it.
    assert_eq!(spec["resources"]["requests"]["storage"], "1Gi");
    gone(&namespace, &name);
}

/// Nothing runs the deployment here; what would run is seen by its template.
#[test]
fn what_the_installation_says_of_our_own_pods_is_written_and_taken_back() {
    let Some(namespace) = alone() else { return };
    let _controller = namespace.controller(&[]);
    namespace.wait("cdi/cdi", ".status.phase", "Deployed");
    let ours = |path: &str| {
        let output = format!("jsonpath={{{path}}}");
        let asked = [
            "get",
            "deployment/cdi-deployment",
            "--namespace=cdi",
            "-o",
            &output,
        ];
        String::from_utf8(run(namespace.everywhere().args(asked))).unwrap()
    };
    let wait = |state: &str| {
        let asked = [
            "wait",
            "deployment/cdi-deployment",
            "--namespace=cdi",
            "--timeout=60s",
        ];
        run(namespace
            .everywhere()
            .args(asked)
            .arg(format!("--for={state}")));
    };
    let pod = ".spec.template.spec";
    namespace.patch(
        "cdi/cdi",
        &json!({"spec": {
            "priorityClass": "system-cluster-critical",
            "infra": {"nodeSelector": {"role": "infra"}, "tolerations": [{"key": "infra"}]},
        }}),
    );
    wait(&format!(
        "jsonpath={{{pod}.priorityClassName}}=system-cluster-critical"
    ));
    assert_eq!(ours(&format!("{pod}.nodeSelector")), r#"{"role":"infra"}"#);
    assert_eq!(ours(&format!("{pod}.tolerations[0].key")), "infra");
    assert_eq!(ours(&format!("{pod}.serviceAccountName")), "cdi-sa");
    namespace.patch(
        "cdi/cdi",
        &json!({"spec": {
            "priorityClass": null,
            "infra": {"nodeSelector": {"role": "other"}, "tolerations": null},
        }}),
    );
    wait(&format!("jsonpath={{{pod}.nodeSelector.role}}=other"));
    assert_eq!(ours(&format!("{pod}.priorityClassName")), "");
    assert_eq!(ours(&format!("{pod}.tolerations")), "");
    namespace.patch(
        "cdi/cdi",
        &json!({"spec": {"infra": null, "priorityClass": "system-node-critical"}}),
    );
    wait(&format!(
        "jsonpath={{{pod}.priorityClassName}}=system-node-critical"
    ));
    assert_eq!(ours(&format!("{pod}.nodeSelector")), "");
    namespace.patch("cdi/cdi", &json!({"spec": {"priorityClass": null}}));
}

#[test]
fn pods_are_made_with_what_the_installation_says() {
    let Some(namespace) = namespace() else { return };
    let map = format!("authorities-{}", namespace.name);
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": map, "namespace": "cdi"},
        "data": {"ca.crt": "one"},
    }));
    namespace.wait_for("cdi/cdi", "create");
    namespace.patch(
        "cdi/cdi",
        &json!({"spec": {
            "imagePullPolicy": "Always",
            "workload": {"nodeSelector": {"disks": "yes"}},
            "config": {
                "podResourceRequirements": {"limits": {"cpu": "3"}},
                "imagePullSecrets": [{"name": "pull"}],
                "insecureRegistries": ["registry.example.org:5000"],
                "importProxy": {"HTTPProxy": "http://proxy:1", "noProxy": ".svc", "trustedCAProxy": map},
            },
        }}),
    );
    namespace.wait(
        "cdiconfig/config",
        ".status.importProxy.trustedCAProxy",
        &map,
    );
    namespace.volume_for("disk");
    // As one of a pod before is for a moment.
    let copy = "configmap/import-proxy-cm-disk";
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "import-proxy-cm-disk"},
        "data": {"ca.crt": "old"},
    }));
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "disk", "annotations": {
            "cdi.kubevirt.io/storage.import.source": "registry",
            "cdi.kubevirt.io/storage.import.endpoint": "docker://registry.example.org:5000/disk",
        }},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }));
    namespace.wait_for("pod/importer-disk", "create");
    let spec = namespace.get("pod/importer-disk")["spec"].clone();
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["resources"]["limits"]["cpu"], "3");
    assert_eq!(container["resources"]["limits"]["memory"], "600M");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(spec["nodeSelector"]["disks"], "yes");
    let variable = |name: &str| {
        let all = container["env"].as_array().unwrap();
        let found = all.iter().find(|variable| variable["name"] == name);
        found.unwrap()["value"].clone()
    };
    assert_eq!(variable("http_proxy"), "http://proxy:1");
    assert_eq!(variable("no_proxy"), ".svc");
    assert_eq!(variable("IMPORTER_PROXY_CERT_DIR"), "/proxycerts");
    assert_eq!(variable("INSECURE_TLS"), "true");
    // It is let go once it has what it mounts, and only then is more to be told of it.
    let phase = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.pod\\.phase";
    namespace.wait("pvc/disk", phase, "Pending");
    let made = namespace.get(copy);
    assert_eq!(made["data"], json!({"ca.crt": "one"}));
    let pod = namespace.get("pod/importer-disk");
    assert_eq!(pod["spec"]["schedulingGates"], Value::Null);
    let owner = &made["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], pod["metadata"]["uid"]);
    namespace.pod_status("importer-disk", &json!({"phase": "Succeeded"}));
    namespace.wait_for("pod/importer-disk", "delete");
    namespace.wait_for(copy, "delete");
    namespace.patch(
        "cdi/cdi",
        &json!({"spec": {"imagePullPolicy": null, "workload": null, "config": {
            "podResourceRequirements": null, "imagePullSecrets": null, "insecureRegistries": null,
            "importProxy": null,
        }}}),
    );
}

#[test]
fn what_is_written_into_the_configuration_gives_way_to_the_installation() {
    let Some(namespace) = namespace() else { return };
    namespace.wait_for("cdiconfig/config", "create");
    let gates = ".spec.featureGates[0]";
    namespace.patch(
        "cdiconfig/config",
        &json!({"spec": {"featureGates": ["Another"]}}),
    );
    namespace.wait("cdiconfig/config", gates, "HonorWaitForFirstConsumer");
    namespace.patch("cdi/cdi", &json!({"spec": {"config": {"logVerbosity": 4}}}));
    namespace.wait("cdiconfig/config", ".spec.logVerbosity", "4");
    namespace.patch(
        "cdi/cdi",
        &json!({"spec": {"config": {"logVerbosity": null}}}),
    );
}

#[test]
fn each_kind_explains_its_fields() {
    let Some(namespace) = namespace() else { return };
    for field in [
        "cdi.spec.config.featureGates",
        "cdi.spec.uninstallStrategy",
        "cdiconfig.status.filesystemOverhead",
        "storageprofile.spec.claimPropertySets.accessModes",
        "storageprofile.status.conditions",
        "datavolume.spec.source.http.url",
        "volumeimportsource.spec.targetClaim",
        "volumeuploadsource.spec.contentType",
        "volumeclonesource.spec.source.kind",
    ] {
        let text = run(namespace.kubectl().args(["explain", field]));
        let text = String::from_utf8(text).unwrap();
        let words = text.split("DESCRIPTION:").nth(1).unwrap();
        assert!(
            words.trim().len() > 20 && !words.contains("<empty>"),
            "{text}"
        );
    }
}
