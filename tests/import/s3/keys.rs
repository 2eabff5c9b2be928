//! Keys that a role gives, by services that are fakes here: STS, the agent of a container, and the metadata
//! service of an instance. versitygw takes no temporary keys: the gate looks at them instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use longshore_importer::{Ambient, HttpError, Retry, SourceOptions};
use longshore_tests::data::disk;
use longshore_tests::gate::{Asked, Gate, Passing, Reply, transparent};
use longshore_tests::program::free_address;
use longshore_tests::stores::{ACCESS_KEY, SECRET_KEY};

use super::{Import, SIGNATURE, Store, chain, is_signed, open, refused, trusting};

const ROLE: &str = "arn:aws:iam::1:role/reader";
const FAR: &str = "2099-01-01T00:00:00Z";

fn sts_answer(token: &str, expiration: &str) -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{expiration}</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
}

fn json_answer(token: &str) -> String {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{ACCESS_KEY}","SecretAccessKey":"{SECRET_KEY}","Token":"{token}","Expiration":"{FAR}"}}"#
    )
}

/// A fake STS that gives keys with the tokens `t0ken-0`, `t0ken-1` and so on.
fn fake_sts(expiration: &'static str) -> Gate {
    Gate::alone(move |_, number| {
        Reply::say(200, sts_answer(&format!("t0ken-{number}"), expiration))
    })
}

fn with_ambient(mut options: SourceOptions, variables: &[(&str, &str)]) -> SourceOptions {
    options.objects.ambient = Ambient::only(variables.iter().copied());
    options
}

/// With a service account's token, in a file, for a role that STS gives keys of.
fn with_role(options: SourceOptions, sts: &Gate) -> (SourceOptions, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "jwt.of.the/pod\n").unwrap();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.path().to_str().unwrap()),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_ENDPOINT_URL_STS", &sts.url("")),
    ];
    (with_ambient(options, &variables), file)
}

#[test]
fn a_service_accounts_token_becomes_keys() {
    let Some(store) = Store::with(trusting) else {
        return;
    };
    let expected = disk(2_000_000, 1);
    store.versity.put_bytes("/public/disk.raw", &expected);
    let sts = fake_sts(FAR);
    let (options, _file) = with_role(store.anonymous(), &sts);
    let mut source = open("s3://public/disk.raw", &options);
    Import::of(source.as_mut()).made(&expected);
    Import::of(source.as_mut()).made(&expected);
    let asked = sts.asked();
    assert_eq!(asked.len(), 1);
    for field in [
        "Action=AssumeRoleWithWebIdentity",
        "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Freader",
        "WebIdentityToken=jwt.of.the%2Fpod",
    ] {
        assert!(asked[0].body.contains(field), "{}", asked[0].body);
    }
    for asked in store.gate.asked() {
        assert_eq!(asked.header("x-amz-security-token"), Some("t0ken-0"));
    }
}

#[test]
fn keys_that_run_out_on_the_way_are_renewed() {
    // Every line breaks; after two of them the first token counts no more.
    let refusals = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refusals);
    let expiring = move |asked: &Asked, number: usize| {
        if number >= 2 && asked.header("x-amz-security-token") == Some("t0ken-0") {
            counted.fetch_add(1, Ordering::SeqCst);
            let body = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message><Token-0>t0ken-0</Token-0></Error>";
            return Reply::say(400, body);
        }
        Reply::Pass(Passing {
            cut: (number < 4).then_some(1_000_000),
            without: SIGNATURE,
            ..Passing::default()
        })
    };
    let Some(store) = Store::with(expiring) else {
        return;
    };
    let expected = disk(6_000_000, 2);
    store.versity.put_bytes("/public/disk.raw", &expected);
    let sts = fake_sts(FAR);
    let (options, _file) = with_role(store.anonymous(), &sts);
    Import::of(open("s3://public/disk.raw", &options).as_mut()).made(&expected);
    assert_eq!(sts.asked().len(), 2);
    assert_eq!(refusals.load(Ordering::SeqCst), 1);
}

#[test]
fn keys_are_renewed_before_they_run_out() {
    let cut = |_: &Asked, number: usize| {
        Reply::Pass(Passing {
            cut: (number < 2).then_some(1_000_000),
            without: SIGNATURE,
            ..Passing::default()
        })
    };
    let Some(store) = Store::with(cut) else {
        return;
    };
    let expected = disk(3_000_000, 3);
    store.versity.put_bytes("/public/disk.raw", &expected);
    // In the past: good for the request they were got for at the most.
    let sts = fake_sts("2001-01-01T00:00:00Z");
    let (options, _file) = with_role(store.anonymous(), &sts);
    Import::of(open("s3://public/disk.raw", &options).as_mut()).made(&expected);
    let tokens: Vec<_> = store
        .gate
        .asked()
        .iter()
        .map(|asked| asked.header("x-amz-security-token").unwrap().to_owned())
        .collect();
    assert_eq!(tokens, ["t0ken-0", "t0ken-1", "t0ken-2"]);
}

