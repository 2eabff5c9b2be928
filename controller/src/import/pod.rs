//! The importer's pod.

mod mounts;
mod own;
mod pulled;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EnvVar, LocalObjectReference,
    PersistentVolumeClaim, Pod, PodSchedulingGate, PodSecurityContext, PodSpec,
    ResourceRequirements, SeccompProfile, SecurityContext, Toleration, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use longshore_crds::contract::{Overhead, Proxy, Source, variables};
use longshore_crds::names::{annotation, label, object};

use self::mounts::Mounts;
pub(crate) use self::own::{Odd, Own};
pub(super) use self::pulled::{DONE_FILE, IN_REGISTRY, READY_FILE};
use super::source::{Request, is_image_stream};
use crate::checkpoint;
use crate::claim::{Claim, owner};

/// What an installation decides about its pods.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workload {
    pub(crate) image: String,
    pub(crate) pull_policy: String,
    pub(crate) pull_secrets: Vec<LocalObjectReference>,
    pub(crate) resources: ResourceRequirements,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) tolerations: Vec<Toleration>,
    /// What of a volume its filesystem takes.
    pub(crate) overhead: Overhead,
    /// The way to the sources.
    pub(crate) proxy: Proxy,
    /// `ConfigMap` beside the claim with authorities that vouch for it. It is made after the pod.
    pub(crate) proxy_authorities: Option<String>,
    /// What they log, unless it is the usual.
    pub(crate) log: Option<&'static str>,
}

/// The container that does the import, whatever else is in its pod.
pub(super) const IMPORTER: &str = "importer";
/// The user that pods run as, and the group of their volumes.
const USER: i64 = 107;
const CERTIFICATES: &str = "/certs";
const GOOGLE: &str = "/google";
const PROXY_CERTIFICATES: &str = "/proxycerts";
/// The volume that is mounted there.
const PROXY_VOLUME: &str = "proxy-certs";
/// Where the journal of a block volume is: the pod's own storage, which a container that is started again
/// finds as it was left, and a pod in its place does not.
const JOURNAL: &str = "/journal";
/// Much more than a journal ever has.
const JOURNAL_ROOM: &str = "32Mi";
const CREDENTIALS: &str = "/credentials";
const HEADERS: &str = "/extraheaders";
/// Where an image with VMware's library puts it.
const VDDK: &str = "/opt";
pub(super) const VDDK_LIBRARY: &str = "/opt/vmware-vix-disklib-distrib";
const VDDK_ARGUMENTS_FOLDER: &str = "/vddk-args";
pub(super) const VDDK_ARGUMENTS: &str = "/vddk-args/vddk-config-file";

