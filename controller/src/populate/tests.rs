//! The populator's decisions, each as a table of what is seen and what is done about it.

mod stages;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, TypedObjectReference};
use longshore_crds::names::{annotation, label, reason};
use serde_json::{Value, json};

use super::plan::{self, Action, Observed, Plan, Source, refused};
use crate::claim::{Changes, Claim as _};
use crate::context::Class;
use crate::event::Note;
use crate::troubles::Trouble;

const NOW: &str = "2026-11-22T10:00:00Z";
const LONG_AGO: &str = "2026-11-22T09:00:00Z";
const PRIME: &str = "prime-claim-1";

fn claim(phase: &str, annotations: &Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {
            "name": "disk", "namespace": "ns", "uid": "claim-1", "resourceVersion": "7",
            "creationTimestamp": LONG_AGO, "annotations": annotations,
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "csi", "volumeMode": "Block",
            "resources": {"requests": {"storage": "1Gi"}},
            "dataSource": {"apiGroup": "cdi.kubevirt.io", "kind": "VolumeImportSource", "name": "source"},
            "dataSourceRef": {"apiGroup": "cdi.kubevirt.io", "kind": "VolumeImportSource", "name": "source"},
            "volumeName": if phase == "Bound" { json!("volume") } else { Value::Null },
        },
        "status": {"phase": phase},
    }))
    .unwrap()
}

fn prime(phase: &str, annotations: &Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {
            "name": PRIME, "namespace": "ns", "uid": "claim-2", "annotations": annotations,
            "creationTimestamp": LONG_AGO,
            "labels": {"instancetype.kubevirt.io/default-preference": "fedora", "app": "importer"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "disk",
                "uid": "claim-1", "controller": true}],
        },
        "spec": {"volumeName": if phase == "Pending" { Value::Null } else { json!("volume") }},
        "status": {"phase": phase},
    }))
    .unwrap()
}

/// The volume, and whose it is; `noted` for whom it was filled.
fn volume(holder: &str, noted: &str) -> PersistentVolume {
    serde_json::from_value(json!({
        "metadata": {"name": "volume", "uid": "volume-1", "resourceVersion": "3",
            "annotations": {annotation::POPULATED_CLAIM: noted}},
        "spec": {"claimRef": {"uid": holder}},
    }))
    .unwrap()
}

fn http() -> Source {
    source(&json!({"source": {"http": {"url": "https://h/disk.qcow2"}}}))
}

fn source(spec: &Value) -> Source {
    Source::There(serde_json::from_value(spec.clone()).unwrap())
}

fn class(late: bool) -> Class {
    Class {
        name: "csi".to_owned(),
        provisioner: "csi.example.org".to_owned(),
        has_driver: true,
        binds_late: late,
    }
}

fn seen(claim: PersistentVolumeClaim, prime: Option<PersistentVolumeClaim>) -> Observed {
    Observed {
        claim,
        prime,
        source: http(),
        class: Some(class(false)),
        migrated_to_driver: false,
        volume: None,
        trouble: None,
        honors_first_consumer: true,
        preallocates: false,
    }
}

fn planned(observed: &Observed) -> Plan {
    plan::plan(observed, NOW.parse().unwrap())
}

/// What the claim's annotations become.
fn written(actions: &[Action]) -> Changes {
    let mut all = Changes::new();
    for action in actions {
        if let Action::Mark(marks) = action {
            all.extend(marks.annotations.clone());
        }
    }
    all
}

fn value<'a>(changes: &'a Changes, name: &str) -> Option<&'a str> {
    changes.get(name)?.as_deref()
}

fn made(actions: &[Action]) -> Option<&PersistentVolumeClaim> {
    actions.iter().find_map(|action| match action {
        Action::CreatePrime(prime) => Some(&**prime),
        _ => None,
    })
}

/// The claim after its marks were written.
fn marked(claim: &PersistentVolumeClaim, actions: &[Action]) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    let all = claim.metadata.annotations.get_or_insert_default();
    for (name, value) in written(actions) {
        match value {
            Some(value) => all.insert(name, value),
            None => all.remove(&name),
        };
    }
    for action in actions {
        if let Action::Mark(marks) = action {
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(marks.labels.clone());
        }
    }
    claim
}

