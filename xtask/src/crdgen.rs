//! `cargo xtask crdgen`: the custom resource definitions, of two halves.
//!
//! `crds/schema/KIND.json` is what has to agree with upstream for a drop-in: names, types, defaults,
//! required fields. `crds/schema/words.txt` is what people read, in our words. A field without words is
//! an error, and so are words without a field.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::{paths, say};

/// In the order in which they are installed.
const KINDS: [&str; 7] = [
    "cdi",
    "cdiconfig",
    "storageprofile",
    "datavolume",
    "volumeimportsource",
    "volumeuploadsource",
    "volumeclonesource",
];
const RESULT: &str = "deploy/crds.yaml";

/// What to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only say whether the file is up to date
    #[arg(long)]
    check: bool,
}

impl Args {
    pub(crate) const fn check() -> Self {
        Self { check: true }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = paths::root().join("crds/schema");
    let words = Words::parse(&paths::read(&folder.join("words.txt"))?)?;
    let mut used = BTreeSet::new();
    let mut text = "# Made by `cargo xtask crdgen` of crds/schema/: change it there.\n".to_owned();
    for kind in KINDS {
        let file = folder.join(format!("{kind}.json"));
        let mut definition: Value = serde_json::from_str(&paths::read(&file)?)
            .with_context(|| format!("reading {}", file.display()))?;
        describe(&mut definition, &words, &mut used)
            .with_context(|| format!("describing {kind}"))?;
        text += "---\n";
        yaml(&definition, 0, &mut text);
    }
    let idle: Vec<&str> = words.idle(&used).collect();
    if !idle.is_empty() {
        bail!("words.txt describes what is not there: {}", idle.join(", "));
    }
    let result = paths::root().join(RESULT);
    if !args.check {
        paths::make_dir(&paths::root().join("deploy"))?;
        return paths::write(&result, text);
    }
    if paths::read(&result)? != text {
        bail!("{RESULT} is not what crds/schema/ says: run `cargo xtask crdgen` and commit it");
    }
    say::line(&format!("{RESULT} is what crds/schema/ says"));
    Ok(())
}

/// Texts by the paths they are for.
struct Words(BTreeMap<String, String>);

impl Words {
    fn parse(text: &str) -> Result<Self> {
        let mut all = BTreeMap::new();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (path, text) = line
                .split_once(": ")
                .with_context(|| format!("`{line}` is not of the form `path: text`"))?;
            if all.insert(path.to_owned(), text.to_owned()).is_some() {
                bail!("{path} is described twice");
            }
        }
        Ok(Self(all))
    }

    /// The longest entry that `path` ends with.
    fn of<'a>(&'a self, path: &str) -> Option<(&'a str, &'a str)> {
        let mut rest = path;
        loop {
            if let Some((key, text)) = self.0.get_key_value(rest) {
                return Some((key, text));
            }
            rest = rest.split_once('.')?.1;
        }
    }

    fn idle<'a>(&'a self, used: &BTreeSet<String>) -> impl Iterator<Item = &'a str> {
        self.0
            .keys()
            .filter(|key| !used.contains(*key))
            .map(String::as_str)
    }
}

/// Adds a description to a definition's schemas.
fn describe(definition: &mut Value, words: &Words, used: &mut BTreeSet<String>) -> Result<()> {
    let kind = definition["spec"]["names"]["kind"]
        .as_str()
        .context("a definition has a kind")?
        .to_owned();
    let versions = definition["spec"]["versions"]
        .as_array_mut()
        .context("a definition has versions")?;
    for version in versions {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        describe_field(schema, &kind, words, used)?;
    }
    Ok(())
}

fn describe_field(
    schema: &mut Value,
    path: &str,
    words: &Words,
    used: &mut BTreeSet<String>,
) -> Result<()> {
    let schema = schema
        .as_object_mut()
        .with_context(|| format!("{path} has no schema"))?;
    let (key, text) = words
        .of(path)
        .with_context(|| format!("crds/schema/words.txt has nothing about {path}"))?;
    used.insert(key.to_owned());
    schema.insert("description".to_owned(), text.into());
    within(schema, path, words, used)
}

/// Fields of an object, and of what is in a list or a map, which have the path of the list or map.
fn within(
    schema: &mut Map<String, Value>,
    path: &str,
    words: &Words,
    used: &mut BTreeSet<String>,
) -> Result<()> {
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, field) in fields {
            // The API server describes it itself, and refuses to be helped.
            if name == "metadata" {
                continue;
            }
            describe_field(field, &format!("{path}.{name}"), words, used)?;
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner).and_then(Value::as_object_mut) {
            within(inner, path, words, used)?;
        }
    }
    Ok(())
}

/// Writes a value as YAML: blocks for what has parts, JSON for what has none.
fn yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                *out += &indent;
                *out += key;
                *out += ":";
                part(value, depth + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut text = String::new();
                yaml(item, depth + 1, &mut text);
                // The first line starts where the dash makes room.
                *out += &indent;
                *out += "- ";
                *out += text.trim_start();
            }
        }
        scalar => {
            *out += &indent;
            *out += &scalar.to_string();
            *out += "\n";
        }
    }
}

fn part(value: &Value, depth: usize, out: &mut String) {
    let has_parts = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if has_parts {
        *out += "\n";
        yaml(value, depth, out);
    } else {
        *out += " ";
        *out += &value.to_string();
        *out += "\n";
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_gets_the_words_of_the_longest_path_it_ends_with() {
        let words =
            Words::parse("# no\n\nname: any\na.name: of a\nThing: it\nThing.a: the a\n").unwrap();
        let schema = json!({"openAPIV3Schema": {"properties": {
            "name": {"type": "string"},
            "a": {"items": {"properties": {"name": {"type": "string"}}}},
        }}});
        let mut definition = json!({"spec": {
            "names": {"kind": "Thing"},
            "versions": [{"schema": schema}],
        }});
        let mut used = BTreeSet::new();
        describe(&mut definition, &words, &mut used).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["description"], "it");
        let fields = &schema["properties"];
        assert_eq!(fields["name"]["description"], "any");
        let inner = &fields["a"]["items"]["properties"]["name"];
        assert_eq!(inner["description"], "of a");
        assert_eq!(words.idle(&used).count(), 0);
        assert!(
            describe(
                &mut definition,
                &Words::parse("name: x").unwrap(),
                &mut used
            )
            .is_err()
        );
    }

    #[test]
    fn values_are_written_as_yaml_blocks() {
        let value = json!({"a": [{"b": 1, "c": {}}, "x"], "d": {"e": true}});
        let mut text = String::new();
        yaml(&value, 0, &mut text);
        assert_eq!(text, "a:\n  - b: 1\n    c: {}\n  - \"x\"\nd:\n  e: true\n");
    }
}
