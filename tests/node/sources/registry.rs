//! Container images with a disk in them, from Debian's docker-registry.

use longshore_tests::data::{self, image};
use longshore_tests::gate::{Gate, transparent};
use longshore_tests::http::Authority;
use longshore_tests::registry::{Access, Registry, have_all};
use serde_json::json;

use super::super::images::{archive, tar};
use super::super::rig::{case, disk, holds_sparse};
use super::{annotated, authorities, fails, keys, volume};

/// One that wants the user `ann` and the password `s3cret`, with the image `disks/disk:1`, whose one layer has this
/// as `disk/disk.img`. `None` where the tools are missing.
pub(super) fn registry_with(disk: &[u8]) -> Option<Registry> {
    if !have_all() {
        return None;
    }
    let registry = Registry::with(&Access::Password, None);
    let config = json!({"Env": ["INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE=u1.small"]});
    let image = archive(None, &tar(&[("disk/disk.img", disk)]), &config);
    let folder = data::quick_dir();
    let file = folder.path().join("image.tar");
    std::fs::write(&file, image).unwrap();
    let from = format!("docker-archive:{}", file.display());
    registry.copy(&[], &from, "disks/disk:1");
    Some(registry)
}

#[test]
fn images_come_from_registries_that_are_believed_or_named_as_insecure() {
    let Some(case) = case() else { return };
    let disk = disk(41);
    let qcow2 = image(&disk, "qemu-img convert -f raw -O qcow2 disk.raw image");
    let Some(registry) = registry_with(&qcow2) else {
        return;
    };
    let authority = Authority::new();
    let gate = |authority| {
        let upstream = Some(registry.upstream());
        Gate::listen_on(case.address(), upstream, authority, transparent)
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
    fails(&case, "stranger", "ImagePullFailed", &["certificate"]);
    let nothing = json!({"spec": {"config": {"insecureRegistries": null}}});
    case.patch("cdi/cdi", &nothing);
}
