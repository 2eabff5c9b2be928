//! What a pod's status says, in the words that claims and people get.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition, PodStatus};
use longshore_crds::contract::{Termination, VddkInfo, variables};
use longshore_crds::names::reason;

use super::pod::IMPORTER;
use crate::troubles::Trouble;

/// Why the kubelet cannot start a container, as it says it itself.
const NO_IMAGE: [&str; 4] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
];

/// How a registry fails, or the way to it, before there is a byte of the disk: the importer's words. What has
/// come and makes no sense, or is for no such platform, is not among them, and is told as any error is.
const NO_ANSWER: [&str; 9] = [
    "ConnectFailed",
    "CertificateRefused",
    "Unauthorized",
    "NotFound",
    "BadStatus",
    "BadRedirect",
    "BadAnswer",
    "ConnectionBroken",
    "Stalled",
];

/// What upstream says then, and its clients look for.
const NO_IMAGE_TEXT: &str = "failed to pull image";

/// What a pod says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub(super) phase: &'static str,
    pub(super) running: bool,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) restarts: u32,
    pub(super) schedulable: bool,
    /// Another attempt would end the same way.
    pub(super) fatal: bool,
    /// Whether the disk was allocated up front, once that is known.
    pub(super) preallocated: Option<bool>,
    /// What the last attempt failed of, in full.
    pub(super) failure: Option<String>,
    /// Labels for the claim, out of the image.
    pub(super) labels: BTreeMap<String, String>,
    /// The other side of a VDDK import.
    pub(super) vddk: Option<VddkInfo>,
}

/// The result that an importer leaves behind, as far as the controller acts on it.
struct Last {
    /// It did what it was to do, and only the pod has not noticed yet.
    complete: bool,
    out_of_memory: bool,
    message: String,
    reason: Option<String>,
}

/// Reads a pod; `trouble` is what the cluster told of one that does not come up.
pub(super) fn said(pod: &Pod, trouble: Option<&Trouble>) -> Said {
    let none = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&none);
    let container = importer(status);
    let mut said = Said {
        phase: match status.phase.as_deref() {
            Some("Running") => "Running",
            Some("Succeeded") => "Succeeded",
            Some("Failed") => "Failed",
            _ => "Pending",
        },
        reason: reason::PENDING.to_owned(),
        restarts: container.map_or(0, |it| u32::try_from(it.restart_count).unwrap_or(0)),
        schedulable: true,
        ..Said::default()
    };
    let last = container.and_then(|container| last(container, &mut said));
    // With an exit code other than 0 the importer means to try again: a registry may mend itself.
    if let Some(last) = &last
        && last.complete
        && last.reason.as_deref() == Some("ChecksumMismatch")
    {
        said.fatal = true;
        reason::CHECKSUM_ERROR.clone_into(&mut said.reason);
        said.message.clone_from(&last.message);
        return said;
    }
    match said.phase {
        "Succeeded" => completed(&mut said),
        "Failed" => failed(&mut said, pod, status, last),
        _ if pod.metadata.deletion_timestamp.is_some() => terminating(&mut said, pod, status),
        _ => not_ended(&mut said, pod, status, last, trouble),
    }
    said
}

fn completed(said: &mut Said) {
    reason::COMPLETED.clone_into(&mut said.reason);
    "Import Complete".clone_into(&mut said.message);
}

/// The pod as a whole: evicted, refused by its node, cut off at a deadline.
fn failed(said: &mut Said, pod: &Pod, status: &PodStatus, last: Option<Last>) {
    let Some(why) = &status.reason else {
        if let Some(last) = last {
            attempt_failed(said, &last, pulls(pod));
            return;
        }
        reason::POD_FAILED.clone_into(&mut said.reason);
        "the importer's pod failed, and its status does not say why: it is made anew"
            .clone_into(&mut said.message);
        said.failure = Some(said.message.clone());
        return;
    };
    said.reason.clone_from(why);
    let text = status.message.as_deref().unwrap_or_default().trim();
    let text = text.trim_end_matches('.');
    said.message = match text {
        "" => format!("the importer's pod failed ({why}): it is made anew"),
        text => format!("the importer's pod failed ({why}): {text}; it is made anew"),
    };
    said.failure = Some(said.message.clone());
}

