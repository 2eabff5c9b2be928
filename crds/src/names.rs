//! The exact strings by which objects of `cdi.kubevirt.io` and their clients understand each other.
//!
//! They are upstream's, odd ones included: tools look for them. Where we add one of our own, its
//! documentation says so.

/// Annotations that a user may set on a claim, or on a `DataVolume`, which hands them on.
pub mod annotation {
    /// Which kind of source: `http`, `s3`, `gcs`, `registry`, `imageio`, `vddk`, `none`.
    pub const IMPORT_SOURCE: &str = "cdi.kubevirt.io/storage.import.source";
    /// Where the source is. Its presence alone asks for an import.
    pub const IMPORT_ENDPOINT: &str = "cdi.kubevirt.io/storage.import.endpoint";
    /// Name of a Secret with `accessKeyId` and `secretKey`.
    pub const IMPORT_SECRET: &str = "cdi.kubevirt.io/storage.import.secretName";
    /// Name of a `ConfigMap` with certificates of authorities.
    pub const IMPORT_CERTIFICATES: &str = "cdi.kubevirt.io/storage.import.certConfigMap";
    /// What the content must hash to, as `algorithm:hexadecimal`.
    pub const IMPORT_CHECKSUM: &str = "cdi.kubevirt.io/storage.import.checksum";
    /// Processor architecture of a container image.
    pub const IMPORT_ARCHITECTURE: &str =
        "cdi.kubevirt.io/storage.import.registryImageArchitecture";
    /// Of a pod: the container whose log people want to see.
    pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
    /// Who pulls a container image: `pod` or `node`.
    pub const IMPORT_METHOD: &str = "cdi.kubevirt.io/storage.import.registryImportMethod";
    /// The endpoint is the name of an image stream: `true`.
    pub const IMPORT_IMAGE_STREAM: &str = "cdi.kubevirt.io/storage.import.registryImageStream";
    /// Of a pod on `OpenShift`: the names of its images may be those of image streams.
    pub const IMAGE_LOOKUP: &str = "alpha.image.policy.openshift.io/resolve-names";
    /// The claim waits for an upload.
    pub const UPLOAD_TARGET: &str = "cdi.kubevirt.io/storage.upload.target";
    /// The claim shall be a copy of the one that this names.
    pub const CLONE_REQUEST: &str = "k8s.io/CloneRequest";
    /// imageio: the disk.
    pub const IMPORT_DISK_ID: &str = "cdi.kubevirt.io/storage.import.diskId";
    /// vddk: the machine.
    pub const IMPORT_UUID: &str = "cdi.kubevirt.io/storage.import.uuid";
    /// vddk: the disk's file.
    pub const IMPORT_BACKING_FILE: &str = "cdi.kubevirt.io/storage.import.backingFile";
    /// vddk: digest of the server's certificate.
    pub const IMPORT_THUMBPRINT: &str = "cdi.kubevirt.io/storage.import.vddk.thumbprint";
    /// vddk: image that has the library.
    pub const VDDK_IMAGE: &str = "cdi.kubevirt.io/storage.pod.vddk.initimageurl";
    /// vddk: name of a `ConfigMap` with arguments for the plug-in.
    pub const VDDK_ARGS: &str = "cdi.kubevirt.io/storage.pod.vddk.extraargs";
    /// Trust any certificate.
    pub const IMPORT_INSECURE: &str = "cdi.kubevirt.io/storage.import.insecureSkipVerify";
    /// A header line; a number follows.
    pub const IMPORT_EXTRA_HEADER: &str = "cdi.kubevirt.io/storage.import.extraHeaders.";
    /// Name of a Secret with header lines; a number follows.
    pub const IMPORT_SECRET_HEADER: &str = "cdi.kubevirt.io/storage.import.secretExtraHeaders.";
    /// `kubevirt` or `archive`.
    pub const CONTENT_TYPE: &str = "cdi.kubevirt.io/storage.contentType";
    /// Whether the disk is allocated up front.
    pub const PREALLOCATION_REQUESTED: &str = "cdi.kubevirt.io/storage.preallocation.requested";
    /// Whether it was.
    pub const PREALLOCATION: &str = "cdi.kubevirt.io/storage.preallocation";
    /// Fill it although nobody uses it yet.
    pub const BIND_IMMEDIATE: &str = "cdi.kubevirt.io/storage.bind.immediate.requested";
    /// Keep the pod after it is done.
    pub const POD_RETAIN: &str = "cdi.kubevirt.io/storage.pod.retainAfterCompletion";
    /// Priority class of the pod.
    pub const POD_PRIORITY_CLASS: &str = "cdi.kubevirt.io/storage.pod.priorityclassname";
    /// Service account of the pod.
    pub const POD_SERVICE_ACCOUNT: &str = "cdi.kubevirt.io/storage.pod.serviceAccountName";
    /// Whether populators are used; stamped by us, may be forced by the user.
    pub const USE_POPULATOR: &str = "cdi.kubevirt.io/storage.usePopulator";
    /// Take over a claim that is there already.
    pub const ALLOW_ADOPTION: &str = "cdi.kubevirt.io/allowClaimAdoption";
    /// On a claim: the `DataVolume` that it is already filled for.
    pub const POPULATED_FOR: &str = "cdi.kubevirt.io/storage.populatedFor";
    /// On a `DataVolume`: a volume that is there for its claim already is taken as it is.
    pub const CHECK_STATIC_VOLUME: &str = "cdi.kubevirt.io/storage.checkStaticVolume";
    /// On a claim: names of the volumes, as a JSON list, of which one is to be its own as it is.
    pub const VOLUME_LIST: &str = "cdi.kubevirt.io/storage.persistentVolumeList";
    /// On a `DataVolume`: its claim is already filled.
    pub const PREPOPULATED: &str = "cdi.kubevirt.io/storage.prePopulated";

