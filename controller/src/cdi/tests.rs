//! Installations, and what the plan for them is.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::foreign::Foreign;
use super::plan::{Action, Observed, passive, plan};
use crate::custom::{CDI, CDI_CONFIG};
use crate::model::merge;

const NOW: &str = "2026-11-21T00:00:00Z";
const FINALIZER: &str = "operator.cdi.kubevirt.io";

fn cdi(name: &str, spec: &Value) -> DynamicObject {
    let mut cdi = CDI.empty(name);
    cdi.metadata.uid = Some(format!("uid-{name}"));
    cdi.data = json!({"spec": spec});
    cdi
}

fn observed(installations: Vec<DynamicObject>) -> Observed {
    Observed {
        installations: installations.into_iter().map(Arc::new).collect(),
        configuration: None,
        volumes: 0,
        version: "v1".to_owned(),
    }
}

/// Does as a server would until there is nothing to do. Gives the reasons of what was told.
fn settle(observed: &mut Observed) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..4 {
        let actions = plan(observed, NOW);
        if actions.is_empty() {
            return told;
        }
        for action in actions {
            match action {
                Action::Create(object) => observed.installations.push(Arc::new(*object)),
                Action::Tell { note, .. } => told.push(format!("{note:?}")),
                Action::Change { of, change } => {
                    let name = of.name_any();
                    let mut whole = serde_json::to_value(&*of).unwrap();
                    merge(&mut whole, &change);
                    let changed: DynamicObject = serde_json::from_value(whole).unwrap();
                    let gone = changed.metadata.deletion_timestamp.is_some()
                        && changed.finalizers().is_empty();
                    observed
                        .installations
                        .retain(|other| other.name_any() != name);
                    if !gone {
                        observed.installations.insert(0, Arc::new(changed));
                        observed.installations.sort_by_key(|one| one.name_any());
                    }
                }
            }
        }
    }
    panic!("it does not settle: {:?}", plan(observed, NOW));
}

fn deleted(mut cdi: DynamicObject) -> DynamicObject {
    cdi.metadata.deletion_timestamp = Some(serde_json::from_value(json!(NOW)).unwrap());
    cdi
}

#[test]
fn where_there_is_none_one_is_made_and_deployed() {
    let mut cluster = observed(Vec::new());
    let told = settle(&mut cluster);
    assert!(
        told.len() == 1 && told[0].contains("DeployCompleted"),
        "{told:?}"
    );
    let cdi = &cluster.installations[0];
    assert_eq!(cdi.name_any(), "cdi");
    assert_eq!(
        cdi.data["spec"]["config"]["featureGates"],
        json!(["HonorWaitForFirstConsumer"])
    );
    let status = &cdi.data["status"];
    assert_eq!(status["phase"], "Deployed");
    for version in ["operatorVersion", "targetVersion", "observedVersion"] {
        assert_eq!(status[version], "v1");
    }
    assert_eq!(status["conditions"][0]["type"], "Available");
    assert_eq!(status["conditions"][0]["status"], "True");
    assert_eq!(cdi.finalizers(), [""; 0]);
}

#[test]
fn one_of_any_name_will_do_and_a_second_one_is_told_so() {
    let mut cluster = observed(vec![
        cdi("a-first", &json!({})),
        cdi("b-second", &json!({})),
    ]);
    settle(&mut cluster);
    let [first, second] = cluster.installations.as_slice() else {
        panic!("{:?}", cluster.installations)
    };
    assert_eq!(first.data["status"]["phase"], "Deployed");
    assert_eq!(second.data["status"]["phase"], "Error");
    let message = second.data["status"]["conditions"][0]["message"].to_string();
    assert!(message.contains("a-first"), "{message}");
}

#[test]
fn settings_that_were_written_into_the_configuration_are_taken_over() {
    let mut cluster = observed(vec![cdi("cdi", &json!({}))]);
    let mut config = CDI_CONFIG.empty("config");
    config.data = json!({"spec": {"featureGates": ["x"]}});
    cluster.configuration = Some(Arc::new(config));
    settle(&mut cluster);
    let cdi = &cluster.installations[0];
    assert_eq!(cdi.data["spec"]["config"]["featureGates"], json!(["x"]));
    assert!(
        cdi.annotations()
            .contains_key("cdi.kubevirt.io/configAuthority")
    );
}

#[test]
fn a_deletion_waits_for_data_volumes_only_where_it_is_to() {
    let strategy = json!({"uninstallStrategy": "BlockUninstallIfWorkloadsExist"});
    let mut cluster = observed(vec![cdi("cdi", &strategy)]);
    settle(&mut cluster);
    assert_eq!(cluster.installations[0].finalizers(), [FINALIZER]);
    cluster.installations[0] = Arc::new(deleted((*cluster.installations[0]).clone()));
    assert!(cluster.waits_for_volumes());
    cluster.volumes = 2;
    settle(&mut cluster);
    let blocked = &cluster.installations[0];
    assert_eq!(blocked.data["status"]["phase"], "Deleting");
    let message = blocked.data["status"]["conditions"][1]["message"].to_string();
    assert!(message.contains("still 2 DataVolumes present"), "{message}");
    cluster.volumes = 0;
    settle(&mut cluster);
    // It is gone, and another one with the usual settings has come.
    assert_eq!(cluster.installations[0].metadata.deletion_timestamp, None);

    let mut foreign = deleted(cdi("other", &json!({})));
    foreign.metadata.finalizers = Some(vec![FINALIZER.to_owned(), "not/ours".to_owned()]);
    let mut cluster = observed(vec![foreign]);
    assert!(!cluster.waits_for_volumes());
    settle(&mut cluster);
    assert_eq!(cluster.installations[0].finalizers(), ["not/ours"]);
}

#[test]
fn an_installation_of_somebody_else_is_told_once_that_we_do_nothing() {
    let mut theirs = cdi("theirs", &json!({}));
    theirs.data["status"] = json!({
        "phase": "Deployed",
        "conditions": [{"type": "Available", "status": "True", "reason": "R", "message": "M"}],
    });
    let why = Foreign::Operator {
        namespace: "kubevirt".to_owned(),
    };
    let change = passive(&theirs, &why, NOW).unwrap();
    merge(&mut theirs.data, &json!({"status": change["status"]}));
    let conditions = theirs.data["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions[0]["reason"], "R");
    assert_eq!(conditions[1]["type"], "LongshorePassive");
    assert_eq!(conditions[1]["reason"], "ForeignOperator");
    assert_eq!(theirs.data["status"]["phase"], "Deployed");
    assert_eq!(passive(&theirs, &why, "later"), None);
    // Once it is ours, it is no longer said.
    let mut cluster = observed(vec![theirs]);
    settle(&mut cluster);
    assert!(
        !cluster.installations[0]
            .data
            .to_string()
            .contains("LongshorePassive")
    );
}
