//! What a pod's status says, in the words that claims and people get.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use longshore_crds::contract::Termination;
use longshore_crds::names::reason;

/// Why the kubelet cannot start a container, as it says it itself.
const NO_IMAGE: [&str; 4] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
];

/// What a pod says.
#[derive(Debug, PartialEq, Eq)]
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
    /// What the last attempt failed of.
    pub(super) failure: Option<String>,
}

/// The result that an importer leaves behind, as far as the controller acts on it.
struct Last {
    /// It did what it was to do, and only the pod has not noticed yet.
    complete: bool,
    message: String,
    reason: Option<String>,
    preallocated: Option<bool>,
}

pub(super) fn said(pod: &Pod) -> Said {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let containers = status.and_then(|status| status.container_statuses.as_deref());
    let container = containers.and_then(<[ContainerStatus]>::first);
    let state = container.and_then(|container| container.state.as_ref());
    let restarts = container.map_or(0, |container| container.restart_count);
    let last = container.and_then(last);
    let mut said = Said {
        phase: match phase {
            Some("Running") => "Running",
            Some("Succeeded") => "Succeeded",
            Some("Failed") => "Failed",
            _ => "Pending",
        },
        running: false,
        reason: reason::PENDING.to_owned(),
        message: String::new(),
        restarts: u32::try_from(restarts).unwrap_or(0),
        schedulable: true,
        fatal: false,
        preallocated: last.as_ref().and_then(|last| last.preallocated),
        failure: None,
    };
    if let Some(last) = &last
        && last.reason.as_deref() == Some("ChecksumMismatch")
    {
        said.fatal = true;
        "ChecksumError".clone_into(&mut said.reason);
        said.message.clone_from(&last.message);
        return said;
    }
    match said.phase {
        "Succeeded" => {
            reason::COMPLETED.clone_into(&mut said.reason);
            "Import Complete".clone_into(&mut said.message);
        }
        "Failed" => {
            reason::ERROR.clone_into(&mut said.reason);
            said.message = last.map_or_else(String::new, |last| plainer(&last.message));
            said.failure = Some(said.message.clone());
        }
        _ => state_of(&mut said, pod, state, last),
    }
    said
}

/// A pod that has not ended.
fn state_of(said: &mut Said, pod: &Pod, state: Option<&ContainerState>, last: Option<Last>) {
    if state.is_some_and(|state| state.running.is_some()) {
        said.running = true;
        "Pod is running".clone_into(&mut said.reason);
        return;
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let waits_for = waiting.and_then(|waiting| waiting.reason.as_deref());
    let told = waiting.and_then(|waiting| waiting.message.clone());
    if let Some(last) = last.filter(|last| !last.complete) {
        // Between two attempts: what the first one failed of says more than that there is a pause.
        reason::ERROR.clone_into(&mut said.reason);
        said.message = plainer(&last.message);
        said.failure = Some(said.message.clone());
    } else if state.is_some_and(|state| state.terminated.is_some()) {
        reason::COMPLETED.clone_into(&mut said.reason);
        "Import Complete".clone_into(&mut said.message);
    } else if let Some(why) = waits_for {
        if NO_IMAGE.contains(&why) {
            reason::IMAGE_PULL_FAILED.clone_into(&mut said.reason);
        } else {
            why.clone_into(&mut said.reason);
        }
        said.message = told.unwrap_or_default();
    } else if let Some(obstacle) = unschedulable(pod) {
        said.schedulable = false;
        reason::UNSCHEDULABLE.clone_into(&mut said.reason);
        said.message = format!("Importer pod cannot be scheduled: {obstacle}");
    }
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let condition = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    Some(condition.message.clone().unwrap_or_default())
}

/// The result of the container's last run that ended.
fn last(container: &ContainerStatus) -> Option<Last> {
    let ended = |state: &Option<ContainerState>| state.as_ref()?.terminated.clone();
    let run = ended(&container.state).or_else(|| ended(&container.last_state))?;
    let text = run.message.unwrap_or_default();
    if let Ok(result) = Termination::parse(&text) {
        return Some(Last {
            complete: run.exit_code == 0,
            message: result.message.unwrap_or_default(),
            reason: result.reason,
            preallocated: result.preallocation_applied,
        });
    }
    // It did not come as far as to say anything: out of memory, say.
    let cause = run.reason.unwrap_or_else(|| reason::ERROR.to_owned());
    let message = match text.trim() {
        "" => format!(
            "the importer ended with {cause}, exit code {}",
            run.exit_code
        ),
        text => text.to_owned(),
    };
    Some(Last {
        complete: run.exit_code == 0,
        message,
        reason: None,
        preallocated: None,
    })
}

/// Upstream's tests and people know one text for all the ways in which a volume can be too small.
fn plainer(message: &str) -> String {
    let lower = message.to_lowercase();
    let full = [
        "no space left on device",
        "larger than the reported available",
        "target is too small",
    ];
    if full.iter().any(|text| lower.contains(text)) {
        return "DataVolume too small to contain image".to_owned();
    }
    message.to_owned()
}