    /// The stage of a warm import that is wanted: the checkpoint to copy. Also on the pod that does.
    pub const CHECKPOINT: &str = "cdi.kubevirt.io/storage.checkpoint.current";
    /// The checkpoint before; empty for the first one, of which everything is copied.
    pub const CHECKPOINT_PREVIOUS: &str = "cdi.kubevirt.io/storage.checkpoint.previous";
    /// Whether no stage follows: `true`.
    pub const CHECKPOINT_FINAL: &str = "cdi.kubevirt.io/storage.checkpoint.final";
    /// A checkpoint that was copied, which follows; the value is the uid of the pod that did.
    pub const CHECKPOINT_COPIED: &str = "cdi.kubevirt.io/storage.checkpoint.copied.";
    /// Uid of the pod of the stage at hand.
    pub const CHECKPOINT_POD: &str = "cdi.kubevirt.io/storage.checkpoint.pod.id";
    /// All stages of a warm import were copied: `true`.
    pub const CHECKPOINTS_DONE: &str = "cdi.kubevirt.io/storage.checkpoint.done";
    /// Somebody else fills the claim, by its data source.
    pub const EXTERNAL_POPULATION: &str = "cdi.kubevirt.io/externalPopulation";
    /// Clients still write it, on volumes; it has no effect any more, as upstream.
    pub const DELETE_AFTER_COMPLETION: &str = "cdi.kubevirt.io/storage.deleteAfterCompletion";

