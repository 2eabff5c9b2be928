//! Where disk images come from: files, standard input, web servers, object stores, archives in any of these,
//! container images, and disks on NBD servers, VMware vSphere and oVirt.
//!
//! Everything here ends as a [`longshore_transfer::Source`]; what the bytes mean is the business of
//! `longshore-image`, and where they go that of `longshore-transfer`.

mod archive;
mod error;
mod gcs;
mod http;
mod imageio;
mod local;
mod nbd;
mod object;
mod options;
pub mod pod;
mod registry;
mod s3;
mod unpack;
mod vddk;
mod whole;

pub use crate::archive::{ArchiveError, Contents, Disk};
pub use crate::error::{Error, Result};
pub use crate::http::error::{Cause, HttpError, Retry};
pub use crate::imageio::{Checkpoint, ImageioDisk, ImageioError, imageio_source};
pub use crate::nbd::NbdError;
pub use crate::nbd::areas::{ChangedBlocks, Changes, ChangesError};
pub use crate::object::ambient::Ambient;
pub use crate::object::options::{ObjectOptions, S3Keys, S3Style};
pub use crate::options::{BasicAuth, MOST_CONNECTIONS, SourceOptions, parse_header};
pub use crate::registry::{
    InsecureHost, Mirror, Platform, RegistryError, RegistryImage, RegistryOptions, registry_image,
    usual_auth_file,
};
pub use crate::unpack::{Destination, Existing, Unpacked, unpack};
pub use crate::vddk::{Served, VDDK_LIBRARY, VddkDisk, VddkError, VsphereError, vddk_source};

use std::path::Path;

use longshore_transfer::{Options, Source};

use crate::http::HttpSource;
use crate::nbd::{Address, NbdSource};

/// The source that `spec` names: `http(s)://...`, `s3://bucket/key`, `gs://bucket/object`, `nbd://...`,
/// `nbd+unix://...`, `vddk://...`, `imageio://...`, the path of a file, or `-` for standard input.
///
/// Of an archive (a name that ends in `.ova` or `.tar`, or in these and `.gz`, `.xz`, `.zst` or `.bz2`)
/// one disk is the source: the one that follows a `#` at the end, or the only one there is. Standard
/// input is an archive if it begins like a tar, or if a disk is chosen: `-#disk`. A web server is asked
/// at once, so whoever gets a source knows that it answers.
///
/// A container image (`docker://`, `oci-archive:`, `oci:`, `docker-archive:`) is a source of the disk in
/// it; [`registry_image`] tells more of it.
pub fn source_from(spec: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    if registry::names_image(spec) {
        return Ok(registry_image(spec, options)?.source);
    }
    if spec == "-" || spec.starts_with("-#") {
        let member = spec.strip_prefix("-#").filter(|member| !member.is_empty());
        return Ok(archive::on_stdin(plain("-", options)?, member));
    }
    disk_at(spec, |spec| plain(spec, options))
}

/// The S3 object at `address`: `s3://bucket/key`, or the URL of an endpoint with bucket and key in its path
/// (`https://minio.lan:9000/bucket/key`), as CDI has it. Where `options` have no region, it is the one in
/// the host's name.
pub fn s3_source(address: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    disk_at(address, |address| Ok(Box::new(s3::open(address, options)?)))
}

/// The object of Google Cloud Storage at `address`: `gs://bucket/object`, or its URL
/// (`https://storage.googleapis.com/bucket/object`).
pub fn gcs_source(address: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    disk_at(address, |address| {
        Ok(Box::new(gcs::open(address, options)?))
    })
}

/// What is at `spec`, or a disk in it if that is an archive.
fn disk_at(spec: &str, open: impl Fn(&str) -> Result<Box<dyn Source>>) -> Result<Box<dyn Source>> {
    match split_member(spec) {
        Some((archive, kind, member)) => archive::open_member(open(archive)?, kind, member),
        None => open(spec),
    }
}

/// The same for a file, block device or pipe, whatever its path looks like. A `#` in the name of a file
/// that exists is part of the name.
pub fn source_from_path(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>> {
    match path.to_str().and_then(archive::split_member) {
        Some((archive, kind, member)) if member.is_none() || !path.exists() => {
            let file = local::file_source(Path::new(archive), options)?;
            archive::open_member(file, kind, member)
        }
        _ => local::file_source(path, options),
    }
}

/// What is in the archive that `spec` names; `None` if it names none, or one disk of it. `reading` is
/// for what has to be decompressed for that.
pub fn contents_of(
    spec: &str,
    options: &SourceOptions,
    reading: &Options,
) -> Result<Option<Contents>> {
    if registry::names_image(spec) {
        return Ok(None);
    }
    match split_member(spec) {
        Some((archive, kind, None)) => {
            archive::contents_of(plain(archive, options)?, kind, reading).map(Some)
        }
        _ => Ok(None),
    }
}

/// The same for a file, block device or pipe, whatever its path looks like.
pub fn source_of_file(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>> {
    local::file_source(path, options)
}

/// The archive that `spec` names and the member of it. What servers of disks have are disks, whatever
/// they are called.
fn split_member(spec: &str) -> Option<(&str, archive::Kind, Option<&str>)> {
    match scheme(spec) {
        Some(scheme) if Address::is_scheme(&scheme) => None,
        Some(scheme) if matches!(scheme.as_str(), "vddk" | "imageio" | "imageio+http") => None,
        _ => archive::split_member(spec),
    }
}

/// The source that `spec` names, as it is: it is not searched for a disk, whatever its name says.
pub fn source_of_files(spec: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    plain(spec, options)
}

fn plain(spec: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    match scheme(spec) {
        Some(scheme) if matches!(scheme.as_str(), "http" | "https") => {
            Ok(Box::new(HttpSource::open(spec, options)?))
        }
        Some(scheme) if Address::is_scheme(&scheme) => {
            Ok(Box::new(NbdSource::open(spec, options)?))
        }
        Some(scheme) if scheme == "vddk" => vddk::open(spec, options),
        Some(scheme) if scheme == "imageio" || scheme == "imageio+http" => {
            imageio::open(spec, options)
        }
        Some(scheme) if scheme == "s3" => Ok(Box::new(s3::open(spec, options)?)),
        Some(scheme) if scheme == "gs" => Ok(Box::new(gcs::open(spec, options)?)),
        Some(scheme) => Err(Error::NotYet { scheme }),
        None => local::open(spec, options),
    }
}

/// The scheme in front of `spec`, in lower case, if it is not a path.
fn scheme(spec: &str) -> Option<String> {
    let (scheme, rest) = spec.split_once(':')?;
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let is_scheme =
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(named);
    // `a:b` may well be the name of a file; these two have no `//`.
    let is_reference =
        rest.starts_with("//") || matches!(scheme, "oci-archive" | "docker-archive" | "oci");
    (is_scheme && is_reference).then(|| scheme.to_ascii_lowercase())
}
