//! Names of the importer pod's environment variables. The first group is upstream's; docs/importer-pod.md
//! says what each holds.

/// `http`, `s3`, `gcs`, `glance`, `registry`, `imageio`, `vddk` or `none` (a blank disk).
pub const SOURCE: &str = "IMPORTER_SOURCE";
/// Address of the source.
pub const ENDPOINT: &str = "IMPORTER_ENDPOINT";
/// `kubevirt` (a disk) or `archive` (files).
pub const CONTENT_TYPE: &str = "IMPORTER_CONTENTTYPE";
/// What the claim requests, a quantity.
pub const IMAGE_SIZE: &str = "IMPORTER_IMAGE_SIZE";
/// Label of the progress metric.
pub const OWNER_UID: &str = "OWNER_UID";
/// Share of a volume that its filesystem may take for itself, `0` to `1`.
pub const FILESYSTEM_OVERHEAD: &str = "FILESYSTEM_OVERHEAD";
/// `true` accepts any certificate.
pub const INSECURE_TLS: &str = "INSECURE_TLS";
/// `true` sets blocks aside for the whole disk.
pub const PREALLOCATION: &str = "PREALLOCATION";
/// `TRYNONE`: past the page cache, where the storage can.
pub const CACHE_MODE: &str = "CACHE_MODE";
/// User name or access key, out of a Secret.
pub const ACCESS_KEY_ID: &str = "IMPORTER_ACCESS_KEY_ID";
/// Password or secret key, out of a Secret.
pub const SECRET_KEY: &str = "IMPORTER_SECRET_KEY";
/// A mounted service account key.
pub const GOOGLE_CREDENTIALS: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// Directory of authorities to trust besides the system's.
pub const CERT_DIR: &str = "IMPORTER_CERT_DIR";
/// The same for the proxy.
pub const PROXY_CERT_DIR: &str = "IMPORTER_PROXY_CERT_DIR";
/// Proxy of http addresses.
pub const HTTP_PROXY: &str = "http_proxy";
/// Proxy of https addresses.
pub const HTTPS_PROXY: &str = "https_proxy";
/// Hosts that are reached without a proxy.
pub const NO_PROXY: &str = "no_proxy";
/// imageio: the disk.
pub const DISK_ID: &str = "IMPORTER_DISK_ID";
/// vddk: the machine.
pub const UUID: &str = "IMPORTER_UUID";
/// vddk: the disk's file.
pub const BACKING_FILE: &str = "IMPORTER_BACKING_FILE";
/// vddk: digest of the server's certificate.
pub const THUMBPRINT: &str = "IMPORTER_THUMBPRINT";
/// Warm migration: the checkpoint to copy.
pub const CURRENT_CHECKPOINT: &str = "IMPORTER_CURRENT_CHECKPOINT";
/// Warm migration: the checkpoint copied before.
pub const PREVIOUS_CHECKPOINT: &str = "IMPORTER_PREVIOUS_CHECKPOINT";
/// Warm migration: `true` for the last one.
pub const FINAL_CHECKPOINT: &str = "IMPORTER_FINAL_CHECKPOINT";
/// registry: `pod` or `node`.
pub const PULL_METHOD: &str = "IMPORTER_PULL_METHOD";
/// registry, node pull: appears when the image's container runs, and tells where its disk is.
pub const READY_FILE: &str = "IMPORTER_READY_FILE";
/// registry, node pull: made when the image's container may end.
pub const DONE_FILE: &str = "IMPORTER_DONE_FILE";
/// registry: processor architecture of the image, as Go names it.
pub const REGISTRY_ARCHITECTURE: &str = "IMPORTER_REGISTRY_IMAGE_ARCHITECTURE";
/// `ALGO:HEX` of the source's bytes.
pub const CHECKSUM: &str = "IMPORTER_CHECKSUM";
/// Extra request headers: this and a number from 0.
pub const EXTRA_HEADER: &str = "IMPORTER_EXTRA_HEADER_";

/// Ours: what is logged, as in `RUST_LOG`.
pub const LOG: &str = "LONGSHORE_LOG";
/// Ours: uid of the claim, to which a journal is bound.
pub const CLAIM_UID: &str = "IMPORTER_CLAIM_UID";
/// Ours: directory for the journal of a block volume.
pub const JOURNAL_DIR: &str = "IMPORTER_JOURNAL_DIR";
/// Ours: directory under which Secrets with extra headers are mounted, one header in each file.
pub const SECRET_HEADERS_DIR: &str = "IMPORTER_SECRET_EXTRA_HEADERS_DIR";
/// Ours: token that goes with temporary S3 keys, out of a Secret.
pub const SESSION_TOKEN: &str = "IMPORTER_SESSION_TOKEN";
/// Ours: a mounted Secret whose files are named as its keys (`accessKeyId`, `secretKey`,
/// `sessionToken`, `.dockerconfigjson`).
pub const CREDENTIALS_DIR: &str = "IMPORTER_CREDENTIALS_DIR";
/// Ours: directory in which the vddk library is mounted.
pub const VDDK_DIR: &str = "IMPORTER_VDDK_DIR";
/// Ours: file with extra arguments for the vddk plugin.
pub const VDDK_ARGS: &str = "IMPORTER_VDDK_ARGS_FILE";
