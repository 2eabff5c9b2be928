//! Reaches a verdict. Pure: the same observation gives the same verdict.
//!
//! ```text
//! not to be read, not there ------> that, and nothing else
//! done ---------------------------> done
//! the controller does not work ---+
//! the claim (and its stand-in) ---+--> causes, the newest first, each with what to do
//! the pod ------------------------+
//! what the conditions say --------+   unless one of the above says the same
//! ```

use std::cmp::Reverse;

use k8s_openapi::jiff::Timestamp;
use longshore_crds::contract::Progress;
use longshore_crds::names::{annotation as names, reason};
use serde::Serialize;

use super::observed::{Observed, annotation, claim_phase};
use super::{Kind, cluster_side, pod_side, words};
use crate::cluster::{Hidden, Seen};

/// How it is with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// There is nothing to wait for.
    Done,
    /// Bytes move.
    Working,
    /// It waits for something.
    Waiting,
    /// It has failed for good.
    Failed,
    /// Somebody deleted it.
    Ending,
    /// There is no such object.
    Missing,
    /// Nothing could be found out.
    Unknown,
}

/// Something that keeps an object from being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cause {
    /// The object that shows it.
    pub(super) about: String,
    /// In a word, the same as in conditions.
    pub(super) reason: String,
    /// In a sentence.
    pub(super) message: String,
    /// What to do about it.
    pub(super) advice: String,
    /// Since when, or when it was told last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    /// The command that shows more, or mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// All that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) state: State,
    /// The phase that the object shows.
    pub(super) phase: String,
    /// One line.
    pub(super) summary: String,
    pub(super) causes: Vec<Cause>,
    /// What is good to know besides.
    pub(super) remarks: Vec<String>,
    /// What could not be read.
    pub(super) unread: Vec<String>,
    /// What to type next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// Decides.
pub(super) fn judge(observed: &Observed) -> Verdict {
    let mut verdict = Verdict {
        kind: observed.kind.name(),
        namespace: observed.namespace.clone(),
        name: observed.name.clone(),
        state: State::Unknown,
        phase: phase(observed),
        summary: String::new(),
        causes: Vec::new(),
        remarks: Vec::new(),
        unread: unread(observed),
        next: None,
    };
    if let Some((state, cause)) = out_of_sight(observed) {
        verdict.state = state;
        verdict.summary.clone_from(&cause.message);
        verdict.next.clone_from(&cause.next);
        verdict.causes.push(cause);
        return verdict;
    }
    verdict.state = state(observed);
    if verdict.state != State::Done {
        verdict.causes = causes(observed, verdict.state);
        verdict.remarks = cluster_side::remarks(observed, &verdict.causes);
        verdict.remarks.extend(pod_side::remarks(observed));
    }
    verdict.summary = summary(observed, &verdict);
    verdict.next = match verdict.state {
        State::Done => None,
        State::Working if verdict.causes.is_empty() => {
            Some(format!("longshore get dv -w -n {}", observed.namespace))
        }
        _ => {
            let first = verdict.causes.iter().find_map(|cause| cause.next.clone());
            Some(first.unwrap_or_else(|| describe(observed)))
        }
    };
    verdict
}

/// What the object itself shows.
fn phase(observed: &Observed) -> String {
    if let Some(volume) = observed.volume.there()
        && observed.kind == Kind::DataVolume
    {
        return volume.phase().to_owned();
    }
    let claim = observed.claim.there();
    claim.map(claim_phase).unwrap_or_default().to_owned()
}