    /// Name of the importer pod.
    pub const IMPORT_POD: &str = "cdi.kubevirt.io/storage.import.importPodName";
    /// Phase of the pod. `Succeeded` is how everybody sees that a claim is filled.
    pub const POD_PHASE: &str = "cdi.kubevirt.io/storage.pod.phase";
    /// How often the pod's container was started again. Never falls.
    pub const POD_RESTARTS: &str = "cdi.kubevirt.io/storage.pod.restarts";
    /// `false` if no node takes the pod.
    pub const POD_SCHEDULABLE: &str = "cdi.kubevirt.io/storage.pod.schedulable";
    /// On a claim that a populator fills: name of the claim that is filled in its place.
    pub const PRIME: &str = "cdi.kubevirt.io/storage.populator.pvcPrime";
    /// On such a claim: how far it is, as `12.34%`, `100.0%` or `N/A`.
    pub const POPULATOR_PROGRESS: &str = "cdi.kubevirt.io/storage.populator.progress";
    /// On a claim that is filled in another one's place: which kind of populator does it.
    pub const POPULATOR_KIND: &str = "cdi.kubevirt.io/storage.populator.kind";
    /// On a claim: the driver that stands in for its class's provisioner, which is part of Kubernetes.
    pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
    /// On a claim: the node that the scheduler chose for the pod that uses it first.
    pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
    /// Whether the pod runs: `true` or `false`.
    pub const RUNNING: &str = "cdi.kubevirt.io/storage.condition.running";
    /// What it says of that.
    pub const RUNNING_MESSAGE: &str = "cdi.kubevirt.io/storage.condition.running.message";
    /// The same in a word.
    pub const RUNNING_REASON: &str = "cdi.kubevirt.io/storage.condition.running.reason";
    /// Whether the claim is bound, where that takes more than its phase to tell.
    pub const BOUND: &str = "cdi.kubevirt.io/storage.condition.bound";
    /// What there is to say of that.
    pub const BOUND_MESSAGE: &str = "cdi.kubevirt.io/storage.condition.bound.message";
    /// The same in a word.
    pub const BOUND_REASON: &str = "cdi.kubevirt.io/storage.condition.bound.reason";
    /// The import has failed for good.
    pub const FATAL_ERROR: &str = "cdi.kubevirt.io/storage.import.fatalError";
    /// Pods go past the page cache.
    pub const REQUIRES_DIRECT_IO: &str = "cdi.kubevirt.io/storage.import.requiresDirectIo";
    /// vddk: version of the library.
    pub const VDDK_VERSION: &str = "cdi.kubevirt.io/storage.pod.vddk.version";
    /// vddk: the host that the disk came from.
    pub const VDDK_HOST: &str = "cdi.kubevirt.io/storage.pod.vddk.host";
    /// On a claim: it was made for a `DataVolume`, whose uid this is.
    pub const CREATED_FOR: &str = "cdi.kubevirt.io/createdForDataVolume";
    /// On a storage class: how its disks are cloned.
    pub const CLONE_STRATEGY: &str = "cdi.kubevirt.io/clone-strategy";
    /// On a profile: the smallest claim that the provisioner takes.
    pub const SMALLEST_CLAIM: &str = "cdi.kubevirt.io/minimumSupportedPvcSize";
    /// On a profile: imports on a schedule take volumes of one node at a time.
    pub const CRON_ONE_NODE: &str = "cdi.kubevirt.io/useReadWriteOnceForDataImportCron";
    /// On a profile: the snapshot class that imports on a schedule are kept with.
    pub const CRON_SNAPSHOT_CLASS: &str = "cdi.kubevirt.io/snapshotClassForDataImportCron";
    /// On a `CDI`: its `config` is what the `CDIConfig` is written from.
    pub const CONFIG_AUTHORITY: &str = "cdi.kubevirt.io/configAuthority";
    /// Ours, on a `CDI`: most imports at work on one node; 0 is no limit.
    pub const IMPORTS_PER_NODE: &str = "longshore.dev/imports-per-node";
    /// Ours, on a `CDI`: most imports at work from one source; 0 is no limit.
    pub const IMPORTS_PER_SOURCE: &str = "longshore.dev/imports-per-source";
    /// Ours, on the lease: its holder is one of ours.
    pub const LEASE_HOLDER: &str = "longshore.dev/holder";

    /// Ours, on a claim: how far the import is, as JSON with bytes, rate and seconds left
    /// ([`Progress`](crate::contract::Progress)).
    pub const PROGRESS: &str = "longshore.dev/progress";

