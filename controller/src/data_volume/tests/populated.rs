//! Volumes whose claims are filled by a populator.

use longshore_crds::names::object;

use crate::checkpoint::listed;
use crate::claim::Claim as _;

use super::*;

const SOURCE: &str = "volume-import-source-volume-1";

fn populated() -> Volume {
    volume(&json!({annotation::USE_POPULATOR: "true"}))
}

/// A claim as the plan makes it, once the server has it.
fn claim_of(phase: &str, annotations: &Value) -> PersistentVolumeClaim {
    let mut claim = claim(phase, annotations);
    let named =
        json!({"apiGroup": "cdi.kubevirt.io", "kind": "VolumeImportSource", "name": SOURCE});
    claim.spec.as_mut().unwrap().data_source_ref = serde_json::from_value(named).unwrap();
    claim
}

fn with_source(claim: PersistentVolumeClaim, source: Source) -> Observed {
    Observed {
        source,
        ..seen(populated(), Some(claim))
    }
}

fn there() -> Source {
    Source::There {
        uid: "source-1".to_owned(),
        stages: (Vec::new(), false),
    }
}

#[test]
fn the_way_is_chosen_by_the_driver_and_kept() {
    let external = json!({"pvc": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        "dataSourceRef": {"apiGroup": "g", "kind": "k", "name": "n"},
    }});
    let mut named = pvc();
    named["volumeName"] = json!("volume");
    let staged = stages::spec(&["a"], false);
    let direct = json!({"source": http(), "pvc": pvc()});
    for (spec, has_driver, stamp) in [
        (direct.clone(), true, "true"),
        (direct.clone(), false, "false"),
        (json!({"source": http(), "pvc": named}), true, "false"),
        (external, true, "false"),
        (staged.clone(), true, "true"),
        (staged, false, "false"),
    ] {
        let mut fresh = volume_of(&spec, &json!({}));
        fresh.meta.annotations = None;
        let observed = Observed {
            has_driver,
            ..seen(fresh, None)
        };
        let plan = plan(&observed, NOW);
        assert!(
            matches!(plan.actions.as_slice(), [Action::MarkVolume(marks)]
                if marks.annotations[annotation::USE_POPULATOR].as_deref() == Some(stamp)),
            "{spec}: {plan:?}"
        );
    }
    // Whatever becomes of the driver afterwards, and whatever somebody wanted in the first place.
    for (stamp, has_driver) in [("true", false), ("false", true)] {
        let stamped = volume_of(&direct, &json!({annotation::USE_POPULATOR: stamp}));
        let observed = Observed {
            has_driver,
            ..seen(stamped, None)
        };
        let plan = plan(&observed, NOW);
        let claim = created(&plan).unwrap();
        let spec = claim.spec.as_ref().unwrap();
        assert_eq!(spec.data_source_ref.is_some(), stamp == "true");
        let annotations = claim.metadata.annotations.as_ref().unwrap();
        let asks = annotations.contains_key(annotation::IMPORT_SOURCE);
        assert_eq!(asks, stamp == "false", "only one of the two is filled");
    }
}

#[test]
fn the_claim_names_what_it_is_filled_from_and_that_is_made_after_it() {
    let first = plan(&seen(populated(), None), NOW);
    let claim = created(&first).unwrap();
    let named = claim
        .spec
        .as_ref()
        .unwrap()
        .data_source_ref
        .as_ref()
        .unwrap();
    assert_eq!(
        (
            named.api_group.as_deref(),
            named.kind.as_str(),
            named.name.as_str()
        ),
        (Some("cdi.kubevirt.io"), "VolumeImportSource", SOURCE)
    );
    assert_eq!(named.name, object::import_source("volume-1"));
    let second = plan(
        &with_source(claim_of("Pending", &json!({})), Source::Missing),
        NOW,
    );
    let source = second.actions.iter().find_map(|action| match action {
        Action::CreateSource(source) => Some(source),
        _ => None,
    });
    let source = serde_json::to_value(source.unwrap()).unwrap();
    assert_eq!(source["metadata"]["name"], SOURCE);
    assert_eq!(source["metadata"]["ownerReferences"][0]["uid"], "volume-1");
    assert_eq!(source["spec"], json!({"source": http()}));
}

#[test]
fn what_it_is_filled_from_is_there_until_it_is_filled() {
    let filled = json!({annotation::POD_PHASE: "Succeeded"});
    let table = [
        // (claim, source) -> made, deleted
        (
            claim_of("Pending", &json!({})),
            Source::Missing,
            true,
            false,
        ),
        (claim_of("Pending", &json!({})), there(), false, false),
        // As upstream leaves it for a moment: not filled before it is bound.
        (claim_of("Pending", &filled), there(), false, false),
        (claim_of("Bound", &filled), there(), false, true),
        (claim_of("Bound", &filled), Source::Missing, false, false),
        (claim_of("Bound", &filled), Source::Unread, false, false),
        (
            claim_of("Pending", &json!({})),
            Source::Unread,
            false,
            false,
        ),
    ];
    for (claim, source, makes, deletes) in table {
        let mut observed = with_source(claim, source);
        if observed.claim.as_ref().unwrap().is_filled() {
            // Otherwise that is remembered first.
            let known = observed.volume.meta.annotations.as_mut().unwrap();
            known.insert(annotation::FILLED_CLAIM.to_owned(), "claim-1".to_owned());
        }
        let plan = plan(&observed, NOW);
        let made = plan
            .actions
            .iter()
            .any(|it| matches!(it, Action::CreateSource(_)));
        let gone = Action::DeleteSource("source-1".to_owned());
        assert_eq!(
            (made, plan.actions.contains(&gone)),
            (makes, deletes),
            "{plan:?}"
        );
    }
}