#[test]
fn a_claim_that_names_nothing_of_ours_is_left_alone() {
    for (group, kind) in [
        ("cdi.kubevirt.io", "VolumeWhateverSource"),
        ("snapshot.storage.k8s.io", "VolumeSnapshot"),
        ("forklift.cdi.kubevirt.io", "VolumeImportSource"),
    ] {
        let mut other = claim("Pending", &json!({}));
        let spec = other.spec.as_mut().unwrap();
        let named = spec.data_source_ref.as_mut().unwrap();
        named.api_group = Some(group.to_owned());
        named.kind = kind.to_owned();
        assert_eq!(
            planned(&seen(other, None)),
            Plan::default(),
            "{group} {kind}"
        );
    }
    let mut plain = claim("Pending", &json!({}));
    plain.spec.as_mut().unwrap().data_source_ref = None;
    assert_eq!(planned(&seen(plain, None)), Plan::default());
}

#[test]
fn the_prime_is_as_the_claim_and_asks_for_the_import() {
    let wishes = json!({
        annotation::SELECTED_NODE: "node-1", annotation::POD_RETAIN: "true",
        annotation::POD_PRIORITY_CLASS: "high", "k8s.v1.cni.cncf.io/networks": "net",
        "sidecar.istio.io/inject": "true", annotation::POD_PHASE: "Failed", "mine": "too",
    });
    let mut observed = seen(claim("Pending", &wishes), None);
    observed.class = Some(class(true));
    observed.source = source(&json!({
        "source": {"http": {"url": "https://h/files.tar", "secretRef": "keys"}},
        "contentType": "archive", "preallocation": true,
    }));
    let plan = planned(&observed);
    let prime = made(&plan.actions).unwrap();
    assert_eq!(prime.named(), PRIME);
    let owner = &prime.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.uid.as_str(), owner.controller),
        ("claim-1", Some(true))
    );
    let spec = serde_json::to_value(&prime.spec).unwrap();
    assert_eq!(
        spec,
        json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": "csi", "volumeMode": "Block",
            "resources": {"requests": {"storage": "1Gi"}},
        })
    );
    let expected = json!({
        annotation::POPULATOR_KIND: "VolumeImportSource", annotation::BIND_IMMEDIATE: "",
        annotation::CONTENT_TYPE: "archive", annotation::PREALLOCATION_REQUESTED: "true",
        annotation::IMPORT_SOURCE: "http", annotation::IMPORT_ENDPOINT: "https://h/files.tar",
        annotation::IMPORT_SECRET: "keys",
        annotation::SELECTED_NODE: "node-1", annotation::POD_RETAIN: "true",
        annotation::POD_PRIORITY_CLASS: "high", "k8s.v1.cni.cncf.io/networks": "net",
        "sidecar.istio.io/inject": "true",
    });
    let annotations = serde_json::to_value(&prime.metadata.annotations).unwrap();
    assert_eq!(annotations, expected);
    let labels = prime.metadata.labels.as_ref().unwrap();
    assert_eq!(labels[label::NO_BACKUP], "true");
    assert_eq!(labels[label::APP], label::APP_VALUE);
    assert_eq!(labels.get(label::FILLING_UP), None, "it is a device");
    assert_eq!(
        value(&written(&plan.actions), annotation::PRIME),
        Some(PRIME)
    );
}

#[test]
fn the_prime_has_the_labels_of_its_claim_under_ours() {
    let mut labelled = claim("Pending", &json!({}));
    labelled.metadata.labels = serde_json::from_value(json!({
        "team": "a", "test.kubevirt.io/test": "true", label::APP: "mine", label::NO_BACKUP: "false",
        label::APPLY_STORAGE_PROFILE: "true",
    }))
    .unwrap();
    labelled.spec.as_mut().unwrap().volume_mode = None;
    let plan = planned(&seen(labelled, None));
    let labels = &made(&plan.actions).unwrap().metadata.labels;
    let expected = json!({
        "team": "a", "test.kubevirt.io/test": "true", label::APP: label::APP_VALUE,
        label::NO_BACKUP: "true", label::MANAGED_BY: label::MANAGED_BY_VALUE,
        label::COMPONENT: label::COMPONENT_VALUE, label::FILLING_UP: "disabled",
    });
    assert_eq!(serde_json::to_value(labels).unwrap(), expected);
}

#[test]
fn a_label_that_the_claim_has_lost_meanwhile_does_not_come_back_from_the_prime() {
    let marks = |annotations: &Value| {
        let prime = prime("Bound", annotations);
        let observed = Observed {
            volume: Some(volume("claim-2", "")),
            ..seen(claim("Pending", &json!({})), Some(prime))
        };
        let actions = planned(&observed).actions;
        let labels = actions.into_iter().find_map(|action| match action {
            Action::Mark(marks) => Some(marks.labels),
            _ => None,
        });
        labels.unwrap()
    };
    let at_work = marks(&json!({annotation::POD_PHASE: "Running"}));
    assert!(at_work.is_empty(), "{at_work:?}");
    // Those of the image come with its end.
    assert_eq!(marks(&json!({annotation::POD_PHASE: "Succeeded"})).len(), 1);
}

