//! What a claim's annotations ask the importer for.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use longshore_crds::names::annotation;

use crate::claim::Claim;

/// An import, in the terms of the pod that does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) source: Source,
    pub(crate) endpoint: String,
    pub(crate) content_type: String,
    pub(crate) secret: Option<String>,
    pub(crate) certificates: Option<String>,
    pub(crate) checksum: Option<String>,
    pub(crate) insecure: bool,
    pub(crate) extra_headers: Vec<String>,
    pub(crate) secret_headers: Vec<String>,
    pub(crate) preallocate: bool,
    /// Do not wait for somebody who uses the claim.
    pub(crate) immediately: bool,
}

/// The sources that have a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Http,
    S3,
    Gcs,
    Registry,
    Blank,
}

impl Source {
    /// Its word in the environment of the pod.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Registry => "registry",
            Self::Blank => "none",
        }
    }
}

/// A source that cannot be imported from yet.
#[derive(Debug, thiserror::Error)]
#[error(
    "this version does not import from source {word}; it imports from http, s3, gcs, registry and none (blank)"
)]
pub(crate) struct Refusal {
    word: String,
}

/// Reads a claim; `None` if it wants no import at all.
pub(crate) fn request(claim: &PersistentVolumeClaim) -> Option<Result<Request, Refusal>> {
    let word = claim.annotation(annotation::IMPORT_SOURCE);
    let endpoint = claim.annotation(annotation::IMPORT_ENDPOINT);
    if word.is_none() && endpoint.is_none() {
        return None;
    }
    let source = match word.unwrap_or("http") {
        "s3" => Source::S3,
        "gcs" => Source::Gcs,
        "registry" => Source::Registry,
        "none" => Source::Blank,
        word @ ("imageio" | "vddk") => {
            return Some(Err(Refusal {
                word: word.to_owned(),
            }));
        }
        // As upstream: what is missing or unknown is a web server.
        _ => Source::Http,
    };
    let owned = |name| {
        claim
            .annotation(name)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let is_true = |name| claim.annotation(name) == Some("true");
    Some(Ok(Request {
        source,
        endpoint: endpoint.unwrap_or_default().to_owned(),
        content_type: owned(annotation::CONTENT_TYPE).unwrap_or_else(|| "kubevirt".to_owned()),
        secret: owned(annotation::IMPORT_SECRET),
        certificates: owned(annotation::IMPORT_CERTIFICATES),
        checksum: owned(annotation::IMPORT_CHECKSUM),
        insecure: is_true(annotation::IMPORT_INSECURE),
        extra_headers: numbered(claim, annotation::IMPORT_EXTRA_HEADER),
        secret_headers: numbered(claim, annotation::IMPORT_SECRET_HEADER),
        preallocate: is_true(annotation::PREALLOCATION_REQUESTED),
        immediately: claim.annotation(annotation::BIND_IMMEDIATE).is_some(),
    }))
}

/// The values of annotations that are numbered from 0.
fn numbered(claim: &PersistentVolumeClaim, prefix: &str) -> Vec<String> {
    (0..)
        .map_while(|number| claim.annotation(&format!("{prefix}{number}")))
        .map(str::to_owned)
        .collect()
}
