//! The status of a volume, made of what is known about its claim.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use longshore_crds::Condition;
use longshore_crds::names::{annotation, reason};

use super::external;
use super::volume::{Status, Volume};
use crate::checkpoint;
use crate::claim::Claim;
use crate::troubles::Trouble;

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
        /// Its class is of a CSI driver.
        has_driver: bool,
        /// What keeps it from being bound.
        trouble: Option<&'a Trouble>,
    },
}

/// The status that goes with `facts`. Times change only where something else does.
pub(super) fn status(volume: &Volume, facts: &Facts<'_>, now: &str) -> Status {
    let before = &volume.status;
    match facts {
        Facts::Nothing => Status {
            claim_name: Some(volume.name().to_owned()),
            phase: Some("Pending".to_owned()),
            progress: Some("N/A".to_owned()),
            restart_count: before.restart_count,
            conditions: timed(
                before,
                now,
                [
                    bound(false, reason::NOT_FOUND, "No PVC found".to_owned()),
                    ready(false, "", String::new()),
                    running(false, reason::PENDING, "the claim is being made".to_owned()),
                ],
            ),
        },
        Facts::Waiting { reason, message } => Status {
            claim_name: None,
            phase: Some("Pending".to_owned()),
            progress: Some("N/A".to_owned()),
            restart_count: before.restart_count,
            conditions: timed(before, now, {
                // The word that upstream has for this and others.
                let general = match *reason {
                    reason::STORAGE_PROFILE_INCOMPLETE => reason::ERR_CLAIM_NOT_VALID,
                    other => other,
                };
                [
                    bound(false, general, message.clone()),
                    ready(false, general, message.clone()),
                    running(false, reason, message.clone()),
                ]
            }),
        },
        Facts::Claim {
            claim,
            binds_late,
            has_driver,
            trouble,
        } => of_claim(volume, claim, (*binds_late, *has_driver), *trouble, now),
    }
}

fn of_claim(
    volume: &Volume,
    claim: &PersistentVolumeClaim,
    (binds_late, has_driver): (bool, bool),
    trouble: Option<&Trouble>,
    now: &str,
) -> Status {
    let before = &volume.status;
    // One that was filled stays so if its driver goes for a while.
    let may_be_bare =
        external::is_one(claim) && claim.is_bound() && before.phase.as_deref() != Some("Succeeded");
    let bare = external::obstacle(claim, has_driver).filter(|_| may_be_bare);
    let phase = phase(volume, claim, binds_late, bare.is_some());
    let restarts = claim
        .annotation(annotation::POD_RESTARTS)
        .and_then(|text| text.parse().ok());
    let bound = bound_of(claim, phase, trouble);
    let running = match bare {
        Some((reason, message)) if phase == "PVCBound" => {
            running(false, reason, message.to_owned())
        }
        // Upstream tells of it as what keeps the claim from being bound.
        _ if awaits_vddk(claim) && !claim.is_ending() => running(false, "", String::new()),
        _ => running_of(claim, phase, &bound),
    };
    let ready = match phase {
        "Succeeded" => ready(true, "", String::new()),
        "Failed" => ready(false, reason::ERROR, String::new()),
        "Paused" => ready(false, reason::PAUSED, paused(claim)),
        _ if running.status == "True" => ready(false, reason::TRANSFER_RUNNING, String::new()),
        // As upstream: why it does not get ready the others say.
        _ => ready(false, "", String::new()),
    };
    Status {
        claim_name: Some(claim.named().to_owned()),
        phase: Some(phase.to_owned()),
        progress: Some(match phase {
            // Nobody here has filled what came filled.
            "Succeeded" if came_filled(volume, claim) => "N/A".to_owned(),
            "Succeeded" => "100.0%".to_owned(),
            _ => progress(claim),
        }),
        restart_count: restarts.or(before.restart_count),
        conditions: timed(before, now, [bound, ready, running]),
    }
}

/// Whether somebody else says that the claim is this volume's disk.
fn came_filled(volume: &Volume, claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(annotation::POPULATED_FOR) == Some(volume.name())
        && claim.annotation(annotation::IMPORT_POD).is_none()
}

/// A stage has ended, and the volume names no next one.
fn paused(claim: &PersistentVolumeClaim) -> String {
    let copied = checkpoint::paused_at(claim).unwrap_or_default();
    format!(
        "checkpoint {copied} is copied: add the next one to spec.checkpoints, or end it here with finalCheckpoint: true"
    )
}

fn bound_of(claim: &PersistentVolumeClaim, phase: &str, trouble: Option<&Trouble>) -> Condition {
    let name = claim.named();
    if claim.is_lost() {
        return bound(false, reason::CLAIM_LOST, "Claim Lost".to_owned());
    }
    // What a populator waits for is part of what it says of the claim.
    if awaits_vddk(claim) && claim.populator().is_none() {
        let message = claim.annotation(annotation::RUNNING_MESSAGE);
        let message = message.unwrap_or_default();
        return bound(false, reason::AWAITING_VDDK, message.to_owned());
    }
    if claim.is_bound() {
        return bound(true, reason::BOUND, format!("PVC {name} Bound"));
    }
    let populator = claim.annotation(annotation::BOUND_MESSAGE);
    let message = match trouble {
        _ if populator.is_some() => populator.unwrap_or_default().to_owned(),
        Some(trouble) => format!("PVC {name} Pending: {}", trouble.message),
        None if matches!(phase, "WaitForFirstConsumer" | "PendingPopulation") => {
            format!("PVC {name} Pending: its volume is made once a pod uses it")
        }
        None => format!("PVC {name} Pending"),
    };
    bound(false, reason::PENDING, message)
}

