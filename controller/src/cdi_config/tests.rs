//! Installations, and the configuration that follows from them.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::DynamicObject;
use longshore_crds::names::annotation;
use serde_json::{Value, json};

use super::plan::{Action, Observed, plan};
use crate::custom::CDI;
use crate::model::merge;

fn installation(config: &Value, authority: bool) -> Arc<DynamicObject> {
    let mut cdi = CDI.empty("cdi");
    if authority {
        let mark = (annotation::CONFIG_AUTHORITY.to_owned(), String::new());
        cdi.metadata.annotations = Some([mark].into());
    }
    cdi.metadata.labels = Some([("app.kubernetes.io/part-of".to_owned(), "hco".to_owned())].into());
    cdi.data = json!({"spec": {"config": config}});
    Arc::new(cdi)
}

fn class(name: &str, is_default: bool) -> Arc<StorageClass> {
    let annotations =
        json!({"storageclass.kubernetes.io/is-default-class": is_default.to_string()});
    let class = json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": "p"});
    Arc::new(serde_json::from_value(class).unwrap())
}

fn observed(config: &Value) -> Observed {
    Observed {
        installation: Some(installation(config, true)),
        configuration: None,
        classes: vec![class("fast", false), class("slow", true)],
        ingresses: Vec::new(),
    }
}

/// The configuration once there is nothing more to do.
fn settled(observed: &mut Observed) -> Value {
    for _ in 0..3 {
        match plan(observed) {
            None => return observed.configuration.as_ref().unwrap().data.clone(),
            Some(Action::Create(object)) => observed.configuration = Some(Arc::new(*object)),
            Some(Action::Change { of, change }) => {
                let mut whole = serde_json::to_value(&*of).unwrap();
                merge(&mut whole, &change);
                observed.configuration = Some(Arc::new(serde_json::from_value(whole).unwrap()));
            }
        }
    }
    panic!("it does not settle: {:?}", plan(observed));
}

#[test]
fn what_nobody_sets_is_as_upstream_has_it() {
    let mut cluster = observed(&json!({"featureGates": ["HonorWaitForFirstConsumer"]}));
    let config = settled(&mut cluster);
    assert_eq!(
        config["spec"],
        json!({"featureGates": ["HonorWaitForFirstConsumer"]})
    );
    assert_eq!(
        config["status"],
        json!({
            "defaultPodResourceRequirements": {
                "limits": {"cpu": "750m", "memory": "600M"},
                "requests": {"cpu": "100m", "memory": "60M"},
            },
            "filesystemOverhead": {"global": "0.06", "storageClass": {"fast": "0.06", "slow": "0.06"}},
            "importProxy": {"HTTPProxy": "", "HTTPSProxy": "", "noProxy": "", "trustedCAProxy": ""},
            "scratchSpaceStorageClass": "slow",
        })
    );
    let labels = cluster
        .configuration
        .unwrap()
        .metadata
        .labels
        .clone()
        .unwrap();
    assert_eq!(labels["app.kubernetes.io/part-of"], "hco");
    assert_eq!(labels["app"], "containerized-data-importer");
}

#[test]
fn what_the_installation_sets_is_in_force_and_ends_with_it() {
    let mut cluster = observed(&json!({
        "filesystemOverhead": {"global": "0.1", "storageClass": {"fast": "0", "gone": "0.5"}},
        "podResourceRequirements": {"limits": {"cpu": "2"}},
        "importProxy": {"HTTPProxy": "http://proxy"},
        "scratchSpaceStorageClass": "fast",
        "preallocation": true,
        "imagePullSecrets": [{"name": "pull"}],
        "uploadProxyURLOverride": "https://up",
        "logVerbosity": 5,
    }));
    let config = settled(&mut cluster);
    assert_eq!(
        config["status"],
        json!({
            "defaultPodResourceRequirements": {
                "limits": {"cpu": "2", "memory": "600M"},
                "requests": {"cpu": "100m", "memory": "60M"},
            },
            "filesystemOverhead": {"global": "0.1", "storageClass": {"fast": "0", "slow": "0.1"}},
            "importProxy": {"HTTPProxy": "http://proxy"},
            "scratchSpaceStorageClass": "fast",
            "preallocation": true,
            "imagePullSecrets": [{"name": "pull"}],
            "uploadProxyURL": "https://up",
        })
    );
    assert_eq!(config["spec"]["logVerbosity"], 5);
    cluster.installation = Some(installation(&Value::Null, true));
    let config = settled(&mut cluster);
    assert_eq!(config["spec"], json!({}));
    assert_eq!(config["status"]["preallocation"], Value::Null);
    assert_eq!(config["status"]["scratchSpaceStorageClass"], "slow");
    assert_eq!(config["status"]["filesystemOverhead"]["global"], "0.06");
}

#[test]
fn what_is_written_into_the_configuration_lasts_only_where_the_installation_is_no_authority() {
    for (authority, expected) in [(true, Value::Null), (false, json!(["x"]))] {
        let mut cluster = observed(&json!({}));
        cluster.installation = Some(installation(&json!({}), authority));
        settled(&mut cluster);
        let mut written = (**cluster.configuration.as_ref().unwrap()).clone();
        written.data["spec"]["featureGates"] = json!(["x"]);
        cluster.configuration = Some(Arc::new(written));
        assert_eq!(settled(&mut cluster)["spec"]["featureGates"], expected);
    }
}

#[test]
fn an_ingress_to_the_upload_proxy_tells_where_that_is() {
    let ingress = |service: &str| -> Ingress {
        serde_json::from_value(
            json!({"spec": {"rules": [{"host": "up.example.org", "http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": service, "port": {"number": 443}}},
            }]}}]}}),
        )
        .unwrap()
    };
    let mut cluster = observed(&json!({}));
    cluster.ingresses = vec![ingress("other")];
    assert_eq!(
        settled(&mut cluster)["status"]["uploadProxyURL"],
        Value::Null
    );
    cluster.ingresses.push(ingress("cdi-uploadproxy"));
    assert_eq!(
        settled(&mut cluster)["status"]["uploadProxyURL"],
        "up.example.org"
    );
}

#[test]
fn without_an_installation_there_is_nothing_to_configure() {
    let mut cluster = observed(&json!({}));
    cluster.installation = None;
    assert_eq!(plan(&cluster), None);
}
