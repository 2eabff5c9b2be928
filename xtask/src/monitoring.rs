//! The rules of deploy/monitoring.yaml, given to promtool: whether they are well-formed, and whether they
//! fire when they should.
//!
//! promtool is unpacked out of Debian's package `prometheus` and not installed: that would start a server.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::guest::packages;
use crate::shell::Run;
use crate::{paths, say};

const MANIFEST: &str = "deploy/monitoring.yaml";
const CASES: &str = "xtask/src/monitoring/cases.yaml";
/// What tests find it by.
pub(crate) const VARIABLE: &str = "LONGSHORE_PROMTOOL";

/// Where promtool is.
pub(crate) fn promtool() -> Result<PathBuf> {
    if let Some(path) = paths::program("promtool") {
        return Ok(path);
    }
    Ok(packages::plain("prometheus")?
        .folder
        .join("usr/bin/promtool"))
}

/// Fails where the rules do not hold what they say.
pub(crate) fn check() -> Result<()> {
    let promtool = promtool()?;
    let manifest = paths::read(&paths::root().join(MANIFEST))?;
    let rules = rules(&manifest).with_context(|| format!("{MANIFEST} has no groups of rules"))?;
    let folder = paths::target().join("monitoring");
    paths::make_dir(&folder)?;
    paths::write(&folder.join("rules.yaml"), rules)?;
    let cases = paths::read(&paths::root().join(CASES))?;
    paths::write(&folder.join("cases.yaml"), cases)?;
    for (command, file) in [("check", "rules.yaml"), ("test", "cases.yaml")] {
        Run::new(&promtool)
            .args([command, "rules", file])
            .dir(&folder)
            .quiet()
            .capture()?;
    }
    say::line("the rules of deploy/monitoring.yaml do what they say");
    Ok(())
}

/// The spec of the `PrometheusRule`, as a file of rules.
fn rules(manifest: &str) -> Option<String> {
    let document = manifest
        .split("\n---\n")
        .find(|document| document.contains("kind: PrometheusRule"))?;
    let (_, spec) = document.split_once("\nspec:\n")?;
    let lines = spec
        .lines()
        .map(|line| line.strip_prefix("  ").unwrap_or(line));
    let text: Vec<&str> = lines.collect();
    text.first()?
        .starts_with("groups:")
        .then(|| text.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_found_in_the_manifest() {
        let manifest = paths::read(&paths::root().join(MANIFEST)).unwrap();
        let rules = rules(&manifest).unwrap();
        assert!(rules.starts_with("groups:\n- name: "), "{rules}");
        assert_eq!(super::rules("kind: Else\nspec:\n  groups:\n"), None);
    }
}
