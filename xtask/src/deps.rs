//! The rules that keep the crates apart, the codecs single and the licences simple.
//!
//! Two sources of facts: `cargo metadata` for what each crate of ours asks for, and `cargo tree`
//! for what is really built. (The resolve graph in the metadata also lists optional crates that no
//! feature turns on.)

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{cargo, paths, say};

mod licence;
mod rules;

/// Everything that the rules judge.
#[derive(Debug, Default)]
struct Facts {
    members: Vec<Member>,
    packages: Vec<Package>,
    /// What a build of the whole workspace contains, tests included.
    built: Vec<Built>,
    /// What a build of one crate of ours contains, tests left out.
    closure: BTreeMap<String, Vec<Built>>,
    /// The licences that `deny.toml` allows.
    allowed: Vec<String>,
}

/// A crate of ours.
#[derive(Debug)]
struct Member {
    name: String,
    /// The other crates of ours that it names, without those for its tests.
    needs: Vec<String>,
    /// Those that only its tests need.
    needs_in_tests: Vec<String>,
    /// The text of its manifest.
    manifest: String,
}

/// Any crate in the lock file.
#[derive(Debug)]
struct Package {
    name: String,
    licence: Option<String>,
    source: Option<String>,
}

/// A crate as it is built: with the features that are on.
#[derive(Debug, PartialEq, Eq)]
struct Built {
    name: String,
    features: Vec<String>,
}

pub(crate) fn run() -> Result<()> {
    let facts = gather()?;
    let faults = rules::check(&facts);
    for fault in &faults {
        say::line(fault);
    }
    if !faults.is_empty() {
        bail!("{} rules about dependencies are broken", faults.len());
    }
    say::line(&format!(
        "{} crates of ours and {} of others keep the rules",
        facts.members.len(),
        facts.built.len()
    ));
    Ok(())
}

fn gather() -> Result<Facts> {
    let metadata = cargo::locked("metadata")
        .args(["--format-version", "1"])
        .quiet()
        .capture()?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("reading what cargo metadata printed")?;
    let mut facts = read_metadata(&metadata, |path| paths::read(path.as_ref()))?;
    facts.built = tree(&["--workspace", "--edges", "normal,build,dev"])?;
    for member in &facts.members {
        let built = tree(&["--package", &member.name, "--edges", "normal"])?;
        facts.closure.insert(member.name.clone(), built);
    }
    facts.allowed = licence::allowed(&paths::read(&paths::root().join("deny.toml"))?);
    Ok(facts)
}

fn tree(args: &[&str]) -> Result<Vec<Built>> {
    let text = cargo::locked("tree")
        .args(["--prefix", "none", "--format", "{p}|{f}"])
        .args(args)
        .quiet()
        .capture()?;
    Ok(read_tree(&text))
}

/// Lines of `name v1.2.3 (notes)|feature,feature`, a repeated one marked with `(*)`.
fn read_tree(text: &str) -> Vec<Built> {
    let mut built: Vec<Built> = Vec::new();
    for line in text.lines() {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let Some(name) = package.split_whitespace().next() else {
            continue;
        };
        let features = features.split_whitespace().next().unwrap_or_default();
        let features = features
            .split(',')
            .filter(|feature| !feature.is_empty())
            .map(str::to_owned)
            .collect();
        let found = Built {
            name: name.to_owned(),
            features,
        };
        if !built.contains(&found) {
            built.push(found);
        }
    }
    built
}

fn read_metadata(metadata: &Value, read: impl Fn(&str) -> Result<String>) -> Result<Facts> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let ids: Vec<String> = list(&metadata["workspace_members"])
        .iter()
        .filter_map(text)
        .collect();
    let packages = list(&metadata["packages"]);
    let ours: Vec<&Value> = packages
        .iter()
        .filter(|package| text(&package["id"]).is_some_and(|id| ids.contains(&id)))
        .collect();
    if ours.is_empty() {
        bail!("cargo metadata names no workspace members");
    }
    let names: Vec<String> = ours
        .iter()
        .filter_map(|package| text(&package["name"]))
        .collect();
    let mut facts = Facts::default();
    for package in &ours {
        let mut needs = Vec::new();
        let mut needs_in_tests = Vec::new();
        for dependency in list(&package["dependencies"]) {
            let Some(name) = text(&dependency["name"]).filter(|name| names.contains(name)) else {
                continue;
            };
            if dependency["kind"] == "dev" {
                needs_in_tests.push(name);
            } else {
                needs.push(name);
            }
        }
        let path = text(&package["manifest_path"]).context("a package has a manifest")?;
        let name = text(&package["name"]).context("a package has a name")?;
        facts.members.push(Member {
            name,
            needs,
            needs_in_tests,
            manifest: read(&path)?,
        });
    }
    for package in &packages {
        facts.packages.push(Package {
            name: text(&package["name"]).context("a package has a name")?,
            licence: text(&package["license"]),
            source: text(&package["source"]),
        });
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_gives_members_with_their_own_dependencies_and_all_packages() {
        let metadata = json!({
            "workspace_members": ["path#longshore-image@0.1.0", "path#longshore-transfer@0.1.0"],
            "packages": [
                {"id": "path#longshore-image@0.1.0", "name": "longshore-image", "license": "Apache-2.0", "source": null,
                 "manifest_path": "/image", "dependencies": [{"name": "flate2", "kind": null}]},
                {"id": "path#longshore-transfer@0.1.0", "name": "longshore-transfer", "license": "Apache-2.0",
                 "source": null, "manifest_path": "/transfer", "dependencies": [
                    {"name": "longshore-image", "kind": null}, {"name": "longshore-image", "kind": "dev"}]},
                {"id": "registry+x#flate2@1", "name": "flate2", "license": "MIT", "source": "registry+x",
                 "manifest_path": "/flate2", "dependencies": []},
            ],
        });
        let facts = read_metadata(&metadata, |path| Ok(format!("manifest of {path}"))).unwrap();
        assert_eq!(facts.members.len(), 2);
        assert_eq!(facts.members[1].needs, ["longshore-image"]);
        assert_eq!(facts.members[1].needs_in_tests, ["longshore-image"]);
        assert_eq!(facts.members[1].manifest, "manifest of /transfer");
        assert_eq!(facts.packages.len(), 3);
        assert_eq!(facts.packages[2].source.as_deref(), Some("registry+x"));
    }

    #[test]
    fn metadata_without_members_is_an_error_and_not_a_clean_bill() {
        assert!(read_metadata(&json!({"packages": []}), |_| Ok(String::new())).is_err());
    }

    #[test]
    fn the_tree_gives_each_crate_once_with_its_features() {
        let text = "flate2 v1.1.10|any_impl,zlib-rs\nlongshore-image v0.1.0 (/work/image)|\nflate2 v1.1.10|any_impl,zlib-rs (*)\n\n";
        let built = read_tree(text);
        assert_eq!(built.len(), 2, "{built:?}");
        assert_eq!(built[0].features, ["any_impl", "zlib-rs"]);
        assert_eq!(
            built[1],
            Built {
                name: "longshore-image".into(),
                features: vec![]
            }
        );
    }
}
