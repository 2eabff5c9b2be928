//! Objects in Google Cloud Storage: fake-gcs-server, which knows objects and no credentials, with a gate in front
//! of it that knows them. Token servers and metadata services are fakes.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use longshore_importer::{
    Ambient, HttpError, ObjectOptions, Retry, SourceOptions, gcs_source, source_from,
};
use longshore_tests::data::disk;
use longshore_tests::gate::{Asked, Gate, Passing, Reply, cutting, slow, transparent};
use longshore_tests::program::{have, run};
use longshore_tests::stores::Gcs;

use super::qcow2::{Images, assert_same};
use super::{Import, chain, one_connection, open, options, refused};

struct Store {
    gcs: Gcs,
    gate: Gate,
}

impl Store {
    fn with(decide: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Option<Self> {
        let gate = Gate::listen(None, None, decide);
        let gcs = Gcs::behind(&gate)?;
        Some(Self { gcs, gate })
    }

    fn new() -> Option<Self> {
        Self::with(transparent)
    }

    fn options(&self, variables: &[(&str, &str)]) -> SourceOptions {
        SourceOptions {
            objects: ObjectOptions {
                endpoint: Some(self.gate.url("")),
                ambient: Ambient::only(variables.iter().copied()),
                ..ObjectOptions::default()
            },
            ..options()
        }
    }
}

/// Lets those pass who show one of these tokens.
fn guarded(tokens: &'static [&'static str]) -> impl Fn(&Asked, usize) -> Reply {
    move |asked, _| {
        let shown = asked
            .header("authorization")
            .and_then(|v| v.strip_prefix("Bearer "));
        match shown {
            Some(token) if tokens.contains(&token) => Reply::Pass(Passing::default()),
            Some(_) => Reply::say(401, "<Error><Code>AuthenticationRequired</Code></Error>"),
            None => Reply::say(
                401,
                "<Error><Code>AuthenticationRequired</Code><Message>Authentication required.</Message></Error>",
            ),
        }
    }
}

/// A fake token server that gives `t0ken-0`, `t0ken-1` and so on.
fn fake_tokens(life: u64) -> Gate {
    Gate::alone(move |_, number| {
        let body = format!(
            r#"{{"access_token":"t0ken-{number}","expires_in":{life},"token_type":"Bearer"}}"#
        );
        Reply::say(200, body)
    })
}

/// The file of a service account whose tokens are had there. `None` without openssl, which makes its key.
fn key_file(directory: &Path, token_uri: &str) -> Option<String> {
    // Making one takes a while.
    static KEY: OnceLock<String> = OnceLock::new();
    if !have("openssl") {
        return None;
    }
    let pem = KEY.get_or_init(|| {
        let mut openssl = Command::new("openssl");
        let pem = run(openssl.args(["genpkey", "-quiet", "-algorithm", "RSA"]));
        String::from_utf8(pem).unwrap()
    });
    let file = serde_json::json!({
        "type": "service_account",
        "client_email": "reader@project.iam.gserviceaccount.com",
        "private_key_id": "k1",
        "private_key": pem,
        "token_uri": token_uri,
    });
    let path = directory.join("credentials.json");
    std::fs::write(&path, file.to_string()).unwrap();
    path.into_os_string().into_string().ok()
}

#[test]
fn an_object_is_one_request_and_later_ones_are_for_its_generation() {
    let Some(store) = Store::with(cutting(1, 1_000_000)) else {
        return;
    };
    let expected = disk(3_000_000, 1);
    store.gcs.put("disk.raw", &expected);
    let mut source = open("gs://disks/disk.raw", &store.options(&[]));
    assert_eq!(source.name(), "gs://disks/disk.raw");
    Import::of(source.as_mut()).made(&expected);
    let asked = store.gate.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].header("authorization"), None);
    assert_eq!(asked[0].header("x-goog-if-generation-match"), None);
    let generation = asked[1].header("x-goog-if-generation-match").unwrap();
    assert!(generation.parse::<u64>().unwrap() > 0);
}

#[test]
fn names_are_asked_for_as_they_are_by_either_address() {
    let Some(store) = Store::new() else { return };
    let expected = disk(10_000, 2);
    for (name, encoded) in [
        ("a b+c/disk.raw", "a%20b%2Bc%2Fdisk.raw"),
        (".hidden//two/...", ".hidden%2F%2Ftwo%2F..."),
        ("f\u{fc}r/\u{1f5b4}.img", "f%C3%BCr%2F%F0%9F%96%B4.img"),
        ("what?#[x]&=%20", "what%3F%23%5Bx%5D%26%3D%2520"),
    ] {
        store.gcs.put(encoded, &expected);
        let mut source = open(&format!("gs://disks/{name}"), &store.options(&[]));
        Import::of(source.as_mut()).made(&expected);
        let by_url = store.gate.url(&format!("/disks/{encoded}"));
        let mut source = gcs_source(&by_url, &store.options(&[])).unwrap();
        Import::of(source.as_mut()).made(&expected);
    }
}

