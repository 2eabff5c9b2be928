//! What a real registry serves, and what it wants to see.

use std::process::Command;

use longshore_importer::{BasicAuth, SourceOptions};
use longshore_tests::data::{disk, qcow2};
use longshore_tests::http::{Authority, Page, Server};
use longshore_tests::program::{have, run};
use longshore_tests::registry::{Access, Registry};
use serde_json::json;

use super::image::{EVERY_PACKING, Images, Packing, layer_with};
use super::{gives, have_all, insecure, pulled, refusal, shown};
use crate::Import;

#[test]
fn raw_and_qcow2_disks_come_out_of_layers_of_every_compression() {
    if !have_all() || !have("qemu-img") {
        return;
    }
    let registry = Registry::start();
    let options = insecure(&[registry.address()]);
    let expected = disk(3 << 20, 1);
    for packing in EVERY_PACKING {
        for (kind, image) in [("raw", expected.clone()), ("qcow2", qcow2(&expected))] {
            println!("{packing:?} {kind}");
            let images = Images::of_disk("t", &image, packing);
            let name = format!("a/b-c:{kind}-{}", format!("{packing:?}").to_lowercase());
            images.push(&registry, "t", &name);
            gives(&registry.name(&name), &options, &expected);
        }
    }
}

#[test]
fn a_large_layer_comes_whole_and_is_named_by_its_digest() {
    if !have_all() {
        return;
    }
    let registry = Registry::start();
    let expected = disk(40 << 20, 2);
    let images = Images::of_disk("t", &expected, Packing::Gzip);
    images.push(&registry, "t", "big:latest");
    let options = insecure(&[registry.address()]);
    let image = pulled(&registry.name("big"), &options);
    let by_digest = registry.name(&format!("big@{}", image.digest));
    gives(&by_digest, &options, &expected);
    // The digest counts, whatever the tag.
    let both = registry.name(&format!("big:nowhere@{}", image.digest));
    gives(&both, &options, &expected);
    let other = registry.name(&format!("big@sha256:{}", "0".repeat(64)));
    let refused = refusal(&other, &options).says("404 Not Found");
    assert_eq!(refused.exit_code, 1);
}

#[test]
fn plain_http_is_for_hosts_that_were_named() {
    if !have_all() {
        return;
    }
    let registry = Registry::start();
    Images::of_disk("t", b"x", Packing::Gzip).push(&registry, "t", "a:t");
    refusal(&registry.name("a:t"), &crate::options()).says("safely");
    refusal(&registry.name("a:t"), &insecure(&["127.0.0.1:1"])).says("safely");
}

#[test]
fn labels_come_from_environment_and_annotations() {
    if !have_all() {
        return;
    }
    let registry = Registry::start();
    let mut images = Images::default();
    let env = [
        "PATH=/bin",
        "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE=u1.small",
    ];
    let layer = layer_with(b"x");
    let mut manifest = images.manifest(&[(&layer, Packing::Gzip)], &json!({ "Env": env }));
    manifest["annotations"] = json!({ "instancetype.kubevirt.io/default-preference": "fedora" });
    let image = images.document(&manifest);
    images.tag("t", image);
    images.push(&registry, "t", "a:t");
    let found = pulled(&registry.name("a:t"), &insecure(&[registry.address()]));
    let labels: Vec<_> = found
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(
        labels,
        [
            "instancetype.kubevirt.io/default-instancetype=u1.small",
            "instancetype.kubevirt.io/default-preference=fedora"
        ]
    );
}

fn with_password(mut options: SourceOptions, password: &str) -> SourceOptions {
    options.basic_auth = Some(BasicAuth {
        user: "ann".to_owned(),
        password: password.to_owned(),
    });
    options
}

