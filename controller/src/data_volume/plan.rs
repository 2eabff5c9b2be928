//! What to do about a volume, and what to say of it. Pure: the same observation gives the same plan.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use longshore_crds::names::{annotation, reason};

use super::render::{self, Profile, Unknown};
use super::status::{Facts, status};
use super::validate::validate;
use super::volume::{Status, Volume};
use crate::claim::Claim;
use crate::event::Note;

/// All that a plan depends on.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) volume: Volume,
    /// The claim of the same name.
    pub(crate) claim: Option<PersistentVolumeClaim>,
    pub(crate) profile: Profile,
    /// The class makes volumes only once somebody uses the claim.
    pub(crate) binds_late: bool,
    /// Every volume may take over a claim that is there already.
    pub(crate) adoption: bool,
}

/// What there is to do, in this order; the status comes last.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// The status to write, if it is another one than before.
    pub(crate) status: Option<Status>,
}

/// One thing to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Note on the volume that no populator is used.
    Stamp,
    /// Create the claim.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Make the volume the owner of its claim.
    Adopt,
    /// Tell people.
    Tell(Note),
}

/// Decides. `now` is what conditions that change carry.
pub(crate) fn plan(observed: &Observed, now: &str) -> Plan {
    let volume = &observed.volume;
    let mut plan = Plan::default();
    if volume.meta.deletion_timestamp.is_some() {
        // Its claim goes with it, and the claim's pod with the claim.
        return plan;
    }
    let facts = facts(observed, &mut plan.actions);
    let next = status(volume, &facts, now);
    if next != volume.status {
        if next.phase != volume.status.phase
            && let Some(note) = told(volume.name(), next.phase.as_deref())
        {
            plan.actions.push(Action::Tell(note));
        }
        plan.status = Some(next);
    }
    plan
}

/// What is known of the claim, and what it takes to get one.
fn facts<'a>(observed: &'a Observed, actions: &mut Vec<Action>) -> Facts<'a> {
    let volume = &observed.volume;
    if let Some(claim) = &observed.claim {
        return existing(observed, claim, actions);
    }
    let refused = match &volume.spec {
        None => Some("the spec is not one of cdi.kubevirt.io/v1beta1".to_owned()),
        Some(spec) => validate(volume.name(), spec).err(),
    };
    if let Some(message) = refused {
        if !already(volume, reason::ERR_CLAIM_NOT_VALID, &message) {
            let note = Note::warning(reason::ERR_CLAIM_NOT_VALID, message.clone());
            actions.push(Action::Tell(note));
        }
        return Facts::Waiting {
            reason: reason::ERR_CLAIM_NOT_VALID,
            message,
        };
    }
    if volume.annotation(annotation::USE_POPULATOR) == Some("true") {
        return Facts::Waiting {
            reason: "PopulatorsNotSupported",
            message: format!(
                "this version fills claims itself: take the annotation {} away, or set it to false",
                annotation::USE_POPULATOR
            ),
        };
    }
    let Some(spec) = &volume.spec else {
        return Facts::Nothing;
    };
    match render::claim(volume, spec, &observed.profile) {
        Ok(claim) => {
            if volume.annotation(annotation::USE_POPULATOR).is_none() {
                actions.push(Action::Stamp);
            }
            actions.push(Action::CreateClaim(Box::new(claim)));
            Facts::Nothing
        }
        Err(Unknown(message)) => Facts::Waiting {
            reason: "StorageProfileIncomplete",
            message,
        },
    }
}

fn existing<'a>(
    observed: &'a Observed,
    claim: &'a PersistentVolumeClaim,
    actions: &mut Vec<Action>,
) -> Facts<'a> {
    let volume = &observed.volume;
    let owners = claim
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    match controller {
        Some(owner) if owner.uid == volume.uid() => Facts::Claim {
            claim,
            binds_late: observed.binds_late,
        },
        None if may_adopt(observed, claim) => {
            actions.push(Action::Adopt);
            Facts::Nothing
        }
        _ => {
            let message = format!(
                "there is a claim {} already, and it is not of this volume: remove it, rename the volume, or allow its adoption with the annotation {}",
                claim.named(),
                annotation::ALLOW_ADOPTION
            );
            if !already(volume, reason::ERR_RESOURCE_EXISTS, &message) {
                let note = Note::warning(reason::ERR_RESOURCE_EXISTS, message.clone());
                actions.push(Action::Tell(note));
            }
            Facts::Waiting {
                reason: reason::ERR_RESOURCE_EXISTS,
                message,
            }
        }
    }
}

/// A claim that nobody controls may be taken where the user says so, or where it was filled for this.
fn may_adopt(observed: &Observed, claim: &PersistentVolumeClaim) -> bool {
    if claim.is_ending() {
        return false;
    }
    if claim.annotation(annotation::POPULATED_FOR) == Some(observed.volume.name()) {
        return true;
    }
    match observed.volume.annotation(annotation::ALLOW_ADOPTION) {
        Some(answer) => answer == "true",
        None => observed.adoption,
    }
}

/// Whether this was said of the volume before.
fn already(volume: &Volume, reason: &str, message: &str) -> bool {
    let mut conditions = volume.status.conditions.iter();
    conditions.any(|condition| condition.reason == reason && condition.message == message)
}

/// What an event says of a phase that was reached.
fn told(name: &str, phase: Option<&str>) -> Option<Note> {
    let note = match phase? {
        "ImportScheduled" => Note::normal(
            reason::IMPORT_SCHEDULED,
            format!("Import into {name} scheduled"),
        ),
        "ImportInProgress" => Note::normal(
            reason::IMPORT_IN_PROGRESS,
            format!("Import into {name} in progress"),
        ),
        "Succeeded" => Note::normal(
            reason::IMPORT_SUCCEEDED,
            format!("Successfully imported into PVC {name}"),
        ),
        "Failed" => Note::warning(
            reason::IMPORT_FAILED,
            format!("Failed to import into PVC {name}"),
        ),
        _ => return None,
    };
    Some(note)
}
