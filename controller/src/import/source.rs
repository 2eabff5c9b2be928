//! What a claim's annotations ask an importer for.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use longshore_crds::contract::{
    CacheMode, ContentType, Headers, Import, Overhead, Proxy, Pull, Resume, Secret, Source, Tls,
    Vmware,
};
use longshore_crds::names::{annotation, object, reason};

use super::pod::{DONE_FILE, IN_REGISTRY, Odd, Own, READY_FILE, VDDK_ARGUMENTS, VDDK_LIBRARY};
use crate::checkpoint;
use crate::claim::{Claim, controller};
use crate::installation::Installation;

/// An import, and which objects its pod mounts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) import: Import,
    /// Secret with credentials.
    pub(crate) secret: Option<String>,
    /// `ConfigMap` with authorities.
    pub(crate) certificates: Option<String>,
    /// Secrets with header lines.
    pub(crate) secret_headers: Vec<String>,
    /// Image with the vddk library.
    pub(crate) vddk_image: Option<String>,
    /// `ConfigMap` with arguments for its plug-in.
    pub(crate) vddk_arguments: Option<String>,
    /// What it asks of its pod.
    pub(crate) own: Own,
}

/// Why there is no pod for a claim that asks for one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "only the node knows image streams: the annotation {} has to be node",
        annotation::IMPORT_METHOD
    )]
    ImageStream,
    #[error(
        "this version does not fill claims from {what}: http, s3, gcs, registry, imageio, vddk and blank are"
    )]
    NotYet { what: &'static str },
    #[error(
        "a {source_kind} source has disks, and no archives: take the annotation {} away",
        annotation::CONTENT_TYPE
    )]
    Archive { source_kind: String },
    #[error(
        "a {source_kind} source has no checkpoints, imageio and vddk have: take the annotation {} away",
        annotation::CHECKPOINT
    )]
    Checkpoint { source_kind: String },
    #[error("source {source_kind} needs the annotation {annotation}")]
    Incomplete {
        source_kind: &'static str,
        annotation: &'static str,
    },
    #[error(
        "waiting for {} configmap or {} annotation for VDDK image: VMware's library is not part of this. The ConfigMap is in the namespace of the controller, and the image its {}",
        object::VDDK_CONFIG,
        annotation::VDDK_IMAGE,
        object::VDDK_CONFIG_KEY
    )]
    NoVddk,
    #[error(transparent)]
    Pod(Odd),
}

impl Refusal {
    /// The word for it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::ImageStream
            | Self::Incomplete { .. }
            | Self::NotYet { .. }
            | Self::Archive { .. }
            | Self::Checkpoint { .. } => reason::UNSUPPORTED_SOURCE,
            Self::NoVddk => reason::AWAITING_VDDK,
            Self::Pod(_) => reason::INVALID_POD_SETTINGS,
        }
    }
}

impl Request {
    /// The image that the node is to pull, as its runtime calls it, or as an image stream does.
    pub(crate) fn pulled_by_node(&self) -> Option<&str> {
        match &self.import.source {
            Source::Registry {
                endpoint,
                pull: Pull::Node { .. },
                ..
            } => {
                let address = endpoint.reveal();
                Some(address.strip_prefix(IN_REGISTRY).unwrap_or(address))
            }
            _ => None,
        }
    }

    /// Heeds what the installation says about registries.
    pub(crate) fn trusts(&mut self, installation: &Installation) {
        if let Source::Registry { endpoint, .. } = &self.import.source
            && installation.is_insecure(endpoint.reveal())
        {
            self.import.tls.insecure = true;
        }
    }
}