/// The object cannot be read, or is not there.
fn out_of_sight(observed: &Observed) -> Option<(State, Cause)> {
    let Observed {
        kind,
        namespace,
        name,
        ..
    } = observed;
    let (what, short) = (kind.name(), kind.short());
    let (hidden, absent) = match kind {
        Kind::DataVolume => (
            observed.volume.hidden(),
            matches!(observed.volume, Seen::Absent),
        ),
        Kind::Claim => (
            observed.claim.hidden(),
            matches!(observed.claim, Seen::Absent),
        ),
    };
    let claim_is_there = observed.claim.there().is_some();
    let cause = |reason: &str, message: String, advice: &str, next: String| Cause {
        about: format!("{what} {namespace}/{name}"),
        reason: reason.to_owned(),
        message,
        advice: advice.to_owned(),
        since: None,
        next: Some(next),
    };
    if absent {
        if *kind == Kind::DataVolume && claim_is_there {
            return Some((
                State::Missing,
                cause(
                    reason::NOT_FOUND,
                    format!("there is no DataVolume {namespace}/{name}, only a claim of that name"),
                    "ask about the claim",
                    format!("longshore why pvc {name} -n {namespace}"),
                ),
            ));
        }
        return Some((
            State::Missing,
            cause(
                reason::NOT_FOUND,
                format!("there is no {what} {namespace}/{name}"),
                "look whether it is called otherwise, or in another namespace (-n)",
                format!("kubectl get {short} -A"),
            ),
        ));
    }
    let cause = match hidden? {
        Hidden::Forbidden if claim_is_there => return None,
        Hidden::Forbidden => cause(
            "Forbidden",
            format!("you may not read {what}s in the namespace {namespace}"),
            "ask whoever administers it for the role view there",
            format!(
                "kubectl auth can-i get {} -n {namespace}",
                match kind {
                    Kind::DataVolume => "datavolumes.cdi.kubevirt.io",
                    Kind::Claim => "persistentvolumeclaims",
                }
            ),
        ),
        Hidden::Unknown => cause(
            "Unauthorized",
            format!("the cluster {} does not know you", observed.server),
            "log in again, or name another kubeconfig or context",
            "kubectl auth whoami".to_owned(),
        ),
        Hidden::NoSuchKind => cause(
            "NoSuchKind",
            format!("the cluster has no {what}s: their definition is not installed"),
            "have it installed: deploy/crds.yaml first, then deploy/longshore.yaml",
            "kubectl get crd datavolumes.cdi.kubevirt.io".to_owned(),
        ),
        Hidden::Unreachable(why) => cause(
            "Unreachable",
            format!("the API server {} does not answer: {why}", observed.server),
            "see whether it runs, and whether this machine reaches it (network, proxy, firewall)",
            "kubectl cluster-info".to_owned(),
        ),
    };
    Some((State::Unknown, cause))
}

fn state(observed: &Observed) -> State {
    let claim = observed.claim.there();
    let noted = |name| claim.and_then(|claim| annotation(&claim.metadata, name));
    let runs = pod_side::runs(observed) || noted(names::RUNNING) == Some("true");
    if let (Some(volume), Kind::DataVolume) = (observed.volume.there(), observed.kind) {
        return match volume.phase() {
            _ if volume.meta.deletion_timestamp.is_some() => State::Ending,
            "Succeeded" => State::Done,
            "Failed" => State::Failed,
            _ if runs => State::Working,
            _ => State::Waiting,
        };
    }
    let Some(claim) = claim else {
        return State::Waiting;
    };
    let asks = [
        names::IMPORT_SOURCE,
        names::IMPORT_ENDPOINT,
        names::UPLOAD_TARGET,
        names::CLONE_REQUEST,
    ];
    let asks = asks.into_iter().any(|name| noted(name).is_some())
        || observed.prime.there().is_some()
        || observed.volume.there().is_some();
    let bound = claim_phase(claim) == "Bound";
    match noted(names::POD_PHASE) {
        _ if claim.metadata.deletion_timestamp.is_some() => State::Ending,
        _ if claim_phase(claim) == "Lost" => State::Failed,
        Some("Succeeded") if bound => State::Done,
        _ if noted(names::FATAL_ERROR) == Some("true") => State::Failed,
        _ if bound && !asks => State::Done,
        _ if runs => State::Working,
        _ => State::Waiting,
    }
}

