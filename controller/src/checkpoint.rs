//! Warm imports: a disk in use is copied in stages, one for each checkpoint of it, by a pod each.
//!
//! All there is to know is on the claim, in upstream's annotations:
//!
//! ```text
//! current C, not copied ----> a pod copies C, all of it or what changed since `previous`
//! C copied, more to come ---> paused, until whoever drives the claim names another one
//! C copied, and final ------> done: `done` takes the place of all the rest
//! ```
//!
//! Who drives a claim is its volume, or a person; who copies is the import controller. Of a claim that comes filled
//! the populator drives the prime, and what is said of that is said of the claim.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use longshore_crds::contract;
use longshore_crds::data_volume::Checkpoint;
use longshore_crds::names::{annotation, object};

use crate::claim::{Changes, Claim};

/// The longest name that an annotation has behind its `/`.
const MOST: usize = 63;

/// The stage that a claim is at: one that is to be copied, or the one that was copied last.
pub(crate) fn stage(claim: &PersistentVolumeClaim) -> Option<contract::Checkpoint> {
    let text = |name| claim.annotation(name).filter(|text| !text.is_empty());
    if is_done(claim) {
        return None;
    }
    Some(contract::Checkpoint {
        current: text(annotation::CHECKPOINT)?.to_owned(),
        previous: text(annotation::CHECKPOINT_PREVIOUS).map(str::to_owned),
        last: claim.annotation(annotation::CHECKPOINT_FINAL) == Some("true"),
    })
}

/// Whether all stages were copied.
pub(crate) fn is_done(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(annotation::CHECKPOINTS_DONE) == Some("true")
}

/// Whether a checkpoint was copied.
pub(crate) fn is_copied(claim: &PersistentVolumeClaim, checkpoint: &str) -> bool {
    claim.annotation(&copied_name(checkpoint)).is_some()
}

/// The checkpoint that was copied last, while another one is waited for.
pub(crate) fn paused_at(claim: &PersistentVolumeClaim) -> Option<String> {
    let stage = stage(claim)?;
    is_copied(claim, &stage.current).then_some(stage.current)
}

/// The annotation that says that a checkpoint was copied. What cannot be part of one is hashed.
fn copied_name(checkpoint: &str) -> String {
    let (_, front) = annotation::CHECKPOINT_COPIED
        .split_once('/')
        .unwrap_or_default();
    let is_part = checkpoint
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && checkpoint.ends_with(|c: char| c.is_ascii_alphanumeric())
        && front.len() + checkpoint.len() <= MOST;
    if is_part {
        return format!("{}{checkpoint}", annotation::CHECKPOINT_COPIED);
    }
    let hash = object::fnv64a(checkpoint.as_bytes());
    format!("{}{hash:016x}", annotation::CHECKPOINT_COPIED)
}

/// Name of the pod for the stage that a claim is at.
pub(crate) fn pod_name(claim: &PersistentVolumeClaim) -> String {
    match stage(claim) {
        Some(stage) => object::importer_of_checkpoint(claim.named(), &stage.current),
        None => object::importer(claim.named()),
    }
}

/// The checkpoint that a pod copies, if it does only that.
pub(crate) fn of_pod(pod: &Pod) -> Option<&str> {
    let all = pod.metadata.annotations.as_ref()?;
    all.get(annotation::CHECKPOINT).map(String::as_str)
}

/// What is written down once `pod` has copied `checkpoint`.
pub(crate) fn copied(claim: &PersistentVolumeClaim, checkpoint: &str, pod: &str) -> Changes {
    if stage(claim).is_some_and(|stage| stage.last && stage.current == checkpoint) {
        return finished(claim);
    }
    [(copied_name(checkpoint), Some(pod.to_owned()))].into()
}

/// There are no more stages.
pub(crate) fn finished(claim: &PersistentVolumeClaim) -> Changes {
    let known = claim.metadata.annotations.iter().flatten();
    let copied = known
        .map(|(name, _)| name.as_str())
        .filter(|name| name.starts_with(annotation::CHECKPOINT_COPIED));
    let stages = [
        annotation::CHECKPOINT,
        annotation::CHECKPOINT_PREVIOUS,
        annotation::CHECKPOINT_FINAL,
        annotation::CHECKPOINT_POD,
    ];
    let mut changes: Changes = copied
        .chain(stages)
        .map(|name| (name.to_owned(), None))
        .collect();
    let done = (annotation::CHECKPOINTS_DONE, "true");
    for (name, value) in [done, (annotation::POD_PHASE, "Succeeded")] {
        changes.insert(name.to_owned(), Some(value.to_owned()));
    }
    changes
}

