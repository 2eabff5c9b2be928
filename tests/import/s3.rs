//! Objects in S3: versitygw, with a gate in front of it that shows what was asked.

mod keys;
mod trouble;

use std::process::Command;
use std::sync::Arc;

use longshore_importer::{
    Ambient, HttpError, ObjectOptions, Retry, S3Keys, SourceOptions, s3_source,
};
use longshore_tests::data::disk;
use longshore_tests::gate::{Asked, Gate, Passing, Reply, transparent};
use longshore_tests::http::Authority;
use longshore_tests::program::{have, run, shell};
use longshore_tests::stores::{ACCESS_KEY, REGION, SECRET_KEY, Versity};

use super::{Import, chain, open, options, refused};

/// A store and a gate in front of it.
struct Store {
    versity: Arc<Versity>,
    gate: Gate,
}

impl Store {
    fn with(decide: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Option<Self> {
        let versity = Arc::new(Versity::start()?);
        let gate = Gate::listen(Some(versity.upstream()), None, decide);
        Some(Self { versity, gate })
    }

    fn new() -> Option<Self> {
        Self::with(transparent)
    }

    /// With keys that are right.
    fn options(&self) -> SourceOptions {
        with_keys(self.anonymous(), ACCESS_KEY, SECRET_KEY, None)
    }

    fn anonymous(&self) -> SourceOptions {
        SourceOptions {
            objects: ObjectOptions {
                endpoint: Some(self.gate.url("")),
                region: Some(REGION.to_owned()),
                ambient: Ambient::only::<&str, &str>([]),
                ..ObjectOptions::default()
            },
            ..options()
        }
    }
}

fn with_keys(
    mut options: SourceOptions,
    id: &str,
    secret: &str,
    token: Option<&str>,
) -> SourceOptions {
    options.objects.s3_keys = Some(S3Keys {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: token.map(str::to_owned),
    });
    options
}

fn is_signed(asked: &Asked) -> bool {
    asked
        .header("authorization")
        .is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 Credential="))
}

#[test]
fn an_object_is_one_signed_request() {
    let Some(store) = Store::new() else { return };
    let expected = disk(3_000_000, 1);
    store.versity.put_bytes("/disks/disk.raw", &expected);
    let mut source = open("s3://disks/disk.raw", &store.options());
    assert_eq!(source.name(), "s3://disks/disk.raw");
    Import::of(source.as_mut()).made(&expected);
    let asked = store.gate.asked();
    assert_eq!(asked.len(), 1);
    assert!(is_signed(&asked[0]), "{asked:?}");
}

#[test]
fn wrapped_objects_and_archives_are_read_as_from_anywhere() {
    let Some(store) = Store::new() else { return };
    if !have("gzip") || !have("tar") {
        return;
    }
    let expected = disk(2_000_000, 2);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("disk.raw"), &expected).unwrap();
    let script = "tar -cf disk.tar disk.raw; gzip -k disk.raw";
    shell(directory.path(), script);
    for name in ["disk.raw.gz", "disk.tar"] {
        store.versity.put(&format!("/disks/{name}"), &path(name));
        let mut source = open(&format!("s3://disks/{name}"), &store.options());
        Import::of(source.as_mut()).made(&expected);
    }
    let by_url = store.gate.url("/disks/disk.tar#disk.raw");
    let mut source = s3_source(&by_url, &store.options()).unwrap();
    Import::of(source.as_mut()).made(&expected);
}