fn causes(observed: &Observed, state: State) -> Vec<Cause> {
    let mut causes = Vec::new();
    causes.extend(cluster_side::controller(observed));
    if state != State::Working {
        causes.extend(pod_side::causes(observed));
        causes.extend(cluster_side::claims(observed));
        let said = conditions(observed);
        // The conditions are made of the above: where they say the same, once is enough.
        for cause in &said {
            if !is_neutral(&cause.reason) && !causes.iter().any(|known| same(known, cause)) {
                causes.push(cause.clone());
            }
        }
        if causes.is_empty() {
            causes.extend(said.into_iter().find(|cause| !cause.message.is_empty()));
        }
    }
    causes.sort_by_key(|cause| Reverse(cause.since));
    causes
}

/// Two accounts of one thing.
fn same(one: &Cause, other: &Cause) -> bool {
    let within = |inner: &str, outer: &str| !inner.is_empty() && outer.contains(inner);
    one.reason == other.reason
        || within(&one.message, &other.message)
        || within(&other.message, &one.message)
}

/// Says only that there is more to come.
fn is_neutral(reason: &str) -> bool {
    let neutral = [
        "",
        reason::PENDING,
        reason::NOT_FOUND,
        reason::BOUND,
        reason::COMPLETED,
        reason::TRANSFER_RUNNING,
        "Pod is running",
        "ContainerCreating",
        "PodInitializing",
    ];
    neutral.contains(&reason)
}

/// What the controller says, of the volume and of the claims.
fn conditions(observed: &Observed) -> Vec<Cause> {
    let mut said = of_volume(observed);
    // Of a volume a word may be missing that its claim has.
    let is_new = |cause: &Cause| observed.volume.there().is_none() || !is_neutral(&cause.reason);
    said.extend(of_claims(observed).into_iter().filter(is_new));
    said
}

fn of_volume(observed: &Observed) -> Vec<Cause> {
    let Some(volume) = observed.volume.there() else {
        return Vec::new();
    };
    let about = format!(
        "DataVolume {}/{}",
        observed.namespace,
        volume.meta.name.as_deref().unwrap_or_default()
    );
    // Where both say the same, the second is the more general one.
    let kinds = ["Running", "Bound"].into_iter();
    kinds
        .filter_map(|kind| Some((kind, volume.condition(kind)?)))
        .filter(|(_, condition)| condition.status != "True")
        .map(|(kind, condition)| Cause {
            about: about.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            advice: advice(kind, &condition.reason),
            since: condition
                .last_heartbeat_time
                .as_ref()
                .or(condition.last_transition_time.as_ref())
                .and_then(|time| time.parse().ok()),
            next: Some(next(&condition.reason, observed)),
        })
        .collect()
}

fn of_claims(observed: &Observed) -> Vec<Cause> {
    let claims = [observed.prime.there(), observed.claim.there()];
    let found = claims.into_iter().flatten().filter_map(|claim| {
        let text = |name| annotation(&claim.metadata, name).unwrap_or_default();
        let reason = text(names::RUNNING_REASON);
        (text(names::RUNNING) == "false").then(|| Cause {
            about: cluster_side::about_claim(claim),
            reason: reason.to_owned(),
            message: text(names::RUNNING_MESSAGE).to_owned(),
            advice: advice("Running", reason),
            since: None,
            next: Some(next(reason, observed)),
        })
    });
    found.collect()
}

/// What to do about a reason, if it is known; of others the message is all there is.
pub(super) fn advice(kind: &str, reason: &str) -> String {
    words::advice(kind, reason).unwrap_or_else(|| "the message tells what is waited for".to_owned())
}