    /// Ours, on a `DataVolume`: uid of the claim that was filled for it. What is lost on the claim does
    /// not make a filled disk an empty one.
    pub const FILLED_CLAIM: &str = "longshore.dev/filled-claim";
    /// Ours, on our deployment: what of it the `CDI` decided, as JSON.
    pub const FROM_CDI: &str = "longshore.dev/from-cdi";
    /// Ours, on a claim: hash of the `DataVolume`'s spec that it was made from.
    pub const SPEC: &str = "longshore.dev/spec";
    /// Ours, on a claim: hash of a later spec that was told to have no effect.
    pub const SPEC_IGNORED: &str = "longshore.dev/spec-ignored";
    /// Ours, on a persistent volume: uid of the claim that it was filled for by a populator.
    pub const POPULATED_CLAIM: &str = "longshore.dev/populated-claim";
    /// Ours, on a claim: its `DataVolume` is being deleted, so nothing shall work on it.
    pub const CANCELLED: &str = "longshore.dev/cancelled";

    /// Ours: labels that the node of the pod must have, a JSON object as in a pod's `nodeSelector`.
    pub const POD_NODE_SELECTOR: &str = "longshore.dev/pod.nodeSelector";
    /// Ours: a JSON object as in a pod's `affinity`.
    pub const POD_AFFINITY: &str = "longshore.dev/pod.affinity";
    /// Ours: a JSON list as in a pod's `tolerations`.
    pub const POD_TOLERATIONS: &str = "longshore.dev/pod.tolerations";
    /// Ours: a JSON object as in a container's `resources`.
    pub const POD_RESOURCES: &str = "longshore.dev/pod.resources";

    /// Handed on to pods, with what they are if nobody says otherwise.
    pub const POD_DEFAULTS: [(&str, &str); 2] = [
        ("linkerd.io/inject", "disabled"),
        ("sidecar.istio.io/inject", "false"),
    ];
    /// Handed on to pods if set.
    pub const POD_NETWORKS: [&str; 2] = [
        "k8s.v1.cni.cncf.io/networks",
        "v1.multus-cni.io/default-network",
    ];
}

/// Labels.
pub mod label {
    /// On everything of ours: [`APP_VALUE`].
    pub const APP: &str = "app";
    /// How tools find everything of a data importer.
    pub const APP_VALUE: &str = "containerized-data-importer";
    /// How labels begin that say how `KubeVirt` runs a disk.
    pub const OF_INSTANCETYPE: &str = "instancetype.kubevirt.io/";
    /// What a pod does.
    pub const ROLE: &str = "cdi.kubevirt.io";
    /// It imports.
    pub const ROLE_IMPORTER: &str = "importer";
    /// On pods that have metrics: `true`.
    pub const PROMETHEUS: &str = "prometheus.cdi.kubevirt.io";
    /// On claims of the filesystem kind, which a disk image always fills: no alarm because of that.
    pub const FILLING_UP: &str = "alerts.k8s.io/KubePersistentVolumeFillingUp";
    /// Who made it.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// We did, whatever program it was.
    pub const MANAGED_BY_VALUE: &str = "cdi-controller";
    /// Which part of a system it belongs to.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// To storage.
    pub const COMPONENT_VALUE: &str = "storage";
    /// Which product the installation is a part of; handed on from the `CDI`.
    pub const PART_OF: &str = "app.kubernetes.io/part-of";
    /// Version of that product; handed on from the `CDI`.
    pub const VERSION: &str = "app.kubernetes.io/version";
    /// On what a backup had better leave out: `true`.
    pub const NO_BACKUP: &str = "velero.io/exclude-from-backup";
    /// On a claim: what it leaves open is to be taken from its class's `StorageProfile`.
    pub const APPLY_STORAGE_PROFILE: &str = "cdi.kubevirt.io/applyStorageProfile";
    /// Uid of the claim that a pod works for; ours.
    pub const CLAIM_UID: &str = "longshore.dev/claim-uid";
}