/// What `claim` shall say of the stages that its prime is filled in.
pub(crate) fn mirrored(claim: &PersistentVolumeClaim, prime: &PersistentVolumeClaim) -> Changes {
    const FRONT: &str = "cdi.kubevirt.io/storage.checkpoint.";
    let of = |claim: &PersistentVolumeClaim| {
        let all = claim.metadata.annotations.clone().unwrap_or_default();
        all.into_iter().filter(|(name, _)| name.starts_with(FRONT))
    };
    let gone = of(claim).map(|(name, _)| (name, None));
    let said = of(prime).map(|(name, value)| (name, Some(value)));
    gone.chain(said).collect()
}

/// What follows from `listed`, of which the last one may be the `end`, for a claim that is driven by it:
/// the first stage, the next one, that the present one is the last, or that all was copied.
pub(crate) fn due(claim: &PersistentVolumeClaim, listed: &[Checkpoint], end: bool) -> Changes {
    if listed.is_empty() || claim.is_filled() || is_done(claim) {
        return Changes::new();
    }
    let Some(at) = stage(claim) else {
        let begun = [annotation::IMPORT_POD, annotation::POD_PHASE]
            .iter()
            .any(|name| claim.annotation(name).is_some());
        return if begun {
            Changes::new()
        } else {
            first(listed, end)
        };
    };
    // Backwards would be another disk's way: what is before the present one counts as copied.
    let place = listed.iter().position(|one| one.current == at.current);
    let rest = place.map_or(0, |place| place.saturating_add(1));
    if !is_copied(claim, &at.current) {
        let last = end && rest == listed.len() && place.is_some();
        let noted = (
            annotation::CHECKPOINT_FINAL.to_owned(),
            Some(last.to_string()),
        );
        return crate::claim::missing(claim, [noted].into());
    }
    let mut ahead = listed.iter().enumerate().skip(rest);
    match ahead.find(|(_, one)| !one.current.is_empty() && !is_copied(claim, &one.current)) {
        Some((place, one)) => wanted(one, end && place.saturating_add(1) == listed.len()),
        None if end => finished(claim),
        None => Changes::new(),
    }
}

/// The first of several stages.
pub(crate) fn first(listed: &[Checkpoint], end: bool) -> Changes {
    listed
        .first()
        .filter(|one| !one.current.is_empty())
        .map(|one| wanted(one, end && listed.len() == 1))
        .unwrap_or_default()
}

fn wanted(one: &Checkpoint, last: bool) -> Changes {
    [
        (annotation::CHECKPOINT, one.current.clone()),
        (annotation::CHECKPOINT_PREVIOUS, one.previous.clone()),
        (annotation::CHECKPOINT_FINAL, last.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), Some(value)))
    .into()
}

