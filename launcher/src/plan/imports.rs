//! Which data volumes have to be filled before the machine starts, and from what.
//!
//! Pure, like the plan. References to secrets and config maps are resolved here, so whoever
//! imports needs nothing of the manifest.

use std::fmt;

use longshore_crds::{
    DataVolumeSpec, FieldPath, Manifest,
    data_volume::{ContentType, HttpSource},
};

use super::{
    names,
    problem::{PlanError, ProblemKind},
    report::{Notice, Report},
};

/// Bytes of a sector, of which a disk has a whole number.
const SECTOR: u64 = 512;
const SOURCES: &str = "http or blank";

/// What has to be there before the machine starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imports {
    /// The data volumes that volumes of the machine refer to.
    pub data_volumes: Vec<DataVolumeImport>,
    /// What is done differently from what the manifest says.
    pub notices: Vec<Notice>,
}

/// A data volume to be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataVolumeImport {
    /// Its name. It can be used as a file name: it has no slash and does not start with a dot.
    pub name: String,
    /// Where its content comes from.
    pub source: ImportSource,
    /// Bytes the disk has in the end: what was asked for, rounded up to whole sectors.
    pub size: u64,
    /// Whether all blocks are to be allocated.
    pub preallocation: bool,
    /// Volumes of the machine that have it as their content.
    pub volumes: Vec<String>,
}

/// Where the content of a data volume comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportSource {
    /// An image behind a web address.
    Http(HttpImport),
    /// Nothing: an empty disk.
    Blank,
}

/// An image behind a web address, and what the server wants to see. `Debug` shows no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpImport {
    /// The address as written; it has not been checked.
    pub url: String,
    /// User name and password for basic authentication.
    pub credentials: Option<(String, String)>,
    /// Headers to send, each `Name: value`.
    pub headers: Vec<String>,
    /// Digest of the bytes as they are served, `algorithm:hex`; it has not been checked.
    pub checksum: Option<String>,
    /// Certificates to trust in addition, as PEM, one for each value of the config map.
    pub certificates: Vec<Vec<u8>>,
}

impl fmt::Debug for HttpImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpImport")
            .field("has_credentials", &self.credentials.is_some())
            .field("headers", &self.headers.len())
            .field("checksum", &self.checksum)
            .field("certificates", &self.certificates.len())
            .finish_non_exhaustive()
    }
}

/// Lists what the machine of a manifest needs imported.
///
/// Since [`super::plan`] looks at no file, it can be called before the imports are done, with the
/// paths they will have: a machine that is refused then has cost no download.
pub fn imports(manifest: &Manifest) -> Result<Imports, PlanError> {
    let mut report = Report::default();
    let written = data_volumes(manifest);
    names::check_unique(
        written
            .iter()
            .map(|it| (it.name, it.path.key("metadata").key("name"))),
        &mut report,
    );
    let mut data_volumes = Vec::new();
    for DataVolumeAt { name, spec, path } in written {
        names::check_subdomain(name, &path.key("metadata").key("name"), &mut report);
        let volumes = volumes_on(manifest, name);
        if volumes.is_empty() {
            report.notice(
                &path,
                "no volume of the machine refers to it, so it is not made",
            );
            continue;
        }
        data_volumes.extend(import(
            manifest,
            name,
            spec,
            volumes,
            &path.key("spec"),
            &mut report,
        ));
    }
    report.finish(|notices| Imports {
        data_volumes,
        notices,
    })
}

struct DataVolumeAt<'a> {
    name: &'a str,
    spec: &'a DataVolumeSpec,
    path: FieldPath,
}