/// Reasons of events, and of conditions where they are the same.
pub mod reason {
    /// The pod waits for a node or for its image.
    pub const IMPORT_SCHEDULED: &str = "ImportScheduled";
    /// The pod runs.
    pub const IMPORT_IN_PROGRESS: &str = "ImportInProgress";
    /// The disk is complete.
    pub const IMPORT_SUCCEEDED: &str = "ImportSucceeded";
    /// Trying again cannot help.
    pub const IMPORT_FAILED: &str = "ImportFailed";
    /// On claims: an attempt failed.
    pub const ERR_IMPORT_FAILED: &str = "ErrImportFailed";
    /// On claims: the pod could not be made.
    pub const ERR_STARTING_POD: &str = "ErrStartingPod";
    /// On claims: another pod uses it.
    pub const IMPORT_TARGET_IN_USE: &str = "ImportTargetInUse";
    /// There is a claim of that name, and it is somebody else's.
    pub const ERR_RESOURCE_EXISTS: &str = "ErrResourceExists";
    /// The namespace may not have more.
    pub const ERR_EXCEEDED_QUOTA: &str = "ErrExceededQuota";
    /// The claim lost its volume.
    pub const ERR_CLAIM_LOST: &str = "ErrClaimLost";
    /// The spec makes no sense.
    pub const ERR_CLAIM_NOT_VALID: &str = "ErrClaimNotValid";
    /// The claim is bound.
    pub const BOUND: &str = "Bound";
    /// The claim is not bound yet.
    pub const PENDING: &str = "Pending";
    /// There is no claim.
    pub const NOT_FOUND: &str = "NotFound";
    /// The claim's volume is gone.
    pub const CLAIM_LOST: &str = "ClaimLost";
    /// The pod is done.
    pub const COMPLETED: &str = "Completed";
    /// What went wrong is in the message.
    pub const ERROR: &str = "Error";
    /// No node takes the pod.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The pod's image cannot be had.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// Ours: the server does not take the claim.
    pub const ERR_CLAIM_REFUSED: &str = "ErrClaimRefused";
    /// A claim is on its way out.
    pub const ERR_MARKED_FOR_DELETION: &str = "ErrResourceMarkedForDeletion";
    /// The pod has to do with a library that is not there.
    pub const AWAITING_VDDK: &str = "AwaitingVDDK";
    /// While an import runs or is tried again, a volume is not ready for this reason.
    pub const TRANSFER_RUNNING: &str = "TransferRunning";
    /// What a source's content hashes to is not what was asked for.
    pub const CHECKSUM_ERROR: &str = "ChecksumError";
    /// The kernel ended the pod's container for its memory.
    pub const OOM_KILLED: &str = "OOMKilled";
    /// Ours: the pod's node does not answer.
    pub const NODE_LOST: &str = "NodeLost";
    /// Ours: the pod is being removed, and another one follows.
    pub const POD_TERMINATING: &str = "PodTerminating";
    /// Ours: the pod has failed as a whole, for a cause that its status names.
    pub const POD_FAILED: &str = "PodFailed";
    /// The claim was filled by whoever its data source says.
    pub const EXTERNAL_POPULATION_SUCCEEDED: &str = "ExternalPopulationSucceeded";
    /// The claim is bound, and nobody has filled it: its class is of no CSI driver.
    pub const NO_CSI_DRIVER_FOR_EXTERNAL_POPULATION: &str = "NoCSIDriverForExternalPopulation";
    /// The claim is bound, and nobody has filled it: the server has dropped what it was to be filled from.
    pub const NO_ANY_VOLUME_DATA_SOURCE: &str = "NoAnyVolumeDataSource";
    /// Ours: what an annotation asks of the pod cannot be understood.
    pub const INVALID_POD_SETTINGS: &str = "InvalidPodSettings";
    /// Ours: a spec that was changed once there was a claim.
    pub const SPEC_CHANGE_IGNORED: &str = "SpecChangeIgnored";
    /// A stage of a warm import has ended, and there is no next one yet.
    pub const IMPORT_PAUSED: &str = "ImportPaused";
    /// The same, of a volume that is not ready because of it.
    pub const PAUSED: &str = "Paused";
    /// Ours: the claim shall come from elsewhere, filled.
    pub const AWAITING_CLAIM: &str = "AwaitingPrePopulatedClaim";
    /// Ours, on volumes: the class's profile does not say what their claim could be.
    pub const STORAGE_PROFILE_INCOMPLETE: &str = "StorageProfileIncomplete";
    /// On profiles: what volumes of the class can do is known.
    pub const RECOGNIZED_PROVISIONER: &str = "RecognizedProvisioner";
    /// On profiles: it is not.
    pub const UNRECOGNIZED_PROVISIONER: &str = "UnrecognizedProvisioner";
    /// On profiles: it would be, were the class's parameters ones that are known.
    pub const UNRECOGNIZED_PARAMETERS: &str = "UnrecognizedStorageClassParameters";
    /// Ours: as many imports as may be at work are, and this one's turn is yet to come.
    pub const IMPORT_QUEUED: &str = "ImportQueued";
    /// Ours: the source is one that this version does not import.
    pub const UNSUPPORTED_SOURCE: &str = "UnsupportedSource";
    /// On claims: one was made that is filled in their place.
    pub const CREATED_PRIME: &str = "CreatedPVCPrimeSuccessfully";
    /// On claims: none could be made.
    pub const ERR_CREATING_PRIME: &str = "ErrCreatingPVCPrime";
    /// On a claim that was filled in another one's place: it stays, with its pod.
    pub const RETAINED_PRIME: &str = "RetainedPVCPrime";
    /// On claims: a populator has filled them.
    pub const POPULATED: &str = "importSucceeded";
    /// On claims: a populator's attempt failed.
    pub const POPULATION_FAILED: &str = "importFailed";
    /// The claim waits for the node of the pod that uses it first.
    pub const PENDING_POPULATION: &str = "PendingPopulation";
    /// Ours, on claims: what they shall be filled from is not there.
    pub const AWAITING_SOURCE: &str = "AwaitingVolumeImportSource";
    /// Ours, on claims: what they shall be filled from makes no sense.
    pub const ERR_SOURCE_NOT_VALID: &str = "ErrSourceNotValid";
    /// Ours, on claims: there is no storage class that a populator can work with.
    pub const NO_STORAGE_CLASS: &str = "NoStorageClass";
    /// Ours, on claims: the class's provisioner is no CSI driver, and may not wait for a populator.
    pub const NO_CSI_DRIVER: &str = "NoCSIDriver";
    /// Ours, on claims: somebody else bound them before they were filled.
    pub const BOUND_UNPOPULATED: &str = "BoundUnpopulated";
    /// Ours: the volume waits for a pod that uses it.
    pub const WAIT_FOR_FIRST_CONSUMER: &str = "WaitForFirstConsumer";
}