/// Whether an import waits for somebody to name the image with VMware's library.
fn awaits_vddk(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(annotation::RUNNING_REASON) == Some(reason::AWAITING_VDDK)
        && !claim.is_filled()
}

/// What the claim says of its pod; while there is none, what is waited for.
fn running_of(claim: &PersistentVolumeClaim, phase: &str, bound: &Condition) -> Condition {
    if claim.is_ending() && phase != "Succeeded" {
        // The first words are upstream's.
        let message = format!(
            "Resource \"{}\" marked for deletion: once it is gone another one is made",
            claim.named()
        );
        return running(false, reason::ERR_MARKED_FOR_DELETION, message);
    }
    let text = |name| claim.annotation(name).unwrap_or_default().to_owned();
    let why = text(annotation::RUNNING_REASON);
    if !why.is_empty() {
        let runs = claim.annotation(annotation::RUNNING) == Some("true");
        return running(runs, &why, text(annotation::RUNNING_MESSAGE));
    }
    match phase {
        "WaitForFirstConsumer" => running(
            false,
            reason::WAIT_FOR_FIRST_CONSUMER,
            bound.message.clone(),
        ),
        "PendingPopulation" => running(false, reason::PENDING_POPULATION, bound.message.clone()),
        "Pending" => running(false, reason::PENDING, bound.message.clone()),
        "PVCBound" | "ImportScheduled" => running(
            false,
            reason::PENDING,
            "the importer's pod is being made".to_owned(),
        ),
        _ => running(false, "", String::new()),
    }
}

/// `bare`: nobody fills it, though it is bound and somebody was to.
fn phase(
    volume: &Volume,
    claim: &PersistentVolumeClaim,
    binds_late: bool,
    bare: bool,
) -> &'static str {
    let noted = |name| claim.annotation(name);
    if claim.is_lost() {
        return "Failed";
    }
    // What was filled stays so for as long as it is the same claim.
    if claim.is_filled() || volume.annotation(annotation::FILLED_CLAIM) == Some(claim.uid()) {
        return "Succeeded";
    }
    if noted(annotation::FATAL_ERROR) == Some("true") {
        return "Failed";
    }
    if super::statics::takes(claim) {
        return "Pending";
    }
    let populated = claim.populator().is_some();
    if claim.is_bound() && external::is_one(claim) {
        return if bare { "PVCBound" } else { "Succeeded" };
    }
    if checkpoint::paused_at(claim).is_some() {
        let ends = checkpoint::stage(claim).is_some_and(|stage| stage.last);
        return if ends || !volume.due(claim).is_empty() {
            "ImportScheduled"
        } else {
            "Paused"
        };
    }
    match noted(annotation::POD_PHASE) {
        // A pod that failed is started again: that is no end.
        Some("Running" | "Failed") => "ImportInProgress",
        Some(_) => "ImportScheduled",
        None if noted(annotation::IMPORT_POD).is_some() => "ImportScheduled",
        None if awaits_vddk(claim) => "ImportScheduled",
        // All stages were copied, and its volume is on its way.
        None if checkpoint::is_done(claim) => "ImportScheduled",
        None if claim.is_bound() => "PVCBound",
        None if binds_late && noted(annotation::BIND_IMMEDIATE).is_none() => {
            let has_node = noted(annotation::SELECTED_NODE).is_some_and(|node| !node.is_empty());
            match (populated, has_node) {
                (false, _) => "WaitForFirstConsumer",
                (true, false) => "PendingPopulation",
                (true, true) => "Pending",
            }
        }
        None => "Pending",
    }
}

/// The share in percent that the importer reported last.
pub(crate) fn progress(claim: &PersistentVolumeClaim) -> String {
    let text = claim.annotation(annotation::PROGRESS).unwrap_or_default();
    let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
    value
        .and_then(|value| value.get("percent").and_then(serde_json::Value::as_f64))
        .map_or_else(|| "N/A".to_owned(), |percent| format!("{percent:.2}%"))
}

fn bound(is: bool, reason: &str, message: String) -> Condition {
    Condition::new("Bound", is, reason, message)
}

fn ready(is: bool, reason: &str, message: String) -> Condition {
    Condition::new("Ready", is, reason, message)
}

fn running(is: bool, reason: &str, message: String) -> Condition {
    Condition::new("Running", is, reason, message)
}

/// Adds times: that of a change where there is one, else those of before.
fn timed(before: &Status, now: &str, conditions: [Condition; 3]) -> Vec<Condition> {
    let since = |condition: Condition| condition.since(&before.conditions, now);
    conditions.map(since).into()
}
