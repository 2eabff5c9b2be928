//! Objects of S3 and Google Cloud Storage, with what a Secret has for them.

use longshore_tests::data::disk;
use longshore_tests::gate::{Gate, transparent};
use longshore_tests::stores::{ACCESS_KEY, Gcs, SECRET_KEY, Versity};

use super::Pod;

/// A pod with a volume of that size: without one the disk is as large as what is free.
fn pod(source: &str, endpoint: &str) -> Pod {
    Pod::new(source)
        .set("IMPORTER_ENDPOINT", endpoint)
        .set("IMPORTER_IMAGE_SIZE", "1Mi")
}

#[test]
fn an_object_is_imported_with_the_keys_of_its_secret() {
    let Some(versity) = Versity::start() else {
        return;
    };
    let expected = disk(1_048_576, 1);
    versity.put_bytes("/disks/a%20disk.raw", &expected);
    let gate = Gate::listen(Some(versity.upstream()), None, transparent);
    let s3 = || pod("s3", &gate.url("/disks/a%20disk.raw"));
    let by_variables = s3()
        .set("IMPORTER_ACCESS_KEY_ID", ACCESS_KEY)
        .set("IMPORTER_SECRET_KEY", SECRET_KEY);
    let ended = by_variables.run();
    let source = ended.complete().source.as_ref().unwrap();
    assert_eq!(source.name, "s3://disks/a disk.raw");
    assert!(std::fs::read(by_variables.disk()).unwrap() == expected);

    let secret = tempfile::tempdir().unwrap();
    std::fs::write(secret.path().join("accessKeyId"), ACCESS_KEY).unwrap();
    std::fs::write(secret.path().join("secretKey"), format!("{SECRET_KEY}\n")).unwrap();
    let mounted = s3().set("IMPORTER_CREDENTIALS_DIR", secret.path().to_str().unwrap());
    mounted.run().complete();

    let wrong = s3()
        .set("IMPORTER_ACCESS_KEY_ID", ACCESS_KEY)
        .set("IMPORTER_SECRET_KEY", "n0t-the-secret");
    let ended = wrong.run();
    let message = ended.failed(1, "Unauthorized");
    assert!(message.contains("SignatureDoesNotMatch"), "{message}");
    assert!(!ended.stderr.contains("n0t-the-secret"), "{}", ended.stderr);
}

#[test]
fn a_public_object_of_google_is_imported_by_its_url() {
    let gate = Gate::listen(None, None, transparent);
    let Some(gcs) = Gcs::behind(&gate) else {
        return;
    };
    let expected = disk(1_048_576, 2);
    gcs.put("disk.raw", &expected);
    let anonymous = pod("gcs", &gate.url("/disks/disk.raw"));
    anonymous.run().complete();
    assert!(std::fs::read(anonymous.disk()).unwrap() == expected);
    let without = pod("gcs", &gate.url("/disks/disk.raw"))
        .set("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent");
    let ended = without.run();
    let message = ended.failed(1, "InvalidCredentials");
    assert!(message.contains("/nonexistent"), "{message}");
}
