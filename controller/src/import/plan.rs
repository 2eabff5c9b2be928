//! What to do about a claim that wants an import. Pure: the same observation gives the same plan.
//!
//! ```text
//! wants no import, or is filled by a populator --> nothing
//! ending, or its volume is ---------------------> pod away, at once
//! filled ---------------------------------------> pod away (unless kept)
//! failed for good ------------------------------> nothing
//! a checkpoint copied, and no other named ------> nothing; after the last one say that it is filled
//! no pod: source not of ours -------------------> say so
//!         not bound, and nobody may bind it ----> wait
//!         no image with VMware's library -------> wait, and say so
//!         somebody else mounts the claim -------> wait, and say so
//!         it was filled before -----------------> say that it is
//!         others are first ---------------------> wait, and say for what
//!         else ---------------------------------> make the pod, held
//! a pod:  somebody else's ----------------------> say so
//!         held, and somebody else was faster ---> pod away, and say so
//!         held ---------------------------------> let it go
//!         of another checkpoint than the claim's > pod away, once it has ended and that is told
//!         tell what it does; done means done
//!         failed as a whole --------------------> pod away after a while: another one follows
//! ```
//!
//! Who uses a claim is looked at twice: a pod that came between the first look and the making of ours is seen
//! by the second, before ours may run ([`super::users`]). One that comes later could have seen ours.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodSchedulingGate};
use k8s_openapi::jiff::Timestamp;
use longshore_crds::names::{annotation, reason};

use super::line::Wait;
use super::pod::{is_held, mounts_authorities, other_gates};
use super::progress;
use super::said::{Said, said};
use super::scrape::Heard;
use super::source::{self, Refusal, Request, request};
use crate::checkpoint;
use crate::claim::{Changes, Claim, age, missing};
use crate::event::Note;
use crate::rounds;
use crate::troubles::Trouble;
use crate::write::Marks;

/// How soon to look again at a claim that somebody else uses: what becomes of their pods starts no round.
const USERS_PAUSE: Duration = Duration::from_secs(5);
/// How soon to look again for what keeps a pod from starting.
const PENDING_PAUSE: Duration = Duration::from_secs(5);
/// A pod that failed as a whole makes way for another one when it is as old as this.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

/// What was seen longer ago is looked at again before a pod goes to a node.
const FRESH: Duration = Duration::from_secs(15);

/// All that a plan depends on.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) claim: PersistentVolumeClaim,
    /// The pod of the claim's importer, whoever made it.
    pub(crate) pod: Option<Pod>,
    /// What keeps it from starting, as the cluster tells it.
    pub(crate) trouble: Option<Trouble>,
    /// What it says of its progress, if it was asked.
    pub(crate) heard: Option<Heard>,
    /// Pods besides it that mount the claim and have not ended, where that matters: before there is a pod,
    /// and while it is held.
    pub(crate) users: Vec<String>,
    /// The volume is made only once somebody uses the claim, and imports wait for that.
    pub(crate) binds_late: bool,
    /// Such a claim waits until somebody does.
    pub(crate) honors_first_consumer: bool,
    /// The claim's volume remembers that it was filled.
    pub(crate) was_filled: bool,
    /// Image with VMware's library, for a claim that names none.
    pub(crate) vddk: Option<String>,
    /// It is not its turn yet.
    pub(super) wait: Option<Wait>,
}

/// What there is to do.
pub(crate) type Plan = rounds::Plan<Action>;

/// One thing to do. A plan changes the claim at most once: the change carries the version seen.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Tell people.
    Tell(Note),
    /// Change annotations and labels of the claim.
    Mark(Marks),
    /// Make the importer's pod.
    CreatePod(Box<Request>),
    /// Let a pod go to a node, as far as we are asked.
    Release(Release),
    /// Take the pod of this uid away.
    DeletePod {
        uid: String,
        name: String,
        /// Without giving it time to end.
        at_once: bool,
    },
}

