//! Web servers that want headers, and what is told of those that do not answer.

use longshore_tests::http::{Authority, Page};
use longshore_tests::program::digest;
use serde_json::json;

use super::super::rig::{case, disk, holds_sparse, http};
use super::{annotated, fails, secret, volume};

#[test]
fn headers_in_the_open_and_of_a_secret_go_with_each_request() {
    let Some(case) = case() else { return };
    let disk = disk(35);
    let server = case.serve(Page::of(disk.clone()).auth("Bearer s3cret-header"));
    secret(
        &case,
        "headers",
        &json!({"token": "Authorization: Bearer s3cret-header"}),
    );
    let (one, other) = (case.folder_for("volume"), case.folder_for("claim"));
    let mut source = http(&server);
    source["http"]["extraHeaders"] = json!(["X-Of-The-Volume: 1"]);
    source["http"]["secretExtraHeaders"] = json!(["headers"]);
    volume(&case, "volume", &source);
    annotated(
        &case,
        "claim",
        &[
            ("import.endpoint", &server.url("/disk")),
            ("import.extraHeaders.0", "X-Of-The-Claim: 1"),
            ("import.secretExtraHeaders.0", "headers"),
        ],
    );
    case.succeeded("volume");
    holds_sparse(&one, &disk);
    case.filled("claim");
    holds_sparse(&other, &disk);
    let asked = server.log().requests;
    for name in ["x-of-the-volume", "x-of-the-claim"] {
        assert!(asked.iter().any(|request| request.header(name).is_some()));
    }
    let seen = case.ask(&["get", "dv,pvc,pods,events", "-o", "json"]);
    assert!(!seen.contains("s3cret-header"));
}

#[test]
fn what_is_wrong_with_a_server_is_told_so_that_it_can_be_mended() {
    let Some(case) = case() else { return };
    let authority = Authority::new();
    let stranger = case.serve_tls(&authority, Page::of(disk(36)));
    let closed = case.serve(Page::of(disk(36)).auth("Basic nobody-knows"));
    for name in ["stranger", "closed", "nobody", "late", "vmware"] {
        case.folder_for(name);
    }
    volume(&case, "stranger", &http(&stranger));
    volume(&case, "closed", &http(&closed));
    // Nobody listens there: it is the port of nothing.
    let nobody = json!({"http": {"url": format!("http://{}:1/disk", case.address())}});
    volume(&case, "nobody", &nobody);
    let mut late = http(&closed);
    late["http"]["secretRef"] = json!("keys-to-come");
    volume(&case, "late", &late);
    let vmware = json!({"vddk": {
        "url": "https://vcenter.example.org", "uuid": "u", "backingFile": "[ds] a/b.vmdk",
        "thumbprint": "AA:BB", "secretRef": "keys-to-come",
    }});
    volume(&case, "vmware", &vmware);
    // Nothing has failed yet: as upstream has it, that keeps the claim from being bound.
    case.condition("vmware", "Bound", "reason", "AwaitingVDDK");
    let vmware = case.get("dv/vmware")["status"]["conditions"].to_string();
    assert!(vmware.contains("vddk.initimageurl"), "{vmware}");
    fails(&case, "stranger", "Error", &["certificate"]);
    fails(&case, "closed", "Error", &["401"]);
    fails(&case, "nobody", "Error", &["http", "refused"]);
    fails(&case, "late", "FailedMount", &["keys-to-come"]);
}

#[test]
fn a_right_checksum_is_no_obstacle() {
    let Some(case) = case() else { return };
    let disk = disk(37);
    let server = case.serve(Page::of(disk.clone()));
    let folder = case.folder_for("claim");
    annotated(
        &case,
        "claim",
        &[
            ("import.endpoint", &server.url("/disk")),
            ("import.checksum", &digest("sha256", &disk)),
        ],
    );
    case.filled("claim");
    holds_sparse(&folder, &disk);
}
