//! The source of an import, with what it takes to reach it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longshore_crds::contract::{
    Checkpoint, Credentials, EnvError, Import, Pull, Secret, Source as From, SourceIdentity,
    VddkInfo, Vmware, variables,
};
use longshore_transfer::{Cancel, Source, Tally};
use url::Url;

use super::{PodError, pulled};
use crate::{
    BasicAuth, ImageioDisk, ImageioError, RegistryImage, RegistryOptions, S3Keys, Served,
    SourceOptions, VddkDisk, VddkError, gcs_source, imageio_source, parse_header, registry_image,
    s3_source, source_from, source_of_files, vddk_source,
};

/// Where Secrets with headers are mounted unless the environment says otherwise.
const HEADERS: &str = "/extraheaders";
/// Largest file of a mounted Secret; the API server has none larger.
const MOST_SECRET: u64 = 1 << 20;
/// All that upstream's image for its tests has in place of VMware's library: a plugin of nbdkit that takes the
/// same arguments. Upstream's importer prefers it where it is there, and so do we.
const TEST_PLUGIN: &str = "/opt/testing/libvddk-test-plugin.so";

/// What a source is opened with.
pub(super) struct Access {
    pub(super) cancel: Cancel,
    pub(super) retries: Tally,
}

/// A source, and what is known of it.
pub(super) struct Opened {
    pub(super) source: Box<dyn Source>,
    /// What it wants the disk's claim to be labelled with.
    pub(super) labels: BTreeMap<String, String>,
    /// Which state of it this is.
    pub(super) identity: SourceIdentity,
    /// What VMware's library tells of itself.
    pub(super) served: Option<Served>,
}

impl Opened {
    pub(super) fn of(source: Box<dyn Source>) -> Self {
        let identity = SourceIdentity {
            name: source.name(),
            length: source.len(),
            state: source.fingerprint().map(|fingerprint| fingerprint.state),
        };
        Self {
            source,
            labels: BTreeMap::new(),
            identity,
            served: None,
        }
    }

    fn of_image(image: RegistryImage) -> Self {
        let mut opened = Self::of(image.source);
        opened.labels = image.labels;
        opened.identity.state = Some(image.digest);
        opened
    }
}

/// A disk image.
pub(super) fn open(
    import: &Import,
    credentials: &Credentials,
    access: &Access,
) -> Result<Opened, PodError> {
    let spec = spec(import);
    let options = options(import, credentials, access)?;
    let opened = match &import.source {
        From::Registry {
            pull: Pull::Pod, ..
        } => registry_image(&spec, &options).map(Opened::of_image),
        From::Registry {
            pull: Pull::Node { ready_file, .. },
            ..
        } => return pulled::open(import, ready_file, &access.cancel),
        From::Http { .. } | From::Glance { .. } => source_from(&spec, &options).map(Opened::of),
        From::S3 { .. } => s3_source(&spec, &options).map(Opened::of),
        From::Gcs { .. } => gcs_source(&spec, &options).map(Opened::of),
        From::Vddk {
            endpoint,
            disk,
            checkpoint,
        } => vmware(endpoint.reveal(), disk, checkpoint.as_ref(), &options),
        From::Imageio {
            endpoint,
            disk_id,
            checkpoint,
        } => ovirt(endpoint.reveal(), disk_id, checkpoint.as_ref(), &options).map(Opened::of),
        From::Blank => Err(crate::Error::NotYet {
            scheme: import.source.kind().to_owned(),
        }),
    };
    opened.map_err(|source| connect(import, source))
}

/// A disk of oVirt: as it is, as it was at a snapshot, or what that has on top of the one before.
fn ovirt(
    endpoint: &str,
    disk: &str,
    checkpoint: Option<&Checkpoint>,
    options: &SourceOptions,
) -> Result<Box<dyn Source>, crate::Error> {
    let refuse = |why: &str| crate::Error::Imageio {
        name: format!("the oVirt disk {disk}"),
        source: ImageioError::Address {
            why: why.to_owned(),
        },
    };
    let engine = Url::parse(endpoint).map_err(|e| refuse(&e.to_string()))?;
    let auth = options.basic_auth.clone();
    let auth = auth.ok_or_else(|| refuse("there are no user and password for the engine"))?;
    let mut wanted = ImageioDisk::new(engine, auth, disk);
    wanted.checkpoint = checkpoint.map(|of| crate::Checkpoint::Snapshot {
        current: of.current.clone(),
        previous: of.previous.clone(),
    });
    imageio_source(&wanted, options)
}