#[test]
fn an_emulator_is_asked_without_credentials() {
    let Some(store) = Store::new() else { return };
    let expected = disk(100_000, 3);
    store.gcs.put("disk.raw", &expected);
    let host = store.gate.address().to_string();
    let variables = [
        ("STORAGE_EMULATOR_HOST", host.as_str()),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent"),
    ];
    let mut options = store.options(&variables);
    options.objects.endpoint = None;
    Import::of(open("gs://disks/disk.raw", &options).as_mut()).made(&expected);
    assert_eq!(store.gate.asked()[0].header("authorization"), None);
}

#[test]
fn a_service_account_gets_a_token_and_another_when_that_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = fake_tokens(3600);
    let Some(file) = key_file(directory.path(), &tokens.url("/token")) else {
        return;
    };
    let expiring = |asked: &Asked, number: usize| match asked.header("authorization") {
        Some("Bearer t0ken-0") if number >= 2 => Reply::say(401, ""),
        Some(_) => Reply::Pass(Passing {
            cut: (number < 4).then_some(1_000_000),
            ..Passing::default()
        }),
        None => Reply::say(401, ""),
    };
    let Some(store) = Store::with(expiring) else {
        return;
    };
    let expected = disk(6_000_000, 4);
    store.gcs.put("disk.raw", &expected);
    let options = store.options(&[("GOOGLE_APPLICATION_CREDENTIALS", &file)]);
    let mut source = open("gs://disks/disk.raw", &options);
    Import::of(source.as_mut()).made(&expected);
    let asked = tokens.asked();
    assert_eq!(asked.len(), 2);
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    assert!(asked[0].body.starts_with(grant), "{}", asked[0].body);
    let shown = format!("{options:?}");
    assert!(
        !shown.contains("t0ken") && !shown.contains("PRIVATE"),
        "{shown}"
    );
}

