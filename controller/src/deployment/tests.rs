//! What the `CDI` decides about our deployment, written and taken back.

use serde_json::{Value, json};

use super::change;
use crate::model::merge;

/// Does as a server would; whether there was anything to do.
fn settle(spec: &Value, deployment: &mut Value) -> bool {
    let spec = serde_json::from_value(spec.clone()).unwrap();
    let typed = serde_json::from_value(deployment.clone()).unwrap();
    let Some(change) = change(&spec, &typed) else {
        return false;
    };
    merge(deployment, &change);
    let typed = serde_json::from_value(deployment.clone()).unwrap();
    assert_eq!(super::change(&spec, &typed), None, "it does not settle");
    true
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "cdi-deployment", "uid": "u", "annotations": {"keep": "me"}},
        "spec": {
            "replicas": 1, "selector": {},
            "template": {"spec": {
                "serviceAccountName": "cdi-sa", "containers": [{"name": "cdi-controller"}],
            }},
        },
    })
}

#[test]
fn what_the_cdi_says_of_our_pods_is_written_and_taken_back() {
    let before = deployment();
    let mut now = before.clone();
    assert!(!settle(&json!({}), &mut now), "nothing was said");
    let first = json!({
        "priorityClass": "important",
        "infra": {
            "nodeSelector": {"role": "infra", "zone": "a"}, "deploymentReplicas": 2,
            "tolerations": [{"key": "infra", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
        },
    });
    assert!(settle(&first, &mut now));
    let pod = &now["spec"]["template"]["spec"];
    assert_eq!(pod["priorityClassName"], "important");
    assert_eq!(pod["nodeSelector"], json!({"role": "infra", "zone": "a"}));
    assert_eq!(pod["tolerations"][0]["key"], "infra");
    assert_eq!(pod["affinity"], json!({"podAntiAffinity": {}}));
    assert_eq!(pod["serviceAccountName"], "cdi-sa");
    assert_eq!(now["spec"]["replicas"], 2);
    assert!(settle(
        &json!({"infra": {"nodeSelector": {"role": "infra"}}}),
        &mut now
    ));
    let pod = &now["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"role": "infra"}));
    assert!(pod["priorityClassName"].is_null() && pod["affinity"].is_null());
    assert!(settle(&json!({}), &mut now));
    assert!(!settle(&json!({}), &mut now));
    // But for an object that has nothing in it.
    let pod = now["spec"]["template"]["spec"].as_object_mut().unwrap();
    pod.remove("nodeSelector");
    assert_eq!(now, before);
}

/// People may place it themselves: what the `CDI` leaves open is theirs.
#[test]
fn what_the_cdi_leaves_open_is_not_touched() {
    let mut now = deployment();
    now["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "fast"});
    now["spec"]["replicas"] = json!(3);
    assert!(settle(&json!({"priorityClass": "important"}), &mut now));
    assert!(settle(&json!({}), &mut now));
    assert_eq!(now["spec"]["replicas"], 3);
    let pod = &now["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"disk": "fast"}));
}