#[test]
fn a_prime_is_made_only_of_the_claim_that_was_seen() {
    // Its name is there already, of one before.
    for annotations in [json!({}), json!({annotation::PRIME: PRIME})] {
        let plan = planned(&seen(claim("Pending", &annotations), None));
        let [Action::Mark(marks), Action::CreatePrime(_)] = plan.actions.as_slice() else {
            panic!("{plan:?}");
        };
        assert_eq!(value(&marks.annotations, annotation::PRIME), Some(PRIME));
    }
}

/// Nothing is made; the reason is told and noted, and that once.
fn waits(observed: Observed, why: &str) {
    let plan = planned(&observed);
    assert!(
        matches!(plan.actions[..], [Action::Tell(_), Action::Mark(_)]),
        "{plan:?}"
    );
    let changes = written(&plan.actions);
    assert_eq!(value(&changes, annotation::RUNNING_REASON), Some(why));
    assert_eq!(value(&changes, annotation::RUNNING), Some("false"));
    let later = Observed {
        claim: marked(&observed.claim, &plan.actions),
        ..observed
    };
    assert_eq!(planned(&later).actions, [], "{why} is told again");
}

#[test]
fn a_source_that_is_not_there_or_makes_no_sense_is_waited_for() {
    let pending = || seen(claim("Pending", &json!({})), None);
    let http_source = json!({"http": {"url": "https://h/d"}});
    for (found, why) in [
        (Source::Missing, reason::AWAITING_SOURCE),
        (Source::Unreadable, reason::ERR_SOURCE_NOT_VALID),
    ] {
        let observed = Observed {
            source: found,
            ..pending()
        };
        waits(observed, why);
    }
    let checkpoints = json!([{"previous": "", "current": "a"}]);
    for (spec, why) in [
        (
            json!({"source": http_source, "targetClaim": "other"}),
            reason::AWAITING_SOURCE,
        ),
        (json!({}), reason::ERR_SOURCE_NOT_VALID),
        (
            json!({"source": {"http": {"url": "ftp://h/d"}}}),
            reason::ERR_SOURCE_NOT_VALID,
        ),
        (
            json!({"source": http_source, "contentType": "odd"}),
            reason::ERR_SOURCE_NOT_VALID,
        ),
        // Nobody but the node knows what a stream's name stands for.
        (
            json!({"source": {"registry": {"imageStream": "s"}}}),
            reason::ERR_SOURCE_NOT_VALID,
        ),
        // No web server has any; and those of one that has are for one claim.
        (
            json!({"source": http_source, "checkpoints": checkpoints, "targetClaim": "disk"}),
            reason::ERR_SOURCE_NOT_VALID,
        ),
        (
            json!({"source": stages::imageio(), "checkpoints": checkpoints}),
            reason::ERR_SOURCE_NOT_VALID,
        ),
        (
            json!({"source": stages::imageio(), "checkpoints": [{"previous": "a"}],
                "targetClaim": "disk"}),
            reason::ERR_SOURCE_NOT_VALID,
        ),
    ] {
        let observed = Observed {
            source: source(&spec),
            ..pending()
        };
        waits(observed, why);
    }
}

#[test]
fn what_is_not_for_this_populator_waits_for_somebody_else() {
    let named = |change: &dyn Fn(&mut TypedObjectReference)| {
        let mut claim = claim("Pending", &json!({}));
        let spec = claim.spec.as_mut().unwrap();
        change(spec.data_source_ref.as_mut().unwrap());
        seen(claim, None)
    };
    let elsewhere = named(&|source| source.namespace = Some("other".to_owned()));
    waits(elsewhere, reason::UNSUPPORTED_SOURCE);
    for kind in ["VolumeUploadSource", "VolumeCloneSource"] {
        let of_kind = named(&|source| kind.clone_into(&mut source.kind));
        waits(of_kind, reason::UNSUPPORTED_SOURCE);
    }
    let mut stranger = prime("Bound", &json!({}));
    stranger.metadata.owner_references = None;
    let taken = seen(claim("Pending", &json!({})), Some(stranger));
    waits(taken, reason::ERR_RESOURCE_EXISTS);
}

