//! Causes in the pod: no node, no image, no mount, an attempt that failed.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use longshore_crds::contract::Termination;
use longshore_crds::names::reason;

use super::cluster_side::{from_event, is_warning};
use super::judge::{Cause, advice, next};
use super::observed::Observed;
use crate::cluster::Seen;

/// Why the kubelet has no image, in its words.
const NO_IMAGE: [&str; 4] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
];
/// A pod that makes ready for longer has something that keeps it.
const READY: i64 = 20;

/// Whether bytes move.
pub(super) fn runs(observed: &Observed) -> bool {
    let container = observed.pod.there().and_then(container);
    let state = container.and_then(|it| it.state.as_ref());
    state.is_some_and(|state| state.running.is_some())
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// What keeps it from running.
pub(super) fn causes(observed: &Observed) -> Option<Cause> {
    let Seen::There(pod) = &observed.pod else {
        return None;
    };
    let none = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&none);
    if let Some(since) = &pod.metadata.deletion_timestamp {
        let mut cause = cause(
            observed,
            pod,
            reason::POD_TERMINATING,
            "it is being removed".to_owned(),
        );
        cause.since = Some(since.0);
        return Some(cause);
    }
    match status.phase.as_deref() {
        Some("Succeeded") => None,
        Some("Failed") => Some(failed(observed, pod, status)),
        _ => not_running(observed, pod, status),
    }
}

fn failed(observed: &Observed, pod: &Pod, status: &PodStatus) -> Cause {
    let last = container(pod).and_then(last);
    let why = status.reason.as_deref().unwrap_or(reason::POD_FAILED);
    let message = status.message.clone().or_else(|| last.map(|last| last.1));
    cause(observed, pod, why, message.unwrap_or_default())
}

fn not_running(observed: &Observed, pod: &Pod, status: &PodStatus) -> Option<Cause> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unscheduled = conditions
        .iter()
        .find(|one| one.type_ == "PodScheduled" && one.status == "False");
    if let Some(unscheduled) = unscheduled {
        let message = unscheduled.message.clone().unwrap_or_default();
        let mut cause = cause(observed, pod, reason::UNSCHEDULABLE, message);
        let since = unscheduled.last_transition_time.as_ref();
        cause.since = since.map(|time| time.0);
        return Some(cause);
    }
    let told = observed.told_about(&pod.metadata);
    let warned = told.into_iter().find(|event| is_warning(event));
    let first = status.init_container_statuses.as_deref();
    let all = first
        .unwrap_or_default()
        .iter()
        .chain(status.container_statuses.as_deref().unwrap_or_default());
    let waiting = all.filter_map(|one| {
        let waiting = one.state.as_ref()?.waiting.as_ref()?;
        Some((one, waiting.reason.as_deref()?, waiting.message.clone()))
    });
    for (one, why, message) in waiting {
        if NO_IMAGE.contains(&why) {
            let message = message.unwrap_or_else(|| why.to_owned());
            let message = format!("{}: {message}", one.image);
            return Some(cause(observed, pod, reason::IMAGE_PULL_FAILED, message));
        }
        if why == "CrashLoopBackOff"
            && let Some((reason, message)) = last(one)
        {
            return Some(cause(observed, pod, reason, message));
        }
        if let Some(message) = message.filter(|it| !it.is_empty()) {
            return Some(cause(observed, pod, why, message));
        }
    }
    if let Some(event) = warned {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let next = format!("kubectl -n {} describe pod {name}", observed.namespace);
        return Some(from_event(about(observed, pod), event, next));
    }
    // Between two attempts.
    if let Some((reason, message)) = container(pod).and_then(last) {
        return Some(cause(observed, pod, reason, message));
    }
    let slow = observed.age(&pod.metadata) > READY;
    slow.then(|| {
        let mut cause = cause(
            observed,
            pod,
            "ContainerCreating",
            "its node makes it ready, and tells of no trouble".to_owned(),
        );
        "large images and slow volumes take a while".clone_into(&mut cause.advice);
        cause
    })
}

/// Why the last attempt ended: the word and the sentence.
fn last(container: &ContainerStatus) -> Option<(&'static str, String)> {
    let now = container
        .state
        .as_ref()
        .and_then(|it| it.terminated.as_ref());
    let before = container.last_state.as_ref();
    let ended = now.or_else(|| before.and_then(|it| it.terminated.as_ref()))?;
    if ended.exit_code == 0 {
        return None;
    }
    let text = ended.message.as_deref().unwrap_or_default();
    let told = serde_json::from_str::<Termination>(text).ok();
    let message = told.and_then(|told| told.message);
    let message = message.unwrap_or_else(|| {
        let why = ended.reason.as_deref().unwrap_or("Error");
        let text = if text.is_empty() { why } else { text };
        format!("exit code {}: {text}", ended.exit_code)
    });
    let reason = if ended.reason.as_deref() == Some(reason::OOM_KILLED) {
        reason::OOM_KILLED
    } else {
        reason::ERROR
    };
    Some((reason, message))
}

/// Attempts that failed before the one that runs.
pub(super) fn remarks(observed: &Observed) -> Vec<String> {
    let Some(container) = observed.pod.there().and_then(container) else {
        return Vec::new();
    };
    let times = match container.restart_count {
        ..1 => return Vec::new(),
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    let why = last(container).map_or_else(String::new, |(_, message)| {
        format!("; the last attempt failed of: {message}")
    });
    vec![format!("the importer was started again {times}{why}")]
}

fn about(observed: &Observed, pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    format!("Pod {}/{name}", observed.namespace)
}

fn cause(observed: &Observed, pod: &Pod, reason: &str, message: String) -> Cause {
    Cause {
        about: about(observed, pod),
        reason: reason.to_owned(),
        message,
        advice: advice("Running", reason),
        since: None,
        next: Some(next(reason, observed)),
    }
}