/// A pod that is held no longer.
#[derive(Debug, PartialEq)]
pub(crate) struct Release {
    pub(crate) uid: String,
    pub(crate) name: String,
    /// What else holds it.
    pub(crate) gates: Vec<PodSchedulingGate>,
    /// It mounts the authorities of a proxy, which are brought to it before.
    pub(crate) by_proxy: bool,
}

/// What a pod is to be made for, if one is.
pub(super) fn begins(plan: &Plan) -> Option<&Request> {
    let mut actions = plan.actions.iter();
    actions.find_map(|action| match action {
        Action::CreatePod(request) => Some(&**request),
        _ => None,
    })
}

/// Whether what was planned may be done though it was planned on what watches have shown, which may be less
/// than there is: nothing, or to hand on what a pod at work says. The version that goes with each change of the
/// claim, and what is shown next, mend what was late. A pod is made, let go and taken away, and an import
/// ends, by what there is only.
pub(super) fn may_be_late(shown: &Observed, actions: &[Action]) -> bool {
    let pod = shown.pod.as_ref();
    let is_at_work = pod.is_some_and(|pod| !has_ended(pod));
    let hands_on = |action: &Action| match action {
        Action::Tell(_) => true,
        Action::Mark(marks) => !marks.annotations.contains_key(annotation::FATAL_ERROR),
        Action::CreatePod(_) | Action::Release(_) | Action::DeletePod { .. } => false,
    };
    actions.is_empty() || is_at_work && actions.iter().all(hands_on)
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Decides.
pub(crate) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let claim = &observed.claim;
    let ours = observed.pod.as_ref().filter(|pod| belongs(pod, claim));
    if claim.is_ending() || claim.annotation(annotation::CANCELLED) == Some("true") {
        // A claim stays as long as a pod uses it, so its own pod must not.
        return ours.and_then(end).into_iter().collect::<Vec<_>>().into();
    }
    let Some(request) = request(claim, observed.vddk.as_deref()) else {
        return Plan::default();
    };
    if claim.populator().is_some() {
        // Another claim is filled in its place.
        return Plan::default();
    }
    if claim.is_filled() {
        return match ours {
            Some(pod) if !is_kept(claim) => delete(pod).into_iter().collect::<Vec<_>>().into(),
            // The name of a pod for a checkpoint is known from there only, and so stays until now.
            None if !is_kept(claim) && checkpoint::is_done(claim) => {
                let gone = Changes::from([(annotation::IMPORT_POD.to_owned(), None)]);
                mark(claim, gone, BTreeMap::new()).into()
            }
            _ => Plan::default(),
        };
    }
    if claim.annotation(annotation::FATAL_ERROR) == Some("true") {
        return Plan::default();
    }
    let paused =
        checkpoint::stage(claim).filter(|stage| checkpoint::is_copied(claim, &stage.current));
    match (&observed.pod, ours) {
        (Some(_), Some(pod)) if is_left_over(claim, pod) => {
            let away = delete(pod).filter(|_| !is_kept(claim));
            away.into_iter().collect::<Vec<_>>().into()
        }
        (_, None) if paused.is_some() => match paused {
            Some(stage) if stage.last => {
                mark(claim, checkpoint::finished(claim), BTreeMap::new()).into()
            }
            _ => Plan::default(),
        },
        (Some(_), Some(pod)) if is_held(pod) => held(observed, pod),
        (Some(_), Some(pod)) => follow(observed, pod, now),
        (Some(pod), None) => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let message =
                format!("the pod {name} is not of this claim: remove it, or rename the claim");
            // It is not watched.
            Plan::from(stopped(claim, reason::ERR_RESOURCE_EXISTS, &message))
                .and_look_after(USERS_PAUSE)
        }
        (None, _) => begin(observed, request),
    }
}

/// Whether a pod has nothing more to tell: what it copied is told, or was not what is wanted now.
pub(super) fn is_left_over(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    let stage = checkpoint::stage(claim);
    match checkpoint::of_pod(pod) {
        Some(done) if checkpoint::is_copied(claim, done) => true,
        Some(other) => phase == Some("Failed") && stage.is_none_or(|stage| stage.current != other),
        None => stage.is_some() && has_ended(pod),
    }
}