/// What the library told of the other side, if it did.
pub(super) fn vddk_info(served: &Served) -> Option<VddkInfo> {
    let (version, host) = (served.version(), served.host());
    (version.is_some() || host.is_some()).then(|| VddkInfo {
        version: version.unwrap_or_default(),
        host: host.unwrap_or_default(),
    })
}

/// A disk of vSphere: as it is, as it was at a checkpoint, or what changed since the one before.
fn vmware(
    endpoint: &str,
    disk: &Vmware,
    checkpoint: Option<&Checkpoint>,
    options: &SourceOptions,
) -> Result<Opened, crate::Error> {
    let refuse = |why: &str| crate::Error::Vddk {
        name: "the disk of a VMware machine".to_owned(),
        source: VddkError::Address {
            why: why.to_owned(),
        },
    };
    let url = Url::parse(endpoint).map_err(|e| refuse(&e.to_string()))?;
    let server = url.host_str().ok_or_else(|| refuse("it names no server"))?;
    let machine = disk.uuid.strip_prefix("moref=").unwrap_or(&disk.uuid);
    let auth = options.basic_auth.clone();
    let auth = auth.ok_or_else(|| refuse("there are no user and password for it"))?;
    let mut wanted = VddkDisk::new(server, auth, machine, &disk.backing_file);
    wanted.port = url.port();
    wanted.thumbprint = Some(disk.thumbprint.clone());
    wanted.config.clone_from(&disk.arguments);
    wanted.plugin = Some(PathBuf::from(TEST_PLUGIN)).filter(|plugin| plugin.exists());
    if let Some(library) = &disk.library {
        wanted.libdir.clone_from(library);
    }
    if let Some(checkpoint) = checkpoint {
        wanted.snapshot = Some(checkpoint.current.clone());
        wanted.previous.clone_from(&checkpoint.previous);
    }
    let mut opened = vddk_source(&wanted, None, options).map(Opened::of)?;
    opened.served = Some(wanted.served);
    Ok(opened)
}

/// A stream of files: an archive is not searched for a disk.
pub(super) fn open_files(
    import: &Import,
    credentials: &Credentials,
    access: &Access,
) -> Result<Opened, PodError> {
    let spec = spec(import);
    let options = options(import, credentials, access)?;
    let opened = match &import.source {
        From::Http { .. } | From::Glance { .. } => source_of_files(&spec, &options).map(Opened::of),
        From::Gcs { .. } => {
            crate::gcs::open(&spec, &options).map(|object| Opened::of(Box::new(object)))
        }
        From::S3 { .. } => {
            crate::s3::open(&spec, &options).map(|object| Opened::of(Box::new(object)))
        }
        // The contract lets no archive come from the rest.
        From::Registry { .. } | From::Imageio { .. } | From::Vddk { .. } | From::Blank => {
            Err(crate::Error::NotYet {
                scheme: import.source.kind().to_owned(),
            })
        }
    };
    opened.map_err(|source| connect(import, source))
}

pub(super) fn connect(import: &Import, source: crate::Error) -> PodError {
    PodError::Connect {
        kind: import.source.kind(),
        source: Box::new(source),
    }
}

/// The address, with a scheme that tells the kind.
fn spec(import: &Import) -> String {
    let endpoint = import.source.endpoint();
    endpoint.map_or("", |e| e.reveal()).to_owned()
}

fn options(
    import: &Import,
    credentials: &Credentials,
    access: &Access,
) -> Result<SourceOptions, PodError> {
    let mut options = SourceOptions {
        insecure: import.tls.insecure,
        cancel: access.cancel.clone(),
        tally: access.retries.clone(),
        ..SourceOptions::default()
    };
    options.ca.extend(import.tls.cert_dir.clone());
    options.proxy_ca.extend(import.proxy.cert_dir.clone());
    if let From::Registry {
        endpoint,
        architecture,
        pull: Pull::Pod,
    } = &import.source
    {
        options.registry = registry(import, credentials, endpoint, architecture.as_deref())?;
    }
    let keys = Keys::of(credentials)?;
    let secret = keys.secret.unwrap_or_default();
    match (&import.source, keys.id.filter(|id| !id.is_empty())) {
        (From::S3 { .. }, Some(access_key_id)) => {
            options.objects.s3_keys = Some(S3Keys {
                access_key_id,
                secret_access_key: secret,
                session_token: keys.token,
            });
        }
        // Google knows keys of its own.
        (From::Gcs { .. }, _) => options.objects.google_key.clone_from(&credentials.google),
        (_, Some(user)) => {
            options.basic_auth = Some(BasicAuth {
                user,
                password: secret,
            });
        }
        (_, None) => {}
    }
    for header in &import.headers.extra {
        options
            .headers
            .push(parse_header(header.reveal()).map_err(|e| connect(import, e))?);
    }
    let mounted = import.headers.secret_dir.as_deref();
    for text in secret_headers(mounted.unwrap_or_else(|| Path::new(HEADERS)))? {
        options
            .headers
            .push(parse_header(&text).map_err(|e| connect(import, e))?);
    }
    Ok(options)
}

