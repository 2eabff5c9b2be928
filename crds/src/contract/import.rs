//! What an importer is to do.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::vars::{Vars, invalid};
use super::{EnvError, Overhead, Secret, variables};
use crate::Quantity;

/// Most extra headers of one import.
const MOST_HEADERS: usize = 256;

/// One import, as the controller wants it. [`super::Credentials`] travel apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// Where from.
    pub source: Source,
    /// What comes.
    pub content: ContentType,
    /// What the claim requests. `None`: as much as the volume has.
    pub image_size: Option<Quantity>,
    /// What of a volume the filesystem takes.
    pub filesystem_overhead: Overhead,
    /// Blocks are set aside for the whole disk.
    pub preallocation: bool,
    /// Digest of the source's bytes, `ALGO:HEX`, in lower case.
    pub checksum: Option<String>,
    /// Label of the progress metric: the uid of what the import is for.
    pub owner_uid: String,
    /// What a worker that was killed leaves to the next.
    pub resume: Resume,
    /// How the page cache is used.
    pub cache: CacheMode,
    /// Whom to believe.
    pub tls: Tls,
    /// By which way.
    pub proxy: Proxy,
    /// What else a request says.
    pub headers: Headers,
}

/// Where an import comes from. An endpoint may hold a password or a signature, so it is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "lowercase",
    rename_all_fields = "camelCase"
)]
pub enum Source {
    /// A web server.
    Http {
        /// The URL.
        endpoint: Secret,
    },
    /// An S3 object.
    S3 {
        /// The URL, which has bucket and key in its path.
        endpoint: Secret,
    },
    /// An object of Google Cloud Storage.
    Gcs {
        /// `gs://bucket/object`, or a public URL.
        endpoint: Secret,
    },
    /// An image of `OpenStack` Glance; read as a web server is.
    Glance {
        /// The URL.
        endpoint: Secret,
    },
    /// A container image with a disk in it.
    Registry {
        /// `docker://..` or `oci-archive://..`.
        endpoint: Secret,
        /// Processor architecture, as Go names it (`amd64`).
        architecture: Option<String>,
        /// Who pulls.
        pull: Pull,
    },
    /// A disk of oVirt.
    Imageio {
        /// The engine's URL.
        endpoint: Secret,
        /// The disk.
        disk_id: String,
        /// Which of several copies this is.
        checkpoint: Option<Checkpoint>,
    },
    /// A disk of vSphere.
    Vddk {
        /// URL of vCenter or of a host.
        endpoint: Secret,
        /// The disk.
        disk: Vmware,
        /// Which of several copies this is.
        checkpoint: Option<Checkpoint>,
    },
    /// None: a blank disk.
    #[serde(rename = "none")]
    Blank,
}

impl Source {
    /// The kind, as `IMPORTER_SOURCE` spells it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::S3 { .. } => "s3",
            Self::Gcs { .. } => "gcs",
            Self::Glance { .. } => "glance",
            Self::Registry { .. } => "registry",
            Self::Imageio { .. } => "imageio",
            Self::Vddk { .. } => "vddk",
            Self::Blank => "none",
        }
    }

    /// The address, if the source has one.
    pub fn endpoint(&self) -> Option<&Secret> {
        match self {
            Self::Http { endpoint }
            | Self::S3 { endpoint }
            | Self::Gcs { endpoint }
            | Self::Glance { endpoint }
            | Self::Registry { endpoint, .. }
            | Self::Imageio { endpoint, .. }
            | Self::Vddk { endpoint, .. } => Some(endpoint),
            Self::Blank => None,
        }
    }
}

/// Where a disk is in vSphere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vmware {
    /// The machine.
    pub uuid: String,
    /// The disk's file on its datastore.
    pub backing_file: String,
    /// SHA-1 of the server's certificate.
    pub thumbprint: String,
    /// Where the vddk library is mounted.
    pub library: Option<PathBuf>,
    /// File with extra arguments for nbdkit's plugin.
    pub arguments: Option<PathBuf>,
}

/// One of several copies of a disk that is still in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// What to copy.
    pub current: String,
    /// What was copied before: only what changed since is copied. `None`: everything.
    pub previous: Option<String>,
    /// No further copy follows.
    #[serde(rename = "final")]
    pub last: bool,
}

/// Who pulls a container image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Pull {
    /// The importer.
    #[default]
    Pod,
    /// The node's runtime; the image is a container beside the importer's.
    Node {
        /// Appears when that container runs: a line with the folder where the importer finds the disk, and
        /// lines with variables of the image's environment, `NAME=VALUE`.
        ready_file: PathBuf,
        /// Is made when the container may end.
        done_file: PathBuf,
    },
}