/// The command that shows more about a reason, or mends it.
pub(super) fn next(of: &str, observed: &Observed) -> String {
    let Observed {
        namespace,
        name,
        kind,
        ..
    } = observed;
    let pod = || {
        let pod = observed.pod.there();
        let name = pod.and_then(|pod| pod.metadata.name.as_deref());
        name.unwrap_or_default().to_owned()
    };
    let has_pod = observed.pod.there().is_some();
    match of {
        reason::ERR_CLAIM_NOT_VALID | reason::UNSUPPORTED_SOURCE | reason::AWAITING_VDDK => {
            format!("kubectl -n {namespace} edit {} {name}", kind.short())
        }
        reason::STORAGE_PROFILE_INCOMPLETE => {
            let volume = observed.volume.there();
            match volume.and_then(|volume| volume.class.as_deref()) {
                Some(class) => format!("kubectl edit storageprofile {class}"),
                None => format!("kubectl -n {namespace} edit {} {name}", kind.short()),
            }
        }
        reason::ERR_EXCEEDED_QUOTA => format!("kubectl -n {namespace} describe resourcequota"),
        reason::ERR_RESOURCE_EXISTS if !has_pod => {
            format!("kubectl -n {namespace} get pvc {name} -o yaml")
        }
        reason::CLAIM_LOST => format!("kubectl -n {namespace} delete pvc {name}"),
        reason::CHECKSUM_ERROR => format!("kubectl -n {namespace} delete {} {name}", kind.short()),
        reason::IMPORT_TARGET_IN_USE => format!("kubectl -n {namespace} get pods"),
        reason::NODE_LOST => "kubectl get nodes".to_owned(),
        reason::ERROR | reason::OOM_KILLED if has_pod => {
            format!("kubectl -n {namespace} logs {} --previous", pod())
        }
        reason::WAIT_FOR_FIRST_CONSUMER => format!("kubectl -n {namespace} describe pvc {name}"),
        _ if has_pod => format!("kubectl -n {namespace} describe pod {}", pod()),
        _ => describe(observed),
    }
}

pub(super) fn describe(observed: &Observed) -> String {
    let Observed {
        namespace,
        name,
        kind,
        ..
    } = observed;
    format!("kubectl -n {namespace} describe {} {name}", kind.short())
}

/// How far it is, as its claim says.
pub(super) fn progress(observed: &Observed) -> Option<Progress> {
    let claims = [observed.prime.there(), observed.claim.there()];
    let mut claims = claims.into_iter().flatten();
    claims.find_map(|claim| Progress::parse(annotation(&claim.metadata, names::PROGRESS)?))
}

fn summary(observed: &Observed, verdict: &Verdict) -> String {
    let shown = match verdict.phase.as_str() {
        "" => "new".to_owned(),
        phase => phase.to_owned(),
    };
    match verdict.state {
        State::Done => format!("{shown}: done, and there is nothing that it waits for"),
        State::Working => match progress(observed) {
            Some(progress) => format!("{shown}: at work, {}", crate::pace::text(&progress)),
            None => format!("{shown}: at work"),
        },
        State::Failed => format!("{shown}: failed for good, nothing is tried again"),
        State::Ending => format!("{shown}: being deleted"),
        State::Waiting | State::Missing | State::Unknown => match verdict.causes.first() {
            Some(cause) if cause.reason == reason::WAIT_FOR_FIRST_CONSUMER => {
                format!("{shown}: waits for a pod that uses it")
            }
            Some(cause) => format!("{shown}: waits ({})", cause.reason),
            None => format!("{shown}: under way, and nothing tells of trouble"),
        },
    }
}

/// What was asked for and could not be read.
fn unread(observed: &Observed) -> Vec<String> {
    let seen = [
        ("the DataVolume", observed.volume.hidden()),
        ("the claim", observed.claim.hidden()),
        ("the claim that is filled first", observed.prime.hidden()),
        ("the pod", observed.pod.hidden()),
        ("events", observed.events.hidden()),
        ("pods beside it", observed.users.hidden()),
        ("StorageClasses", observed.classes.hidden()),
        ("quotas", observed.quotas.hidden()),
        ("the controller's lease", observed.lease.hidden()),
        ("the controller's deployment", observed.deployment.hidden()),
        ("the CDI object", observed.installation.hidden()),
    ];
    seen.into_iter()
        .filter_map(|(what, hidden)| {
            let why = match hidden? {
                Hidden::Forbidden => "you may not read it".to_owned(),
                Hidden::Unknown => "the cluster does not know you".to_owned(),
                Hidden::NoSuchKind => "the cluster has no such kind".to_owned(),
                Hidden::Unreachable(why) => why.clone(),
            };
            Some(format!("{what}: {why}"))
        })
        .collect()
}
