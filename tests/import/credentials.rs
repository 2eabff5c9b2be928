//! Redirects, and who gets to see secrets on the way.

use longshore_importer::{BasicAuth, HttpError, Retry, SourceOptions, parse_header};
use longshore_tests::data::disk;
use longshore_tests::http::{Authority, Fault, Page, Request, Server};

use super::{Import, open, options, refused, serving};

/// `Authorization` for jane with the password s3cret.
const JANE: &str = "Basic amFuZTpzM2NyZXQ=";

fn jane() -> BasicAuth {
    BasicAuth {
        user: "jane".to_owned(),
        password: "s3cret".to_owned(),
    }
}

fn secretive() -> SourceOptions {
    SourceOptions {
        basic_auth: Some(jane()),
        headers: vec![parse_header("X-Token: hush").unwrap()],
        ..options()
    }
}

fn secrets_in(request: &Request) -> (Option<&str>, Option<&str>) {
    (request.header("authorization"), request.header("x-token"))
}

#[test]
fn name_and_password_come_from_options_or_from_the_url() {
    let expected = disk(50_000, 1);
    let (_server, url) = serving("/disk.raw", Page::of(expected.clone()).auth(JANE));
    let with_options = SourceOptions {
        basic_auth: Some(jane()),
        ..options()
    };
    Import::of(open(&url, &with_options).as_mut()).made(&expected);
    let with_user = url.replace("http://", "http://jane:s3cret@");
    Import::from_url(&with_user).made(&expected);
    // What is given on purpose counts for more than what stands in the URL.
    let with_other = url.replace("http://", "http://john:wrong@");
    Import::of(open(&with_other, &with_options).as_mut()).made(&expected);
}

#[test]
fn missing_and_wrong_credentials_are_told_apart() {
    let (server, url) = serving("/disk.raw", Page::of(disk(1000, 1)).auth(JANE));
    let missing = refused(&url, &options());
    let wrong = refused(&url.replace("http://", "http://john:wrong@"), &options());
    for error in [&missing, &wrong] {
        assert_eq!(
            (error.status(), error.retry()),
            (Some(401), Retry::Unauthorized)
        );
    }
    assert_ne!(missing.to_string(), wrong.to_string());
    assert_eq!(server.log().requests.len(), 2);
}

#[test]
fn redirects_within_a_host_keep_the_secrets() {
    let expected = disk(50_000, 2);
    let server = Server::start([
        ("/a", Page::redirect(302, "/b?signed")),
        ("/b", Page::redirect(307, "c/disk.raw")),
        ("/c/disk.raw", Page::of(expected.clone()).auth(JANE)),
    ]);
    Import::of(open(&server.url("/a"), &secretive()).as_mut()).made(&expected);
    let requests = server.log().requests;
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(secrets_in(request), (Some(JANE), Some("hush")));
    }
}

#[test]
fn another_host_never_sees_the_secrets_nor_does_the_first_after_it() {
    let expected = disk(2_000_000, 3);
    let far = Server::start([]);
    let home = Server::start([
        ("/start", Page::redirect(301, &far.url("/hop"))),
        (
            "/end",
            Page::of(expected.clone()).fault(Fault::Cut(500_000)),
        ),
    ]);
    far.set("/hop", Page::redirect(302, &home.url("/end")));
    let mut source = open(&home.url("/start"), &secretive());
    // A pass that breaks and one more, side reads too: none of them tells.
    let random = source.random().unwrap();
    Import::of(source.as_mut()).made(&expected);
    Import::of(source.as_mut()).made(&expected);
    let mut some = [0; 100];
    random.read_exact_at(&mut some, 1_500_000).unwrap();
    assert_eq!(some, expected[1_500_000..1_500_100]);
    let at_home = home.log().requests;
    assert_eq!(secrets_in(&at_home[0]), (Some(JANE), Some("hush")));
    for request in far.log().requests.iter().chain(&at_home[1..]) {
        assert_eq!(secrets_in(request), (None, None), "{request:?}");
    }
    assert!(at_home.len() >= 5);
}

#[test]
fn another_port_or_name_is_another_host() {
    let body = disk(1000, 4);
    let far = Server::start([("/disk.raw", Page::of(body.clone()))]);
    let home = Server::start([("/by-port", Page::redirect(302, &far.url("/disk.raw")))]);
    home.set(
        "/by-name",
        Page::redirect(302, &home.url_by_name("/disk.raw")),
    );
    home.set("/disk.raw", Page::of(body.clone()));
    for path in ["/by-port", "/by-name"] {
        Import::of(open(&home.url(path), &secretive()).as_mut()).made(&body);
    }
    assert_eq!(secrets_in(&far.log().requests[0]), (None, None));
    let last = home.log().requests.pop().unwrap();
    assert_eq!(
        (last.target.as_str(), secrets_in(&last)),
        ("/disk.raw", (None, None))
    );
}

