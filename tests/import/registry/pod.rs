//! The importer pod's program with container images.

use longshore_tests::data::disk;
use longshore_tests::registry::{Access, Registry};
use serde_json::json;

use super::image::{EVERY_PACKING, Images, Packing, layer_with};
use super::{fake, have_all, shown};
use crate::pod::Pod;

#[test]
fn a_pod_labels_the_disk_as_its_image_says() {
    let bytes = disk(400_000, 1);
    let mut images = Images::default();
    let settings = json!({"Env": [
        "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE=u1.small",
        "PATH=/bin",
    ]});
    let layer = layer_with(&bytes);
    let image = images.image(&[(&layer, EVERY_PACKING[1])], &settings);
    images.tag("v1", image);
    let (server, _) = fake(&images);
    let pod = || {
        let endpoint = format!("docker://{}/r:v1", server.address());
        Pod::new("registry")
            .set("IMPORTER_ENDPOINT", &endpoint)
            .set("IMPORTER_IMAGE_SIZE", "4Mi")
            .set("INSECURE_TLS", "true")
    };
    let done = pod();
    let ended = done.run();
    let end = ended.complete();
    let label = end
        .labels
        .get("instancetype.kubevirt.io/default-instancetype");
    assert_eq!(label.map(String::as_str), Some("u1.small"));
    assert_eq!(end.labels.len(), 1);
    let state = end.source.as_ref().unwrap().state.as_deref().unwrap();
    assert!(state.starts_with("sha256:"), "{state}");
    assert!(std::fs::read(done.disk()).unwrap()[..bytes.len()] == bytes);
    let ended = pod()
        .set("IMPORTER_REGISTRY_IMAGE_ARCHITECTURE", "a b")
        .run();
    let message = ended.failed(1, "InvalidEnvironment");
    assert!(
        message.contains("IMPORTER_REGISTRY_IMAGE_ARCHITECTURE"),
        "{message}"
    );
}

#[test]
fn a_pod_pulls_with_its_mounted_secret_and_tells_labels_and_digest() {
    if !have_all() {
        return;
    }
    let expected = disk(1 << 20, 1);
    let mut images = Images::default();
    let env = ["INSTANCETYPE_KUBEVIRT_IO_DEFAULT_PREFERENCE=fedora"];
    let layer = layer_with(&expected);
    let layers = [(layer.as_slice(), Packing::Gzip)];
    let (amd64, arm64) = (
        images.image(&layers, &json!({ "Env": env })),
        images.image(&[(&layer_with(b"other"), Packing::Gzip)], &json!({})),
    );
    let index = images.index(&[(&arm64, "linux/arm64"), (&amd64, "linux/amd64")]);
    images.tag("t", index);
    let registry = Registry::with(&Access::Password, None);
    images.push(&registry, "t", "team/a:t");
    let pod = |architecture: &str| {
        Pod::new("registry")
            .set("IMPORTER_ENDPOINT", &registry.name("team/a:t"))
            .set("IMPORTER_IMAGE_SIZE", "1Mi")
            .set("INSECURE_TLS", "true")
            .set("IMPORTER_REGISTRY_IMAGE_ARCHITECTURE", architecture)
    };
    let mounted = tempfile::tempdir().unwrap();
    // ann:s3cret
    let login = json!({ "auths": { registry.address(): { "auth": "YW5uOnMzY3JldA==" } } });
    let file = mounted.path().join(".dockerconfigjson");
    std::fs::write(file, login.to_string()).unwrap();
    let secret = |pod: Pod| pod.set("IMPORTER_CREDENTIALS_DIR", shown(mounted.path()));
    let password = |pod: Pod| {
        pod.set("IMPORTER_ACCESS_KEY_ID", "ann")
            .set("IMPORTER_SECRET_KEY", "s3cret")
    };
    for pod in [secret(pod("amd64")), password(pod("amd64"))] {
        let ended = pod.run();
        let end = ended.complete();
        let labels: Vec<_> = end.labels.iter().collect();
        assert_eq!(labels.len(), 1, "{labels:?}");
        assert_eq!(
            end.labels["instancetype.kubevirt.io/default-preference"],
            "fedora"
        );
        let state = end.source.as_ref().unwrap().state.clone();
        assert_eq!(state.as_deref(), amd64["digest"].as_str());
        // Not grown to all of the volume: that would be more than fits into memory.
        assert_eq!(std::fs::metadata(pod.disk()).unwrap().len(), 1 << 20);
        assert_eq!(std::fs::read(pod.disk()).unwrap(), expected);
    }
    let refused = secret(pod("s390x")).run();
    let message = refused.failed(1, "NoImageForPlatform");
    let upstream = "Unable to process data: Unable to transfer source data to scratch space: \
        Failed to read registry image: Error retrieving image: choosing image instance: \
        no image found in image index for architecture \"s390x\", variant \"\", OS \"linux\"";
    assert!(message.starts_with(upstream), "{message}");
    let refused = pod("amd64").run();
    let message = refused.failed(1, "Unauthorized");
    assert!(
        message.contains("Unable to connect to registry data source"),
        "{message}"
    );
}
