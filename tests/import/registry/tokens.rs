//! Identity tokens, exchanged with the token server of the registry's own project, which a gate in front of it
//! watches, and shown to Debian's docker-registry.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use longshore_importer::SourceOptions;
use longshore_tests::data::disk;
use longshore_tests::gate::{Gate, Reply, Upstream, transparent};
use longshore_tests::program::{Running, free_address, have, run, silent};
use longshore_tests::registry::{ANN, Access, Registry};
use longshore_tests::stores::find;
use serde_json::Value;

use super::image::{Images, Packing};
use super::{gives, have_all, insecure, pulled, refusal, shown};
use crate::Import;

/// The server, with a key of its own; its certificate is `cert.pem`. `None` if it is not there.
fn token_server(directory: &Path) -> Option<(Running, Upstream)> {
    let program = find("LONGSHORE_TOKEN_SERVER", "token-server")?;
    let at = |name: &str| directory.join(name);
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj"])
        .args(["/CN=tokens", "-keyout", shown(&at("key.pem")), "-out"])
        .arg(at("cert.pem"))
        .stderr(Stdio::null()));
    // It reads keys of this form only.
    run(Command::new("openssl")
        .args(["rsa", "-traditional", "-in", shown(&at("key.pem")), "-out"])
        .arg(at("old.pem"))
        .stderr(Stdio::null()));
    std::fs::write(at("htpasswd"), ANN).unwrap();
    // It takes no port of its own choice.
    let address = free_address();
    let mut server = Command::new(program);
    server
        .args(["-issuer", "longshore-issuer", "-realm", "r"])
        .args(["-addr", &address.to_string()])
        .args(["-key", shown(&at("old.pem"))])
        .args(["-passwd", shown(&at("htpasswd"))]);
    let mut server = Running(silent(&mut server));
    assert!(server.gets_ready(|| TcpStream::connect(address).is_ok()));
    Some((server, Upstream::Tcp(address)))
}

fn with_identity(registry: &Registry, file: &Path, token: &str) -> SourceOptions {
    let address = registry.address();
    let text = format!(r#"{{"auths":{{"{address}":{{"identitytoken":"{token}"}}}}}}"#);
    std::fs::write(file, text).unwrap();
    let mut options = insecure(&[address]);
    options.registry.auth_file = Some(file.to_owned());
    options
}

#[test]
fn an_identity_token_becomes_a_token_for_the_repository() {
    if !have_all() || !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let Some((_server, upstream)) = token_server(directory.path()) else {
        return;
    };
    let gate = Gate::listen(Some(upstream), None, transparent);
    let expected = disk(700_000, 71);
    let open = Registry::start();
    let images = Images::of_disk("t", &expected, Packing::Gzip);
    // This server lets people have what is below their names.
    images.push(&open, "t", "ann/a:t");
    images.push(&open, "t", "bob/a:t");
    let access = Access::Token(gate.url("/token/"), directory.path().join("cert.pem"));
    let registry = Registry::over(open.stop(), &access, None);
    // `docker login`: for the password there is a token that lasts.
    let login = gate.url("/token/?service=longshore-test&offline_token=true&client_id=docker");
    let answer =
        run(Command::new("curl").args(["--silent", "--fail", "--user", "ann:s3cret", &login]));
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let identity = answer["refresh_token"].as_str().unwrap();

    let file = directory.path().join("auth.json");
    let options = with_identity(&registry, &file, identity);
    let mut image = pulled(&registry.name("ann/a:t"), &options);
    Import::of(image.source.as_mut()).made(&expected);
    let asked = gate.asked();
    assert_eq!(asked.len(), 2, "one exchange is enough");
    let exchange = &asked[1];
    assert_eq!(exchange.head.method, "POST");
    assert_eq!(exchange.header("authorization"), None);
    let fields: Vec<_> = url::form_urlencoded::parse(exchange.body.as_bytes()).collect();
    for (name, value) in [
        ("grant_type", "refresh_token"),
        ("service", "longshore-test"),
        ("scope", "repository:ann/a:pull"),
        ("refresh_token", identity),
    ] {
        assert!(
            fields.contains(&(name.into(), value.into())),
            "{name}: {fields:?}"
        );
    }
    // It says nothing of what somebody else has.
    refusal(&registry.name("bob/a:t"), &options).says("401");
    let wrong = with_identity(&registry, &file, "n0t-the-token");
    let refused = refusal(&registry.name("ann/a:t"), &wrong).says("a token from");
    assert!(!refused.text.contains("n0t-the-token"), "{}", refused.text);
    assert_eq!(refused.at_once.unwrap().reason(), "Unauthorized");
}

#[test]
fn a_token_that_ran_out_on_the_way_is_exchanged_for_anew() {
    // A fake giver of tokens: the real one's last a quarter of an hour.
    let giver = Gate::alone(|asked, number| {
        if asked.body.contains("refresh_token=it") {
            Reply::say(
                200,
                format!(r#"{{"access_token":"t{number}","expires_in":60}}"#),
            )
        } else {
            Reply::say(400, r#"{"error":"invalid_grant"}"#)
        }
    });
    let expected = disk(2 << 20, 72);
    let images = Images::of_disk("t", &expected, Packing::Gzip);
    let layer = images.top_layer("t");
    let (server, mut options) = super::fake(&images);
    let challenge = format!(r#"Bearer realm="{}",service="s""#, giver.url("/t"));
    for (path, page) in images.pages("r") {
        let page = page.auth("Bearer t0").challenge(&challenge);
        server.set(&path, page);
    }
    // The layer's connection breaks, and by then only another token will do.
    let page = |token: &str| {
        longshore_tests::http::Page::of(images.bytes(&layer).to_vec())
            .auth(token)
            .challenge(&challenge)
    };
    let then = longshore_tests::http::Fault::Become(Box::new(page("Bearer t1")));
    let cut = longshore_tests::http::Fault::Cut(300_000);
    server.set(
        &format!("/v2/r/blobs/{layer}"),
        page("Bearer t0").fault(cut).fault(then),
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"it"}}}}}}"#,
        server.address()
    );
    std::fs::write(file.path(), text).unwrap();
    options.registry.auth_file = Some(file.path().to_owned());
    gives(&super::name(&server, "t"), &options, &expected);
    let asked = giver.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|asked| asked.head.method == "POST"));
}