/// The pod that does `request` for `claim`. The same every time.
pub(crate) fn pod(claim: &PersistentVolumeClaim, request: &Request, usual: &Workload) -> Pod {
    let workload = &request.own.over(usual.clone());
    let name = checkpoint::pod_name(claim);
    let Mounts {
        volumes,
        paths,
        devices,
    } = Mounts::of(claim, request, workload);
    let is_block = claim.is_block();
    let image = request.pulled_by_node();
    let mut annotations = annotations(claim);
    if image.is_some() {
        let name = annotation::DEFAULT_CONTAINER.to_owned();
        annotations.insert(name, IMPORTER.to_owned());
    }
    if image.is_some() && is_image_stream(claim) {
        annotations.insert(annotation::IMAGE_LOOKUP.to_owned(), "*".to_owned());
    }
    let importer = Container {
        name: IMPORTER.to_owned(),
        image: Some(workload.image.clone()),
        image_pull_policy: Some(workload.pull_policy.clone()),
        env: Some(environment(claim, request, workload)),
        ports: Some(vec![ContainerPort {
            name: Some("metrics".to_owned()),
            container_port: 8443,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(workload.resources.clone()),
        security_context: Some(restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: some(paths),
        volume_devices: some(devices),
        ..Container::default()
    };
    // Containers start one after the other: an image that has to come first keeps the importer waiting.
    let beside = image.map(|image| pulled::container(image, workload));
    let before =
        vddk_library(request, workload).or_else(|| image.map(|_| pulled::preparation(workload)));
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: claim.metadata.namespace.clone(),
            labels: Some(labels(claim)),
            annotations: Some(annotations),
            owner_references: Some(vec![owner(claim)]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            restart_policy: Some("OnFailure".to_owned()),
            enable_service_links: Some(false),
            automount_service_account_token: Some(false),
            service_account_name: text(claim, annotation::POD_SERVICE_ACCOUNT),
            priority_class_name: text(claim, annotation::POD_PRIORITY_CLASS),
            image_pull_secrets: some(pulled::secrets(request, workload)),
            node_selector: pulled::nodes(request, workload),
            // What the image's container has is seen through its process.
            share_process_namespace: image.map(|_| true),
            affinity: workload.affinity.clone(),
            tolerations: some(workload.tolerations.clone()),
            scheduling_gates: Some(vec![PodSchedulingGate {
                name: object::SOLE_USER_GATE.to_owned(),
            }]),
            security_context: Some(PodSecurityContext {
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                run_as_non_root: Some(true),
                fs_group: (!is_block).then_some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            init_containers: before.map(|container| vec![container]),
            containers: beside.into_iter().chain([importer]).collect(),
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// Whether a pod waits for our word before it goes to a node.
pub(super) fn is_held(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().map(|spec| spec.scheduling_gates.as_ref());
    let mut gates = gates.flatten().into_iter().flatten();
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    gates.any(|gate| gate.name == object::SOLE_USER_GATE)
        && pod.metadata.deletion_timestamp.is_none()
        && phase.is_none_or(|phase| phase == "Pending")
}

/// Whether a pod mounts the copy of a proxy's authorities that is made for it.
pub(super) fn mounts_authorities(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let copy = object::proxy_authorities(claim.named());
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let mut volumes = volumes.unwrap_or_default().iter();
    volumes.any(|volume| {
        let map = volume.config_map.as_ref();
        volume.name == PROXY_VOLUME && map.is_some_and(|map| map.name == copy)
    })
}

/// The gates that a pod has besides ours.
pub(super) fn other_gates(pod: &Pod) -> Vec<PodSchedulingGate> {
    let gates = pod.spec.as_ref().and_then(|it| it.scheduling_gates.clone());
    let mut gates = gates.unwrap_or_default();
    gates.retain(|gate| gate.name != object::SOLE_USER_GATE);
    gates
}

/// A device has no place for a journal. A blank disk needs none.
fn keeps_journal_in_pod(claim: &PersistentVolumeClaim, request: &Request) -> bool {
    claim.is_block() && request.import.source != Source::Blank
}

fn text(claim: &PersistentVolumeClaim, name: &str) -> Option<String> {
    let text = claim.annotation(name)?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn labels(claim: &PersistentVolumeClaim) -> BTreeMap<String, String> {
    let mut labels = claim.metadata.labels.clone().unwrap_or_default();
    for (name, value) in [
        (label::APP, label::APP_VALUE),
        (label::ROLE, label::ROLE_IMPORTER),
        (label::PROMETHEUS, "true"),
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::COMPONENT, label::COMPONENT_VALUE),
        (label::CLAIM_UID, claim.uid()),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

fn annotations(claim: &PersistentVolumeClaim) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, default) in annotation::POD_DEFAULTS {
        let value = claim.annotation(name).unwrap_or(default);
        all.insert(name.to_owned(), value.to_owned());
    }
    for name in annotation::POD_NETWORKS {
        if let Some(value) = claim.annotation(name) {
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(stage) = checkpoint::stage(claim) {
        all.insert(annotation::CHECKPOINT.to_owned(), stage.current);
    }
    all
}

/// The variables that say what to do, in the terms of the contract; secrets by reference only.
fn environment(
    claim: &PersistentVolumeClaim,
    request: &Request,
    workload: &Workload,
) -> Vec<EnvVar> {
    let mut import = request.import.clone();
    // A device has no filesystem.
    if !claim.is_block() {
        import.filesystem_overhead = workload.overhead;
    }
    if keeps_journal_in_pod(claim, request) {
        import.resume.journal_dir = Some(JOURNAL.into());
    }
    import.proxy = workload.proxy.clone();
    if workload.proxy_authorities.is_some() {
        import.proxy.cert_dir = Some(PROXY_CERTIFICATES.into());
    }
    if request.certificates.is_some() {
        import.tls.cert_dir = Some(CERTIFICATES.into());
    }
    let plain = import.to_env().into_iter().map(|(name, value)| EnvVar {
        name,
        value: Some(value),
        value_from: None,
    });
    let mut all: Vec<EnvVar> = plain.collect();
    let mut path = |name: &str, value: &str| {
        all.push(EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            value_from: None,
        });
    };
    if let Some(filter) = workload.log {
        path(variables::LOG, filter);
    }
    let secret = request.secret.as_ref();
    match (
        secret.filter(|_| request.pulled_by_node().is_none()),
        &request.import.source,
    ) {
        (Some(_), Source::Gcs { .. }) => {
            path(
                variables::GOOGLE_CREDENTIALS,
                &format!("{GOOGLE}/credentials.json"),
            );
        }
        (Some(_), _) => path(variables::CREDENTIALS_DIR, CREDENTIALS),
        (None, _) => {}
    }
    if !request.secret_headers.is_empty() {
        path(variables::SECRET_HEADERS_DIR, HEADERS);
    }
    all
}

/// Copies VMware's library to where the importer finds it: that is what such images do when they run.
fn vddk_library(request: &Request, workload: &Workload) -> Option<Container> {
    let Source::Vddk { .. } = &request.import.source else {
        return None;
    };
    Some(Container {
        name: "vddk-side-car".to_owned(),
        image: request.vddk_image.clone(),
        image_pull_policy: Some(workload.pull_policy.clone()),
        resources: Some(workload.resources.clone()),
        security_context: Some(restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![VolumeMount {
            name: "vddk".to_owned(),
            mount_path: VDDK.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    })
}

/// What the pod security standard of that name asks of a container.
fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        run_as_non_root: Some(true),
        ..SecurityContext::default()
    }
}