/// No pod yet.
fn begin(observed: &Observed, request: Result<Request, Refusal>) -> Plan {
    let claim = &observed.claim;
    let refused = |refusal: Refusal| stopped(claim, refusal.reason(), &refusal.to_string());
    if claim.is_lost() {
        return stopped(claim, reason::CLAIM_LOST, "the claim has lost its volume").into();
    }
    let waits =
        observed.binds_late && observed.honors_first_consumer && !source::is_immediate(claim);
    if !claim.is_bound() && (!observed.binds_late || waits) {
        // Whoever makes volumes does so without us, or when a consumer comes; whether there is an image then is
        // not known yet. What kept it from beginning may be over.
        return match request {
            Err(refusal) if refusal != Refusal::NoVddk => refused(refusal),
            _ => mark(claim, silent(), BTreeMap::new()),
        }
        .into();
    }
    let request = match request {
        Ok(request) => request,
        // An image may be named where nobody watches.
        Err(refusal @ Refusal::NoVddk) => {
            return Plan::from(refused(refusal)).and_look_after(USERS_PAUSE);
        }
        Err(refusal) => return refused(refusal).into(),
    };
    if let Some(user) = observed.users.first() {
        return Plan::from(in_use(claim, user)).and_look_after(USERS_PAUSE);
    }
    if observed.was_filled {
        let filled = [(annotation::POD_PHASE, "Succeeded")];
        return mark(claim, changes(filled), BTreeMap::new()).into();
    }
    if let Some(wait) = &observed.wait {
        let waits = stopped(claim, reason::IMPORT_QUEUED, &wait.message());
        return Plan::from(waits).and_look_after(wait.pause());
    }
    let pod = checkpoint::pod_name(claim);
    let mut named = changes([(annotation::IMPORT_POD, pod.as_str())]);
    if claim.annotation(annotation::IMPORT_POD) != Some(pod.as_str()) {
        // What is said of the pod before it.
        for name in [annotation::POD_PHASE, annotation::PROGRESS] {
            named.insert(name.to_owned(), None);
        }
    }
    vec![seen_as_is(named), Action::CreatePod(Box::new(request))].into()
}

/// Changes the claim even where it is so already: who decided on an older one is told so, before there is a
/// pod, or one goes to a node.
fn seen_as_is(annotations: Changes) -> Action {
    Action::Mark(annotations.into())
}

/// Somebody else's pod uses the claim.
fn in_use(claim: &PersistentVolumeClaim, user: &str) -> Vec<Action> {
    let message =
        format!("pod {user} uses the claim: its disk is not written to until it has ended");
    let mut actions = stopped(claim, reason::IMPORT_TARGET_IN_USE, &message);
    if !actions.is_empty() {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.named();
        let text = format!("pod {namespace}/{user} using PersistentVolumeClaim {name}");
        let note = Note::warning(reason::IMPORT_TARGET_IN_USE, text);
        actions.insert(0, Action::Tell(note));
    }
    actions
}

/// The pod is there and may not run yet: who else came before it?
fn held(observed: &Observed, pod: &Pod) -> Plan {
    if let Some(user) = observed.users.first() {
        let mut actions: Vec<Action> = end(pod).into_iter().collect();
        actions.extend(in_use(&observed.claim, user));
        return Plan::from(actions).and_look_after(USERS_PAUSE);
    }
    let actions = match release(&observed.claim, pod) {
        Some(pod) => {
            let named = changes([(annotation::IMPORT_POD, pod.name.as_str())]);
            vec![seen_as_is(named), Action::Release(pod)]
        }
        None => Vec::new(),
    };
    Plan::from(actions).and_look_after(PENDING_PAUSE)
}

/// Lets a pod go.
pub(super) fn release(claim: &PersistentVolumeClaim, pod: &Pod) -> Option<Release> {
    Some(Release {
        uid: pod.metadata.uid.clone()?,
        name: pod.metadata.name.clone()?,
        gates: other_gates(pod),
        by_proxy: mounts_authorities(claim, pod),
    })
}

