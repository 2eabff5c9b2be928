//! Every kind of source, by a data volume and by an annotated claim: bytes, secrets, authorities, and what
//! a user reads when something about it is wrong.

mod archives;
mod imageio;
mod objects;
mod populated;
mod registry;
mod settings;
mod vddk;
mod web;

use longshore_tests::eventually;
use longshore_tests::http::Authority;
use serde_json::{Value, json};

use super::rig::{Case, claim_spec, data_volume};

/// A data volume.
fn volume(case: &Case, name: &str, source: &Value) {
    case.apply(&data_volume(name, source));
}

/// Two stages of a copy: all of a disk, and what changed.
fn checkpoints(first: &str, second: &str) -> [Value; 2] {
    [("", first), (first, second)]
        .map(|(previous, current)| json!({"previous": previous, "current": current}))
}

/// A data volume that waits for more once the first of them is copied.
fn warm(source: &Value, [first, _]: &[Value; 2]) -> Value {
    let mut volume = data_volume("warm", source);
    volume["spec"]["checkpoints"] = json!([first]);
    volume["spec"]["finalCheckpoint"] = json!(false);
    volume
}

/// Has the second follow, which is the last.
fn go_on(case: &Case, checkpoints: &[Value; 2]) {
    let all = json!({"spec": {"checkpoints": checkpoints, "finalCheckpoint": true}});
    case.patch("dv/warm", &all);
}

/// Annotations of `cdi.kubevirt.io/storage.`.
fn storage(annotations: &[(&str, &str)]) -> Value {
    let all = annotations.iter();
    all.map(|(name, value)| (format!("cdi.kubevirt.io/storage.{name}"), *value))
        .collect()
}

/// A claim with such annotations.
fn annotated(case: &Case, name: &str, annotations: &[(&str, &str)]) {
    case.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": storage(annotations)},
        "spec": claim_spec("local"),
    }));
}

fn secret(case: &Case, name: &str, data: &Value) {
    case.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data,
    }));
}

/// A Secret with what opens a source.
pub(crate) fn keys(case: &Case, name: &str, id: &str, key: &str) {
    secret(case, name, &json!({"accessKeyId": id, "secretKey": key}));
}

pub(crate) fn authorities(case: &Case, name: &str, authority: &Authority) {
    case.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"ca.pem": authority.pem()},
    }));
}

/// Demands that an import fails for now, with this reason and a message that has all of these words.
pub(crate) fn fails(case: &Case, name: &str, reason: &str, words: &[&str]) {
    case.condition(name, "Running", "reason", reason);
    // By now the next attempt may be under way, and that is told, too, until it fails as well.
    let message = eventually(reason, || {
        let volume = case.get(&format!("dv/{name}"));
        let mut conditions = volume["status"]["conditions"].as_array()?.iter();
        let running = conditions.find(|it| it["type"] == "Running" && it["reason"] == reason)?;
        running["message"].as_str().map(str::to_owned)
    });
    for word in words {
        assert!(
            message.contains(word),
            "{name}: {word} is not in: {message}"
        );
    }
}