#[test]
fn a_password_is_given_by_the_user_or_by_a_file() {
    if !have_all() {
        return;
    }
    let expected = disk(500_000, 3);
    let registry = Registry::with(&Access::Password, None);
    Images::of_disk("t", &expected, Packing::Zstd).push(&registry, "t", "team/a:t");
    let name = registry.name("team/a:t");
    let plain = insecure(&[registry.address()]);
    gives(&name, &with_password(plain.clone(), "s3cret"), &expected);
    for options in [plain.clone(), with_password(plain.clone(), "wrong")] {
        let refused = refusal(&name, &options).says("401 Unauthorized");
        assert!(!refused.text.contains("wrong"), "{}", refused.text);
        let cause = refused.at_once.unwrap();
        assert_eq!(cause.reason(), "Unauthorized");
        assert_eq!(cause.retry(), longshore_importer::Retry::Unauthorized);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    for (key, works) in [
        (registry.address().to_owned(), true),
        (format!("http://{}/v2/", registry.address()), true),
        (format!("{}/team", registry.address()), true),
        (format!("{}/other", registry.address()), false),
        ("127.0.0.1".to_owned(), false),
    ] {
        // ann:s3cret
        let auths = json!({ "auths": { key.clone(): { "auth": "YW5uOnMzY3JldA==" } } });
        std::fs::write(file.path(), auths.to_string()).unwrap();
        let mut options = plain.clone();
        options.registry.auth_file = Some(file.path().to_owned());
        if works {
            gives(&name, &options, &expected);
        } else {
            refusal(&name, &options).says("401");
        }
    }
}

#[test]
fn certificates_are_checked_unless_the_host_is_named() {
    if !have_all() {
        return;
    }
    let authority = Authority::new();
    let registry = Registry::with(&Access::Everybody, Some(&authority));
    let expected = disk(300_000, 4);
    Images::of_disk("t", &expected, Packing::Gzip).push(&registry, "t", "a:t");
    let name = registry.name("a:t");
    let file = tempfile::NamedTempFile::new().unwrap();
    authority.write(file.path());
    let trusting = SourceOptions {
        ca: vec![file.path().to_owned()],
        ..crate::options()
    };
    gives(&name, &trusting, &expected);
    gives(&name, &insecure(&[registry.address()]), &expected);
    let refused = refusal(&name, &crate::options()).says("--ca");
    assert_eq!(refused.at_once.unwrap().reason(), "CertificateRefused");
}

#[test]
fn mirrors_are_asked_first_and_need_not_have_it() {
    if !have_all() {
        return;
    }
    let (original, mirror) = (Registry::start(), Registry::start());
    let (here, there) = (disk(200_000, 5), disk(200_000, 6));
    Images::of_disk("t", &here, Packing::Gzip).push(&original, "t", "a:t");
    Images::of_disk("t", &here, Packing::Gzip).push(&original, "t", "only-here:t");
    Images::of_disk("t", &there, Packing::Gzip).push(&mirror, "t", "of/them/a:t");
    let mut options = insecure(&[original.address(), mirror.address(), "127.0.0.1:1"]);
    options.registry.mirrors = [
        "127.0.0.1:1".to_owned(),
        format!("other.example={}/nowhere", mirror.address()),
        format!("{}={}/of/them", original.address(), mirror.address()),
    ]
    .iter()
    .map(|mirror| mirror.parse().unwrap())
    .collect();
    gives(&original.name("a:t"), &options, &there);
    gives(&original.name("only-here:t"), &options, &here);
    refusal(&original.name("nowhere:t"), &options).says(original.address());
}

/// A fake giver of tokens that gives one that docker-registry believes: it is signed with a key of ours.
fn giver_of_tokens(directory: &std::path::Path, actions: &[&str]) -> (Server, std::path::PathBuf) {
    let (key, certificate) = (directory.join("key.pem"), directory.join("cert.pem"));
    run(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=giver",
        ])
        .args(["-keyout", shown(&key), "-out", shown(&certificate)])
        .stderr(std::process::Stdio::null()));
    let der =
        run(Command::new("openssl").args(["x509", "-outform", "DER", "-in", shown(&certificate)]));
    let base64 = |bytes: &[u8], url: bool| {
        let output = longshore_tests::program::fed(Command::new("base64").arg("-w0"), bytes);
        let text = String::from_utf8(output.stdout).unwrap();
        if url {
            return text
                .trim_end_matches('=')
                .replace('+', "-")
                .replace('/', "_");
        }
        text
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [base64(&der, false)] });
    let claims = json!({
        "iss": "longshore-issuer", "sub": "ann", "aud": "longshore-test", "jti": "1",
        "iat": now - 60, "nbf": now - 60, "exp": now + 600,
        "access": [{ "type": "repository", "name": "a", "actions": actions }],
    });
    let signed = format!(
        "{}.{}",
        base64(header.to_string().as_bytes(), true),
        base64(claims.to_string().as_bytes(), true)
    );
    let signature = longshore_tests::program::fed(
        Command::new("openssl").args(["dgst", "-sha256", "-sign", shown(&key)]),
        signed.as_bytes(),
    );
    let token = format!("{signed}.{}", base64(&signature.stdout, true));
    let page = Page::of(json!({ "token": token }).to_string().into_bytes());
    // ann:s3cret
    let page = page.auth("Basic YW5uOnMzY3JldA==");
    (Server::start([("/token", page)]), certificate)
}

#[test]
fn tokens_are_fetched_with_the_password_and_shown_to_the_registry() {
    if !have_all() || !have("openssl") {
        return;
    }
    let expected = disk(700_000, 7);
    let open = Registry::start();
    Images::of_disk("t", &expected, Packing::Gzip).push(&open, "t", "a:t");
    let directory = tempfile::tempdir().unwrap();
    let (giver, certificate) = giver_of_tokens(directory.path(), &["pull"]);
    let access = Access::Token(giver.url("/token"), certificate);
    let registry = Registry::over(open.stop(), &access, None);
    let name = registry.name("a:t");
    let options = with_password(insecure(&[registry.address()]), "s3cret");
    let mut image = pulled(&name, &options);
    Import::of(image.source.as_mut()).made(&expected);
    let log = giver.log();
    assert_eq!(log.requests.len(), 1, "one token is enough");
    let target = &log.requests[0].target;
    for part in [
        "service=longshore-test",
        "scope=repository%3Aa%3Apull",
        "account=ann",
    ] {
        assert!(target.contains(part), "{target}");
    }
    refusal(&name, &insecure(&[registry.address()])).says("a token from");
    refusal(&registry.name("other:t"), &options).says("401");
}