/// What only registries need.
fn registry(
    import: &Import,
    credentials: &Credentials,
    endpoint: &Secret,
    architecture: Option<&str>,
) -> Result<RegistryOptions, PodError> {
    let login = credentials.directory.as_ref();
    let login = login.map(|directory| directory.join(Credentials::DOCKER_CONFIG_FILE));
    let platform = architecture.map(|architecture| {
        let platform = format!("linux/{architecture}").parse();
        platform.map_err(|_| EnvError::Invalid {
            variable: variables::REGISTRY_ARCHITECTURE.to_owned(),
            value: Some(architecture.to_owned()),
            expected: "an architecture, such as arm64",
        })
    });
    let mut insecure = Vec::new();
    if import.tls.insecure {
        let place = endpoint.reveal().split_once("://").map(|(_, place)| place);
        let host = place.and_then(|place| place.split('/').next());
        insecure.extend(host.and_then(|host| host.parse().ok()));
    }
    Ok(RegistryOptions {
        auth_file: login.filter(|login| login.exists()),
        platform: platform.transpose()?,
        insecure,
        ..RegistryOptions::default()
    })
}

/// Name and password, or access key, from the environment or a mounted Secret.
struct Keys {
    id: Option<String>,
    secret: Option<String>,
    token: Option<String>,
}

impl Keys {
    fn of(credentials: &Credentials) -> Result<Self, PodError> {
        let mounted = |name: &str| {
            let path = credentials.directory.as_ref().map(|dir| dir.join(name));
            path.filter(|path| path.exists())
                .map(|path| read_secret(&path))
                .transpose()
        };
        let text = |secret: &Secret| secret.reveal().to_owned();
        Ok(Self {
            id: match &credentials.access_key_id {
                Some(id) => Some(text(id)),
                None => mounted(Credentials::ACCESS_KEY_ID_FILE)?,
            },
            secret: match &credentials.secret_key {
                Some(secret) => Some(text(secret)),
                None => mounted(Credentials::SECRET_KEY_FILE)?,
            },
            token: match &credentials.session_token {
                Some(token) => Some(text(token)),
                None => mounted(Credentials::SESSION_TOKEN_FILE)?,
            },
        })
    }
}

fn read_secret(path: &Path) -> Result<String, PodError> {
    use std::io::Read;
    let failed = |source| PodError::Secret {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MOST_SECRET)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The lines in files of mounted Secrets: `DIR/N/KEY`, in the order of N and of KEY.
fn secret_headers(directory: &Path) -> Result<Vec<String>, PodError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut headers = Vec::new();
    for mount in listed(directory)? {
        if !mount.is_dir() {
            continue;
        }
        for file in listed(&mount)? {
            // `..data` and the directory it leads to are how the kubelet swaps Secrets.
            if file.is_file() {
                let text = read_secret(&file)?;
                if !text.is_empty() {
                    headers.push(text);
                }
            }
        }
    }
    Ok(headers)
}

fn listed(directory: &Path) -> Result<Vec<PathBuf>, PodError> {
    let failed = |source| PodError::Secret {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b"..") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_secrets_give_a_header_for_each_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        for (path, text) in [("0/..2026/b", "B: 2\n"), ("1/a", "A: 1"), ("1/empty", "\n")] {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), text).unwrap();
        }
        std::os::unix::fs::symlink("..2026", at("0/..data")).unwrap();
        std::os::unix::fs::symlink("..data/b", at("0/b")).unwrap();
        let headers = secret_headers(directory.path()).unwrap();
        assert_eq!(headers, ["B: 2", "A: 1"]);
        assert!(secret_headers(&at("none")).unwrap().is_empty());
    }
}