/// Names of objects.
pub mod object {
    /// Where the installation lives unless told otherwise.
    pub const NAMESPACE: &str = "cdi";
    /// The one `CDI` that is made if there is none.
    pub const CDI: &str = "cdi";
    /// The one `CDIConfig`.
    pub const CONFIG: &str = "config";
    /// The `ConfigMap` beside the controller that names an image with VMware's library for all.
    pub const VDDK_CONFIG: &str = "v2v-vmware";
    /// Its key with the image.
    pub const VDDK_CONFIG_KEY: &str = "vddk-init-image";
    /// Our own deployment.
    pub const DEPLOYMENT: &str = "cdi-deployment";
    /// The deployment of upstream's operator.
    pub const OPERATOR: &str = "cdi-operator";
    /// The finalizer of upstream's operator on a `CDI`.
    pub const CDI_FINALIZER: &str = "operator.cdi.kubevirt.io";
    /// The service that an ingress for uploads leads to.
    pub const UPLOAD_PROXY: &str = "cdi-uploadproxy";
    /// What keeps an importer's pod from being scheduled until it is sure that it alone uses its claim.
    pub const SOLE_USER_GATE: &str = "longshore.dev/sole-user";
    /// The lease that the working controller holds.
    pub const LEASE: &str = "cdi-controller-leader-election-helper";

    /// The longest name that an object can have.
    const MOST: usize = 253;