/// Reads a claim; `None` if it wants no import at all. `vddk` is the image with VMware's library for those that
/// name none.
pub(crate) fn request(
    claim: &PersistentVolumeClaim,
    vddk: Option<&str>,
) -> Option<Result<Request, Refusal>> {
    let word = claim.annotation(annotation::IMPORT_SOURCE);
    let address = claim.annotation(annotation::IMPORT_ENDPOINT);
    if word.is_none() && address.is_none() {
        return not_yet(claim).map(Err);
    }
    let image = owned(claim, annotation::VDDK_IMAGE).or_else(|| vddk.map(str::to_owned));
    let source = source(claim, word.unwrap_or("http"), image.is_some());
    Some(source.and_then(|source| {
        let own = Own::of(claim).map_err(Refusal::Pod)?;
        Ok(whole(claim, source, own, image))
    }))
}

/// What it asks for that is to come.
fn not_yet(claim: &PersistentVolumeClaim) -> Option<Refusal> {
    let asks = |name| claim.annotation(name).is_some();
    let what = if asks(annotation::UPLOAD_TARGET) {
        "an upload"
    } else if asks(annotation::CLONE_REQUEST) {
        "another claim"
    } else {
        return None;
    };
    Some(Refusal::NotYet { what })
}

/// Whether it takes VMware's library, and does not say from where.
pub(super) fn lacks_vddk(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(annotation::IMPORT_SOURCE) == Some("vddk")
        && owned(claim, annotation::VDDK_IMAGE).is_none()
}

fn source(claim: &PersistentVolumeClaim, word: &str, has_vddk: bool) -> Result<Source, Refusal> {
    let endpoint = |source_kind| {
        let endpoint = needed(claim, source_kind, annotation::IMPORT_ENDPOINT)?;
        Ok(Secret::from(endpoint))
    };
    let checkpoint = checkpoint::stage(claim);
    if checkpoint.is_some() && !["imageio", "vddk"].contains(&word) {
        let source_kind = word.chars().take(64).collect();
        return Err(Refusal::Checkpoint { source_kind });
    }
    let is_archive = claim.annotation(annotation::CONTENT_TYPE) == Some("archive");
    if is_archive && ["registry", "imageio", "vddk", "none"].contains(&word) {
        let source_kind = word.to_owned();
        return Err(Refusal::Archive { source_kind });
    }
    Ok(match word {
        "s3" => Source::S3 {
            endpoint: endpoint("s3")?,
        },
        "gcs" => Source::Gcs {
            endpoint: endpoint("gcs")?,
        },
        "glance" => Source::Glance {
            endpoint: endpoint("glance")?,
        },
        "registry" => {
            let endpoint = endpoint("registry")?;
            Source::Registry {
                pull: pull(claim, &endpoint)?,
                architecture: owned(claim, annotation::IMPORT_ARCHITECTURE),
                endpoint,
            }
        }
        "imageio" => Source::Imageio {
            endpoint: endpoint("imageio")?,
            disk_id: needed(claim, "imageio", annotation::IMPORT_DISK_ID)?,
            checkpoint,
        },
        "vddk" => {
            if !has_vddk {
                return Err(Refusal::NoVddk);
            }
            let arguments = owned(claim, annotation::VDDK_ARGS);
            Source::Vddk {
                endpoint: endpoint("vddk")?,
                disk: Vmware {
                    uuid: needed(claim, "vddk", annotation::IMPORT_UUID)?,
                    backing_file: needed(claim, "vddk", annotation::IMPORT_BACKING_FILE)?,
                    thumbprint: needed(claim, "vddk", annotation::IMPORT_THUMBPRINT)?,
                    library: Some(PathBuf::from(VDDK_LIBRARY)),
                    arguments: arguments.map(|_| PathBuf::from(VDDK_ARGUMENTS)),
                },
                checkpoint,
            }
        }
        "none" => Source::Blank,
        // As upstream: what is missing or unknown is a web server.
        _ => Source::Http {
            endpoint: endpoint("http")?,
        },
    })
}