#[test]
fn a_class_whose_volumes_may_not_wait_is_none_to_fill() {
    let pending = |annotations: &Value| seen(claim("Pending", annotations), None);
    let no_class = Observed {
        class: None,
        ..pending(&json!({}))
    };
    waits(no_class, reason::NO_STORAGE_CLASS);
    let no_driver = Class {
        has_driver: false,
        ..class(false)
    };
    let by_hand = Class {
        provisioner: "kubernetes.io/no-provisioner".to_owned(),
        ..no_driver.clone()
    };
    // To insist does not help where Kubernetes itself binds.
    let insists = json!({annotation::USE_POPULATOR: "true"});
    for (class, annotations) in [(no_driver, json!({})), (by_hand, insists)] {
        let observed = Observed {
            class: Some(class),
            ..pending(&annotations)
        };
        waits(observed, reason::NO_CSI_DRIVER);
    }
}

#[test]
fn a_source_that_may_be_on_its_way_is_not_missed_at_once() {
    let mut young = claim("Pending", &json!({}));
    young.metadata.creation_timestamp =
        serde_json::from_value(json!("2026-11-22T09:59:58Z")).unwrap();
    let observed = Observed {
        source: Source::Missing,
        ..seen(young, None)
    };
    let plan = planned(&observed);
    assert_eq!(plan.actions, []);
    assert!(plan.again.is_some(), "nobody looks again");
    let awaits = json!({annotation::RUNNING_REASON: reason::AWAITING_VDDK,
        annotation::RUNNING_MESSAGE: "waiting for v2v-vmware configmap"});
    let plan_of_vddk = planned(&seen(
        claim("Pending", &json!({})),
        Some(prime("Bound", &awaits)),
    ));
    let waits = written(&plan_of_vddk.actions);
    assert_eq!(
        value(&waits, annotation::BOUND_MESSAGE),
        Some("target PVC disk Pending and [prime-claim-1] : waiting for v2v-vmware configmap")
    );
}

#[test]
fn a_class_takes_a_driver_unless_somebody_insists() {
    for (has_driver, migrated, forced, makes) in [
        (true, false, false, true),
        (false, true, false, true),
        (false, false, true, true),
        (false, false, false, false),
    ] {
        let annotations = if forced {
            json!({annotation::USE_POPULATOR: "true"})
        } else {
            json!({})
        };
        let observed = Observed {
            class: Some(Class {
                has_driver,
                ..class(false)
            }),
            migrated_to_driver: migrated,
            ..seen(claim("Pending", &annotations), None)
        };
        let plan = planned(&observed);
        assert_eq!(made(&plan.actions).is_some(), makes, "{plan:?}");
    }
}

#[test]
fn a_claim_that_binds_late_waits_for_its_first_user() {
    for (annotations, honors, makes) in [
        (json!({}), true, false),
        (json!({annotation::SELECTED_NODE: ""}), true, false),
        (json!({annotation::SELECTED_NODE: "node-1"}), true, true),
        (json!({annotation::BIND_IMMEDIATE: ""}), true, true),
        (json!({}), false, true),
    ] {
        let observed = Observed {
            class: Some(class(true)),
            honors_first_consumer: honors,
            ..seen(claim("Pending", &annotations), None)
        };
        let plan = planned(&observed);
        assert_eq!(
            made(&plan.actions).is_some(),
            makes,
            "{annotations} {honors}"
        );
        if !makes {
            assert_eq!(plan, Plan::default());
        }
    }
    // What it waited for before is no news any more.
    let stale = json!({annotation::RUNNING: "false", annotation::RUNNING_REASON: "NoCSIDriver",
        annotation::RUNNING_MESSAGE: "m"});
    let observed = Observed {
        class: Some(class(true)),
        ..seen(claim("Pending", &stale), None)
    };
    let changes = written(&planned(&observed).actions);
    assert_eq!(changes.len(), 3);
    assert!(changes.values().all(Option::is_none));
}