/// Whether what was seen then is too old to let a pod go by: the process may have stood still, and somebody
/// else may have its lease and have done all this meanwhile. Those who wait for a lease wait for longer.
pub(super) fn is_too_late(seen: Timestamp, now: Timestamp) -> bool {
    let age = Duration::try_from(now.duration_since(seen));
    age.is_ok_and(|age| age > FRESH)
}

/// The server did not take the pod, or what it mounts, and this is what it said.
pub(crate) fn refused(claim: &PersistentVolumeClaim, said: &str) -> Vec<Action> {
    let reason = if said.contains("exceeded quota") {
        reason::ERR_EXCEEDED_QUOTA
    } else {
        reason::ERR_STARTING_POD
    };
    let pod = checkpoint::pod_name(claim);
    // The first words are upstream's, which says no more: those who have the claim may read this, too.
    let message = format!(
        "Error starting pod '{pod}': For more information, request access to cdi-deploy logs from your sysadmin: {said}"
    );
    let mut actions = stopped(claim, reason, &message);
    if !actions.is_empty() {
        actions.insert(0, Action::Tell(Note::warning(reason, message)));
    }
    actions
}

/// Hands on what the pod says.
fn follow(observed: &Observed, pod: &Pod, now: Timestamp) -> Plan {
    let claim = &observed.claim;
    let said = said(pod, observed.trouble.as_ref());
    let mut notes = Vec::new();
    let mut wanted = wanted(claim, &said);
    if checkpoint::of_pod(pod).is_some() {
        wanted.insert(
            annotation::CHECKPOINT_POD.to_owned(),
            pod.metadata.uid.clone(),
        );
    }
    if let Some(heard) = &observed.heard {
        let text = progress::text(claim, pod, heard, now);
        if let Some(why) = progress::unknown(text.as_deref()).filter(|_| said.running) {
            wanted.insert(annotation::RUNNING_MESSAGE.to_owned(), Some(why));
        }
        wanted.insert(annotation::PROGRESS.to_owned(), text);
    } else if said.running
        && let Some(why) = progress::unknown(claim.annotation(annotation::PROGRESS))
    {
        wanted.insert(annotation::RUNNING_MESSAGE.to_owned(), Some(why));
    }
    let mut labels = BTreeMap::new();
    let mut removal = None;
    let mut again = None;
    if said.fatal {
        wanted.insert(annotation::FATAL_ERROR.to_owned(), Some("true".to_owned()));
        wanted.insert(annotation::POD_PHASE.to_owned(), Some("Failed".to_owned()));
        notes.push(Note::warning(
            reason::ERR_IMPORT_FAILED,
            said.message.clone(),
        ));
    } else if said.phase == "Succeeded" {
        labels.clone_from(&said.labels);
        notes.push(succeeded(claim, pod, &mut wanted));
    } else {
        if let Some(failure) = &said.failure {
            notes.push(Note::warning(reason::ERR_IMPORT_FAILED, failure.clone()));
        }
        if said.phase == "Failed" {
            // Whatever made it fail may do so again: not in a hurry.
            let rest = FAILED_PAUSE.saturating_sub(age(&pod.metadata, now));
            if rest.is_zero() {
                removal = delete(pod);
            } else {
                again = Some(rest);
            }
        } else {
            again = Some(if said.running {
                progress::pause(pod, now)
            } else {
                PENDING_PAUSE
            });
        }
    }
    let marks = mark(claim, wanted, labels);
    let mut actions = Vec::new();
    if !marks.is_empty() {
        // Told with the change that it is about, and before it: rather twice than not at all.
        actions.extend(notes.into_iter().map(Action::Tell));
        actions.extend(marks);
    }
    actions.extend(removal);
    Plan { actions, again }
}

