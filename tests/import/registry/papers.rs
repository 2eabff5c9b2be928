//! Who is told what: tokens that run out, redirects, and givers of tokens that should not be trusted.

use longshore_importer::{BasicAuth, SourceOptions};
use longshore_tests::data::disk;
use longshore_tests::http::{Authority, Fault, Page, Server};

use super::image::{Images, Packing};
use super::{fake, gives, insecure, name, refusal};

const PASSWORD: &str = "Basic YW5uOnMzY3JldA==";

fn ann(mut options: SourceOptions) -> SourceOptions {
    options.basic_auth = Some(BasicAuth {
        user: "ann".to_owned(),
        password: "s3cret".to_owned(),
    });
    options
}

fn challenge(giver: &str) -> String {
    format!(r#"Bearer realm="{giver}",service="s",scope="repository:r:pull""#)
}

fn token(token: &str) -> Page {
    Page::of(format!(r#"{{"access_token":"{token}","expires_in":60}}"#).into_bytes())
}

/// A fake registry that wants a token for everything.
fn guarded(images: &Images, wanted: &str, giver: &str) -> (Server, SourceOptions) {
    let (server, options) = fake(images);
    for (path, page) in images.pages("r") {
        let page = page.auth(wanted).challenge(&challenge(giver));
        server.set(&path, page);
    }
    (server, options)
}

#[test]
fn registries_and_givers_of_tokens_see_the_client_that_upstream_has() {
    let expected = disk(200_000, 12);
    let images = Images::of_disk("t", &expected, Packing::Plain);
    let giver = Server::start([("/t", token("one"))]);
    let (server, options) = guarded(&images, "Bearer one", &giver.url("/t"));
    gives(&name(&server, "t"), &options, &expected);
    let (mut requests, tokens) = (server.log().requests, giver.log().requests);
    let blob = requests.iter().any(|r| r.target.contains("/blobs/"));
    assert!(blob && !tokens.is_empty(), "{requests:?}");
    requests.extend(tokens);
    for request in requests {
        let agent = request.header("user-agent").unwrap();
        assert!(
            agent.starts_with("Go-http-client/1.1 longshore/"),
            "{agent}"
        );
    }
}

#[test]
fn a_token_that_runs_out_is_fetched_again() {
    let expected = disk(4 << 20, 1);
    let images = Images::of_disk("t", &expected, Packing::Plain);
    let giver = Server::start([(
        "/t",
        token("one")
            .fault(Fault::Nothing)
            .fault(Fault::Become(Box::new(token("two")))),
    )]);
    let (server, options) = guarded(&images, "Bearer one", &giver.url("/t"));
    let layer = images.top_layer("t");
    let path = format!("/v2/r/blobs/{layer}");
    // The token runs out while the layer is on its way, and the connection breaks.
    let page = |wanted: &str| {
        let (_, page) = images
            .pages("r")
            .into_iter()
            .find(|(p, _)| *p == path)
            .unwrap();
        page.auth(wanted).challenge(&challenge(&giver.url("/t")))
    };
    let then = Fault::Become(Box::new(page("Bearer two")));
    server.set(
        &path,
        page("Bearer one").fault(Fault::Cut(1 << 20)).fault(then),
    );
    gives(&name(&server, "t"), &options, &expected);
    // A token of this moment is not fetched again: whoever is refused with it waits for nobody.
    assert!(giver.log().requests.len() <= 2, "{:?}", giver.log());
}

#[test]
fn a_password_goes_to_the_giver_of_tokens_and_tokens_to_the_registry() {
    let expected = disk(200_000, 2);
    let images = Images::of_disk("t", &expected, Packing::Gzip);
    let giver = Server::start([("/t", token("one").auth(PASSWORD))]);
    let (server, options) = guarded(&images, "Bearer one", &giver.url("/t"));
    gives(&name(&server, "t"), &ann(options.clone()), &expected);
    for request in server.log().requests {
        assert_ne!(
            request.header("authorization"),
            Some(PASSWORD),
            "{request:?}"
        );
    }
    let refused = refusal(&name(&server, "t"), &options).says("401");
    assert_eq!(refused.at_once.unwrap().reason(), "Unauthorized");
}

#[test]
fn an_identity_token_is_exchanged() {
    let images = Images::of_disk("t", b"disk", Packing::Plain);
    let giver = Server::start([]);
    let (server, mut options) = guarded(&images, "Bearer one", &giver.url("/t"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let address = server.address();
    let text = format!(r#"{{"auths":{{"{address}":{{"identitytoken":"it"}}}}}}"#);
    std::fs::write(file.path(), text).unwrap();
    options.registry.auth_file = Some(file.path().to_owned());
    // The fake answers GET only: that it was POSTed to is what counts.
    refusal(&name(&server, "t"), &options).says("a token from");
    assert_eq!(giver.log().requests[0].method, "POST");
    let text = format!(r#"{{"auths":{{"{address}":{{"registrytoken":"one"}}}}}}"#);
    std::fs::write(file.path(), text).unwrap();
    gives(&name(&server, "t"), &options, b"disk");
}

#[test]
fn layers_may_lie_elsewhere_and_nothing_secret_is_told_there() {
    let expected = disk(2 << 20, 3);
    let images = Images::of_disk("t", &expected, Packing::Gzip);
    let giver = Server::start([("/t", token("one"))]);
    let storage = Server::start([]);
    let (server, options) = guarded(&images, "Bearer one", &giver.url("/t"));
    let layer = images.top_layer("t");
    let bytes = images.bytes(&layer).to_vec();
    storage.set("/bucket/x", Page::of(bytes).fault(Fault::Cut(300_000)));
    let to = storage.url("/bucket/x?sig=hush");
    let redirect = Page::redirect(307, &to)
        .auth("Bearer one")
        .challenge(&challenge(&giver.url("/t")));
    server.set(&format!("/v2/r/blobs/{layer}"), redirect);
    let mut with_header = options.clone();
    with_header.headers.push(("X-Secret".into(), "hush".into()));
    gives(&name(&server, "t"), &with_header, &expected);
    let log = storage.log();
    assert!(log.requests.len() >= 2);
    for request in log.requests {
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("x-secret"), None);
    }
}

#[test]
fn manifests_may_lie_elsewhere_too_but_not_in_circles() {
    let expected = disk(100_000, 4);
    let images = Images::of_disk("t", &expected, Packing::Gzip);
    let (elsewhere, _) = fake(&images);
    let (server, options) = fake(&images);
    let there = elsewhere.url("/v2/r/manifests/t");
    server.set("/v2/r/manifests/t", Page::redirect(302, &there));
    gives(&name(&server, "t"), &options, &expected);
    let circle = server.url("/v2/r/manifests/t");
    server.set("/v2/r/manifests/t", Page::redirect(302, &circle));
    refusal(&name(&server, "t"), &options).says("in a row");
    server.set(
        "/v2/r/manifests/t",
        Page::redirect(302, "file:///etc/passwd"),
    );
    refusal(&name(&server, "t"), &options).says("to a file URL");
}

#[test]
fn a_safe_registry_cannot_send_the_password_to_an_unsafe_giver() {
    let authority = Authority::new();
    let giver = Server::start([("/t", token("one"))]);
    let page = Page::of(*b"x").auth("Bearer one");
    let page = page.challenge(&challenge(&giver.url("/t")));
    let server = Server::start_tls(&authority, [("/v2/r/manifests/t", page.clone())]);
    let file = tempfile::NamedTempFile::new().unwrap();
    authority.write(file.path());
    let options = ann(SourceOptions {
        ca: vec![file.path().to_owned()],
        ..crate::options()
    });
    refusal(&name(&server, "t"), &options).says("does not");
    assert!(giver.log().requests.is_empty());
    server.set(
        "/v2/r/manifests/t",
        page.challenge("Bearer realm=\"file:///etc/passwd\""),
    );
    refusal(&name(&server, "t"), &options).says("no URL");
    // A redirect that leaves https is not followed either.
    let to = giver.url("/t");
    server.set("/v2/r/manifests/t", Page::redirect(302, &to));
    refusal(&name(&server, "t"), &options).says("from https to http");
}

#[test]
fn givers_that_give_nonsense_are_named_and_end() {
    let images = Images::of_disk("t", b"x", Packing::Plain);
    let giver = Server::start([]);
    let (server, options) = guarded(&images, "Bearer one", &giver.url("/t"));
    let endless = Page::of(vec![b' '; 1 << 20]);
    for (page, says) in [
        (Page::of(*b"{}"), "no token in its answer"),
        (Page::of(*b"[1]"), "no token in its answer"),
        (
            Page::of(br#"{"token":""}"#.to_vec()),
            "no token in its answer",
        ),
        (token("a\\nb"), "no header"),
        (endless, "goes on"),
        (Page::redirect(302, "/t"), "302"),
        (Page::status(403), "403"),
    ] {
        giver.set("/t", page);
        let refused = refusal(&name(&server, "t"), &options).says(says);
        assert_eq!(refused.exit_code, 1, "{says}");
    }
    giver.set("/t", token("other"));
    refusal(&name(&server, "t"), &options).says("401");
    let (server, _) = fake(&images);
    server.set(
        "/v2/r/manifests/t",
        Page::of(*b"x").auth("y").challenge("Negotiate"),
    );
    let options = insecure(&[&server.address().to_string()]);
    refusal(&name(&server, "t"), &ann(options)).says("401");
}
