//! Claims whose prime is filled in stages, one for each checkpoint that the source lists.

use longshore_crds::names::{annotation, reason};
use serde_json::{Value, json};

use super::super::plan::{Action, Observed, Plan, Source};
use super::{claim, made, marked, planned, prime, seen, source, value, volume, written};
use crate::checkpoint;
use crate::claim::{Changes, Claim as _};
use crate::data_volume::progress;

pub(super) fn imageio() -> Value {
    json!({"imageio": {
        "url": "https://engine/api", "diskId": "d", "secretRef": "keys", "insecureSkipVerify": true,
    }})
}

fn listed(names: &[&str], end: bool) -> Source {
    source(&json!({
        "source": imageio(), "checkpoints": checkpoint::listed(names), "finalCheckpoint": end,
        "targetClaim": "disk",
    }))
}

/// What the prime says at stage `at`, after those of `copied`.
fn staged(at: &str, last: &str, copied: &[&str]) -> Value {
    let mut all = json!({
        annotation::CHECKPOINT: at, annotation::CHECKPOINT_PREVIOUS: "",
        annotation::CHECKPOINT_FINAL: last, annotation::CHECKPOINT_POD: "pod-1",
        annotation::POD_PHASE: if copied.contains(&at) { "Succeeded" } else { "Running" },
    });
    for name in copied {
        all[format!("{}{name}", annotation::CHECKPOINT_COPIED)] = json!("pod-1");
    }
    all
}

fn following(before: &Value, prime_says: &Value, source: Source) -> Observed {
    Observed {
        source,
        ..seen(claim("Pending", before), Some(prime("Bound", prime_says)))
    }
}

/// What the prime is told.
fn told(plan: &Plan) -> Changes {
    let mut all = Changes::new();
    for action in &plan.actions {
        if let Action::MarkPrime(changes) = action {
            all.extend(changes.clone());
        }
    }
    all
}

#[test]
fn the_prime_begins_with_the_first_checkpoint() {
    for (names, end, last) in [
        (&["a"][..], false, "false"),
        (&["a"], true, "true"),
        (&["a", "b"], true, "false"),
    ] {
        let observed = Observed {
            source: listed(names, end),
            ..seen(claim("Pending", &json!({})), None)
        };
        let plan = planned(&observed);
        let prime = made(&plan.actions).unwrap();
        assert_eq!(prime.annotation(annotation::CHECKPOINT), Some("a"));
        assert_eq!(prime.annotation(annotation::CHECKPOINT_PREVIOUS), Some(""));
        assert_eq!(prime.annotation(annotation::CHECKPOINT_FINAL), Some(last));
        assert_eq!(prime.annotation(annotation::IMPORT_DISK_ID), Some("d"));
    }
}

#[test]
fn the_next_stage_is_the_one_that_the_source_lists() {
    // (prime, source) -> (current, final, done)
    let table = [
        // At work.
        (
            staged("a", "false", &[]),
            listed(&["a", "b"], true),
            None,
            None,
            None,
        ),
        // Nothing follows yet.
        (
            staged("a", "false", &["a"]),
            listed(&["a"], false),
            None,
            None,
            None,
        ),
        (
            staged("a", "false", &["a"]),
            listed(&["a", "b"], true),
            Some("b"),
            Some("true"),
            None,
        ),
        // What is at work turns out to be the last one.
        (
            staged("a", "false", &[]),
            listed(&["a"], true),
            None,
            Some("true"),
            None,
        ),
        // It ends where it rests.
        (
            staged("a", "false", &["a"]),
            listed(&["a"], true),
            None,
            None,
            Some("true"),
        ),
        // Nobody says what follows.
        (
            staged("a", "false", &["a"]),
            Source::Missing,
            None,
            None,
            None,
        ),
        (
            staged("a", "false", &["a"]),
            Source::Unreadable,
            None,
            None,
            None,
        ),
    ];
    for (says, source, current, last, done) in table {
        let plan = planned(&following(&json!({}), &says, source.clone()));
        let told = told(&plan);
        for (name, expected) in [
            (annotation::CHECKPOINT, current),
            (annotation::CHECKPOINT_FINAL, last),
            (annotation::CHECKPOINTS_DONE, done),
        ] {
            assert_eq!(
                value(&told, name),
                expected,
                "{name} of {says} by {source:?}"
            );
        }
        assert!(!plan.actions.contains(&Action::Rebind), "{plan:?}");
    }
    // An import without stages gets none.
    let whole = json!({annotation::POD_PHASE: "Running", annotation::IMPORT_POD: "importer-x"});
    let plan = planned(&following(&json!({}), &whole, listed(&["a"], true)));
    assert!(told(&plan).is_empty(), "{plan:?}");
}

#[test]
fn the_claim_says_at_which_stage_it_is_and_never_that_it_is_filled() {
    let rests = following(
        &json!({}),
        &staged("a", "false", &["a"]),
        listed(&["a"], false),
    );
    let first = planned(&rests);
    let noted = written(&first.actions);
    let copied = format!("{}a", annotation::CHECKPOINT_COPIED);
    for (name, expected) in [
        (annotation::CHECKPOINT, Some("a")),
        (annotation::CHECKPOINT_FINAL, Some("false")),
        (copied.as_str(), Some("pod-1")),
        (annotation::POD_PHASE, None),
    ] {
        assert_eq!(value(&noted, name), expected, "{name}");
    }
    let message = value(&noted, annotation::BOUND_MESSAGE).unwrap();
    assert!(message.ends_with("checkpoint a is copied"), "{message}");
    let later = Observed {
        claim: marked(&rests.claim, &first.actions),
        ..rests
    };
    assert_eq!(planned(&later).actions, [], "it is told again");
    assert_eq!(progress(&later.claim), "N/A");

    let alone = following(&json!({}), &staged("a", "false", &["a"]), Source::Missing);
    let message = written(&planned(&alone).actions);
    let message = value(&message, annotation::BOUND_MESSAGE).unwrap();
    assert!(
        message.contains("no VolumeImportSource source"),
        "{message}"
    );

    // What was said of stages goes once all are copied.
    let done = json!({annotation::CHECKPOINTS_DONE: "true", annotation::POD_PHASE: "Succeeded"});
    let before = staged("b", "true", &["a"]);
    let whole = Observed {
        volume: Some(volume("claim-2", "")),
        ..following(&before, &done, Source::Unread)
    };
    let plan = planned(&whole);
    let noted = written(&plan.actions);
    assert_eq!(value(&noted, annotation::CHECKPOINTS_DONE), Some("true"));
    for name in [annotation::CHECKPOINT, copied.as_str()] {
        assert_eq!(noted.get(name), Some(&None), "{name}");
    }
    assert!(plan.actions.contains(&Action::Rebind), "{plan:?}");
    let handed = marked(&whole.claim, &plan.actions);
    assert!(!handed.is_filled(), "it has no volume yet");
}

#[test]
fn a_claim_that_has_its_volume_is_at_no_stage_even_if_its_prime_went_too_early() {
    let before = staged("b", "true", &["a"]);
    let observed = Observed {
        volume: Some(volume("claim-1", "claim-1")),
        source: Source::Unread,
        ..seen(claim("Bound", &before), None)
    };
    let plan = planned(&observed);
    let filled = marked(&observed.claim, &plan.actions);
    assert!(filled.is_filled(), "{plan:?}");
    assert_eq!(filled.annotation(annotation::CHECKPOINT), None);
    assert_eq!(
        filled.annotation(annotation::RUNNING_REASON),
        Some(reason::COMPLETED)
    );
}
