//! What claims say, in the words of this crate: annotations, phase, owner, size; and how others name them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use longshore_crds::Quantity;
use longshore_crds::names::annotation;

use crate::checkpoint;

/// Changes of annotations: `None` takes one away.
pub(crate) type Changes = BTreeMap<String, Option<String>>;

/// Where a disk is in a volume with a filesystem, and where a volume that is a device is.
pub(crate) const DISK_FOLDER: &str = "/data";
/// See [`DISK_FOLDER`].
pub(crate) const DEVICE: &str = "/dev/cdi-block-volume";

/// It, in a sentence.
pub(crate) fn about(claim: &PersistentVolumeClaim) -> String {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    format!("PersistentVolumeClaim {namespace}/{}", claim.named())
}

/// How events name it.
pub(crate) fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// How what is made for it names it.
pub(crate) fn owner(claim: &PersistentVolumeClaim) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "PersistentVolumeClaim".to_owned(),
        name: claim.named().to_owned(),
        uid: claim.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Reads claims.
pub(crate) trait Claim {
    /// An annotation, if there is one.
    fn annotation(&self, name: &str) -> Option<&str>;
    /// Whether it has a volume.
    fn is_bound(&self) -> bool;
    /// Whether it waits for one.
    fn is_pending(&self) -> bool;
    /// Whether it had one.
    fn is_lost(&self) -> bool;
    /// Whether the volume is a device.
    fn is_block(&self) -> bool;
    /// Whether somebody wants it away.
    fn is_ending(&self) -> bool;
    /// Whether its disk is complete. One that is copied in stages is not before the last.
    fn is_filled(&self) -> bool;
    /// The size asked for.
    fn requested(&self) -> Option<Quantity>;
    /// Its name; every object that a server gave has one.
    fn named(&self) -> &str;
    /// Its identity.
    fn uid(&self) -> &str;
    /// The storage class that it names.
    fn class(&self) -> Option<&str>;
    /// The volume that it has, or shall have.
    fn volume(&self) -> Option<&str>;
    /// What of ours fills it, if that is not itself what is worked on.
    fn populator(&self) -> Option<Populator<'_>>;
}

/// The object that a claim names as its data source, if that is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Populator<'a> {
    /// `VolumeImportSource` and the like.
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    /// Where it is, if not beside the claim.
    pub(crate) namespace: Option<&'a str>,
}

/// Our kinds of data sources.
const POPULATORS: [&str; 3] = [
    "VolumeImportSource",
    "VolumeUploadSource",
    "VolumeCloneSource",
];

impl Claim for PersistentVolumeClaim {
    fn annotation(&self, name: &str) -> Option<&str> {
        Some(self.metadata.annotations.as_ref()?.get(name)?.as_str())
    }

    fn is_bound(&self) -> bool {
        phase(self) == "Bound"
    }

    fn is_pending(&self) -> bool {
        phase(self) == "Pending"
    }

    fn is_lost(&self) -> bool {
        phase(self) == "Lost"
    }

    fn is_block(&self) -> bool {
        let mode = self
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_mode.as_deref());
        mode == Some("Block")
    }

    fn is_ending(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn is_filled(&self) -> bool {
        // Upstream says so of a populated claim a moment before it has the volume.
        self.annotation(annotation::POD_PHASE) == Some("Succeeded")
            && checkpoint::stage(self).is_none()
            && (self.populator().is_none() || !self.is_pending())
    }

    fn requested(&self) -> Option<Quantity> {
        let requests = self.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        requests.get("storage")?.0.parse().ok()
    }

    fn named(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn class(&self) -> Option<&str> {
        self.spec.as_ref()?.storage_class_name.as_deref()
    }

    fn volume(&self) -> Option<&str> {
        let volume = self.spec.as_ref()?.volume_name.as_deref();
        volume.filter(|volume| !volume.is_empty())
    }

    fn populator(&self) -> Option<Populator<'_>> {
        let source = self.spec.as_ref()?.data_source_ref.as_ref()?;
        let ours = source.api_group.as_deref() == Some("cdi.kubevirt.io")
            && POPULATORS.contains(&source.kind.as_str());
        let beside = |namespace: &&str| {
            !namespace.is_empty() && Some(*namespace) != self.metadata.namespace.as_deref()
        };
        ours.then_some(Populator {
            kind: &source.kind,
            name: &source.name,
            namespace: source.namespace.as_deref().filter(beside),
        })
    }
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Of `wanted`, what `claim` does not have already.
pub(crate) fn missing(claim: &PersistentVolumeClaim, wanted: Changes) -> Changes {
    wanted
        .into_iter()
        .filter(|(name, value)| claim.annotation(name) != value.as_deref())
        .collect()
}

/// Who controls an object.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// How long there has been an object; nothing if its clock is ahead of ours.
pub(crate) fn age(meta: &ObjectMeta, now: Timestamp) -> Duration {
    let made = meta.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let age = now.duration_since(made);
    Duration::try_from(age).unwrap_or_default()
}