/// The pod has copied the disk, or one stage of it.
fn succeeded(claim: &PersistentVolumeClaim, pod: &Pod, wanted: &mut Changes) -> Note {
    let whole = Note::normal(reason::IMPORT_SUCCEEDED, "Import Successful".to_owned());
    let Some(stage) = checkpoint::of_pod(pod) else {
        if !is_kept(claim) {
            wanted.insert(annotation::IMPORT_POD.to_owned(), None);
        }
        return whole;
    };
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let changes = checkpoint::copied(claim, stage, uid);
    let is_last = changes.contains_key(annotation::CHECKPOINTS_DONE);
    wanted.extend(changes);
    if is_last {
        return whole;
    }
    let message = format!("checkpoint {stage} is copied");
    wanted.insert(
        annotation::RUNNING_MESSAGE.to_owned(),
        Some(message.clone()),
    );
    Note::normal(reason::IMPORT_PAUSED, message)
}

/// Annotations that go with what the pod says.
fn wanted(claim: &PersistentVolumeClaim, said: &Said) -> Changes {
    let known: u32 = claim
        .annotation(annotation::POD_RESTARTS)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    // A pod that was made anew starts to count from 0; what people see does not.
    let restarts = said.restarts.max(known).to_string();
    let mut wanted = changes([
        (annotation::POD_PHASE, said.phase),
        (
            annotation::RUNNING,
            if said.running { "true" } else { "false" },
        ),
        (annotation::RUNNING_REASON, said.reason.as_str()),
        (annotation::RUNNING_MESSAGE, said.message.as_str()),
        (annotation::POD_RESTARTS, restarts.as_str()),
    ]);
    let schedulable = (!said.schedulable).then(|| "false".to_owned());
    wanted.insert(annotation::POD_SCHEDULABLE.to_owned(), schedulable);
    if let Some(done) = said.preallocated {
        wanted.insert(annotation::PREALLOCATION.to_owned(), Some(done.to_string()));
    }
    if let Some(info) = &said.vddk {
        for (name, value) in [
            (annotation::VDDK_VERSION, &info.version),
            (annotation::VDDK_HOST, &info.host),
        ] {
            if !value.is_empty() {
                wanted.insert(name.to_owned(), Some(value.clone()));
            }
        }
    }
    wanted
}

/// Nothing runs, and this is why.
fn stopped(claim: &PersistentVolumeClaim, reason: &str, message: &str) -> Vec<Action> {
    let wanted = [
        (annotation::RUNNING, "false"),
        (annotation::RUNNING_REASON, reason),
        (annotation::RUNNING_MESSAGE, message),
    ];
    mark(claim, changes(wanted), BTreeMap::new())
}

/// Nothing is said of what runs.
fn silent() -> Changes {
    [
        annotation::RUNNING,
        annotation::RUNNING_REASON,
        annotation::RUNNING_MESSAGE,
    ]
    .map(|name| (name.to_owned(), None))
    .into()
}

fn changes<const N: usize>(wanted: [(&str, &str); N]) -> Changes {
    wanted
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
        .collect()
}

/// What of this the claim does not have yet, if anything. Labels that are there stay as they are.
fn mark(
    claim: &PersistentVolumeClaim,
    wanted: Changes,
    mut labels: BTreeMap<String, String>,
) -> Vec<Action> {
    let annotations = missing(claim, wanted);
    if let Some(known) = &claim.metadata.labels {
        labels.retain(|name, _| !known.contains_key(name));
    }
    if annotations.is_empty() && labels.is_empty() {
        return Vec::new();
    }
    vec![Action::Mark(Marks {
        annotations,
        labels,
    })]
}

pub(super) fn is_kept(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(annotation::POD_RETAIN) == Some("true")
}

/// With the time that it takes to end well.
fn delete(pod: &Pod) -> Option<Action> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(Action::DeletePod {
        uid: pod.metadata.uid.clone()?,
        name: pod.metadata.name.clone()?,
        at_once: false,
    })
}

/// At once, even if it was to end by and by.
fn end(pod: &Pod) -> Option<Action> {
    let ends_already = pod.metadata.deletion_timestamp.is_some();
    if ends_already && pod.metadata.deletion_grace_period_seconds == Some(0) {
        return None;
    }
    Some(Action::DeletePod {
        uid: pod.metadata.uid.clone()?,
        name: pod.metadata.name.clone()?,
        at_once: true,
    })
}

/// Whether a pod was made for this claim, and not for another one of the same name before it.
pub(super) fn belongs(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.uid == claim.uid())
}