/// What comes out of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentType {
    /// A disk.
    #[default]
    Kubevirt,
    /// Files in a tar.
    Archive,
}

impl ContentType {
    /// As `IMPORTER_CONTENTTYPE` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubevirt => "kubevirt",
            Self::Archive => "archive",
        }
    }
}

/// What is written down, so that a worker that was killed is gone on from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// The uid of the claim: what was done for another one is not gone on with.
    pub claim_uid: Option<String>,
    /// Where the journal of a block volume is. `None`: there is none. That of a filesystem volume is
    /// in it, beside the disk.
    pub journal_dir: Option<PathBuf>,
}

/// How the page cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CacheMode {
    /// Through it.
    #[default]
    Writeback,
    /// Past it, where the storage can.
    TryNone,
}

/// Whom to believe to be who they say they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Everyone.
    pub insecure: bool,
    /// Authorities besides the system's.
    pub cert_dir: Option<PathBuf>,
}

/// By which way hosts are reached. Addresses of proxies may hold passwords.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// For http addresses.
    pub http: Option<Secret>,
    /// For https addresses.
    pub https: Option<Secret>,
    /// Hosts that need none, separated by commas.
    pub none_for: Option<String>,
    /// Authorities that vouch for the proxy.
    pub cert_dir: Option<PathBuf>,
}

/// What else a request says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Headers {
    /// `Name: value` each.
    pub extra: Vec<Secret>,
    /// Where Secrets are mounted whose files hold one such line each.
    pub secret_dir: Option<PathBuf>,
}

impl Import {
    /// Reads the environment; `get` reads one variable of it.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, EnvError> {
        let vars = Vars(&get);
        let source = source(&vars)?;
        let content = content(&vars, &source)?;
        let size: Option<Quantity> = vars.parsed(
            variables::IMAGE_SIZE,
            "an amount of bytes above 0, such as 10Gi",
        )?;
        if let Some(size) = &size
            && size.to_u64().is_none_or(|bytes| bytes == 0)
        {
            let expected = "an amount of bytes above 0, such as 10Gi";
            return Err(invalid(variables::IMAGE_SIZE, &size.to_string(), expected));
        }
        let overhead = vars.parsed(
            variables::FILESYSTEM_OVERHEAD,
            "a share from 0 to 1, such as 0.055",
        )?;
        let cache = match vars.text(variables::CACHE_MODE)?.as_deref() {
            None => CacheMode::Writeback,
            Some("TRYNONE") => CacheMode::TryNone,
            Some(other) => {
                return Err(invalid(variables::CACHE_MODE, other, "TRYNONE, or nothing"));
            }
        };
        let secret = |variable| Ok(vars.text(variable)?.map(Secret::from));
        Ok(Self {
            source,
            content,
            image_size: size,
            filesystem_overhead: overhead.unwrap_or_default(),
            preallocation: vars.flag(variables::PREALLOCATION)?,
            checksum: checksum(&vars)?,
            owner_uid: vars.text(variables::OWNER_UID)?.unwrap_or_default(),
            resume: Resume {
                claim_uid: vars.text(variables::CLAIM_UID)?,
                journal_dir: vars.path(variables::JOURNAL_DIR),
            },
            cache,
            tls: Tls {
                insecure: vars.flag(variables::INSECURE_TLS)?,
                cert_dir: vars.path(variables::CERT_DIR),
            },
            proxy: Proxy {
                http: secret(variables::HTTP_PROXY)?,
                https: secret(variables::HTTPS_PROXY)?,
                none_for: vars.text(variables::NO_PROXY)?,
                cert_dir: vars.path(variables::PROXY_CERT_DIR),
            },
            headers: Headers {
                extra: extra_headers(&vars)?,
                secret_dir: vars.path(variables::SECRET_HEADERS_DIR),
            },
        })
    }

    /// The variables that say all this, for the pod's container. Credentials are not among them.
    pub fn to_env(&self) -> Vec<(String, String)> {
        let mut env = Env(Vec::new());
        env.set(variables::SOURCE, self.source.kind());
        if let Some(endpoint) = self.source.endpoint() {
            env.set(variables::ENDPOINT, endpoint.reveal());
        }
        env.set(variables::CONTENT_TYPE, self.content.name());
        env.some(
            variables::IMAGE_SIZE,
            self.image_size.as_ref().map(Quantity::to_string),
        );
        let overhead = self.filesystem_overhead.to_string();
        env.set(variables::FILESYSTEM_OVERHEAD, &overhead);
        env.set(variables::PREALLOCATION, word(self.preallocation));
        env.some(variables::CHECKSUM, self.checksum.clone());
        env.set(variables::OWNER_UID, &self.owner_uid);
        env.some(variables::CLAIM_UID, self.resume.claim_uid.clone());
        env.path(variables::JOURNAL_DIR, self.resume.journal_dir.as_ref());
        if self.cache == CacheMode::TryNone {
            env.set(variables::CACHE_MODE, "TRYNONE");
        }
        env.set(variables::INSECURE_TLS, word(self.tls.insecure));
        env.path(variables::CERT_DIR, self.tls.cert_dir.as_ref());
        let Proxy {
            http,
            https,
            none_for,
            cert_dir,
        } = &self.proxy;
        let reveal = |secret: &Secret| secret.reveal().to_owned();
        env.some(variables::HTTP_PROXY, http.as_ref().map(reveal));
        env.some(variables::HTTPS_PROXY, https.as_ref().map(reveal));
        env.some(variables::NO_PROXY, none_for.clone());
        env.path(variables::PROXY_CERT_DIR, cert_dir.as_ref());
        for (number, header) in self.headers.extra.iter().enumerate() {
            let name = format!("{}{number}", variables::EXTRA_HEADER);
            env.0.push((name, header.reveal().to_owned()));
        }
        env.path(
            variables::SECRET_HEADERS_DIR,
            self.headers.secret_dir.as_ref(),
        );
        self.source.to_env(&mut env);
        env.0
    }
}

