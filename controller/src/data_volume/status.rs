//! The status of a volume, made of what is known about its claim.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use longshore_crds::names::{annotation, reason};

use super::volume::{Condition, Status, Volume};
use crate::claim::Claim;

/// What is known.
#[derive(Debug)]
pub(super) enum Facts<'a> {
    /// There is no claim, and one is being made.
    Nothing,
    /// There is no claim, and none is made for this reason.
    Waiting {
        reason: &'static str,
        message: String,
    },
    /// There is one.
    Claim {
        claim: &'a PersistentVolumeClaim,
        binds_late: bool,
    },
}

/// A condition without its times: type, status, reason, message.
type Verdict = (&'static str, bool, String, String);

/// The status that goes with `facts`. Times change only where something else does.
pub(super) fn status(volume: &Volume, facts: &Facts<'_>, now: &str) -> Status {
    let before = &volume.status;
    match facts {
        Facts::Nothing => Status {
            claim_name: Some(volume.name().to_owned()),
            phase: Some("Pending".to_owned()),
            progress: before.progress.clone().or_else(|| Some("N/A".to_owned())),
            restart_count: before.restart_count,
            conditions: timed(
                before,
                now,
                [
                    bound(false, reason::NOT_FOUND, "No PVC found".to_owned()),
                    ready("Pending"),
                    running(false, "", String::new()),
                ],
            ),
        },
        Facts::Waiting { reason, message } => Status {
            claim_name: None,
            phase: Some("Pending".to_owned()),
            progress: Some("N/A".to_owned()),
            restart_count: before.restart_count,
            conditions: timed(
                before,
                now,
                [
                    bound(false, reason, message.clone()),
                    ("Ready", false, (*reason).to_owned(), message.clone()),
                    running(false, reason, message.clone()),
                ],
            ),
        },
        Facts::Claim { claim, binds_late } => of_claim(volume, claim, *binds_late, now),
    }
}

fn of_claim(volume: &Volume, claim: &PersistentVolumeClaim, binds_late: bool, now: &str) -> Status {
    let before = &volume.status;
    let phase = phase(claim, binds_late);
    let done = phase == "Succeeded";
    let restarts = claim
        .annotation(annotation::POD_RESTARTS)
        .and_then(|text| text.parse().ok());
    let name = claim.named();
    let bound = if claim.is_lost() {
        bound(false, reason::CLAIM_LOST, "Claim Lost".to_owned())
    } else if claim.is_bound() {
        bound(true, reason::BOUND, format!("PVC {name} Bound"))
    } else if phase == "WaitForFirstConsumer" {
        bound(
            false,
            reason::PENDING,
            format!("PVC {name} Pending: its volume is made once a pod uses it"),
        )
    } else {
        bound(false, reason::PENDING, format!("PVC {name} Pending"))
    };
    let text = |name| claim.annotation(name).unwrap_or_default().to_owned();
    let runs = claim.annotation(annotation::RUNNING) == Some("true");
    let running: Verdict = (
        "Running",
        runs,
        text(annotation::RUNNING_REASON),
        text(annotation::RUNNING_MESSAGE),
    );
    Status {
        claim_name: Some(name.to_owned()),
        phase: Some(phase.to_owned()),
        progress: Some(if done {
            "100.0%".to_owned()
        } else {
            progress(claim)
        }),
        restart_count: restarts.or(before.restart_count),
        conditions: timed(before, now, [bound, ready(phase), running]),
    }
}

fn phase(claim: &PersistentVolumeClaim, binds_late: bool) -> &'static str {
    if claim.is_filled() {
        return "Succeeded";
    }
    if claim.is_lost() || claim.annotation(annotation::FATAL_ERROR) == Some("true") {
        return "Failed";
    }
    match claim.annotation(annotation::POD_PHASE) {
        // A pod that failed is started again: that is no end.
        Some("Running" | "Failed") => "ImportInProgress",
        Some(_) => "ImportScheduled",
        None if claim.annotation(annotation::IMPORT_POD).is_some() => "ImportScheduled",
        None if claim.is_bound() => "PVCBound",
        None if binds_late && claim.annotation(annotation::BIND_IMMEDIATE).is_none() => {
            "WaitForFirstConsumer"
        }
        None => "Pending",
    }
}

/// The share in percent that the importer reported last.
fn progress(claim: &PersistentVolumeClaim) -> String {
    let text = claim.annotation(annotation::PROGRESS).unwrap_or_default();
    let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
    value
        .and_then(|value| value.get("percent").and_then(serde_json::Value::as_f64))
        .map_or_else(|| "N/A".to_owned(), |percent| format!("{percent:.2}%"))
}

fn bound(is: bool, reason: &str, message: String) -> Verdict {
    ("Bound", is, reason.to_owned(), message)
}

fn ready(phase: &str) -> Verdict {
    let reason = match phase {
        "Succeeded" => "",
        "Failed" => reason::ERROR,
        _ => "TransferRunning",
    };
    let is = phase == "Succeeded";
    ("Ready", is, reason.to_owned(), String::new())
}

fn running(is: bool, reason: &str, message: String) -> Verdict {
    ("Running", is, reason.to_owned(), message)
}

/// Adds times: that of a change where there is one, else those of before.
fn timed(before: &Status, now: &str, verdicts: [Verdict; 3]) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|(kind, is, reason, message)| {
            let status = if is { "True" } else { "False" };
            let old = before.conditions.iter().find(|old| old.kind == kind);
            let turned = old.is_none_or(|old| old.status != status);
            let changed =
                turned || old.is_none_or(|old| old.reason != reason || old.message != message);
            let time = |fresh: bool, kept: fn(&Condition) -> Option<String>| {
                if fresh {
                    return Some(now.to_owned());
                }
                old.and_then(kept)
            };
            Condition {
                kind: kind.to_owned(),
                status: status.to_owned(),
                last_transition_time: time(turned, |old| old.last_transition_time.clone()),
                last_heartbeat_time: time(changed, |old| old.last_heartbeat_time.clone()),
                reason,
                message,
            }
        })
        .collect()
}
