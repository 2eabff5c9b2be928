//! Claims that come filled: taken over, restored, or on a volume that somebody made for them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolume;
use longshore_crds::names::{annotation, label, reason};
use serde_json::{Value, json};

use super::super::observe::{Asked, asked};
use super::super::plan::{Action, Observed, plan};
use super::super::statics;
use super::{NOW, claim, condition, created, http, notes, pvc, seen, volume, volume_of};
use crate::claim::{Changes, Claim as _};
use crate::write::Marks;

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
    // A claim that names no class gets the default one.
    let mut unnamed = pvc();
    unnamed.as_object_mut().unwrap().remove("storageClassName");
    for (class, taken) in [("c", Some("v1")), ("d", None)] {
        let mut observed = checked(&http(), statics.clone());
        let asks = json!({annotation::CHECK_STATIC_VOLUME: ""});
        observed.volume = volume_of(&json!({"source": http(), "pvc": unnamed}), &asks);
        observed.profile.class = Some(class.to_owned());
        let made = plan(&observed, NOW);
        let spec = created(&made).and_then(|claim| claim.spec.as_ref());
        let name = spec.and_then(|spec| spec.volume_name.as_deref());
        assert_eq!(name, taken, "{class}");
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
    assert_eq!(
        marks.annotations[annotation::PREPOPULATED].as_deref(),
        Some("disk")
    );
    let filled = marks.annotations[annotation::FILLED_CLAIM].as_deref();
    assert_eq!(filled, Some("claim-1"));
    let knows = json!({annotation::PREPOPULATED: "disk", annotation::FILLED_CLAIM: "claim-1"});
    let second = plan(&seen(volume(&knows), Some(claim("Bound", &for_us))), NOW);
    let status = second.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(status.progress.as_deref(), Some("N/A"));
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
        let label = format!("{}default-preference", label::OF_INSTANCETYPE);
        let labels = BTreeMap::from([(label, "fedora".to_owned())]);
        claim.metadata.labels = Some(labels.clone());
        let mut allow = allow.clone();
        if taken {
            // What it knows it knows before the claim is its own, and what the image said too.
            let first = plan(&seen(volume(&allow), Some(claim.clone())), NOW);
            let filled = (
                annotation::FILLED_CLAIM.to_owned(),
                Some(claim.uid().to_owned()),
            );
            assert_eq!(
                first.actions,
                [Action::MarkVolume(Marks {
                    annotations: Changes::from([filled]),
                    labels,
                })]
            );
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
fn a_class_that_has_no_object_is_what_its_volumes_are() {
    let block = waiting("v1", &json!({"spec": {"volumeMode": "Block"}}));
    let taken = waiting("v2", &json!({"status": {"phase": "Bound"}}));
    let other = waiting("v3", &json!({"spec": {"storageClassName": "d"}}));
    let all = [taken, other, block];
    let sets = |size: &str| statics::sets(&all, "c", Some(&size.parse().unwrap()));
    let [found] = &sets("1Gi")[..] else {
        panic!("{:?}", sets("1Gi"))
    };
    assert_eq!(found.volume_mode, "Block");
    assert_eq!(found.access_modes, ["ReadWriteOnce", "ReadOnlyMany"]);
    assert!(sets("2Gi").is_empty());
}

/// A claim that something of this kind shall fill, seen by a volume that was in this phase.
fn filled_by(field: &str, kind: &str, has_driver: bool, before: &str) -> Observed {
    let outside = json!({annotation::EXTERNAL_POPULATION: "true"});
    let mut spec = pvc();
    spec[field] = json!({"apiGroup": "example.org", "kind": kind, "name": "sample"});
    let mut claim = claim("Bound", &outside);
    claim.spec = Some(serde_json::from_value(spec.clone()).unwrap());
    let mut volume = volume_of(&json!({"pvc": spec}), &json!({}));
    volume.status.phase = Some(before.to_owned());
    Observed {
        has_driver,
        ..seen(volume, Some(claim))
    }
}

#[test]
fn a_claim_from_elsewhere_is_done_once_it_is_bound_where_its_class_waits_for_who_fills_it() {
    let none = reason::NO_CSI_DRIVER_FOR_EXTERNAL_POPULATION;
    let dropped = reason::NO_ANY_VOLUME_DATA_SOURCE;
    let (to, from) = ("dataSourceRef", "dataSource");
    for (field, kind, has_driver, why) in [
        (to, "Sample", true, None),
        (to, "Sample", false, Some(none)),
        (from, "Sample", true, Some(dropped)),
        (from, "PersistentVolumeClaim", true, None),
        (from, "PersistentVolumeClaim", false, Some(none)),
        (from, "VolumeSnapshot", false, None),
        (to, "VolumeSnapshot", false, None),
    ] {
        let plan = plan(&filled_by(field, kind, has_driver, "Pending"), NOW);
        let told = format!("{:?}", notes(&plan));
        let status = plan.status.unwrap();
        let phase = status.phase.as_deref();
        match why {
            None => {
                assert_eq!(phase, Some("Succeeded"), "{field} {kind}");
                let text = "PVC disk successfully populated by sample";
                assert!(told.contains(text), "{told}");
            }
            Some(why) => {
                assert_eq!(phase, Some("PVCBound"), "{field} {kind}");
                assert_eq!(condition(&status, "Running").1, why);
                assert_eq!(condition(&status, "Ready").0, "False");
                assert!(told.contains(why), "{told}");
                // Classes and drivers come late.
                assert!(plan.again.is_some());
            }
        }
    }
    // A driver that goes for a while takes nothing back.
    let later = plan(&filled_by(to, "Sample", false, "Succeeded"), NOW);
    assert_eq!(later.status.unwrap().phase.as_deref(), Some("Succeeded"));
}

#[test]
fn the_class_is_the_claims_or_the_one_that_it_will_have() {
    let unnamed = json!({"resources": {"requests": {"storage": "1Gi"}}});
    let mut named = unnamed.clone();
    named["storageClassName"] = json!("fast");
    for (spec, class) in [
        (json!({"pvc": unnamed}), Asked::Any(None)),
        (json!({"pvc": named}), Asked::Any(Some("fast"))),
        (json!({"storage": unnamed}), Asked::Disk(None)),
        (json!({"storage": named}), Asked::Disk(Some("fast"))),
        (
            json!({"storage": unnamed, "contentType": "archive"}),
            Asked::Any(None),
        ),
    ] {
        let volume = volume_of(&spec, &json!({}));
        assert_eq!(asked(&volume, None), Some(class), "{spec}");
        let mut claim = claim("Bound", &json!({}));
        if let Some(spec) = &mut claim.spec {
            spec.storage_class_name = Some("slow".to_owned());
        }
        let class = Asked::Any(Some("slow"));
        assert_eq!(asked(&volume, Some(&claim)), Some(class), "{spec}");
    }
}