#[test]
fn a_refusal_after_a_redirect_says_that_credentials_stayed_behind() {
    let far = Server::start([("/disk.raw", Page::of(disk(1000, 4)).auth(JANE))]);
    let home = Server::start([("/start", Page::redirect(302, &far.url("/disk.raw")))]);
    let error = refused(&home.url("/start"), &secretive());
    assert_eq!(error.status(), Some(401));
    let text = error.to_string();
    assert!(text.contains(&far.address().to_string()), "{text}");
    assert!(text.contains("another host"), "{text}");
}

#[test]
fn user_information_in_a_redirect_is_not_used() {
    let server = Server::start([("/disk.raw", Page::of(disk(1000, 5)))]);
    let to = server
        .url("/disk.raw")
        .replace("http://", "http://eve:evil@");
    server.set("/start", Page::redirect(302, &to));
    drop(open(&server.url("/start"), &options()));
    let requests = server.log().requests;
    assert_eq!(requests[1].header("authorization"), None);
}

#[test]
fn redirects_that_lead_nowhere_are_refused() {
    let server = Server::start([
        ("/loop", Page::redirect(302, "/loop")),
        ("/silent", Page::status(302)),
        ("/file", Page::redirect(302, "file:///etc/passwd")),
        ("/noise", Page::redirect(302, "http://[")),
    ]);
    for path in ["/loop", "/silent", "/file", "/noise"] {
        let error = refused(&server.url(path), &options());
        assert!(
            matches!(error, HttpError::Redirect { .. }),
            "{path}: {error}"
        );
        assert_eq!(error.retry(), Retry::Permanent);
    }
    // The first request, and ten redirects.
    let loops = server
        .log()
        .requests
        .iter()
        .filter(|r| r.target == "/loop")
        .count();
    assert_eq!(loops, 11);
}

#[test]
fn ten_redirects_are_followed() {
    let body = disk(1000, 6);
    let server = Server::start([("/10", Page::of(body.clone()))]);
    for i in 0..10 {
        server.set(
            &format!("/{i}"),
            Page::redirect(302, &format!("/{}", i + 1)),
        );
    }
    Import::from_url(&server.url("/0")).made(&body);
}

#[test]
fn nothing_leads_from_https_to_http() {
    let plain = Server::start([("/disk.raw", Page::of(disk(1000, 7)))]);
    let authority = Authority::new();
    let start = Page::redirect(302, &plain.url("/disk.raw"));
    let secure = Server::start_tls(&authority, [("/start", start)]);
    let insecure = SourceOptions {
        insecure: true,
        ..options()
    };
    let error = refused(&secure.url("/start"), &insecure);
    assert!(matches!(error, HttpError::Redirect { .. }), "{error}");
    assert!(plain.log().requests.is_empty());
}

#[test]
fn a_signed_url_that_ran_out_is_asked_for_anew() {
    let expected = disk(1_000_000, 8);
    let page = |fault| Page::of(expected.clone()).fault(fault);
    let store = Server::start([(
        "/signed-1",
        page(Fault::Cut(400_000)).fault(Fault::Status(403)),
    )]);
    store.set("/signed-2", page(Fault::Nothing));
    let second = Page::redirect(302, &store.url("/signed-2"));
    let first = Page::redirect(302, &store.url("/signed-1"))
        .fault(Fault::Nothing)
        .fault(Fault::Become(Box::new(second)));
    let (home, url) = serving("/disk.raw", first);
    Import::from_url(&url).made(&expected);
    assert_eq!(home.log().requests.len(), 2);
    let asked: Vec<_> = store.log().requests.into_iter().map(|r| r.target).collect();
    assert_eq!(asked, ["/signed-1", "/signed-1", "/signed-2"]);
}

#[test]
fn headers_that_cannot_be_sent_are_refused_without_their_value() {
    let (server, url) = serving("/disk.raw", Page::of(disk(1000, 9)));
    for (name, value) in [
        ("Range", "bytes=0-s3cret"),
        ("X-A", "s3cret\r\nX-B: c"),
        ("a b", "s3cret"),
    ] {
        let bad = SourceOptions {
            headers: vec![(name.to_owned(), value.to_owned())],
            ..options()
        };
        let error = longshore_importer::source_from(&url, &bad).err().unwrap();
        assert!(
            matches!(error, longshore_importer::Error::Header { .. }),
            "{error}"
        );
        assert_eq!(error.exit_code(), 2);
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
    assert!(server.log().requests.is_empty());
}