#[test]
fn what_is_said_of_the_prime_is_said_of_the_claim_and_only_once() {
    let said = json!({
        annotation::POD_PHASE: "Running", annotation::RUNNING: "true",
        annotation::RUNNING_REASON: "Pod is running", annotation::RUNNING_MESSAGE: "",
        annotation::POD_RESTARTS: "2",
        annotation::PROGRESS: "{\"percent\":12.5,\"read\":1,\"written\":1,\"rate\":1}",
    });
    let before = json!({annotation::POD_RESTARTS: "3", annotation::POD_SCHEDULABLE: "false"});
    let observed = seen(claim("Pending", &before), Some(prime("Bound", &said)));
    let plan = planned(&observed);
    let changes = written(&plan.actions);
    for (name, expected) in [
        (annotation::POD_PHASE, Some("Running")),
        (annotation::RUNNING, Some("true")),
        (annotation::POPULATOR_PROGRESS, Some("12.50%")),
        (annotation::PRIME, Some(PRIME)),
        (annotation::BOUND, Some("false")),
        (annotation::BOUND_REASON, Some("Pending")),
    ] {
        assert_eq!(value(&changes, name), expected, "{name}");
    }
    // Taken back here as there; restarts never fall.
    assert_eq!(changes.get(annotation::POD_SCHEDULABLE), Some(&None));
    assert!(!changes.contains_key(annotation::POD_RESTARTS));
    let later = Observed {
        claim: marked(&observed.claim, &plan.actions),
        ..observed
    };
    assert_eq!(planned(&later), Plan::default());
}

#[test]
fn a_failed_attempt_and_what_keeps_the_prime_unbound_are_told_of_the_claim() {
    let failed = json!({annotation::POD_PHASE: "Failed"});
    let plan = planned(&seen(
        claim("Pending", &json!({})),
        Some(prime("Bound", &failed)),
    ));
    let note = Note::warning(
        reason::POPULATION_FAILED,
        "import into disk failed".to_owned(),
    );
    assert!(plan.actions.contains(&Action::Tell(note)), "{plan:?}");

    let trouble = Trouble {
        reason: "ProvisioningFailed".to_owned(),
        message: "no room".to_owned(),
    };
    let observed = Observed {
        trouble: Some(trouble),
        ..seen(
            claim("Pending", &json!({})),
            Some(prime("Pending", &json!({}))),
        )
    };
    let plan = planned(&observed);
    let note = Note::warning("ProvisioningFailed", format!("[{PRIME}] : no room"));
    assert!(plan.actions.contains(&Action::Tell(note)), "{plan:?}");
    assert_eq!(
        value(&written(&plan.actions), annotation::BOUND_MESSAGE),
        Some("target PVC disk Pending and [prime-claim-1] : no room")
    );
    assert!(plan.again.is_some(), "nobody looks again");
    let later = Observed {
        claim: marked(&observed.claim, &plan.actions),
        ..observed
    };
    assert_eq!(planned(&later).actions, []);
}

#[test]
fn a_filled_prime_hands_its_volume_over_and_the_claim_is_not_filled_before_it_has_it() {
    let filled = json!({annotation::POD_PHASE: "Succeeded"});
    let observed = Observed {
        volume: Some(volume("claim-2", "")),
        ..seen(
            claim("Pending", &json!({annotation::POD_PHASE: "Running"})),
            Some(prime("Bound", &filled)),
        )
    };
    let plan = planned(&observed);
    assert_eq!(plan.actions.last(), Some(&Action::Rebind));
    assert!(!written(&plan.actions).contains_key(annotation::POD_PHASE));
    let after = marked(&observed.claim, &plan.actions);
    let labels = after.metadata.labels.as_ref().unwrap();
    assert_eq!(
        labels["instancetype.kubevirt.io/default-preference"],
        "fedora"
    );
    assert_eq!(labels.get("app"), None);

    // Until the cluster has bound it there is nothing to do.
    let handed = Observed {
        volume: Some(volume("claim-1", "claim-1")),
        ..seen(after.clone(), Some(prime("Lost", &filled)))
    };
    assert_eq!(planned(&handed), Plan::default());

    let mut bound = claim("Bound", &json!({}));
    bound.metadata = after.metadata;
    let bound = Observed {
        volume: Some(volume("claim-1", "claim-1")),
        ..seen(bound, Some(prime("Lost", &filled)))
    };
    let plan = planned(&bound);
    let changes = written(&plan.actions);
    assert_eq!(value(&changes, annotation::POD_PHASE), Some("Succeeded"));
    assert_eq!(
        value(&changes, annotation::POPULATOR_PROGRESS),
        Some("100.0%")
    );
    assert_eq!(changes.get(annotation::BOUND), Some(&None));
    let note = Note::normal(
        reason::POPULATED,
        "Successfully imported into disk".to_owned(),
    );
    assert!(plan.actions.contains(&Action::Tell(note)));
    assert_eq!(plan.actions.last(), Some(&Action::DeletePrime));
}