fn word(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}

struct Env(Vec<(String, String)>);

impl Env {
    fn set(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    fn some(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.0.push((name.to_owned(), value));
        }
    }

    fn path(&mut self, name: &str, value: Option<&PathBuf>) {
        self.some(name, value.map(|path| path.to_string_lossy().into_owned()));
    }
}

impl Source {
    fn to_env(&self, env: &mut Env) {
        let checkpoint = match self {
            Self::Registry {
                architecture, pull, ..
            } => {
                env.some(variables::REGISTRY_ARCHITECTURE, architecture.clone());
                if let Pull::Node {
                    ready_file,
                    done_file,
                } = pull
                {
                    env.set(variables::PULL_METHOD, "node");
                    env.path(variables::READY_FILE, Some(ready_file));
                    env.path(variables::DONE_FILE, Some(done_file));
                }
                return;
            }
            Self::Imageio {
                disk_id,
                checkpoint,
                ..
            } => {
                env.set(variables::DISK_ID, disk_id);
                checkpoint
            }
            Self::Vddk {
                disk, checkpoint, ..
            } => {
                env.set(variables::UUID, &disk.uuid);
                env.set(variables::BACKING_FILE, &disk.backing_file);
                env.set(variables::THUMBPRINT, &disk.thumbprint);
                env.path(variables::VDDK_DIR, disk.library.as_ref());
                env.path(variables::VDDK_ARGS, disk.arguments.as_ref());
                checkpoint
            }
            Self::Http { .. }
            | Self::S3 { .. }
            | Self::Gcs { .. }
            | Self::Glance { .. }
            | Self::Blank => return,
        };
        if let Some(Checkpoint {
            current,
            previous,
            last,
        }) = checkpoint
        {
            env.set(variables::CURRENT_CHECKPOINT, current);
            env.some(variables::PREVIOUS_CHECKPOINT, previous.clone());
            env.set(variables::FINAL_CHECKPOINT, word(*last));
        }
    }
}

fn source(vars: &Vars<'_>) -> Result<Source, EnvError> {
    let kind = vars.needed(variables::SOURCE, "an import")?;
    let endpoint = |needed_for| {
        vars.needed(variables::ENDPOINT, needed_for)
            .map(Secret::from)
    };
    Ok(match kind.as_str() {
        "http" => Source::Http {
            endpoint: endpoint("an import over HTTP")?,
        },
        "s3" => Source::S3 {
            endpoint: endpoint("an import from S3")?,
        },
        "gcs" => Source::Gcs {
            endpoint: endpoint("an import from Google Cloud Storage")?,
        },
        "glance" => Source::Glance {
            endpoint: endpoint("an import from Glance")?,
        },
        "registry" => Source::Registry {
            endpoint: endpoint("an import from a registry")?,
            architecture: vars.text(variables::REGISTRY_ARCHITECTURE)?,
            pull: pull(vars)?,
        },
        "imageio" => Source::Imageio {
            endpoint: endpoint("an import from imageio")?,
            disk_id: vars.needed(variables::DISK_ID, "an import from imageio")?,
            checkpoint: checkpoint(vars)?,
        },
        "vddk" => Source::Vddk {
            endpoint: endpoint("an import with VDDK")?,
            disk: Vmware {
                uuid: vars.needed(variables::UUID, "an import with VDDK")?,
                backing_file: vars.needed(variables::BACKING_FILE, "an import with VDDK")?,
                thumbprint: vars.needed(variables::THUMBPRINT, "an import with VDDK")?,
                library: vars.path(variables::VDDK_DIR),
                arguments: vars.path(variables::VDDK_ARGS),
            },
            checkpoint: checkpoint(vars)?,
        },
        "none" => Source::Blank,
        _ => {
            return Err(EnvError::UnknownSource {
                source_kind: kind.chars().take(64).collect(),
            });
        }
    })
}

