//! The importer pod's program with container images.

use longshore_tests::data::disk;
use serde_json::json;

use super::fake;
use super::image::{EVERY_PACKING, Images, layer_with};
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