/// Checkpoints of these names, each with what changed since the one before.
#[cfg(test)]
pub(crate) fn listed(names: &[&str]) -> Vec<Checkpoint> {
    let before = [""].iter().chain(names);
    let both = names.iter().zip(before);
    both.map(|(current, previous)| Checkpoint {
        current: (*current).to_owned(),
        previous: (*previous).to_owned(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(annotations: &Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "disk", "uid": "claim-1", "annotations": annotations},
        }))
        .unwrap()
    }

    /// A claim at stage `at`, after those of `copied`.
    fn staged(at: &str, last: &str, copied: &[&str]) -> PersistentVolumeClaim {
        let mut all = json!({
            annotation::CHECKPOINT: at, annotation::CHECKPOINT_PREVIOUS: "",
            annotation::CHECKPOINT_FINAL: last,
        });
        for name in copied {
            all[copied_name(name)] = json!("pod");
        }
        claim(&all)
    }

    fn value<'a>(changes: &'a Changes, name: &str) -> Option<&'a str> {
        changes.get(name)?.as_deref()
    }

    #[test]
    fn names_that_fit_are_part_of_the_annotation_and_others_are_hashed() {
        let uuid = "0af12a3c-44f0-4c9e-9d51-0d7ba3f5f4d1";
        assert!(copied_name(uuid).ends_with(uuid));
        assert_eq!(
            copied_name("snapshot-1"),
            "cdi.kubevirt.io/storage.checkpoint.copied.snapshot-1"
        );
        for odd in [
            "",
            "52 de c0 d9/1",
            "a.",
            "0af12a3c-44f0-4c9e-9d51-0d7ba3f5f4d1-and-more",
        ] {
            let name = copied_name(odd);
            let (_, part) = name.rsplit_once('.').unwrap();
            assert_eq!(part.len(), 16, "{name}");
            assert!(name.split_once('/').unwrap().1.len() <= MOST);
        }
    }

    #[test]
    fn what_is_due_follows_the_list_forwards() {
        let nothing = claim(&json!({}));
        // (claim, list, its end is final) -> (current, previous, final)
        let table: [(&PersistentVolumeClaim, &[&str], bool, _); 9] = [
            (&nothing, &["a"], false, Some(("a", "", "false"))),
            (&nothing, &["a"], true, Some(("a", "", "true"))),
            (&nothing, &["a", "b"], true, Some(("a", "", "false"))),
            (
                &staged("a", "false", &["a"]),
                &["a", "b"],
                true,
                Some(("b", "a", "true")),
            ),
            (
                &staged("a", "false", &["a"]),
                &["a", "b", "c"],
                true,
                Some(("b", "a", "false")),
            ),
            // At work: nothing to do.
            (&staged("a", "false", &[]), &["a", "b"], true, None),
            // Paused.
            (&staged("b", "false", &["a", "b"]), &["a", "b"], false, None),
            // What was lost of an older one does not take the disk back to it.
            (&staged("b", "false", &["b"]), &["a", "b"], false, None),
            // The list is another one now.
            (
                &staged("x", "false", &["x"]),
                &["x", "y"],
                false,
                Some(("y", "x", "false")),
            ),
        ];
        for (claim, names, end, expected) in table {
            let changes = due(claim, &listed(names), end);
            let found = value(&changes, annotation::CHECKPOINT).map(|current| {
                (
                    current,
                    value(&changes, annotation::CHECKPOINT_PREVIOUS).unwrap(),
                    value(&changes, annotation::CHECKPOINT_FINAL).unwrap(),
                )
            });
            assert_eq!(found, expected, "{names:?}");
            assert_eq!(changes.is_empty(), expected.is_none(), "{changes:?}");
        }
    }

    #[test]
    fn a_stage_at_work_becomes_the_last_one_when_the_list_ends_with_it() {
        let changes = due(&staged("a", "false", &[]), &listed(&["a"]), true);
        assert_eq!(value(&changes, annotation::CHECKPOINT_FINAL), Some("true"));
        assert_eq!(changes.len(), 1);
        let changes = due(&staged("a", "true", &[]), &listed(&["a", "b"]), true);
        assert_eq!(value(&changes, annotation::CHECKPOINT_FINAL), Some("false"));
    }

    #[test]
    fn the_end_leaves_one_annotation_of_all_and_needs_no_pod_where_all_was_copied() {
        let paused = staged("b", "false", &["a", "b"]);
        assert_eq!(paused_at(&paused).as_deref(), Some("b"));
        let late = due(&paused, &listed(&["a", "b"]), true);
        let mut at_last = staged("b", "true", &["a"]);
        assert_eq!(paused_at(&at_last), None);
        for changes in [late, copied(&at_last, "b", "pod-2")] {
            assert_eq!(value(&changes, annotation::CHECKPOINTS_DONE), Some("true"));
            assert_eq!(value(&changes, annotation::POD_PHASE), Some("Succeeded"));
            let rest = changes.iter().filter(|(_, value)| value.is_none());
            assert!(rest.count() >= 4);
        }
        let all = at_last.metadata.annotations.as_mut().unwrap();
        all.insert(annotation::CHECKPOINTS_DONE.to_owned(), "true".to_owned());
        assert_eq!(stage(&at_last), None);
        assert_eq!(pod_name(&at_last), "importer-disk");
        assert!(due(&at_last, &listed(&["a", "b", "c"]), true).is_empty());
    }

    #[test]
    fn an_import_without_stages_that_has_begun_gets_none() {
        let begun = claim(&json!({annotation::IMPORT_POD: "importer-disk"}));
        assert!(due(&begun, &listed(&["a"]), true).is_empty());
        let filled = claim(&json!({annotation::POD_PHASE: "Succeeded"}));
        assert!(due(&filled, &listed(&["a"]), true).is_empty());
        assert!(due(&claim(&json!({})), &[], true).is_empty());
    }
}
