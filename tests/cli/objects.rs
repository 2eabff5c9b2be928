//! Objects on the command line: flags, the environment, and what is said of secrets.

use std::process::Command;

use longshore_tests::data;
use longshore_tests::gate::{Gate, transparent};
use longshore_tests::program::said;
use longshore_tests::stores::{ACCESS_KEY, DOMAIN, Gcs, REGION, SECRET_KEY, Versity};

use super::rig::{MIB, Rig};

/// A store that holds a disk, and a gate in front of it.
fn store(disk: &[u8]) -> Option<(Versity, Gate)> {
    let versity = Versity::start()?;
    versity.put_bytes("/disks/disk.raw", disk);
    let gate = Gate::listen(Some(versity.upstream()), None, transparent);
    Some((versity, gate))
}

/// With these keys and nothing else of this machine's.
fn with_keys<'c>(command: &'c mut Command, rig: &Rig, secret: &str) -> &'c mut Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("AWS_") || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
        .env("HOME", rig.dir())
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", secret)
}

#[test]
fn an_object_is_imported_with_the_keys_of_the_environment_and_no_log_shows_them() {
    let rig = Rig::new();
    let disk = data::disk(2 * MIB, 1);
    let Some((_versity, gate)) = store(&disk) else {
        return;
    };
    let endpoint = gate.url("");
    let import = ["import", "-vv", "s3://disks/disk.raw", "out.raw"];
    let mut command = rig.command(&import);
    command.args(["--endpoint", &endpoint, "--region", REGION]);
    let output = with_keys(&mut command, &rig, SECRET_KEY).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(rig.read("out.raw"), disk);
    let log = said(&output);
    assert!(log.contains("asking for an object"), "{log}");
    let signature = gate.asked()[0].header("authorization").unwrap().to_owned();
    let signature = signature.rsplit_once("Signature=").unwrap().1;
    assert!(
        !log.contains(SECRET_KEY) && !log.contains(signature),
        "{log}"
    );

    // The environment has the endpoint too, and the region comes from the store.
    let mut command = rig.command(&["info", "--json", "s3://disks/disk.raw"]);
    command.env("AWS_ENDPOINT_URL_S3", &endpoint);
    let output = with_keys(&mut command, &rig, SECRET_KEY).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(info["virtualSize"], 2 * MIB);
}

#[test]
fn a_bucket_can_be_a_part_of_the_hosts_name() {
    let rig = Rig::new();
    let disk = data::disk(MIB, 2);
    let Some((_versity, gate)) = store(&disk) else {
        return;
    };
    let import = ["import", "s3://disks/disk.raw", "out.raw"];
    let mut command = rig.command(&import);
    command.args(["--s3-style", "virtual-host", "--region", REGION]);
    command.args(["--endpoint", &format!("http://{DOMAIN}")]);
    // Nobody knows that name but the gate.
    let command = with_keys(&mut command, &rig, SECRET_KEY).env("http_proxy", gate.url(""));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(rig.read("out.raw"), disk);
    let host = format!("disks.{DOMAIN}");
    assert_eq!(gate.asked()[0].header("host"), Some(host.as_str()));
}

#[test]
fn what_is_wrong_is_said_once_and_without_secrets() {
    let rig = Rig::new();
    let Some((_versity, gate)) = store(b"x") else {
        return;
    };
    let endpoint = gate.url("");
    let wrong = "n0t-the-secret";
    for (address, secret, code, words) in [
        ("s3://disks/disk.raw", wrong, 1, "SignatureDoesNotMatch"),
        ("s3://disks/other.raw", SECRET_KEY, 1, "NoSuchKey"),
        (
            "s3://id:n0t-the-secret@disks/x",
            SECRET_KEY,
            2,
            "names no bucket",
        ),
        ("s3://disks", SECRET_KEY, 2, "no object in it"),
    ] {
        let mut command = rig.command(&["import", "-vv", address, "out.raw"]);
        command.args(["--endpoint", &endpoint, "--region", REGION]);
        let output = with_keys(&mut command, &rig, secret).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(words) && !text.contains("--user"), "{text}");
        for secret in [wrong, SECRET_KEY] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(!rig.path("out.raw").exists());
    }
}

#[test]
fn an_object_of_google_comes_from_an_emulator_that_is_named() {
    let rig = Rig::new();
    let disk = data::disk(MIB, 3);
    let gate = Gate::listen(None, None, transparent);
    let Some(gcs) = Gcs::behind(&gate) else {
        return;
    };
    gcs.put("disk.raw", &disk);
    let mut command = rig.command(&["import", "gs://disks/disk.raw", "out.raw"]);
    let output = command
        .env("STORAGE_EMULATOR_HOST", gate.address().to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(rig.read("out.raw"), disk);
}