#[test]
fn a_token_that_fixed_keys_came_with_cannot_be_renewed_and_that_is_said() {
    let Some(store) =
        Store::with(|_, _| Reply::say(400, "<Error><Code>ExpiredToken</Code></Error>"))
    else {
        return;
    };
    let error = refused("s3://public/disk.raw", &store.options());
    let text = chain(&error);
    assert!(
        text.contains("ExpiredToken") && text.contains("has run out"),
        "{text}"
    );
    assert_eq!(store.gate.asked().len(), 1);
}

#[test]
fn a_role_that_is_refused_is_said_to_be_without_the_token() {
    let Some(store) = Store::new() else { return };
    let sts = Gate::alone(|_, _| {
        let body = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized: jwt.of.the/pod</Message></Error></ErrorResponse>";
        Reply::say(403, body)
    });
    let (options, _file) = with_role(store.anonymous(), &sts);
    let error = refused("s3://public/disk.raw", &options);
    let text = chain(&error);
    assert!(matches!(error, HttpError::Papers { .. }), "{text}");
    assert_eq!(error.retry(), Retry::Unauthorized);
    assert!(
        text.contains(ROLE) && text.contains("AccessDenied"),
        "{text}"
    );
    assert!(!text.contains("jwt.of"), "{text}");
    assert!(store.gate.asked().is_empty());
}

#[test]
fn the_agent_of_a_container_gives_keys_to_whom_it_knows() {
    let Some(store) = Store::with(trusting) else {
        return;
    };
    let expected = disk(100_000, 4);
    store.versity.put_bytes("/public/disk.raw", &expected);
    let agent = Gate::alone(|asked, _| match asked.header("authorization") {
        Some("pod-identity-token") => Reply::say(200, json_answer("t0ken")),
        _ => Reply::say(401, ""),
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "pod-identity-token\n").unwrap();
    let address = agent.url("/v1/credentials");
    let token = file.path().to_str().unwrap();
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", address.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
    ];
    let options = with_ambient(store.anonymous(), &variables);
    Import::of(open("s3://public/disk.raw", &options).as_mut()).made(&expected);
    let stranger = with_ambient(store.anonymous(), &variables[..1]);
    let error = refused("s3://public/disk.raw", &stranger);
    assert!(chain(&error).contains("401"), "{}", chain(&error));
}

/// A fake of the metadata service, version 2, whose instance has a role or not.
fn fake_instance(has_role: bool) -> Gate {
    Gate::alone(move |asked, _| {
        let method = asked.head.method.as_str();
        let is_known = asked.header("x-aws-ec2-metadata-token") == Some("imds-token");
        match (method, asked.head.target.as_str()) {
            ("PUT", "/latest/api/token") => Reply::say(200, "imds-token"),
            ("GET", _) if !is_known => Reply::say(401, ""),
            ("GET", "/latest/meta-data/iam/security-credentials/") if has_role => {
                Reply::say(200, "reader")
            }
            ("GET", "/latest/meta-data/iam/security-credentials/reader") if has_role => {
                Reply::say(200, json_answer("t0ken"))
            }
            _ => Reply::say(404, ""),
        }
    })
}

#[test]
fn the_role_of_an_instance_is_asked_for_when_the_store_wants_keys() {
    let particular = |asked: &Asked, number: usize| match asked.head.target.as_str() {
        "/public/open.raw" => transparent(asked, number),
        _ => trusting(asked, number),
    };
    let Some(store) = Store::with(particular) else {
        return;
    };
    let expected = disk(2_000_000, 5);
    for name in ["open", "closed"] {
        let path = format!("/public/{name}.raw");
        store.versity.put_bytes(&path, &expected);
    }
    let instance = fake_instance(true);
    let address = instance.url("");
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", address.as_str())];
    let options = with_ambient(store.anonymous(), &variables);
    Import::of(open("s3://public/open.raw", &options).as_mut()).made(&expected);
    assert!(instance.asked().is_empty());
    let mut source = open("s3://public/closed.raw", &options);
    Import::of(source.as_mut()).made(&expected);
    Import::of(source.as_mut()).made(&expected);
    assert_eq!(instance.asked().len(), 3);
    let signed: Vec<_> = store.gate.asked().iter().map(is_signed).collect();
    assert_eq!(signed, [false, false, true, true]);
}

#[test]
fn an_instance_without_a_role_and_no_instance_at_all_change_nothing() {
    let Some(store) = Store::new() else { return };
    store.versity.put_bytes("/disks/disk.raw", b"x");
    let instance = fake_instance(false);
    let addresses = [instance.url(""), format!("http://{}", free_address())];
    for address in &addresses {
        let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", address.as_str())];
        let options = with_ambient(store.anonymous(), &variables);
        let error = refused("s3://disks/disk.raw", &options);
        let text = chain(&error);
        assert!(
            text.contains("AccessDenied") && text.contains("none were found"),
            "{text}"
        );
    }
}
