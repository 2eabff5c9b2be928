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

use longshore_tests::http::Authority;
use serde_json::{Value, json};

use super::rig::{Case, claim_spec, data_volume, eventually};

/// A data volume.
fn volume(case: &Case, name: &str, source: &Value) {
    case.apply(&data_volume(name, source));
}

/// A claim with these annotations, which are of `cdi.kubevirt.io/storage.`.
fn annotated(case: &Case, name: &str, annotations: &[(&str, &str)]) {
    let mut all = json!({});
    for (name, value) in annotations {
        all[format!("cdi.kubevirt.io/storage.{name}")] = json!(value);
    }
    case.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": all},
        "spec": claim_spec("local"),
    }));
}

fn secret(case: &Case, name: &str, data: &Value) {
    case.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data,
    }));
}

fn authorities(case: &Case, name: &str, authority: &Authority) {
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