#[test]
fn keys_are_signed_for_as_they_are_whatever_is_in_them() {
    let Some(store) = Store::new() else { return };
    let expected = disk(10_000, 3);
    for (key, encoded) in [
        ("a b+c/disk.raw", "a%20b%2Bc/disk.raw"),
        (".hidden/..two/...", ".hidden/..two/..."),
        ("f\u{fc}r/\u{1f5b4}.img", "f%C3%BCr/%F0%9F%96%B4.img"),
        ("100%/a%20b", "100%25/a%2520b"),
        ("~-_.!*'()", "~-_.%21%2A%27%28%29"),
        ("a=b&c;d:e@f,g$h", "a%3Db%26c%3Bd%3Ae%40f%2Cg%24h"),
        ("what?#[x]", "what%3F%23%5Bx%5D"),
        ("back\\slash\"quote", "back%5Cslash%22quote"),
    ] {
        store
            .versity
            .put_bytes(&format!("/disks/{encoded}"), &expected);
        let mut source = open(&format!("s3://disks/{key}"), &store.options());
        Import::of(source.as_mut()).made(&expected);
        let by_url = store.gate.url(&format!("/disks/{encoded}"));
        let mut source = s3_source(&by_url, &store.options()).unwrap();
        Import::of(source.as_mut()).made(&expected);
    }
}

#[test]
fn public_objects_are_had_without_keys_and_others_are_not() {
    let Some(store) = Store::new() else { return };
    let expected = disk(100_000, 4);
    for bucket in ["public", "disks"] {
        store
            .versity
            .put_bytes(&format!("/{bucket}/disk.raw"), &expected);
    }
    Import::of(open("s3://public/disk.raw", &store.anonymous()).as_mut()).made(&expected);
    let error = refused("s3://disks/disk.raw", &store.anonymous());
    assert_eq!(error.status(), Some(403));
    assert_eq!(error.retry(), Retry::Unauthorized);
    let text = error.to_string();
    assert!(
        text.contains("AccessDenied") && text.contains("without keys"),
        "{text}"
    );
    assert!(!store.gate.asked().iter().any(is_signed));
    // What is there is not shown to anybody who is to be asked anonymously.
    let mut nobody = store.options();
    nobody.objects.anonymous = true;
    Import::of(open("s3://public/disk.raw", &nobody).as_mut()).made(&expected);
    assert!(!store.gate.asked().iter().any(is_signed));
}

#[test]
fn wrong_keys_and_missing_objects_are_told_in_the_words_of_the_store() {
    let Some(store) = Store::new() else { return };
    store.versity.put_bytes("/disks/disk.raw", b"x");
    let good = store.options();
    let wrong_secret = with_keys(store.options(), ACCESS_KEY, "n0t-the-secret", None);
    for (address, options, status, code, reason) in [
        (
            "s3://disks/disk.raw",
            &wrong_secret,
            403,
            "SignatureDoesNotMatch",
            "Unauthorized",
        ),
        ("s3://disks/other.raw", &good, 404, "NoSuchKey", "NotFound"),
        (
            "s3://nowhere/disk.raw",
            &good,
            404,
            "NoSuchBucket",
            "NotFound",
        ),
    ] {
        let before = store.gate.asked().len();
        let error = refused(address, options);
        let text = chain(&error);
        assert!(matches!(error, HttpError::Said { .. }), "{text}");
        assert!(text.contains(code), "{text}");
        assert_eq!((error.status(), error.reason()), (Some(status), reason));
        assert!(!text.contains("n0t-the-secret"), "{text}");
        assert_eq!(store.gate.asked().len() - before, 1);
    }
}

