//! Volumes that are copied in stages, one for each checkpoint.

use longshore_crds::names::{annotation, reason};
use serde_json::{Value, json};

use super::super::plan::{Action, Plan, plan};
use super::super::volume::Volume;
use super::{NOW, claim, condition, created, notes, pvc, rendered, seen, volume_of};
use crate::checkpoint::listed;
use crate::claim::Changes;
use crate::data_volume::render::Profile;

fn imageio() -> Value {
    json!({"imageio": {
        "url": "https://engine/api", "diskId": "d", "secretRef": "keys", "insecureSkipVerify": true,
    }})
}

pub(super) fn spec(names: &[&str], end: bool) -> Value {
    json!({
        "source": imageio(), "pvc": pvc(), "checkpoints": listed(names), "finalCheckpoint": end,
    })
}

fn warm(names: &[&str], end: bool) -> Volume {
    volume_of(&spec(names, end), &json!({}))
}

/// What a claim says at stage `at` with these copied.
fn staged(at: &str, last: &str, copied: &[&str]) -> Value {
    let mut all = json!({
        annotation::CHECKPOINT: at, annotation::CHECKPOINT_PREVIOUS: "",
        annotation::CHECKPOINT_FINAL: last,
        annotation::IMPORT_POD: format!("importer-disk-checkpoint-{at}"),
        annotation::POD_PHASE: if copied.contains(&at) { "Succeeded" } else { "Running" },
        annotation::RUNNING: "false", annotation::RUNNING_REASON: reason::COMPLETED,
        annotation::RUNNING_MESSAGE: "it is copied",
    });
    for name in copied {
        all[format!("{}{name}", annotation::CHECKPOINT_COPIED)] = json!("pod");
    }
    all
}

fn marked(plan: &Plan) -> Option<&Changes> {
    let mut actions = plan.actions.iter();
    actions.find_map(|action| match action {
        Action::MarkClaim(changes) => Some(changes),
        _ => None,
    })
}

#[test]
fn a_claim_begins_with_the_first_checkpoint() {
    let plan = plan(&seen(warm(&["a", "b"], true), None), NOW);
    let annotations = created(&plan)
        .unwrap()
        .metadata
        .annotations
        .clone()
        .unwrap();
    assert_eq!(annotations[annotation::CHECKPOINT], "a");
    assert_eq!(annotations[annotation::CHECKPOINT_PREVIOUS], "");
    assert_eq!(annotations[annotation::CHECKPOINT_FINAL], "false");
    let one = rendered(&spec(&["a"], true), &json!({}), Profile::default());
    let annotations = &one["metadata"]["annotations"];
    assert_eq!(annotations[annotation::CHECKPOINT_FINAL], "true");
}

#[test]
fn each_stage_has_its_phase_and_names_what_follows() {
    let done = json!({
        annotation::CHECKPOINTS_DONE: "true", annotation::POD_PHASE: "Succeeded",
        annotation::RUNNING_REASON: reason::COMPLETED,
    });
    for (volume, claimed, phase, ready, next) in [
        // At work.
        (
            warm(&["a"], false),
            staged("a", "false", &[]),
            "ImportInProgress",
            "",
            None,
        ),
        // Nothing follows yet.
        (
            warm(&["a"], false),
            staged("a", "false", &["a"]),
            "Paused",
            reason::PAUSED,
            None,
        ),
        // The list has grown.
        (
            warm(&["a", "b"], false),
            staged("a", "false", &["a"]),
            "ImportScheduled",
            "",
            Some("b"),
        ),
        // The end, and another controller than ours copied it.
        (
            warm(&["a"], true),
            staged("a", "true", &["a"]),
            "ImportScheduled",
            "",
            None,
        ),
        (warm(&["a"], true), done, "Succeeded", "", None),
    ] {
        let plan = plan(&seen(volume, Some(claim("Bound", &claimed))), NOW);
        let changes = marked(&plan);
        let named = changes.and_then(|changes| changes.get(annotation::CHECKPOINT)?.clone());
        assert_eq!(named.as_deref(), next, "{claimed}");
        // The mark of a filled claim is a round of its own.
        if phase == "Succeeded" {
            assert!(
                matches!(plan.actions[..], [Action::MarkVolume(_)]),
                "{plan:?}"
            );
        } else {
            let status = plan.status.clone().unwrap();
            assert_eq!(status.phase.as_deref(), Some(phase), "{claimed}");
            assert_eq!(condition(&status, "Ready").1, ready, "{claimed}");
        }
    }
}

#[test]
fn a_pause_tells_what_ends_it() {
    let paused = claim("Bound", &staged("a", "false", &["a"]));
    let first = plan(&seen(warm(&["a"], false), Some(paused.clone())), NOW);
    let status = first.status.clone().unwrap();
    let (is, _, message) = condition(&status, "Ready");
    assert_eq!(is, "False");
    assert!(message.contains("checkpoint a is copied"), "{message}");
    assert!(message.contains("finalCheckpoint"), "{message}");
    let told = format!("{:?}", notes(&first));
    assert!(told.contains(reason::IMPORT_PAUSED), "{told}");
    let mut later = seen(warm(&["a"], false), Some(paused.clone()));
    later.volume.status = status;
    let second = plan(&later, NOW);
    assert!(second.actions.is_empty() && second.status.is_none());
    // Everything was copied already: to end it takes no pod.
    later.volume.spec = warm(&["a"], true).spec;
    let end = plan(&later, NOW);
    let done = marked(&end).and_then(|changes| changes.get(annotation::CHECKPOINTS_DONE)?.clone());
    assert_eq!(done.as_deref(), Some("true"));
}

#[test]
fn stages_that_change_are_no_change_of_the_spec_that_is_ignored() {
    let short = warm(&["a"], false);
    let long = warm(&["a", "b"], true);
    assert_eq!(short.spec_hash, long.spec_hash);
    let mut other = spec(&["a"], false);
    other["priorityClassName"] = json!("high");
    assert_ne!(short.spec_hash, volume_of(&other, &json!({})).spec_hash);
}