/// Somebody deleted the pod, and it has not gone yet.
fn terminating(said: &mut Said, pod: &Pod, status: &PodStatus) {
    if let Some(message) = lost_node(pod, status) {
        reason::NODE_LOST.clone_into(&mut said.reason);
        said.message = message;
        return;
    }
    reason::POD_TERMINATING.clone_into(&mut said.reason);
    let cause = condition(status, "DisruptionTarget").filter(|it| it.status == "True");
    let cause = cause.and_then(|cause| cause.message.as_deref());
    said.message = match cause {
        Some(cause) => {
            format!("the importer's pod is being removed ({cause}): it is made anew afterwards")
        }
        None => "the importer's pod is being removed: it is made anew afterwards".to_owned(),
    };
}

/// A pod that has not ended.
fn not_ended(
    said: &mut Said,
    pod: &Pod,
    status: &PodStatus,
    last: Option<Last>,
    trouble: Option<&Trouble>,
) {
    let state = importer(status).and_then(|container| container.state.as_ref());
    if let Some(image) = missing_image(status) {
        // One beside the importer's is as much needed.
        reason::IMAGE_PULL_FAILED.clone_into(&mut said.reason);
        said.message = image;
    } else if state.is_some_and(|state| state.running.is_some()) {
        if let Some(message) = lost_node(pod, status) {
            reason::NODE_LOST.clone_into(&mut said.reason);
            said.message = message;
            return;
        }
        said.running = true;
        "Pod is running".clone_into(&mut said.reason);
    } else if let Some(last) = last.filter(|last| !last.complete) {
        // Between two attempts: what the first one failed of says more than that there is a pause.
        attempt_failed(said, &last, pulls(pod));
    } else if state.is_some_and(|state| state.terminated.is_some()) {
        completed(said);
    } else if let Some(obstacle) = unschedulable(status) {
        said.schedulable = false;
        reason::UNSCHEDULABLE.clone_into(&mut said.reason);
        said.message = format!("Importer pod cannot be scheduled: {obstacle}");
    } else if let Some((why, Some(text))) = waiting(status) {
        why.clone_into(&mut said.reason);
        text.clone_into(&mut said.message);
    } else if let Some(Trouble { reason, message }) = trouble {
        said.reason.clone_from(reason);
        said.message.clone_from(message);
    } else if let Some((why, _)) = waiting(status) {
        why.clone_into(&mut said.reason);
    }
}

/// The container that does the import.
fn importer(status: &PodStatus) -> Option<&ContainerStatus> {
    let all = status.container_statuses.as_deref()?;
    all.iter().find(|container| container.name == IMPORTER)
}

/// One run of the container.
fn attempt_failed(said: &mut Said, last: &Last, pulls: bool) {
    let why = last.reason.as_deref();
    let no_image = pulls && why.is_some_and(|why| NO_ANSWER.contains(&why));
    let reason = if last.out_of_memory {
        reason::OOM_KILLED
    } else if no_image {
        reason::IMAGE_PULL_FAILED
    } else if why == Some(reason::AWAITING_VDDK) {
        reason::AWAITING_VDDK
    } else {
        reason::ERROR
    };
    reason.clone_into(&mut said.reason);
    said.message = if no_image {
        format!("{NO_IMAGE_TEXT}: {}", last.message)
    } else {
        plainer(&last.message)
    };
    said.failure = Some(last.message.clone());
}

/// Whether the importer was told to fetch a container image.
fn pulls(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice());
    let mut told = containers
        .unwrap_or_default()
        .iter()
        .flat_map(|container| container.env.as_deref().unwrap_or_default());
    told.any(|it| it.name == variables::SOURCE && it.value.as_deref() == Some("registry"))
}

/// What containers wait for: the word, and more if there is more.
fn waiting(status: &PodStatus) -> Option<(&str, Option<&str>)> {
    states(status).find_map(|(_, state)| {
        let waiting = state.waiting.as_ref()?;
        let why = waiting.reason.as_deref()?;
        // Of a pod whose first container is at work this says nothing.
        (why != "PodInitializing").then(|| {
            let text = waiting.message.as_deref();
            (why, text.filter(|text| !text.is_empty()))
        })
    })
}