fn pull(vars: &Vars<'_>) -> Result<Pull, EnvError> {
    match vars.text(variables::PULL_METHOD)?.as_deref() {
        None | Some("pod") => Ok(Pull::Pod),
        Some("node") => Ok(Pull::Node {
            ready_file: vars.needed_path(variables::READY_FILE, "a pull by the node")?,
            done_file: vars.needed_path(variables::DONE_FILE, "a pull by the node")?,
        }),
        Some(other) => Err(invalid(variables::PULL_METHOD, other, "pod or node")),
    }
}

fn checkpoint(vars: &Vars<'_>) -> Result<Option<Checkpoint>, EnvError> {
    let previous = vars.text(variables::PREVIOUS_CHECKPOINT)?;
    let Some(current) = vars.text(variables::CURRENT_CHECKPOINT)? else {
        return match previous {
            None => Ok(None),
            Some(_) => Err(EnvError::Missing {
                variable: variables::CURRENT_CHECKPOINT,
                needed_for: "a copy of what changed since IMPORTER_PREVIOUS_CHECKPOINT",
            }),
        };
    };
    Ok(Some(Checkpoint {
        current,
        previous,
        last: vars.flag(variables::FINAL_CHECKPOINT)?,
    }))
}

fn content(vars: &Vars<'_>, source: &Source) -> Result<ContentType, EnvError> {
    let content = match vars.text(variables::CONTENT_TYPE)?.as_deref() {
        None | Some("kubevirt") => ContentType::Kubevirt,
        Some("archive") => ContentType::Archive,
        Some(other) => {
            let expected = "kubevirt or archive";
            return Err(invalid(variables::CONTENT_TYPE, other, expected));
        }
    };
    let only_disks = match source {
        Source::Registry { .. } | Source::Imageio { .. } | Source::Vddk { .. } | Source::Blank => {
            true
        }
        Source::Http { .. } | Source::S3 { .. } | Source::Gcs { .. } | Source::Glance { .. } => {
            false
        }
    };
    if content == ContentType::Archive && only_disks {
        return Err(EnvError::Excluded {
            variable: variables::CONTENT_TYPE,
            value: content.name(),
            source_kind: source.kind(),
        });
    }
    Ok(content)
}

/// The form is checked here, as the webhook does; what it means is the importer's business.
fn checksum(vars: &Vars<'_>) -> Result<Option<String>, EnvError> {
    let Some(text) = vars.text(variables::CHECKSUM)? else {
        return Ok(None);
    };
    let lower = text.to_ascii_lowercase();
    let digits = match lower.split_once(':') {
        Some(("md5", hex)) => (hex, 32),
        Some(("sha1", hex)) => (hex, 40),
        Some(("sha256", hex)) => (hex, 64),
        Some(("sha512", hex)) => (hex, 128),
        _ => ("", 1),
    };
    if digits.0.len() == digits.1 && digits.0.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Some(lower));
    }
    let expected = "md5, sha1, sha256 or sha512, a colon, and the digest in hex";
    Err(invalid(variables::CHECKSUM, &text, expected))
}

fn extra_headers(vars: &Vars<'_>) -> Result<Vec<Secret>, EnvError> {
    let mut headers = Vec::new();
    loop {
        let name = format!("{}{}", variables::EXTRA_HEADER, headers.len());
        let Some(text) = vars.text(&name)? else {
            return Ok(headers);
        };
        if headers.len() == MOST_HEADERS {
            return Err(EnvError::Invalid {
                variable: name,
                value: None,
                expected: "absent: more than 256 extra headers are not sent",
            });
        }
        headers.push(Secret::from(text));
    }
}

#[cfg(test)]
mod tests;
