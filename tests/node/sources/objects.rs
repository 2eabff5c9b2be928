//! Objects in stores: versitygw for S3, fake-gcs-server for Google's.

use longshore_tests::data::qcow2;
use longshore_tests::gate::{Gate, transparent};
use longshore_tests::stores::{ACCESS_KEY, Gcs, SECRET_KEY, Versity};
use serde_json::json;

use super::super::rig::{case, disk, holds_sparse};
use super::{annotated, fails, keys, volume};

#[test]
fn objects_of_s3_are_imported_with_the_keys_of_a_secret() {
    let Some(case) = case() else { return };
    let Some(store) = Versity::start() else {
        return;
    };
    let gate = Gate::listen_on(case.address(), Some(store.upstream()), None, transparent);
    let disk = disk(31);
    store.put_bytes("/disks/disk.qcow2", &qcow2(&disk));
    keys(&case, "keys", ACCESS_KEY, SECRET_KEY);
    keys(&case, "wrong", ACCESS_KEY, "never-this-one");
    let (one, other) = (case.folder_for("volume"), case.folder_for("claim"));
    for name in ["missing", "refused"] {
        case.folder_for(name);
    }
    let at = |path: &str| gate.url(path);
    let s3 = |path: &str, keys: &str| json!({"s3": {"url": at(path), "secretRef": keys}});
    volume(&case, "volume", &s3("/disks/disk.qcow2", "keys"));
    volume(&case, "missing", &s3("/disks/none", "keys"));
    volume(&case, "refused", &s3("/disks/disk.qcow2", "wrong"));
    annotated(
        &case,
        "claim",
        &[
            ("import.source", "s3"),
            ("import.endpoint", &at("/disks/disk.qcow2")),
            ("import.secretName", "keys"),
        ],
    );
    case.succeeded("volume");
    holds_sparse(&one, &disk);
    case.filled("claim");
    holds_sparse(&other, &disk);
    fails(&case, "missing", "Error", &["s3", "404", "NoSuchKey"]);
    fails(
        &case,
        "refused",
        "Error",
        &["s3", "403", "SignatureDoesNotMatch"],
    );
    let seen = case.ask(&["get", "dv,pvc,pods,events", "-o", "json"]);
    assert!(!seen.contains(SECRET_KEY) && !seen.contains("never-this-one"));
}

#[test]
fn objects_of_google_are_imported() {
    let Some(case) = case() else { return };
    let gate = Gate::listen_on(case.address(), None, None, transparent);
    let Some(store) = Gcs::behind(&gate) else {
        return;
    };
    let disk = disk(33);
    store.put("disk.raw", &disk);
    let (one, other) = (case.folder_for("volume"), case.folder_for("claim"));
    case.folder_for("missing");
    let gcs = |object: &str| json!({"gcs": {"url": gate.url(&format!("/disks/{object}"))}});
    volume(&case, "volume", &gcs("disk.raw"));
    volume(&case, "missing", &gcs("none"));
    let endpoint = gate.url("/disks/disk.raw");
    annotated(
        &case,
        "claim",
        &[("import.source", "gcs"), ("import.endpoint", &endpoint)],
    );
    case.succeeded("volume");
    holds_sparse(&one, &disk);
    case.filled("claim");
    holds_sparse(&other, &disk);
    fails(&case, "missing", "Error", &["gcs", "404"]);
}