#[test]
fn what_it_is_filled_from_lists_the_stages_that_the_volume_lists() {
    let volume = |names: &[&str], end| {
        volume_of(
            &stages::spec(names, end),
            &json!({annotation::USE_POPULATOR: "true"}),
        )
    };
    let first = plan(&seen(volume(&["a"], false), None), NOW);
    let claim = created(&first).unwrap();
    assert_eq!(
        claim.annotation(annotation::CHECKPOINT),
        None,
        "the prime has it"
    );
    let known = |names: &[&str], end| Source::There {
        uid: "source-1".to_owned(),
        stages: (listed(names), end),
    };
    let changes = |volume: Volume, source| {
        let observed = Observed {
            source,
            ..seen(volume, Some(claim_of("Pending", &json!({}))))
        };
        plan(&observed, NOW).actions
    };
    let made = changes(volume(&["a", "b"], true), Source::Missing);
    let source = made.iter().find_map(|action| match action {
        Action::CreateSource(source) => Some(serde_json::to_value(source).unwrap()),
        _ => None,
    });
    let spec = &source.unwrap()["spec"];
    assert_eq!(spec["checkpoints"], json!(listed(&["a", "b"])));
    assert_eq!(spec["finalCheckpoint"], true);
    assert_eq!(spec["targetClaim"], "disk");
    for (now, then, differs) in [
        ((&["a"][..], false), (&["a"][..], false), false),
        ((&["a"], true), (&["a"], false), true),
        ((&["a", "b"], false), (&["a"], false), true),
        ((&["a"], false), (&[], false), true),
    ] {
        let actions = changes(volume(now.0, now.1), known(then.0, then.1));
        let marks = actions.iter().find_map(|action| match action {
            Action::MarkSource { uid, stages } => Some((uid.as_str(), stages)),
            _ => None,
        });
        assert_eq!(marks.is_some(), differs, "{now:?} {then:?}: {actions:?}");
        if let Some((uid, stages)) = marks {
            assert_eq!(uid, "source-1");
            assert_eq!(stages["checkpoints"], json!(listed(now.0)));
            assert_eq!(stages["finalCheckpoint"], now.1);
        }
        // The claim itself is the populator's.
        let marks_claim = |action: &Action| matches!(action, Action::MarkClaim(_));
        assert!(!actions.iter().any(marks_claim), "{actions:?}");
    }
}

#[test]
fn a_volume_rests_while_the_prime_of_its_claim_does() {
    let says = |copied: bool, last: &str| {
        let mut all = json!({
            annotation::CHECKPOINT: "a", annotation::CHECKPOINT_PREVIOUS: "",
            annotation::CHECKPOINT_FINAL: last, annotation::PRIME: "prime-claim-1",
            annotation::BOUND_MESSAGE: "target PVC disk Pending", annotation::RUNNING: "false",
        });
        if copied {
            all[format!("{}a", annotation::CHECKPOINT_COPIED)] = json!("pod");
        } else {
            all[annotation::POD_PHASE] = json!("Running");
        }
        all
    };
    let done = json!({annotation::CHECKPOINTS_DONE: "true", annotation::PRIME: "prime-claim-1"});
    for (names, end, annotations, phase) in [
        (&["a"][..], false, says(false, "false"), "ImportInProgress"),
        (&["a"], false, says(true, "false"), "Paused"),
        // The populator is about to name the next one, or to end it.
        (&["a", "b"], false, says(true, "false"), "ImportScheduled"),
        (&["a"], true, says(true, "false"), "ImportScheduled"),
        // Its volume is on its way.
        (&["a"], true, done, "ImportScheduled"),
    ] {
        let volume = volume_of(
            &stages::spec(names, end),
            &json!({annotation::USE_POPULATOR: "true"}),
        );
        let observed = Observed {
            source: Source::Unread,
            ..seen(volume, Some(claim_of("Pending", &annotations)))
        };
        let status = plan(&observed, NOW).status.unwrap();
        assert_eq!(status.phase.as_deref(), Some(phase), "{annotations}");
    }
}

#[test]
fn a_mark_that_is_lost_does_not_bring_the_source_back() {
    let mut observed = with_source(claim_of("Bound", &json!({})), Source::Missing);
    let known = observed.volume.meta.annotations.as_mut().unwrap();
    known.insert(annotation::FILLED_CLAIM.to_owned(), "claim-1".to_owned());
    let plan = plan(&observed, NOW);
    let mut actions = plan.actions.iter();
    assert!(
        !actions.any(|it| matches!(it, Action::CreateSource(_))),
        "{plan:?}"
    );
}

