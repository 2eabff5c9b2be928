//! What to do about a claim that wants an import. Pure: the same observation gives the same plan.
//!
//! ```text
//! wants no import ------------------------------> nothing
//! filled ---------------------------------------> pod away (unless kept)
//! ending ---------------------------------------> pod away
//! source not of ours ---------------------------> say so
//! not bound, and nobody may bind it ------------> wait
//! no pod: somebody else mounts the claim -------> wait, and say so
//!         else ---------------------------------> make the pod
//! a pod:  tell what it does; done means done
//! ```

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use longshore_crds::names::{annotation, object, reason};

use serde_json::{Value, json};

use super::said::{Said, said};
use super::scrape::Reading;
use super::source::{Request, request};
use crate::claim::{Changes, Claim, missing};
use crate::event::Note;

/// All that a plan depends on.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) claim: PersistentVolumeClaim,
    /// The pod of the claim's importer, whoever made it.
    pub(crate) pod: Option<Pod>,
    /// What it says of its progress.
    pub(crate) reading: Option<Reading>,
    /// Pods besides it that mount the claim and have not ended.
    pub(crate) users: Vec<String>,
    /// The volume is made only once somebody uses the claim.
    pub(crate) binds_late: bool,
}

/// What there is to do, in this order.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Change annotations of the claim.
    Annotate(Changes),
    /// Tell people.
    Tell(Note),
    /// Make the importer's pod.
    CreatePod(Box<Request>),
    /// Take the pod of this uid away.
    DeletePod(String),
}

/// Decides.
pub(crate) fn plan(observed: &Observed) -> Vec<Action> {
    let claim = &observed.claim;
    let ours = observed.pod.as_ref().filter(|pod| belongs(pod, claim));
    if claim.is_ending() {
        // A claim stays as long as a pod uses it, so its own pod must not.
        return ours.and_then(delete).into_iter().collect();
    }
    let Some(request) = request(claim) else {
        return Vec::new();
    };
    if claim.is_filled() {
        return match ours {
            Some(pod) if claim.annotation(annotation::POD_RETAIN) != Some("true") => {
                delete(pod).into_iter().collect()
            }
            _ => Vec::new(),
        };
    }
    if claim.annotation(annotation::FATAL_ERROR) == Some("true") {
        return Vec::new();
    }
    let request = match request {
        Ok(request) => request,
        Err(refusal) => return stopped(claim, reason::UNSUPPORTED_SOURCE, &refusal.to_string()),
    };
    match (&observed.pod, ours) {
        (Some(_), Some(pod)) => follow(claim, pod, observed.reading),
        (Some(pod), None) => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let message =
                format!("the pod {name} is not of this claim: remove it, or rename the claim");
            stopped(claim, reason::ERR_RESOURCE_EXISTS, &message)
        }
        (None, _) => begin(observed, request),
    }
}

/// No pod yet.
fn begin(observed: &Observed, request: Request) -> Vec<Action> {
    let claim = &observed.claim;
    if claim.is_lost() {
        return stopped(claim, reason::CLAIM_LOST, "the claim has lost its volume");
    }
    if !claim.is_bound() && (!observed.binds_late || !request.immediately) {
        // Whoever makes volumes does so without us, or when a consumer comes.
        return Vec::new();
    }
    if let Some(user) = observed.users.first() {
        let message =
            format!("pod {user} uses the claim: its disk is not written to until it has ended");
        let mut actions = stopped(claim, reason::IMPORT_TARGET_IN_USE, &message);
        actions.push(Action::Tell(Note::warning(
            reason::IMPORT_TARGET_IN_USE,
            message,
        )));
        return actions;
    }
    let pod = object::importer(claim.named());
    let named = Changes::from([(annotation::IMPORT_POD.to_owned(), Some(pod))]);
    let mut actions = annotate(claim, named);
    actions.push(Action::CreatePod(Box::new(request)));
    actions
}

