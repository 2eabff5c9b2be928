//! Servers at the far end other than nginx: a store of objects, and a registry, filled with a disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::net::{Line, Running, done};

/// What opens the store.
pub(super) const ACCESS_KEY: &str = "LONGSHOREBENCH";
pub(super) const SECRET_KEY: &str = "of-a-store-that-lives-for-minutes";
pub(super) const REGION: &str = "us-east-1";

const BUCKET: &str = "disks";
const IMAGE: &str = "disk:1";

/// What longshore is told to import, before `address` was put in front of it.
pub(super) fn s3_source(address: &str) -> Vec<String> {
    let endpoint = format!("http://{address}");
    vec![
        format!("s3://{BUCKET}/disk.raw"),
        "--endpoint".to_owned(),
        endpoint,
    ]
}

/// The same for the registry.
pub(super) fn registry_source(address: &str) -> Vec<String> {
    vec![
        format!("docker://{address}/{IMAGE}"),
        "--insecure-registry".to_owned(),
        address.to_owned(),
    ]
}

/// versitygw with `disk` in a bucket.
pub(super) fn start_s3(
    line: &Line,
    program: &Path,
    dir: &Path,
    port: u16,
    disk: &Path,
) -> Result<Running> {
    let root = dir.join("objects");
    fs::create_dir_all(&root).context("making a place for objects")?;
    let mut server = line.command(program);
    server
        .env("ROOT_ACCESS_KEY", ACCESS_KEY)
        .env("ROOT_SECRET_KEY", SECRET_KEY);
    server.args(["--port", &format!("127.0.0.1:{port}"), "--region", REGION]);
    // Without being told it closes every connection after one answer, which S3 does not.
    server.args(["--keep-alive", "--quiet", "posix"]).arg(&root);
    let mut server = Running::start(&mut server)?;
    server.wait_in(line, port)?;
    let put = |path: &str, more: &[&str]| -> Result<()> {
        let mut curl = line.command(Path::new("curl"));
        curl.args(["-sSf", "--aws-sigv4", &format!("aws:amz:{REGION}:s3")]);
        curl.args(["--user", &format!("{ACCESS_KEY}:{SECRET_KEY}")]);
        curl.args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
        curl.args(["-H", "Expect:"]).args(more);
        done(curl.arg(format!("http://127.0.0.1:{port}/{path}")))
    };
    put(BUCKET, &["-X", "PUT"])?;
    let file = disk.to_str().context("a path that is no text")?;
    put(&format!("{BUCKET}/disk.raw"), &["-T", file])?;
    Ok(server)
}

/// Debian's docker-registry with `disk` in an image of one layer, which is not packed.
pub(super) fn start_registry(line: &Line, dir: &Path, port: u16, disk: &Path) -> Result<Running> {
    let config = dir.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  \
         addr: 127.0.0.1:{port}\n",
        dir.join("registry").display()
    );
    fs::write(&config, text).context("configuring the registry")?;
    let mut server = line.command(Path::new("docker-registry"));
    let mut server = Running::start(server.arg("serve").arg(&config))?;
    server.wait_in(line, port)?;
    let layout = dir.join("layout");
    lay_out(&layout, disk)?;
    let mut skopeo = line.command(Path::new("skopeo"));
    skopeo.args(["copy", "--dest-tls-verify=false", "--preserve-digests"]);
    skopeo.arg(format!("oci:{}:1", layout.display()));
    done(skopeo.arg(format!("docker://127.0.0.1:{port}/{IMAGE}")))?;
    fs::remove_dir_all(&layout).context("removing the layout")?;
    Ok(server)
}

/// An OCI layout: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.
fn lay_out(layout: &Path, disk: &Path) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).context("making a layout")?;
    let tar = layout.join("layer.tar");
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(disk.parent().context("a disk in /")?);
    pack.args(["--transform", "s,^,disk/,", "-cf"]).arg(&tar);
    done(pack.arg(disk.file_name().context("a disk without a name")?))?;
    let layer = Blob::keep(&blobs, &tar)?;
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    });
    let config = Blob::write(&blobs, layout, &config)?;
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
    });
    let manifest = Blob::write(&blobs, layout, &manifest)?;
    let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    if let Some(entry) = entry.as_object_mut() {
        let name = serde_json::json!({"org.opencontainers.image.ref.name": "1"});
        entry.insert("annotations".to_owned(), name);
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), index.to_string()).context("writing the index")?;
    let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
    fs::write(layout.join("oci-layout"), version).context("writing the layout's version")
}

struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    /// Moves `file` to where its digest says.
    fn keep(blobs: &Path, file: &PathBuf) -> Result<Self> {
        let output = Command::new("sha256sum").arg(file).output();
        let output = output.context("starting sha256sum")?;
        let text = String::from_utf8(output.stdout).context("reading a digest")?;
        let hex = text.split_whitespace().next().context("no digest came")?;
        let size = fs::metadata(file).context("looking at a blob")?.size();
        fs::rename(file, blobs.join(hex)).context("keeping a blob")?;
        Ok(Self {
            digest: format!("sha256:{hex}"),
            size,
        })
    }

    fn write(blobs: &Path, layout: &Path, json: &serde_json::Value) -> Result<Self> {
        let file = layout.join("blob");
        fs::write(&file, json.to_string()).context("writing a blob")?;
        Self::keep(blobs, &file)
    }

    fn descriptor(&self, kind: &str) -> serde_json::Value {
        serde_json::json!({"mediaType": kind, "digest": self.digest, "size": self.size})
    }
}