#[test]
fn a_bound_claim_is_filled_if_its_volume_says_so_or_its_prime_had_the_same() {
    let filled = json!({annotation::POD_PHASE: "Succeeded"});
    let table = [
        // (noted on the volume, prime) -> filled
        ("claim-1", None, true),
        ("claim-1", Some(prime("Lost", &json!({}))), true),
        ("", Some(prime("Lost", &filled)), true),
        ("", Some(prime("Lost", &json!({}))), false),
        ("claim-0", None, false),
        ("", None, false),
    ];
    for (noted, prime, is_filled) in table {
        let observed = Observed {
            volume: Some(volume("claim-1", noted)),
            ..seen(claim("Bound", &json!({})), prime)
        };
        let plan = planned(&observed);
        let changes = written(&plan.actions);
        let why = if is_filled {
            reason::COMPLETED
        } else {
            reason::BOUND_UNPOPULATED
        };
        assert_eq!(
            value(&changes, annotation::RUNNING_REASON),
            Some(why),
            "{noted}"
        );
        assert_eq!(
            value(&changes, annotation::POD_PHASE),
            is_filled.then_some("Succeeded")
        );
        assert_eq!(
            plan.actions.contains(&Action::DeletePrime),
            observed.prime.is_some()
        );
        let later = Observed {
            claim: marked(&observed.claim, &plan.actions),
            prime: None,
            ..observed
        };
        assert_eq!(planned(&later).actions, [], "{noted} is told again");
    }
}

#[test]
fn the_prime_stays_where_its_pod_is_to_stay() {
    let kept = json!({annotation::POD_PHASE: "Succeeded", annotation::POD_RETAIN: "true"});
    let mut observed = Observed {
        volume: Some(volume("claim-1", "claim-1")),
        ..seen(claim("Bound", &json!({})), Some(prime("Lost", &kept)))
    };
    let plan = planned(&observed);
    assert!(!plan.actions.contains(&Action::DeletePrime));
    let told = plan
        .actions
        .iter()
        .any(|action| matches!(action, Action::TellPrime(_)));
    assert!(told, "{plan:?}");
    observed.claim = marked(&observed.claim, &plan.actions);
    assert_eq!(planned(&observed), Plan::default());
}

#[test]
fn what_works_for_a_claim_that_goes_ends_with_it() {
    let mut ending = claim("Pending", &json!({}));
    ending.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
    let cancelled = claim("Pending", &json!({annotation::CANCELLED: "true"}));
    for claim in [ending, cancelled] {
        let at_work = seen(claim.clone(), Some(prime("Bound", &json!({}))));
        assert_eq!(planned(&at_work).actions, [Action::DeletePrime]);
        let mut stranger = prime("Bound", &json!({}));
        stranger.metadata.owner_references = None;
        for prime in [None, Some(stranger)] {
            assert_eq!(planned(&seen(claim.clone(), prime)), Plan::default());
        }
    }
}

#[test]
fn a_prime_that_has_lost_its_volume_makes_way_for_another_one() {
    let filled = json!({annotation::POD_PHASE: "Succeeded"});
    for (prime, volume) in [
        (
            prime("Lost", &json!({annotation::POD_PHASE: "Running"})),
            None,
        ),
        (prime("Lost", &filled), None),
        (prime("Bound", &filled), Some(volume("somebody", ""))),
    ] {
        let observed = Observed {
            volume,
            ..seen(claim("Pending", &json!({})), Some(prime))
        };
        let plan = planned(&observed);
        assert!(
            matches!(plan.actions[..], [Action::Tell(_), Action::DeletePrime]),
            "{plan:?}"
        );
    }
    // And is waited for until it is gone.
    let mut ending = prime("Lost", &json!({}));
    ending.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
    let observed = seen(claim("Pending", &json!({})), Some(ending));
    assert_eq!(planned(&observed), Plan::default());
}

#[test]
fn what_the_server_says_of_a_prime_that_it_does_not_take_is_told_once() {
    let before = claim("Pending", &json!({}));
    for (said, why) in [
        ("exceeded quota: all", reason::ERR_EXCEEDED_QUOTA),
        ("a policy says no", reason::ERR_CREATING_PRIME),
    ] {
        let actions = refused(&before, said);
        assert_eq!(
            value(&written(&actions), annotation::RUNNING_REASON),
            Some(why)
        );
        assert_eq!(actions.len(), 2);
        assert_eq!(refused(&marked(&before, &actions), said), []);
    }
}