/// Hands on what the pod says.
fn follow(claim: &PersistentVolumeClaim, pod: &Pod, reading: Option<Reading>) -> Vec<Action> {
    let Said {
        phase,
        running,
        reason,
        message,
        restarts,
        schedulable,
        fatal,
        preallocated,
        failure,
    } = said(pod);
    let known: u32 = claim
        .annotation(annotation::POD_RESTARTS)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut wanted = Changes::from(
        [
            (annotation::POD_PHASE, Some(phase.to_owned())),
            (annotation::RUNNING, Some(running.to_string())),
            (annotation::RUNNING_REASON, Some(reason.clone())),
            (annotation::RUNNING_MESSAGE, Some(message.clone())),
            // A pod that was made anew starts to count from 0; what people see does not.
            (
                annotation::POD_RESTARTS,
                Some(restarts.max(known).to_string()),
            ),
            (
                annotation::POD_SCHEDULABLE,
                (!schedulable).then(|| "false".to_owned()),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if let Some(done) = preallocated {
        wanted.insert(annotation::PREALLOCATION.to_owned(), Some(done.to_string()));
    }
    if let Some(reading) = reading {
        wanted.insert(annotation::PROGRESS.to_owned(), progress(claim, reading));
    }
    let mut notes = Vec::new();
    if fatal {
        wanted.insert(annotation::FATAL_ERROR.to_owned(), Some("true".to_owned()));
        wanted.insert(annotation::POD_PHASE.to_owned(), Some("Failed".to_owned()));
        notes.push(Note::warning(reason::ERR_IMPORT_FAILED, message));
    } else if phase == "Succeeded" {
        wanted.insert(annotation::IMPORT_POD.to_owned(), None);
        notes.push(Note::normal(
            reason::IMPORT_SUCCEEDED,
            "Import Successful".to_owned(),
        ));
    } else if let Some(failure) = failure {
        notes.push(Note::warning(reason::ERR_IMPORT_FAILED, failure));
    }
    let changes = missing(claim, wanted);
    if changes.is_empty() {
        return Vec::new();
    }
    // Told once: with the change that it is about.
    let mut actions = vec![Action::Annotate(changes)];
    actions.extend(notes.into_iter().map(Action::Tell));
    actions
}

/// The share that people see: written anew when it has grown by one percent, and never taken back.
fn progress(claim: &PersistentVolumeClaim, reading: Reading) -> Option<String> {
    let known = claim.annotation(annotation::PROGRESS);
    let Some(percent) = reading.percent else {
        return known.map(str::to_owned);
    };
    let before = known
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .and_then(|value| value.get("percent")?.as_f64());
    if before.is_some_and(|before| percent < before + 1.0) {
        return known.map(str::to_owned);
    }
    let Reading {
        read,
        written,
        rate,
        ..
    } = reading;
    // Held below 100 until the pod has ended well.
    let percent = percent.min(99.99);
    Some(json!({"percent": percent, "read": read, "written": written, "rate": rate}).to_string())
}

/// Nothing runs, and this is why.
fn stopped(claim: &PersistentVolumeClaim, reason: &str, message: &str) -> Vec<Action> {
    let wanted = [
        (annotation::RUNNING, "false"),
        (annotation::RUNNING_REASON, reason),
        (annotation::RUNNING_MESSAGE, message),
    ];
    annotate(
        claim,
        wanted
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
            .collect(),
    )
}

fn annotate(claim: &PersistentVolumeClaim, wanted: Changes) -> Vec<Action> {
    let changes = missing(claim, wanted);
    if changes.is_empty() {
        return Vec::new();
    }
    vec![Action::Annotate(changes)]
}

fn delete(pod: &Pod) -> Option<Action> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    pod.metadata.uid.clone().map(Action::DeletePod)
}

/// Whether a pod was made for this claim, and not for another one of the same name before it.
fn belongs(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.uid == claim.uid())
}
