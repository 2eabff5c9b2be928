//! Claims that come filled: taken over, restored, or on a volume that somebody made for them.

use k8s_openapi::api::core::v1::PersistentVolume;
use longshore_crds::names::{annotation, reason};
use serde_json::{Value, json};

use super::super::plan::{Action, Observed, plan};
use super::{NOW, claim, condition, created, http, notes, pvc, seen, volume, volume_of};
use crate::claim::{Changes, Claim as _};

fn waiting(name: &str, change: &Value) -> PersistentVolume {
    let mut volume = json!({
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "storageClassName": "c", "claimRef": {"namespace": "ns", "name": "disk"},
        },
        "status": {"phase": "Available"},
    });
    crate::model::merge(&mut volume, change);
    serde_json::from_value(volume).unwrap()
}

fn checked(source: &Value, statics: Vec<PersistentVolume>) -> Observed {
    let asks = json!({annotation::CHECK_STATIC_VOLUME: ""});
    let spec = json!({"source": source, "pvc": pvc()});
    Observed {
        statics,
        ..seen(volume_of(&spec, &asks), None)
    }
}

#[test]
fn a_volume_that_waits_for_the_claim_becomes_its_own_as_it_is() {
    let statics = vec![waiting("v2", &json!({})), waiting("v1", &json!({}))];
    // Whatever the source is, that of another disk included.
    for source in [http(), json!({"pvc": {"namespace": "n", "name": "c"}})] {
        let made = plan(&checked(&source, statics.clone()), NOW);
        let claim = created(&made).unwrap();
        let spec = claim.spec.as_ref().unwrap();
        assert_eq!(spec.volume_name.as_deref(), Some("v1"));
        let notes = claim.metadata.annotations.as_ref().unwrap();
        assert_eq!(notes[annotation::VOLUME_LIST], "[\"v1\"]");
        let asks = notes.keys().any(|name| name.contains("/storage.import."));
        assert!(!asks, "it would be filled: {notes:?}");
    }
    let list = json!({annotation::VOLUME_LIST: "[\"v1\"]"});
    let unbound = plan(
        &seen(volume(&json!({})), Some(claim("Pending", &list))),
        NOW,
    );
    assert_eq!(unbound.status.unwrap().phase.as_deref(), Some("Pending"));
    let bound = plan(&seen(volume(&json!({})), Some(claim("Bound", &list))), NOW);
    let marks = bound.actions.iter().find_map(|action| match action {
        Action::MarkClaim(marks) => Some(marks),
        _ => None,
    });
    let marks = marks.unwrap();
    assert_eq!(marks[annotation::VOLUME_LIST], None);
    assert_eq!(marks[annotation::POPULATED_FOR].as_deref(), Some("disk"));
    assert_eq!(marks[annotation::POD_PHASE].as_deref(), Some("Succeeded"));
}

#[test]
fn a_volume_that_is_not_what_the_claim_asks_for_is_left_and_the_disk_is_imported() {
    for change in [
        json!({"spec": {"capacity": {"storage": "500Mi"}}}),
        json!({"spec": {"accessModes": ["ReadOnlyMany"]}}),
        json!({"spec": {"storageClassName": "other"}}),
        json!({"spec": {"volumeMode": "Block"}}),
        json!({"status": {"phase": "Released"}}),
        json!({"metadata": {"deletionTimestamp": NOW}}),
    ] {
        let observed = checked(&http(), vec![waiting("v1", &change)]);
        let made = plan(&observed, NOW);
        let claim = created(&made).unwrap();
        let notes = claim.metadata.annotations.as_ref().unwrap();
        assert!(notes.contains_key(annotation::IMPORT_ENDPOINT), "{change}");
        assert_eq!(claim.spec.as_ref().unwrap().volume_name, None, "{change}");
    }
}

#[test]
fn a_volume_whose_claim_came_filled_makes_no_other_one_in_its_place() {
    let for_us = json!({annotation::POPULATED_FOR: "disk", annotation::POD_PHASE: "Succeeded"});
    let first = plan(
        &seen(volume(&json!({})), Some(claim("Bound", &for_us))),
        NOW,
    );
    let [Action::MarkVolume(marks)] = first.actions.as_slice() else {
        panic!("{first:?}")
    };
    assert_eq!(marks[annotation::PREPOPULATED].as_deref(), Some("disk"));
    assert_eq!(marks[annotation::FILLED_CLAIM].as_deref(), Some("claim-1"));
    let knows = json!({annotation::PREPOPULATED: "disk", annotation::FILLED_CLAIM: "claim-1"});
    let second = plan(&seen(volume(&knows), Some(claim("Bound", &for_us))), NOW);
    assert_eq!(second.status.unwrap().phase.as_deref(), Some("Succeeded"));
    let gone = plan(&seen(volume(&knows), None), NOW);
    assert!(created(&gone).is_none());
    let status = gone.status.unwrap();
    assert_eq!(condition(&status, "Bound").1, reason::AWAITING_CLAIM);
}

/// To adopt means to take for done.
#[test]
fn a_claim_that_is_being_filled_is_not_adopted_before_it_is() {
    let allow = json!({annotation::ALLOW_ADOPTION: "true"});
    let asks = |phase: Option<&str>| {
        let mut marks = json!({annotation::IMPORT_ENDPOINT: "https://h/disk"});
        if let Some(phase) = phase {
            marks[annotation::POD_PHASE] = json!(phase);
        }
        marks
    };
    for (marks, taken) in [
        (asks(None), false),
        (asks(Some("Running")), false),
        (asks(Some("Succeeded")), true),
    ] {
        let mut claim = claim("Bound", &marks);
        claim.metadata.owner_references = None;
        let mut allow = allow.clone();
        if taken {
            // What it knows it knows before the claim is its own.
            let first = plan(&seen(volume(&allow), Some(claim.clone())), NOW);
            let filled = (
                annotation::FILLED_CLAIM.to_owned(),
                Some(claim.uid().to_owned()),
            );
            assert_eq!(first.actions, [Action::MarkVolume(Changes::from([filled]))]);
            allow[annotation::FILLED_CLAIM] = json!(claim.uid());
        }
        let plan = plan(&seen(volume(&allow), Some(claim)), NOW);
        assert_eq!(plan.actions == [Action::Adopt], taken, "{marks}");
        if !taken {
            let status = plan.status.unwrap();
            assert_eq!(condition(&status, "Bound").1, reason::ERR_RESOURCE_EXISTS);
            assert!(plan.again.is_some());
        }
    }
}

#[test]
fn who_filled_a_claim_from_elsewhere_is_told() {
    let mut pvc = pvc();
    let reference = json!({"apiGroup": "example.org", "kind": "Sample", "name": "s"});
    pvc["dataSourceRef"] = reference;
    let outside = json!({annotation::EXTERNAL_POPULATION: "true"});
    let volume = volume_of(&json!({"pvc": pvc}), &json!({}));
    let plan = plan(&seen(volume, Some(claim("Bound", &outside))), NOW);
    let told = notes(&plan);
    let text = "PVC disk successfully populated by Sample";
    assert!(
        told.iter().any(|note| format!("{note:?}").contains(text)),
        "{told:?}"
    );
}
