//! Claims that are copied in stages: one pod for each checkpoint, none for what was copied.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use longshore_crds::contract::{Checkpoint, Source};
use longshore_crds::names::{annotation, reason};
use serde_json::{Value, json};

use super::super::plan::Action;
use super::super::source::request;
use super::{claim, creates, importer, plan, seen, value, written};
use crate::claim::{Changes, Claim as _};

fn warm(more: &Value) -> PersistentVolumeClaim {
    let mut all = json!({
        annotation::IMPORT_SOURCE: "imageio", annotation::IMPORT_DISK_ID: "d",
        annotation::CHECKPOINT: "b", annotation::CHECKPOINT_PREVIOUS: "a",
        annotation::CHECKPOINT_FINAL: "false",
    });
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    claim("Bound", &all)
}

fn pod_of(checkpoint: &str, phase: &str) -> Pod {
    let mut pod = importer(&json!({"phase": phase}));
    pod.metadata.name = Some(format!("importer-disk-checkpoint-{checkpoint}"));
    let of = (annotation::CHECKPOINT.to_owned(), checkpoint.to_owned());
    pod.metadata.annotations = Some([of].into());
    pod
}

fn copied(name: &str) -> String {
    format!("{}{name}", annotation::CHECKPOINT_COPIED)
}

fn changed(mut claim: PersistentVolumeClaim, changes: Changes) -> PersistentVolumeClaim {
    let all = claim.metadata.annotations.as_mut().unwrap();
    for (name, value) in changes {
        match value {
            Some(value) => all.insert(name, value),
            None => all.remove(&name),
        };
    }
    claim
}

#[test]
fn a_stage_has_a_pod_of_its_own_that_is_told_which() {
    let before = json!({
        copied("a"): "pod-0", annotation::IMPORT_POD: "importer-disk-checkpoint-a",
        annotation::POD_PHASE: "Succeeded", annotation::PROGRESS: "{\"percent\":99.0}",
    });
    let claim = warm(&before);
    let actions = plan(&seen(claim.clone(), None));
    assert!(creates(&actions));
    let changes = written(&actions);
    let name = "importer-disk-checkpoint-b";
    assert_eq!(value(&changes, annotation::IMPORT_POD), Some(name));
    for of_before in [annotation::POD_PHASE, annotation::PROGRESS] {
        assert_eq!(changes[of_before], None);
    }
    let request = request(&claim, None).unwrap().unwrap();
    let Source::Imageio { checkpoint, .. } = &request.import.source else {
        panic!("{request:?}")
    };
    let expected = Checkpoint {
        current: "b".to_owned(),
        previous: Some("a".to_owned()),
        last: false,
    };
    assert_eq!(*checkpoint, Some(expected));
    let pod = super::pod(&claim, &request, &super::Workload::default());
    assert_eq!(pod.metadata.name.as_deref(), Some(name));
    assert_eq!(
        pod.metadata.annotations.unwrap()[annotation::CHECKPOINT],
        "b"
    );
}

#[test]
fn a_stage_that_ends_is_written_down_and_the_claim_is_not_filled() {
    let claim = warm(&json!({annotation::IMPORT_POD: "importer-disk-checkpoint-b"}));
    let actions = plan(&seen(claim.clone(), Some(pod_of("b", "Succeeded"))));
    let changes = written(&actions);
    assert_eq!(value(&changes, &copied("b")), Some("pod-1"));
    assert_eq!(value(&changes, annotation::CHECKPOINT_POD), Some("pod-1"));
    let told = format!("{:?}", actions.first());
    assert!(told.contains(reason::IMPORT_PAUSED), "{told}");
    let paused = changed(claim, changes);
    assert!(!paused.is_filled());
    // Its pod goes, and nothing follows.
    let away = plan(&seen(paused.clone(), Some(pod_of("b", "Succeeded"))));
    assert!(matches!(away[..], [Action::DeletePod { .. }]), "{away:?}");
    assert_eq!(plan(&seen(paused, None)), []);
}

#[test]
fn the_last_stage_fills_the_claim() {
    let last = json!({
        annotation::CHECKPOINT_FINAL: "true", copied("a"): "pod-0",
        annotation::IMPORT_POD: "importer-disk-checkpoint-b",
    });
    let claim = warm(&last);
    let actions = plan(&seen(claim.clone(), Some(pod_of("b", "Succeeded"))));
    let told = format!("{:?}", actions.first());
    assert!(told.contains(reason::IMPORT_SUCCEEDED), "{told}");
    let filled = changed(claim, written(&actions));
    assert!(filled.is_filled());
    assert_eq!(
        filled.annotation(annotation::CHECKPOINTS_DONE),
        Some("true")
    );
    for gone in [
        annotation::CHECKPOINT,
        annotation::CHECKPOINT_POD,
        &copied("a"),
    ] {
        assert_eq!(filled.annotation(gone), None);
    }
    let away = plan(&seen(filled.clone(), Some(pod_of("b", "Succeeded"))));
    assert!(matches!(away[..], [Action::DeletePod { .. }]), "{away:?}");
    let rest = written(&plan(&seen(filled.clone(), None)));
    assert_eq!(
        rest,
        Changes::from([(annotation::IMPORT_POD.to_owned(), None)])
    );
    assert_eq!(plan(&seen(changed(filled, rest), None)), []);
}

#[test]
fn what_was_copied_is_not_copied_again() {
    let known = warm(&json!({copied("a"): "pod-0", copied("b"): "pod-1"}));
    assert_eq!(plan(&seen(known.clone(), None)), []);
    // As another controller leaves it that dies before it says that this was all.
    let last = [(
        annotation::CHECKPOINT_FINAL.to_owned(),
        Some("true".to_owned()),
    )];
    let last = changed(known, last.into());
    let finished = plan(&seen(last.clone(), None));
    assert!(!creates(&finished));
    assert!(changed(last, written(&finished)).is_filled());
}

#[test]
fn a_pod_of_another_stage_ends_before_the_next_begins() {
    // Somebody names another checkpoint while the one before is copied.
    let claim = warm(&json!({annotation::IMPORT_POD: "importer-disk-checkpoint-a"}));
    let running = plan(&seen(claim.clone(), Some(pod_of("a", "Running"))));
    assert!(!creates(&running));
    let ended = plan(&seen(claim.clone(), Some(pod_of("a", "Succeeded"))));
    assert_eq!(value(&written(&ended), &copied("a")), Some("pod-1"));
    let claim = changed(claim, written(&ended));
    let away = plan(&seen(claim.clone(), Some(pod_of("a", "Succeeded"))));
    assert!(matches!(away[..], [Action::DeletePod { .. }]), "{away:?}");
    assert!(creates(&plan(&seen(claim, None))));
}

#[test]
fn a_stage_that_fails_is_tried_again_by_the_same_pod() {
    let claim = warm(&json!({annotation::IMPORT_POD: "importer-disk-checkpoint-b"}));
    let mut pod = pod_of("b", "Running");
    pod.status = serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{
        "name": "importer", "restartCount": 1, "ready": false, "image": "", "imageID": "",
        "state": {"terminated": {"exitCode": 1, "message": "{\"message\": \"no such snapshot\"}"}},
    }]}))
    .unwrap();
    let changes = written(&plan(&seen(claim, Some(pod))));
    assert_eq!(
        value(&changes, annotation::RUNNING_MESSAGE),
        Some("no such snapshot")
    );
    assert_eq!(value(&changes, &copied("b")), None);
}
