//! What a claim's annotations ask an importer for.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use longshore_crds::contract::{
    ContentType, Headers, Import, Overhead, Proxy, Pull, Resume, Secret, Source, Tls,
};
use longshore_crds::names::annotation;

use crate::claim::Claim;

/// An import, and which objects its pod mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) import: Import,
    /// Secret with credentials.
    pub(crate) secret: Option<String>,
    /// `ConfigMap` with authorities.
    pub(crate) certificates: Option<String>,
    /// Secrets with header lines.
    pub(crate) secret_headers: Vec<String>,
    /// Do not wait for somebody who uses the claim.
    pub(crate) immediately: bool,
}

/// A source that cannot be imported from yet.
#[derive(Debug, thiserror::Error)]
#[error(
    "this version does not import from source {word}; it imports from http, s3, gcs, glance, registry and none (blank)"
)]
pub(crate) struct Refusal {
    word: String,
}

/// Reads a claim; `None` if it wants no import at all.
pub(crate) fn request(claim: &PersistentVolumeClaim) -> Option<Result<Request, Refusal>> {
    let word = claim.annotation(annotation::IMPORT_SOURCE);
    let address = claim.annotation(annotation::IMPORT_ENDPOINT);
    if word.is_none() && address.is_none() {
        return None;
    }
    let endpoint = Secret::from(address.unwrap_or_default());
    let source = match word.unwrap_or("http") {
        "s3" => Source::S3 { endpoint },
        "gcs" => Source::Gcs { endpoint },
        "glance" => Source::Glance { endpoint },
        "registry" => Source::Registry {
            endpoint,
            architecture: owned(claim, annotation::IMPORT_ARCHITECTURE),
            pull: Pull::Pod,
        },
        "none" => Source::Blank,
        word @ ("imageio" | "vddk") => {
            return Some(Err(Refusal {
                word: word.to_owned(),
            }));
        }
        // As upstream: what is missing or unknown is a web server.
        _ => Source::Http { endpoint },
    };
    let is_true = |name| claim.annotation(name) == Some("true");
    let extra = numbered(claim, annotation::IMPORT_EXTRA_HEADER);
    Some(Ok(Request {
        import: Import {
            source,
            content: match claim.annotation(annotation::CONTENT_TYPE) {
                Some("archive") => ContentType::Archive,
                _ => ContentType::Kubevirt,
            },
            image_size: claim.requested(),
            // What the installation decides is filled in by whoever makes the pod.
            filesystem_overhead: Overhead::default(),
            proxy: Proxy::default(),
            preallocation: is_true(annotation::PREALLOCATION_REQUESTED),
            checksum: owned(claim, annotation::IMPORT_CHECKSUM),
            owner_uid: owner_uid(claim).to_owned(),
            resume: Resume {
                claim_uid: Some(claim.uid().to_owned()),
                journal_dir: None,
            },
            cache: longshore_crds::contract::CacheMode::default(),
            tls: Tls {
                insecure: is_true(annotation::IMPORT_INSECURE),
                cert_dir: None,
            },
            headers: Headers {
                extra: extra.into_iter().map(Secret::from).collect(),
                secret_dir: None,
            },
        },
        secret: owned(claim, annotation::IMPORT_SECRET),
        certificates: owned(claim, annotation::IMPORT_CERTIFICATES),
        secret_headers: numbered(claim, annotation::IMPORT_SECRET_HEADER),
        immediately: claim.annotation(annotation::BIND_IMMEDIATE).is_some(),
    }))
}

fn owned(claim: &PersistentVolumeClaim, name: &str) -> Option<String> {
    let text = claim.annotation(name)?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// The values of annotations that are numbered from 0.
fn numbered(claim: &PersistentVolumeClaim, prefix: &str) -> Vec<String> {
    (0..)
        .map_while(|number| claim.annotation(&format!("{prefix}{number}")))
        .map(str::to_owned)
        .collect()
}

/// Whose progress it is: the data volume's, if there is one.
fn owner_uid(claim: &PersistentVolumeClaim) -> &str {
    let owners = claim.metadata.owner_references.as_deref();
    let mut owners = owners.unwrap_or_default().iter();
    let owner = owners.find(|owner| owner.kind == "DataVolume");
    owner.map_or_else(|| claim.uid(), |owner| owner.uid.as_str())
}