    /// What the names of all importer pods begin with.
    pub const IMPORTER_PREFIX: &str = "importer-";

    /// Name of the importer pod of a claim.
    pub fn importer(claim: &str) -> String {
        shortened(&format!("{IMPORTER_PREFIX}{claim}"), MOST)
    }

    /// Name of the importer pod that copies one checkpoint of several.
    pub fn importer_of_checkpoint(claim: &str, checkpoint: &str) -> String {
        let is_part = checkpoint
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !checkpoint.starts_with('-')
            && !checkpoint.ends_with('-')
            && !checkpoint.is_empty();
        let part = if is_part {
            checkpoint.to_owned()
        } else {
            format!("{:016x}", fnv64a(checkpoint.as_bytes()))
        };
        shortened(&format!("{IMPORTER_PREFIX}{claim}-checkpoint-{part}"), MOST)
    }

    /// Name of the claim that is filled in the place of the one with this uid.
    pub fn prime(claim_uid: &str) -> String {
        format!("prime-{claim_uid}")
    }

    /// Name of the `VolumeImportSource` of the `DataVolume` with this uid.
    pub fn import_source(volume_uid: &str) -> String {
        format!("volume-import-source-{volume_uid}")
    }

    /// Name of the copy of a proxy's authorities that the importer of a claim mounts.
    pub fn proxy_authorities(claim: &str) -> String {
        shortened(&format!("import-proxy-cm-{claim}"), MOST)
    }

    /// `name` itself if it fits, else its front and a hash of all of it.
    pub fn shortened(name: &str, most: usize) -> String {
        if name.len() <= most {
            return name.to_owned();
        }
        let hash = format!("-{:08x}", fnv32a(name.as_bytes()));
        let mut front = most.saturating_sub(hash.len());
        while !name.is_char_boundary(front) {
            front = front.saturating_sub(1);
        }
        let front = name.get(..front).unwrap_or_default();
        format!("{}{hash}", front.trim_end_matches(['-', '.']))
    }

    /// FNV-1a with 32 bits (Fowler, Noll, Vo), the hash that upstream's long names carry.
    fn fnv32a(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
    }

    /// The same with 64 bits, for names of our own.
    pub fn fnv64a(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn names_that_fit_are_kept_and_longer_ones_differ_still() {
            assert_eq!(importer("disk"), "importer-disk");
            let (one, other) = ("a".repeat(250) + "b", "a".repeat(250) + "c");
            let (one, other) = (importer(&one), importer(&other));
            assert_ne!(one, other);
            assert!(one.len() <= MOST && other.len() <= MOST);
            assert_eq!(one, importer(&("a".repeat(250) + "b")));
            let uneven = shortened(&"ü".repeat(40), 20);
            assert!(uneven.len() <= 20 && uneven.starts_with('ü'), "{uneven}");
        }

        #[test]
        fn a_checkpoint_is_part_of_its_pods_name_as_it_is_or_as_a_hash() {
            let name = |checkpoint| importer_of_checkpoint("disk", checkpoint);
            assert_eq!(name("snapshot-12"), "importer-disk-checkpoint-snapshot-12");
            for odd in ["", "A", "a/b", "52 de c0/63", "a.", "-a"] {
                let hash = format!("{:016x}", fnv64a(odd.as_bytes()));
                assert_eq!(name(odd), format!("importer-disk-checkpoint-{hash}"));
            }
            assert!(name(&"a".repeat(300)).len() <= MOST);
        }

        #[test]
        fn the_hash_is_the_published_one() {
            // From the authors' own test vectors.
            assert_eq!(fnv32a(b""), 0x811c_9dc5);
            assert_eq!(fnv32a(b"a"), 0xe40c_292c);
            assert_eq!(fnv32a(b"foobar"), 0xbf9c_f968);
            assert_eq!(fnv64a(b"a"), 0xaf63_dc4c_8601_ec8c);
            assert_eq!(fnv64a(b"foobar"), 0x8594_4171_f739_67e8);
        }
    }
}