fn missing_image(status: &PodStatus) -> Option<String> {
    states(status).find_map(|(container, state)| {
        let waiting = state.waiting.as_ref()?;
        let why = waiting.reason.as_deref()?;
        if !NO_IMAGE.contains(&why) {
            return None;
        }
        let image = &container.image;
        let told = waiting.message.as_deref().unwrap_or(why);
        Some(format!("{NO_IMAGE_TEXT}: {image}: {told}"))
    })
}

/// Of containers in the order in which they start.
fn states(status: &PodStatus) -> impl Iterator<Item = (&ContainerStatus, &ContainerState)> {
    let first = status.init_container_statuses.as_deref();
    let second = status.container_statuses.as_deref();
    let all = first
        .unwrap_or_default()
        .iter()
        .chain(second.unwrap_or_default());
    all.filter_map(|container| Some((container, container.state.as_ref()?)))
}

fn unschedulable(status: &PodStatus) -> Option<&str> {
    let condition = condition(status, "PodScheduled")?;
    if condition.status != "False" || condition.reason.as_deref() != Some("Unschedulable") {
        return None;
    }
    Some(condition.message.as_deref().unwrap_or_default())
}

/// The kubelet's last word was that the container is ready, and somebody else says that the pod is not:
/// that is how a node that does not answer looks.
fn lost_node(pod: &Pod, status: &PodStatus) -> Option<String> {
    let ready = condition(status, "Ready")?;
    let container = importer(status)?;
    let runs = container.state.as_ref()?.running.is_some();
    if ready.status == "True" || !runs || !container.ready {
        return None;
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    Some(format!(
        "node {} does not answer: the import goes on once it is back; once the node is removed from the cluster the pod is made anew",
        node.unwrap_or_default()
    ))
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    let mut conditions = status.conditions.as_deref()?.iter();
    conditions.find(|condition| condition.type_ == kind)
}

/// The result of the container's last run that ended.
fn last(container: &ContainerStatus, said: &mut Said) -> Option<Last> {
    let ended = |state: &Option<ContainerState>| state.as_ref()?.terminated.clone();
    let run = ended(&container.state).or_else(|| ended(&container.last_state))?;
    let text = run.message.unwrap_or_default();
    let complete = run.exit_code == 0;
    let out_of_memory = run.reason.as_deref() == Some("OOMKilled");
    if let Ok(result) = Termination::parse(&text)
        && !out_of_memory
    {
        said.preallocated = result.preallocation_applied;
        said.vddk = result.vddk_info;
        said.labels = result.labels;
        said.labels.retain(|name, value| is_label(name, value));
        return Some(Last {
            complete,
            out_of_memory,
            message: result.message.unwrap_or_default(),
            reason: result.reason,
        });
    }
    // It did not come as far as to say anything.
    let cause = run.reason.unwrap_or_else(|| reason::ERROR.to_owned());
    let message = match text.trim() {
        _ if out_of_memory => "the importer was killed for its memory (OOMKilled): give its pod a higher limit if this goes on".to_owned(),
        "" => format!(
            "the importer ended with {cause}, exit code {}",
            run.exit_code
        ),
        text => text.to_owned(),
    };
    Some(Last {
        complete,
        out_of_memory,
        message,
        reason: None,
    })
}

/// Whether the server takes this: one that it does not take would keep all else from being written.
fn is_label(name: &str, value: &str) -> bool {
    let word = |text: &str, most: usize| {
        let ends = |end: Option<char>| end.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= most
            && ends(text.chars().next())
            && ends(text.chars().next_back())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let host = |text: &str| {
        text.len() <= 253
            && text.split('.').all(|part| {
                !part.is_empty()
                    && !part.starts_with('-')
                    && !part.ends_with('-')
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            })
    };
    let named = match name.split_once('/') {
        Some((prefix, name)) => host(prefix) && word(name, 63),
        None => word(name, 63),
    };
    named && (value.is_empty() || word(value, 63))
}

/// Upstream's tests and people know one text for all the ways in which a volume can be too small.
fn plainer(message: &str) -> String {
    let lower = message.to_lowercase();
    let full = [
        "no space left on device",
        "disk quota exceeded",
        "larger than the reported available",
        "target is too small",
    ];
    if full.iter().any(|text| lower.contains(text)) {
        return "DataVolume too small to contain image".to_owned();
    }
    message.to_owned()
}
