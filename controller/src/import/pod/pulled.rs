//! What a pod has besides its importer when the node is to pull the image.
//!
//! The image is a container of the pod, so it is the node that fetches it, by its own mirrors, stores and
//! credentials. Container disks have no program in them: the one that runs is ours, put into a volume of the pod
//! before. It only tells where its files are, and waits for the end of the import.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, LocalObjectReference, VolumeMount};
use longshore_crds::contract::Source;

use super::{Workload, restricted};
use crate::import::source::Request;

/// What begins the address of an image that a node can pull.
pub(in super::super) const IN_REGISTRY: &str = "docker://";
pub(super) const VOLUME: &str = "shared-volume";
pub(super) const SHARED: &str = "/shared";
/// Ten times what is put there.
pub(super) const ROOM: &str = "32Mi";
pub(in super::super) const READY_FILE: &str = "/shared/ready";
pub(in super::super) const DONE_FILE: &str = "/shared/done";

/// The path of its own root, as others of the pod see it, is the first line; what the image says about labels
/// follows. (In a pod's command two of these signs stand for one.)
const SERVE: &str = "tool=/shared/busybox
{ echo /proc/$$$$/root/disk; $tool env | $tool grep KUBEVIRT_IO_; } > /shared/.ready
$tool mv /shared/.ready /shared/ready
until [ -e /shared/done ]; do $tool usleep 100000; done
";

/// Puts the program into the shared volume.
pub(super) fn preparation(workload: &Workload) -> Container {
    let copy = [
        "/bin/busybox",
        "cp",
        "-f",
        "/bin/busybox",
        "/shared/busybox",
    ];
    Container {
        image: Some(workload.image.clone()),
        command: Some(copy.map(str::to_owned).to_vec()),
        ..beside("init", workload)
    }
}

/// The image.
pub(super) fn container(image: &str, workload: &Workload) -> Container {
    let serve = ["/shared/busybox", "sh", "-c", SERVE];
    Container {
        image: Some(image.to_owned()),
        command: Some(serve.map(str::to_owned).to_vec()),
        ..beside("server", workload)
    }
}

fn beside(name: &str, workload: &Workload) -> Container {
    Container {
        name: name.to_owned(),
        image_pull_policy: Some(workload.pull_policy.clone()),
        resources: Some(workload.resources.clone()),
        security_context: Some(restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![VolumeMount {
            name: VOLUME.to_owned(),
            mount_path: SHARED.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

/// With what the node may pull: a Secret of the claim counts too, if it is of that kind.
pub(super) fn secrets(request: &Request, workload: &Workload) -> Vec<LocalObjectReference> {
    let own = request
        .pulled_by_node()
        .and_then(|_| request.secret.clone());
    let own = own.map(|name| LocalObjectReference { name });
    workload.pull_secrets.iter().cloned().chain(own).collect()
}

/// The nodes that may run the pod: a node pulls what is for its own architecture.
pub(super) fn nodes(request: &Request, workload: &Workload) -> Option<BTreeMap<String, String>> {
    let mut nodes = workload.node_selector.clone();
    if let (
        Some(_),
        Source::Registry {
            architecture: Some(architecture),
            ..
        },
    ) = (request.pulled_by_node(), &request.import.source)
    {
        nodes.insert("kubernetes.io/arch".to_owned(), architecture.clone());
    }
    (!nodes.is_empty()).then_some(nodes)
}