/// Templates of the machine and documents of their own.
fn data_volumes(manifest: &Manifest) -> Vec<DataVolumeAt<'_>> {
    let templates_at = FieldPath::root().key("spec").key("dataVolumeTemplates");
    let templates = manifest
        .vm
        .spec
        .data_volume_templates
        .iter()
        .enumerate()
        .map(|(index, it)| {
            let name = it.metadata.name.as_deref().unwrap_or_default();
            DataVolumeAt {
                name,
                spec: &it.spec,
                path: templates_at.index(index),
            }
        });
    let documents = manifest.data_volumes.iter().map(|it| {
        let name = it.metadata.name.as_deref().unwrap_or_default();
        DataVolumeAt {
            name,
            spec: &it.spec,
            path: FieldPath::root().key("DataVolume").key(name),
        }
    });
    templates.chain(documents).collect()
}

/// Volumes that refer to a data volume, or to the claim of its name, which is the same thing.
fn volumes_on(manifest: &Manifest, name: &str) -> Vec<String> {
    let volumes = &manifest.vm.spec.template.spec.volumes;
    let refers = |volume: &&longshore_crds::virtual_machine_instance::Volume| {
        volume
            .data_volume
            .as_ref()
            .is_some_and(|source| source.name == name)
            || volume
                .persistent_volume_claim
                .as_ref()
                .is_some_and(|source| source.claim_name == name)
    };
    volumes
        .iter()
        .filter(refers)
        .map(|volume| volume.name.clone())
        .collect()
}

fn import(
    manifest: &Manifest,
    name: &str,
    spec: &DataVolumeSpec,
    volumes: Vec<String>,
    at: &FieldPath,
    report: &mut Report,
) -> Option<DataVolumeImport> {
    if spec.content_type == Some(ContentType::Archive) {
        report.problem(
            &at.key("contentType"),
            ProblemKind::Unsupported {
                what: "a volume of files as a disk",
                remedy: "use an image of a disk",
            },
        );
    }
    if !spec.checkpoints.is_empty() {
        report.problem(
            &at.key("checkpoints"),
            ProblemKind::Unsupported {
                what: "an import in stages",
                remedy: "remove the checkpoints to import at once",
            },
        );
    }
    let size = size(spec, at, report);
    let source = source(manifest, spec, at, report);
    Some(DataVolumeImport {
        name: name.to_owned(),
        source: source?,
        size: size?,
        preallocation: spec.preallocation == Some(true),
        volumes,
    })
}

fn size(spec: &DataVolumeSpec, at: &FieldPath, report: &mut Report) -> Option<u64> {
    if spec.storage.is_some() && spec.pvc.is_some() {
        report.problem(
            &at.key("pvc"),
            ProblemKind::Contradicts { other: "storage" },
        );
        return None;
    }
    let claim = if spec.pvc.is_some() { "pvc" } else { "storage" };
    let path = at
        .key(claim)
        .key("resources")
        .key("requests")
        .key("storage");
    let Some(amount) = spec.requested_storage() else {
        report.problem(&path, ProblemKind::Required);
        return None;
    };
    // Below 2^63 by the limits of quantities, so there is room to round up.
    let size = amount
        .to_u64()
        .filter(|bytes| *bytes > 0)
        .map(|bytes| bytes.next_multiple_of(SECTOR));
    if size.is_none() {
        let value = amount.to_string();
        report.problem(
            &path,
            ProblemKind::Invalid {
                value,
                expected: "the size of a disk",
            },
        );
    }
    size
}

