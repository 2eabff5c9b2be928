//! Disks in container images: `docker://`, and images that lie in files (`oci-archive:`, `oci:`,
//! `docker-archive:`).
//!
//! ```text
//! reference -> manifest -> [index -> platform]* -> image: config (labels) and layers
//!                                                          |
//!        from the top: the first layer with a file in disk/ -> stream -> hash -> unwrap -> tar -> disk
//! ```
//!
//! A container disk (`KubeVirt`'s, and CDI's registry source) is an image with one file in its directory
//! `disk`. Layers above the one with the file are read to their end, for only that shows that they have
//! none and hide none; the one with the file is streamed into the target, and its digest is right before
//! the target is declared done. Layers below are not fetched at all.
//!
//! It owns references, credentials, manifests and the way to the disk. Ranges, retries, stalls and
//! redirects of blobs are [`crate::http`]'s, compression and hashing the engine's. The few fields that
//! are read of manifests have types here: those of crates refuse an image for fields nobody asks about.
//!
//! Sources: OCI distribution 1.1 and image 1.1 specifications; Docker's image manifest v2 schema 2 and
//! token authentication; containers-auth.json(5).

mod badge;
mod challenge;
mod credentials;
mod digest;
mod entries;
mod error;
mod hunt;
mod labels;
mod layer;
mod layout;
mod manifest;
mod options;
mod platform;
mod reference;
mod remote;
mod resolve;
mod scan;

use std::collections::BTreeMap;

use longshore_transfer::Source;

pub use self::credentials::usual_auth_file;
pub use self::error::RegistryError;
pub use self::options::{InsecureHost, Mirror, RegistryOptions};
pub use self::platform::Platform;

use self::layout::Layout;
use self::reference::Reference;
use self::remote::Remote;
use self::resolve::Image;
use crate::{Error, Result, SourceOptions};

/// A disk in a container image, and what the image says of it.
pub struct RegistryImage {
    /// The disk.
    pub source: Box<dyn Source>,
    /// Digest of the manifest of the image that was chosen, `sha256:...`.
    pub digest: String,
    /// What the image wants its disk to be labelled with: its environment as upstream maps it, and
    /// annotations that are such labels already.
    pub labels: BTreeMap<String, String>,
}

impl std::fmt::Debug for RegistryImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryImage")
            .field("digest", &self.digest)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// What a container image is called, and the labels that these variables of its environment ask for.
pub(crate) fn of_environment<'a>(
    image: &str,
    environment: impl Iterator<Item = &'a str>,
) -> (String, BTreeMap<String, String>) {
    let reference = image.split_once("://").map_or(image, |(_, rest)| rest);
    let name = Reference::parse(reference).map_or_else(
        |_| "the container image".to_owned(),
        |reference| reference.to_string(),
    );
    (name, labels::of_env(environment))
}

/// True if `spec` names a container image.
pub(crate) fn names_image(spec: &str) -> bool {
    scheme_of(spec).is_some()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Docker,
    OciArchive,
    OciDirectory,
    DockerArchive,
}

/// The kind of image, and what follows the scheme.
fn scheme_of(spec: &str) -> Option<(Scheme, &str)> {
    let (scheme, rest) = spec.split_once(':')?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "docker" => return rest.strip_prefix("//").map(|rest| (Scheme::Docker, rest)),
        "oci-archive" => Scheme::OciArchive,
        "oci" => Scheme::OciDirectory,
        "docker-archive" => Scheme::DockerArchive,
        _ => return None,
    };
    Some((scheme, rest))
}

/// The disk in the image that `spec` names.
///
/// `spec` is `docker://HOST/REPOSITORY[:TAG][@DIGEST]`, `oci-archive:PATH[:TAG]`, `oci:PATH[:TAG]` or
/// `docker-archive:PATH[:TAG]`. The manifest, the configuration and the first bytes of a layer have come
/// when this returns; where the image has several layers, those above the disk's have been read.
pub fn registry_image(spec: &str, options: &SourceOptions) -> Result<RegistryImage> {
    let (name, outcome) = match scheme_of(spec) {
        Some((Scheme::Docker, rest)) => {
            let reference = Reference::parse(rest)?;
            let name = reference.to_string();
            let outcome = Remote::open(&reference, options)
                .and_then(|remote| Image::choose(&name, &remote, options));
            (name, outcome)
        }
        Some((scheme, rest)) => {
            let name = spec.to_owned();
            let layout = match scheme {
                Scheme::OciArchive => Layout::oci_archive(rest),
                Scheme::OciDirectory => Layout::oci_directory(rest),
                _ => Layout::docker_archive(rest),
            };
            let outcome = layout.and_then(|layout| Image::choose(&name, &layout, options));
            (name, outcome)
        }
        None => {
            return Err(Error::Reference {
                shown: spec.split(':').next().unwrap_or("").to_owned(),
                why: "it begins with docker://, oci-archive:, oci: or docker-archive:".to_owned(),
            });
        }
    };
    let image = outcome.map_err(|source| Error::Image {
        name,
        source: Box::new(source),
    })?;
    Ok(RegistryImage {
        source: Box::new(image.disk),
        digest: image.digest.to_string(),
        labels: image.labels,
    })
}
