//! Container images with a disk in them, from Debian's docker-registry.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use longshore_tests::data::image;
use longshore_tests::gate::{Gate, Upstream, transparent};
use longshore_tests::http::Authority;
use longshore_tests::program::{have, run};
use serde_json::json;
use tempfile::TempDir;

use super::super::rig::{case, disk, holds_sparse};
use super::{annotated, authorities, fails, keys, volume};

/// One that wants the user `ann` and the password `s3cret`.
pub(super) struct Registry {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Registry {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // bcrypt of s3cret, with the least work there is.
        let line = "ann:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";
        std::fs::write(at("htpasswd"), line).unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\nauth:\n  htpasswd:\n    realm: r\n    path: {}\n",
            at("data").display(),
            at("htpasswd").display()
        );
        std::fs::write(at("config.yml"), config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .env_remove("OTEL_TRACES_EXPORTER")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listens = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            let end = rest.find(['"', ',']).unwrap_or(rest.len());
            rest.get(..end)?.parse().ok()
        });
        // It ends if nobody takes what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address: listens.expect("docker-registry ended without listening"),
            _folder: folder,
        }
    }

    /// Host and port.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Copies an image there whose one layer has `disk` as `disk/disk.img`.
    pub(super) fn push(&self, disk: &[u8], name: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir(path.join("disk")).unwrap();
        std::fs::write(path.join("disk/disk.img"), disk).unwrap();
        tar(path, "layer.tar", &["disk"]);
        let sum = run(Command::new("sha256sum").arg(path.join("layer.tar")));
        let sum = String::from_utf8(sum).unwrap();
        let layer = format!("sha256:{}", sum.split(' ').next().unwrap());
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Env": ["INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE=u1.small"]},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        });
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        let manifest =
            json!([{"Config": "config.json", "RepoTags": null, "Layers": ["layer.tar"]}]);
        std::fs::write(path.join("manifest.json"), manifest.to_string()).unwrap();
        tar(
            path,
            "image.tar",
            &["manifest.json", "config.json", "layer.tar"],
        );
        let mut skopeo = Command::new("skopeo");
        skopeo.args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
        ]);
        skopeo.arg("--dest-creds=ann:s3cret");
        skopeo.arg(format!(
            "docker-archive:{}",
            path.join("image.tar").display()
        ));
        run(skopeo.arg(format!("docker://{}/{name}", self.address)));
    }
}

fn tar(folder: &Path, archive: &str, names: &[&str]) {
    let mut tar = Command::new("tar");
    tar.current_dir(folder)
        .args(["--create", "--file", archive]);
    run(tar.args(names));
}

#[test]
fn images_come_from_registries_that_are_believed_or_named_as_insecure() {
    let Some(case) = case() else { return };
    if !["docker-registry", "skopeo"].into_iter().all(have) {
        return;
    }
    let registry = Registry::start();
    let disk = disk(41);
    let qcow2 = image(&disk, "qemu-img convert -f raw -O qcow2 disk.raw image");
    registry.push(&qcow2, "disks/disk:1");
    let authority = Authority::new();
    let gate = |authority| {
        let upstream = Upstream::Tcp(registry.address);
        Gate::listen_on(case.address(), Some(upstream), authority, transparent)
    };
    let (secure, plain) = (gate(Some(&authority)), gate(None));
    let at = |gate: &Gate, image: &str| format!("docker://{}/disks/{image}", gate.address());
    keys(&case, "keys", "ann", "s3cret");
    authorities(&case, "authorities", &authority);
    // Nobody else has a registry of that name.
    let insecure = json!({"spec": {"config": {
        "insecureRegistries": [plain.address().to_string()],
    }}});
    case.patch("cdi/cdi", &insecure);
    let path = "--for=jsonpath={.spec.insecureRegistries[0]}";
    let wanted = format!("{path}={}", plain.address());
    case.everywhere(&["wait", "cdiconfig/config", &wanted, "--timeout=60s"]);

    let (one, other) = (case.folder_for("volume"), case.folder_for("claim"));
    for name in ["missing", "closed", "stranger"] {
        case.folder_for(name);
    }
    let image = |image: &str| {
        json!({"registry": {
            "url": at(&secure, image), "secretRef": "keys", "certConfigMap": "authorities",
        }})
    };
    volume(&case, "volume", &image("disk:1"));
    volume(&case, "missing", &image("disk:2"));
    let mut closed = image("disk:1");
    closed["registry"]["secretRef"] = json!(null);
    volume(&case, "closed", &closed);
    let mut stranger = image("disk:1");
    stranger["registry"]["certConfigMap"] = json!(null);
    volume(&case, "stranger", &stranger);
    annotated(
        &case,
        "claim",
        &[
            ("import.source", "registry"),
            ("import.endpoint", &at(&plain, "disk:1")),
            ("import.secretName", "keys"),
        ],
    );
    case.succeeded("volume");
    holds_sparse(&one, &disk);
    let labels = &case.get("pvc/volume")["metadata"]["labels"];
    assert_eq!(
        labels["instancetype.kubevirt.io/default-instancetype"],
        "u1.small"
    );
    case.filled("claim");
    holds_sparse(&other, &disk);
    fails(&case, "missing", "ImagePullFailed", &["disk:2"]);
    fails(&case, "closed", "ImagePullFailed", &["401"]);
    fails(&case, "stranger", "Error", &["certificate"]);
    let nothing = json!({"spec": {"config": {"insecureRegistries": null}}});
    case.patch("cdi/cdi", &nothing);
}