fn source(
    manifest: &Manifest,
    spec: &DataVolumeSpec,
    at: &FieldPath,
    report: &mut Report,
) -> Option<ImportSource> {
    if spec.source_ref.is_some() {
        report.problem(
            &at.key("sourceRef"),
            ProblemKind::Unsupported {
                what: "a source that a cluster knows",
                remedy: "write the source itself",
            },
        );
        return None;
    }
    let at = at.key("source");
    let source = spec.source.clone().unwrap_or_default();
    let kinds = source.kinds();
    let [kind] = kinds.as_slice() else {
        report.problem(
            &at,
            ProblemKind::ExactlyOne {
                choices: SOURCES,
                found: kinds,
            },
        );
        return None;
    };
    if let Some(http) = &source.http {
        return Some(ImportSource::Http(self::http(
            manifest,
            http,
            &at.key("http"),
            report,
        )?));
    }
    if source.blank.is_some() {
        return Some(ImportSource::Blank);
    }
    let what = match *kind {
        "s3" => "an import from S3",
        "gcs" => "an import from Google Cloud Storage",
        "registry" => "an import from a container registry",
        "imageio" => "an import from oVirt",
        "vddk" => "an import from VMware",
        "upload" => "an upload",
        _ => "a copy of another volume",
    };
    report.problem(
        &at.key(*kind),
        ProblemKind::Unsupported {
            what,
            remedy: "serve the image over http or https and use that source",
        },
    );
    None
}

fn http(
    manifest: &Manifest,
    source: &HttpSource,
    at: &FieldPath,
    report: &mut Report,
) -> Option<HttpImport> {
    if source.url.is_empty() {
        report.problem(&at.key("url"), ProblemKind::Required);
    }
    if source.insecure_skip_verify == Some(true) {
        report.problem(
            &at.key("insecureSkipVerify"),
            ProblemKind::Unsupported {
                what: "a server whose certificate goes unchecked",
                remedy: "put the certificate into a ConfigMap and name it in certConfigMap",
            },
        );
    }
    let credentials = match &source.secret_ref {
        None => None,
        Some(name) => match credentials(manifest, name) {
            Ok(found) => Some(found),
            Err(kind) => {
                report.problem(&at.key("secretRef"), kind);
                return None;
            }
        },
    };
    let mut headers = source.extra_headers.clone();
    for (index, name) in source.secret_extra_headers.iter().enumerate() {
        match secret_values(manifest, name) {
            Ok(found) => headers.extend(found),
            Err(kind) => report.problem(&at.key("secretExtraHeaders").index(index), kind),
        }
    }
    let mut certificates = Vec::new();
    if let Some(name) = &source.cert_config_map {
        match config_map_values(manifest, name) {
            Ok(found) => certificates = found,
            Err(kind) => report.problem(&at.key("certConfigMap"), kind),
        }
    }
    Some(HttpImport {
        url: source.url.clone(),
        credentials,
        headers,
        checksum: source.checksum.clone(),
        certificates,
    })
}

fn credentials(manifest: &Manifest, name: &str) -> Result<(String, String), ProblemKind> {
    let secret = manifest.secret(name).ok_or_else(|| ProblemKind::NoSecret {
        name: name.to_owned(),
    })?;
    let user = text(name, "accessKeyId", secret.value("accessKeyId")?)?;
    let password = text(name, "secretKey", secret.value("secretKey")?)?;
    Ok((user, password))
}

fn secret_values(manifest: &Manifest, name: &str) -> Result<Vec<String>, ProblemKind> {
    let secret = manifest.secret(name).ok_or_else(|| ProblemKind::NoSecret {
        name: name.to_owned(),
    })?;
    secret
        .keys()
        .into_iter()
        .map(|key| text(name, key, secret.value(key)?))
        .collect()
}

fn config_map_values(manifest: &Manifest, name: &str) -> Result<Vec<Vec<u8>>, ProblemKind> {
    let map = manifest
        .config_map(name)
        .ok_or_else(|| ProblemKind::NoConfigMap {
            name: name.to_owned(),
        })?;
    map.keys()
        .into_iter()
        .map(|key| Ok(map.value(key)?))
        .collect()
}

/// A value as text, without the line end that editors put behind it.
fn text(name: &str, key: &str, value: Vec<u8>) -> Result<String, ProblemKind> {
    let mut text = String::from_utf8(value).map_err(|_| ProblemKind::NotText {
        name: name.to_owned(),
        key: key.to_owned(),
    })?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

#[cfg(test)]
mod tests;