#[test]
fn tokens_are_renewed_before_they_run_out() {
    let directory = tempfile::tempdir().unwrap();
    // Good for no time at all.
    let tokens = fake_tokens(0);
    let Some(file) = key_file(directory.path(), &tokens.url("/token")) else {
        return;
    };
    let Some(store) = Store::with(cutting(2, 1_000_000)) else {
        return;
    };
    let expected = disk(3_000_000, 5);
    store.gcs.put("disk.raw", &expected);
    let mut options = store.options(&[]);
    options.objects.google_key = Some(file.into());
    Import::of(open("gs://disks/disk.raw", &options).as_mut()).made(&expected);
    let shown: Vec<_> = store
        .gate
        .asked()
        .iter()
        .map(|asked| asked.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(
        shown,
        ["Bearer t0ken-0", "Bearer t0ken-1", "Bearer t0ken-2"]
    );
}

#[test]
fn a_key_that_is_refused_is_said_to_be_without_the_assertion() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = Gate::alone(|asked, _| {
        let (_, assertion) = asked.body.split_once("assertion=").unwrap();
        let body =
            format!(r#"{{"error":"invalid_grant","error_description":"Invalid JWT {assertion}"}}"#);
        Reply::say(400, body)
    });
    let Some(file) = key_file(directory.path(), &tokens.url("/token")) else {
        return;
    };
    let Some(store) = Store::new() else { return };
    let options = store.options(&[("GOOGLE_APPLICATION_CREDENTIALS", &file)]);
    let error = refused("gs://disks/disk.raw", &options);
    let text = chain(&error);
    assert!(matches!(error, HttpError::Papers { .. }), "{text}");
    assert_eq!(error.retry(), Retry::Unauthorized);
    let assertion = tokens.asked()[0]
        .body
        .split_once("assertion=")
        .unwrap()
        .1
        .to_owned();
    assert!(
        text.contains("invalid_grant") && !text.contains(&assertion),
        "{text}"
    );
    assert!(store.gate.asked().is_empty());
}

#[test]
fn the_machines_account_is_asked_for_when_the_store_wants_a_token() {
    let Some(store) = Store::with(guarded(&["m4chine"])) else {
        return;
    };
    let expected = disk(2_000_000, 6);
    store.gcs.put("disk.raw", &expected);
    let metadata = Gate::alone(|asked, _| {
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        match (asked.header("metadata-flavor"), asked.head.target == path) {
            (Some("Google"), true) => {
                Reply::say(200, r#"{"access_token":"m4chine","expires_in":3599}"#)
                    .with("Metadata-Flavor", "Google")
            }
            _ => Reply::say(403, ""),
        }
    });
    let host = metadata.address().to_string();
    let options = store.options(&[("GCE_METADATA_HOST", host.as_str())]);
    let mut source = open("gs://disks/disk.raw", &options);
    Import::of(source.as_mut()).made(&expected);
    Import::of(source.as_mut()).made(&expected);
    assert_eq!(metadata.asked().len(), 1);
    assert_eq!(store.gate.asked().len(), 3);
    // Whoever has that name elsewhere is not believed.
    let other = Gate::alone(|_, _| Reply::say(200, r#"{"access_token":"m4chine"}"#));
    let host = other.address().to_string();
    let options = store.options(&[("GCE_METADATA_HOST", host.as_str())]);
    let error = refused("gs://disks/disk.raw", &options);
    assert!(
        chain(&error).contains("none were found"),
        "{}",
        chain(&error)
    );
}

#[test]
fn refusals_and_missing_objects_are_told_in_the_words_of_the_store() {
    let Some(store) = Store::with(guarded(&[])) else {
        return;
    };
    let error = refused("gs://disks/disk.raw", &store.options(&[]));
    let text = chain(&error);
    assert_eq!(
        (error.status(), error.retry()),
        (Some(401), Retry::Unauthorized)
    );
    assert!(
        text.contains("Authentication required") && text.contains("none were found"),
        "{text}"
    );
    let Some(store) = Store::new() else { return };
    let error = refused("gs://disks/disk.raw", &store.options(&[]));
    assert_eq!((error.status(), error.reason()), (Some(404), "NotFound"));
    let broken = store.options(&[("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")]);
    let error = source_from("gs://disks/disk.raw", &broken).err().unwrap();
    assert!(
        matches!(error, longshore_importer::Error::Credentials { .. }),
        "{error}"
    );
}

#[test]
fn an_object_that_is_replaced_leaves_no_disk() {
    // By its ETag, and by its generation where a cache shows no ETag.
    for (seed, hide) in [(7, &[][..]), (8, &["etag", "last-modified"][..])] {
        let replaced: Arc<OnceLock<Gcs>> = Arc::default();
        let inner = Arc::clone(&replaced);
        let expected = disk(4_000_000, seed);
        let mut other = expected.clone();
        other[3_000_000] ^= 1;
        let gate = Gate::listen(None, None, move |_, number| {
            if number == 1 {
                inner.get().unwrap().put("disk.raw", &other);
            }
            Reply::Pass(Passing {
                cut: (number == 0).then_some(1_000_000),
                hide,
                ..Passing::default()
            })
        });
        let Some(gcs) = Gcs::behind(&gate) else {
            return;
        };
        gcs.put("disk.raw", &expected);
        replaced.set(gcs).unwrap();
        let mut options = options();
        options.objects.endpoint = Some(gate.url(""));
        options.objects.anonymous = true;
        Import::of(open("gs://disks/disk.raw", &options).as_mut()).changed();
    }
}

#[test]
fn a_generation_that_is_gone_is_the_end_at_once() {
    // What Google answers; the store behind knows the precondition by another header.
    let precondition = r"<?xml version='1.0'?><Error><Code>PreconditionFailed</Code><Message>At least one of the pre-conditions you specified did not hold.</Message><Details>http_x_goog_if_generation_match</Details></Error>";
    let Some(store) = Store::with(move |_, number| match number {
        0 => Reply::Pass(Passing {
            cut: Some(500_000),
            ..Passing::default()
        }),
        _ => Reply::say(412, precondition).with("Content-Type", "application/xml"),
    }) else {
        return;
    };
    store.gcs.put("disk.raw", &disk(2_000_000, 9));
    let import = Import::of(open("gs://disks/disk.raw", &store.options(&[])).as_mut());
    let error = import.failed();
    assert!(
        matches!(
            error,
            HttpError::Changed {
                what: "its generation",
                ..
            }
        ),
        "{}",
        chain(error)
    );
    assert_eq!(error.retry(), Retry::Permanent);
    // Asked for that generation, and not again.
    let asked = store.gate.asked();
    let wanted = asked[1].header("x-goog-if-generation-match").unwrap();
    assert!(chain(error).contains(wanted), "{}", chain(error));
    let refused = asked.len() - 1;
    assert!(refused <= longshore_importer::MOST_CONNECTIONS, "{refused}");
    assert!(import.directory.path().read_dir().unwrap().next().is_none());
}

#[test]
fn a_slow_store_is_asked_for_several_parts_at_once() {
    let Some(store) = Store::with(slow(6_000_000)) else {
        return;
    };
    let expected = disk(20_000_000, 9);
    store.gcs.put("disk.raw", &expected);
    let import = Import::of(open("gs://disks/disk.raw", &store.options(&[])).as_mut());
    assert_eq!(import.made(&expected).bytes_read, 20_000_000);
    assert!(
        store.gate.asked().len() >= 5,
        "{}",
        store.gate.asked().len()
    );
    assert!(store.gate.sent() < 30_000_000, "{}", store.gate.sent());
}

#[test]
fn of_an_image_only_what_is_needed_is_moved() {
    let Some(mut images) = Images::new(12_000_256) else {
        return;
    };
    let Some(store) = Store::new() else { return };
    let grown = images.grown();
    let bytes = std::fs::read(&grown).unwrap();
    store.gcs.put("disk.qcow2", &bytes);
    let options = one_connection(store.options(&[]));
    let import = Import::of(open("gs://disks/disk.qcow2", &options).as_mut());
    let report = import.outcome.as_ref().unwrap();
    assert_eq!((report.passes, report.bytes_spilled), (1, 0));
    assert_same(&import.target(), &images.path("grown.raw"));
    let len = bytes.len() as u64;
    assert!(
        store.gate.sent() < len + len / 4,
        "{} of {len}",
        store.gate.sent()
    );
}