#[test]
fn the_status_tells_what_the_populator_does() {
    let pod = |phase: &str| {
        json!({annotation::POD_PHASE: phase, annotation::RUNNING: "true",
            annotation::RUNNING_REASON: "Pod is running", annotation::PRIME: "prime-claim-1",
            annotation::BOUND_MESSAGE: "target PVC disk Pending and prime-claim-1: it is being filled"})
    };
    let stuck = json!({annotation::RUNNING: "false", annotation::RUNNING_REASON: "NoCSIDriver",
        annotation::RUNNING_MESSAGE: "there is none"});
    let table = [
        (
            "Pending",
            json!({}),
            "PendingPopulation",
            "PendingPopulation",
        ),
        (
            "Pending",
            json!({annotation::SELECTED_NODE: "n"}),
            "Pending",
            "Pending",
        ),
        (
            "Pending",
            json!({annotation::BIND_IMMEDIATE: ""}),
            "Pending",
            "Pending",
        ),
        ("Pending", stuck, "PendingPopulation", "NoCSIDriver"),
        (
            "Pending",
            pod("Pending"),
            "ImportScheduled",
            "Pod is running",
        ),
        (
            "Pending",
            pod("Running"),
            "ImportInProgress",
            "Pod is running",
        ),
        // Not before it has its volume.
        (
            "Pending",
            pod("Succeeded"),
            "ImportScheduled",
            "Pod is running",
        ),
        ("Bound", pod("Succeeded"), "Succeeded", "Pod is running"),
        ("Bound", json!({}), "PVCBound", "Pending"),
        ("Lost", pod("Succeeded"), "Failed", "Pod is running"),
    ];
    for (phase, annotations, expected, running) in table {
        let mut observed = with_source(claim_of(phase, &annotations), there());
        if observed.claim.as_ref().unwrap().is_filled() {
            let known = observed.volume.meta.annotations.as_mut().unwrap();
            known.insert(annotation::FILLED_CLAIM.to_owned(), "claim-1".to_owned());
        }
        let status = plan(&observed, NOW).status.unwrap();
        assert_eq!(
            status.phase.as_deref(),
            Some(expected),
            "{phase} {annotations}"
        );
        assert_eq!(
            condition(&status, "Running").1,
            running,
            "{phase} {annotations}"
        );
    }
    let observed = with_source(claim_of("Pending", &pod("Running")), there());
    let plan = plan(&observed, NOW);
    assert_eq!(plan.again, None, "its annotations tell");
    let (_, why, message) = condition(plan.status.as_ref().unwrap(), "Bound");
    assert_eq!(why, "Pending");
    assert!(message.ends_with("it is being filled"), "{message}");
}

#[test]
fn a_spec_that_was_changed_before_its_source_was_made_is_the_one_that_counts() {
    let observed = with_source(
        claim_of("Pending", &json!({annotation::SPEC: "older"})),
        Source::Missing,
    );
    let plan = plan(&observed, NOW);
    let noted = plan.actions.iter().any(|action| {
        matches!(action, Action::MarkClaim(marks)
            if marks.get(annotation::SPEC) == Some(&Some(observed.volume.spec_hash.clone())))
    });
    assert!(noted, "{plan:?}");
}

#[test]
fn a_missing_library_is_part_of_what_the_populator_says() {
    let says = "target PVC disk Pending and [prime-claim-1] : waiting for v2v-vmware configmap";
    let asks = json!({
        annotation::RUNNING: "false", annotation::RUNNING_REASON: reason::AWAITING_VDDK,
        annotation::RUNNING_MESSAGE: "waiting for v2v-vmware configmap",
        annotation::BOUND_MESSAGE: says,
    });
    let observed = with_source(claim_of("Pending", &asks), there());
    let status = plan(&observed, NOW).status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("ImportScheduled"));
    let pending = reason::PENDING;
    assert_eq!(condition(&status, "Bound"), ("False", pending, says));
    assert_eq!(condition(&status, "Running"), ("False", "", ""));
}

#[test]
fn a_failure_is_told_while_the_claim_has_no_volume_yet() {
    for phase in ["Running", "Pending"] {
        let mut asks = pod(phase, reason::ERROR);
        asks[annotation::RUNNING_MESSAGE] = json!("answered 404");
        let observed = with_source(claim_of("Pending", &asks), there());
        let plan = plan(&observed, NOW);
        let told = format!("{:?}", notes(&plan));
        let warned = told.contains("Warning") && told.contains("answered 404");
        assert!(warned, "{phase}: {told}");
    }
    // Before a populator has begun there is nothing that could have failed.
    let stuck = json!({annotation::RUNNING: "false", annotation::RUNNING_REASON: "NoCSIDriver",
        annotation::RUNNING_MESSAGE: "there is none"});
    let observed = with_source(claim_of("Pending", &stuck), there());
    let plan = plan(&observed, NOW);
    let told = format!("{:?}", notes(&plan));
    assert!(!told.contains("there is none"), "{told}");
}
