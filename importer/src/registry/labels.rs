//! What an image wants its disk to be labelled with.

use std::collections::BTreeMap;

use super::manifest::{Config, ImageManifest};

/// In the name of a variable.
const IN_ENV: &str = "KUBEVIRT_IO_";
/// In a label.
const IN_LABEL: &str = "kubevirt.io/";
/// Most labels: they have to fit into a termination message, and onto an object.
const MOST: usize = 24;
/// Kubernetes' limit for a value, and for what follows the slash of a key.
const LONGEST: usize = 63;

/// Variables of the image's environment are labels as upstream maps them:
/// `INSTANCETYPE_KUBEVIRT_IO_DEFAULT_PREFERENCE=fedora` is
/// `instancetype.kubevirt.io/default-preference: fedora`. Labels and annotations of the image that have
/// such names already are taken as they are; the environment counts more.
pub(super) fn of(manifest: &ImageManifest, config: &Config) -> BTreeMap<String, String> {
    let named = config.labels().chain(&manifest.annotations);
    let named = named.filter(|(key, _)| key.contains(IN_LABEL));
    let named = named.map(|(key, value)| (key.clone(), value.clone()));
    let env = config.env().iter().map(String::as_str);
    valid(named.chain(mapped(env)))
}

/// The same of an environment alone: variables as `NAME=VALUE`.
pub(super) fn of_env<'a>(env: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    valid(mapped(env))
}

fn mapped<'a>(env: impl Iterator<Item = &'a str>) -> impl Iterator<Item = (String, String)> {
    env.filter_map(|variable| {
        let (name, value) = variable.split_once('=')?;
        Some((label(name)?, value.to_owned()))
    })
}

/// What can be labels, and not too many of them.
fn valid(wanted: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value) in wanted {
        if !is_key(&key) || !is_value(&value) {
            let key: String = key.chars().take(100).collect();
            tracing::warn!(key, "the image asks for what is no label: it is left out");
        } else if labels.len() < MOST || labels.contains_key(&key) {
            labels.insert(key, value);
        } else {
            tracing::warn!(
                key,
                "the image asks for too many labels: this one is left out"
            );
        }
    }
    labels
}

/// The label that a variable stands for.
fn label(variable: &str) -> Option<String> {
    let (before, after) = variable.split_once(IN_ENV)?;
    let mut label = String::new();
    let before = before.strip_suffix('_').unwrap_or(before);
    if !before.is_empty() {
        label += &before.replace('_', ".");
        label.push('.');
    }
    label += IN_LABEL;
    label += &after.replace('_', "-");
    Some(label.to_lowercase())
}

/// `kubevirt.io/NAME` or `SOMETHING.kubevirt.io/NAME`.
fn is_key(key: &str) -> bool {
    let Some((domain, name)) = key.split_once('/') else {
        return false;
    };
    let of_domain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    let ours = domain == "kubevirt.io"
        || domain
            .strip_suffix(".kubevirt.io")
            .is_some_and(|rest| rest.split('.').all(is_word));
    ours && domain.len() <= 253 && domain.bytes().all(of_domain) && is_word(name)
}

fn is_value(value: &str) -> bool {
    value.is_empty() || is_word(value)
}

/// Letters and digits, and dots, dashes and underscores between them.
fn is_word(text: &str) -> bool {
    let ends = text.bytes().next().zip(text.bytes().last());
    text.len() <= LONGEST
        && ends.is_some_and(|(a, b)| a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Descriptor;
    use super::*;

    #[test]
    fn variables_are_mapped_as_upstream_maps_them() {
        for (variable, expected) in [
            ("KUBEVIRT_IO_TEST", Some("kubevirt.io/test")),
            ("KUBEVIRT_IO_TEST_TEST", Some("kubevirt.io/test-test")),
            ("TEST_KUBEVIRT_IO_TEST", Some("test.kubevirt.io/test")),
            ("A_B_KUBEVIRT_IO_C_D", Some("a.b.kubevirt.io/c-d")),
            (
                "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE",
                Some("instancetype.kubevirt.io/default-instancetype"),
            ),
            ("_KUBEVIRT_IO_X", Some("kubevirt.io/x")),
            ("PATH", None),
            ("kubevirt_io_x", None),
        ] {
            assert_eq!(label(variable).as_deref(), expected, "{variable}");
        }
    }

    fn labels(env: &[&str], annotations: &[(&str, &str)]) -> BTreeMap<String, String> {
        let env = serde_json::to_string(env).unwrap();
        let config = format!(r#"{{"config":{{"Env":{env}}}}}"#);
        let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let manifest = ImageManifest {
            config: Descriptor::test(0),
            layers: Vec::new(),
            annotations: annotations.iter().map(pair).collect(),
        };
        of(&manifest, &Config::parse(config.as_bytes(), "").unwrap())
    }

    #[test]
    fn annotations_that_are_labels_count_less_than_variables() {
        let key = "instancetype.kubevirt.io/default-preference";
        let found = labels(
            &[
                "PATH=/bin",
                "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_PREFERENCE=fedora",
                "X",
            ],
            &[
                (key, "other"),
                ("kubevirt.io/a", "b"),
                ("org.example/a", "b"),
            ],
        );
        assert_eq!(found.len(), 2);
        assert_eq!(found[key], "fedora");
        assert_eq!(found["kubevirt.io/a"], "b");
    }

    #[test]
    fn what_is_no_label_or_too_much_is_left_out() {
        let long = format!("KUBEVIRT_IO_A={}", "x".repeat(64));
        let odd = [
            "KUBEVIRT_IO_A=b c",
            "KUBEVIRT_IO_=b",
            "A/B_KUBEVIRT_IO_C=d",
            &long,
        ];
        assert!(labels(&odd, &[("evil/kubevirt.io/a", "b")]).is_empty());
        let many: Vec<String> = (0..1000).map(|n| format!("KUBEVIRT_IO_A{n}=b")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(labels(&many, &[]).len(), MOST);
    }
}