/// Who pulls. A node knows only what is in registries, and what its cluster calls so.
fn pull(claim: &PersistentVolumeClaim, endpoint: &Secret) -> Result<Pull, Refusal> {
    let by_node = claim.annotation(annotation::IMPORT_METHOD) == Some("node");
    let is_stream = is_image_stream(claim);
    if is_stream && !by_node {
        return Err(Refusal::ImageStream);
    }
    if !by_node || !(is_stream || endpoint.reveal().starts_with(IN_REGISTRY)) {
        return Ok(Pull::Pod);
    }
    Ok(Pull::Node {
        ready_file: PathBuf::from(READY_FILE),
        done_file: PathBuf::from(DONE_FILE),
    })
}

/// Whether what it names is an image stream, which `OpenShift` resolves.
pub(super) fn is_image_stream(claim: &PersistentVolumeClaim) -> bool {
    is_true(claim, annotation::IMPORT_IMAGE_STREAM)
}

fn whole(
    claim: &PersistentVolumeClaim,
    source: Source,
    own: Own,
    vddk_image: Option<String>,
) -> Request {
    let extra = numbered(claim, annotation::IMPORT_EXTRA_HEADER);
    Request {
        import: Import {
            content: match claim.annotation(annotation::CONTENT_TYPE) {
                Some("archive") => ContentType::Archive,
                _ => ContentType::Kubevirt,
            },
            image_size: claim.requested(),
            // What the installation decides is filled in by whoever makes the pod.
            filesystem_overhead: Overhead::default(),
            proxy: Proxy::default(),
            preallocation: is_true(claim, annotation::PREALLOCATION_REQUESTED),
            checksum: owned(claim, annotation::IMPORT_CHECKSUM),
            owner_uid: owner_uid(claim).to_owned(),
            resume: Resume {
                claim_uid: Some(claim.uid().to_owned()),
                journal_dir: None,
            },
            cache: if is_true(claim, annotation::REQUIRES_DIRECT_IO) {
                CacheMode::TryNone
            } else {
                CacheMode::default()
            },
            tls: Tls {
                insecure: is_true(claim, annotation::IMPORT_INSECURE),
                cert_dir: None,
            },
            headers: Headers {
                extra: extra.into_iter().map(Secret::from).collect(),
                secret_dir: None,
            },
            source,
        },
        secret: owned(claim, annotation::IMPORT_SECRET),
        certificates: owned(claim, annotation::IMPORT_CERTIFICATES),
        secret_headers: numbered(claim, annotation::IMPORT_SECRET_HEADER),
        vddk_image,
        vddk_arguments: owned(claim, annotation::VDDK_ARGS),
        own,
    }
}

/// Whether it does not wait for somebody who uses the claim.
pub(super) fn is_immediate(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(annotation::BIND_IMMEDIATE).is_some()
}

fn is_true(claim: &PersistentVolumeClaim, name: &str) -> bool {
    claim.annotation(name) == Some("true")
}

fn owned(claim: &PersistentVolumeClaim, name: &str) -> Option<String> {
    let text = claim.annotation(name)?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn needed(
    claim: &PersistentVolumeClaim,
    source_kind: &'static str,
    annotation: &'static str,
) -> Result<String, Refusal> {
    owned(claim, annotation).ok_or(Refusal::Incomplete {
        source_kind,
        annotation,
    })
}

/// The values of annotations that are numbered from 0.
fn numbered(claim: &PersistentVolumeClaim, prefix: &str) -> Vec<String> {
    (0..)
        .map_while(|number| claim.annotation(&format!("{prefix}{number}")))
        .map(str::to_owned)
        .collect()
}

/// Whose progress it is: the data volume's, or that of the claim in whose place this one is filled.
fn owner_uid(claim: &PersistentVolumeClaim) -> &str {
    let kinds = ["DataVolume", "PersistentVolumeClaim"];
    let owner = controller(&claim.metadata).filter(|owner| kinds.contains(&owner.kind.as_str()));
    owner.map_or_else(|| claim.uid(), |owner| owner.uid.as_str())
}