/// Headers that come of a signature. versitygw takes no temporary keys: where there are some, the gate asks it
/// without.
const SIGNATURE: &[&str] = &[
    "authorization",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// Passes on what is signed with a session token, less the signature.
fn trusting(asked: &Asked, _: usize) -> Reply {
    let is_known = is_signed(asked) && asked.header("x-amz-security-token").is_some();
    if !is_known {
        return Reply::say(403, "<Error><Code>AccessDenied</Code></Error>");
    }
    Reply::Pass(Passing {
        without: SIGNATURE,
        ..Passing::default()
    })
}

#[test]
fn a_session_token_is_sent_and_never_shown_and_signed_as_curl_signs_it() {
    let Some(store) = Store::with(trusting) else {
        return;
    };
    let expected = disk(100_000, 5);
    store.versity.put_bytes("/public/a%20b.raw", &expected);
    let options = with_keys(store.anonymous(), ACCESS_KEY, SECRET_KEY, Some("t0ken/+=="));
    let shown = format!("{options:?}");
    for secret in ["t0ken", SECRET_KEY] {
        assert!(!shown.contains(secret), "{shown}");
    }
    Import::of(open("s3://public/a b.raw", &options).as_mut()).made(&expected);
    let ours = store.gate.asked().remove(0);
    assert_eq!(ours.header("x-amz-security-token"), Some("t0ken/+=="));
    // The same request by curl, which has never heard of us.
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--output", "/dev/null", "--aws-sigv4"]);
    curl.arg(format!("aws:amz:{REGION}:s3"));
    curl.arg("--user").arg(format!("{ACCESS_KEY}:{SECRET_KEY}"));
    for name in [
        "range",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
    ] {
        curl.arg("--header");
        curl.arg(format!("{name}: {}", ours.header(name).unwrap()));
    }
    run(curl.arg(store.gate.url("/public/a%20b.raw")));
    let theirs = store.gate.asked().remove(1);
    let plain = |asked: &Asked| asked.header("authorization").unwrap().replace(", ", ",");
    assert_eq!(plain(&ours), plain(&theirs));
}

#[test]
fn a_store_with_its_own_authority_is_believed_if_that_is_given() {
    let Some(versity) = Versity::start() else {
        return;
    };
    let expected = disk(500_000, 6);
    versity.put_bytes("/disks/disk.raw", &expected);
    let authority = Authority::new();
    let store = Store {
        gate: Gate::listen(Some(versity.upstream()), Some(&authority), transparent),
        versity: Arc::new(versity),
    };
    let error = refused("s3://disks/disk.raw", &store.options());
    assert!(matches!(error, HttpError::Tls { .. }), "{}", chain(&error));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    authority.write(&file);
    let trusting = SourceOptions {
        ca: vec![file],
        ..store.options()
    };
    Import::of(open("s3://disks/disk.raw", &trusting).as_mut()).made(&expected);
}

#[test]
fn the_region_is_the_one_that_the_store_names() {
    let Some(store) = Store::new() else { return };
    let expected = disk(100_000, 7);
    store.versity.put_bytes("/disks/disk.raw", &expected);
    let mut elsewhere = store.options();
    elsewhere.objects.region = Some("us-east-1".to_owned());
    Import::of(open("s3://disks/disk.raw", &elsewhere).as_mut()).made(&expected);
    let scopes: Vec<_> = store
        .gate
        .asked()
        .iter()
        .map(|asked| {
            asked
                .header("authorization")
                .unwrap()
                .split('/')
                .nth(2)
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(scopes, ["us-east-1", REGION]);
}

#[test]
fn a_permanent_redirect_is_followed_once() {
    let moved = |asked: &Asked, number: usize| match number {
        0 => Reply::say(301, "<Error><Code>PermanentRedirect</Code></Error>")
            .with("x-amz-bucket-region", REGION),
        _ => transparent(asked, number),
    };
    let Some(store) = Store::with(moved) else {
        return;
    };
    let expected = disk(100_000, 8);
    store.versity.put_bytes("/disks/disk.raw", &expected);
    let mut elsewhere = store.options();
    elsewhere.objects.region = Some("us-east-1".to_owned());
    Import::of(open("s3://disks/disk.raw", &elsewhere).as_mut()).made(&expected);

    // Here the store sends everybody from one place to another.
    let lost = Gate::alone(|_, number| {
        Reply::say(301, "").with("x-amz-bucket-region", &format!("there-{number}"))
    });
    elsewhere.objects.endpoint = Some(lost.url(""));
    let error = refused("s3://disks/disk.raw", &elsewhere);
    assert_eq!(lost.asked().len(), 2);
    assert_eq!(error.retry(), Retry::Permanent, "{}", chain(&error));
}
