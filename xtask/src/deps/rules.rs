//! The rules themselves: pure, each with a test that breaks it.

use super::{Built, Facts, Member, licence};

/// What each crate of ours may use of the others. A crate that is not listed may use none.
const MAY_USE: &[(&str, &[&str])] = &[
    ("longshore-transfer", &["longshore-image"]),
    (
        "longshore-importer",
        &[
            "longshore-transfer",
            "longshore-image",
            "longshore-crds",
            "longshore-telemetry",
        ],
    ),
    (
        "longshore-controller",
        &["longshore-crds", "longshore-telemetry"],
    ),
    ("longshore-launcher", &["longshore-crds"]),
    ("longshore-csi", &["longshore-telemetry"]),
    (
        "longshore-cli",
        &[
            "longshore-transfer",
            "longshore-image",
            "longshore-crds",
            "longshore-importer",
            "longshore-launcher",
            "longshore-telemetry",
        ],
    ),
];

/// The harness and the benchmarks look at everything, but at the command only from outside.
const OBSERVERS: &[&str] = &[
    "longshore-tests",
    "longshore-benches",
    "longshore-micro",
    "longshore-soak",
];
const COMMAND: &str = "longshore-cli";

/// Crates that stay pure: no runtime, no client, however far down.
const PURE: &[&str] = &["longshore-image", "longshore-crds"];
const IMPURE: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "kube",
    "kube-client",
    "reqwest",
    "hyper",
];

/// One implementation of each thing, and which.
const BANNED: &[(&str, &str)] = &[
    ("cloudflare-zlib-sys", "flate2 runs on zlib-rs"),
    ("libz-ng-sys", "flate2 runs on zlib-rs"),
    ("libz-sys", "flate2 runs on zlib-rs"),
    ("native-tls", "TLS is rustls on aws-lc-rs"),
    ("openssl-sys", "TLS is rustls on aws-lc-rs"),
    ("ring", "TLS is rustls on aws-lc-rs"),
    ("tokio-tar", "it is abandoned, with a known flaw"),
    ("xz2", "liblzma is its maintained fork"),
];

/// Features that would put another inflate behind flate2's name.
const FLATE2_OTHER: &[&str] = &[
    "miniz_oxide",
    "rust_backend",
    "zlib",
    "zlib-default",
    "zlib-ng",
    "zlib-ng-compat",
    "cloudflare_zlib",
];

pub(super) fn check(facts: &Facts) -> Vec<String> {
    let mut faults = Vec::new();
    directions(facts, &mut faults);
    purity(facts, &mut faults);
    codecs(facts, &mut faults);
    bans(facts, &mut faults);
    lints(facts, &mut faults);
    licences(facts, &mut faults);
    sources(facts, &mut faults);
    faults
}

fn directions(facts: &Facts, faults: &mut Vec<String>) {
    for Member {
        name,
        needs,
        needs_in_tests,
        ..
    } in &facts.members
    {
        let may = MAY_USE
            .iter()
            .find(|(user, _)| user == name)
            .map_or(&[][..], |(_, may)| may);
        for needed in needs.iter().chain(needs_in_tests) {
            let harness = needed == "longshore-tests" && needs_in_tests.contains(needed);
            let observes = OBSERVERS.contains(&name.as_str()) && needed != COMMAND;
            if !may.contains(&needed.as_str()) && !harness && !observes {
                faults.push(format!("{name} must not depend on {needed}"));
            }
        }
    }
}

fn purity(facts: &Facts, faults: &mut Vec<String>) {
    for pure in PURE {
        // A rename must not turn the rule off.
        let Some(closure) = facts.closure.get(*pure) else {
            faults.push(format!(
                "{pure} is not in the workspace, so nothing checks what it uses"
            ));
            continue;
        };
        for Built { name, .. } in closure
            .iter()
            .filter(|built| IMPURE.contains(&built.name.as_str()))
        {
            faults.push(format!(
                "{pure} must not use {name}, at any depth (`cargo tree -p {pure} -i {name}`)"
            ));
        }
    }
}

fn codecs(facts: &Facts, faults: &mut Vec<String>) {
    for Built { features, .. } in facts.built.iter().filter(|built| built.name == "flate2") {
        if !features.iter().any(|feature| feature == "zlib-rs") {
            faults.push("flate2 is built without its zlib-rs feature".to_owned());
        }
        for feature in features
            .iter()
            .filter(|feature| FLATE2_OTHER.contains(&feature.as_str()))
        {
            faults.push(format!("flate2 is built with {feature}: only zlib-rs is allowed (`cargo tree -e features -i flate2`)"));
        }
    }
}

fn bans(facts: &Facts, faults: &mut Vec<String>) {
    for (banned, why) in BANNED {
        if facts.built.iter().any(|built| built.name == *banned) {
            faults.push(format!(
                "{banned} is banned: {why} (`cargo tree -i {banned}`)"
            ));
        }
    }
}

fn lints(facts: &Facts, faults: &mut Vec<String>) {
    for Member { name, manifest, .. } in &facts.members {
        if !inherits_lints(manifest) {
            faults.push(format!(
                "{name} does not take the workspace's lints: add `[lints] workspace = true`"
            ));
        }
    }
}

fn inherits_lints(manifest: &str) -> bool {
    let mut section = "";
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            section = line;
        }
        let line = line.replace(' ', "");
        (section == "[lints]" && line == "workspace=true") || line == "lints.workspace=true"
    })
}

fn licences(facts: &Facts, faults: &mut Vec<String>) {
    if facts.allowed.is_empty() {
        faults.push("deny.toml allows no licence at all: its list was not found".to_owned());
    }
    // Locked, but not built: crates for other systems. They are not ours to judge.
    let built = |name: &str| facts.built.iter().any(|built| built.name == name);
    for package in facts
        .packages
        .iter()
        .filter(|package| package.source.is_some() && built(&package.name))
    {
        let expression = package.licence.as_deref().unwrap_or("none given");
        if !licence::satisfied(expression, &facts.allowed) {
            faults.push(format!(
                "{} has a licence that deny.toml does not allow: {expression}",
                package.name
            ));
        }
    }
}

fn sources(facts: &Facts, faults: &mut Vec<String>) {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let elsewhere = |source: &&String| *source != REGISTRY;
    for package in &facts.packages {
        if let Some(source) = package.source.as_ref().filter(elsewhere) {
            faults.push(format!(
                "{} comes from {source}: only the crates registry is allowed",
                package.name
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Package;
    use super::*;

    fn member(name: &str, needs: &[&str]) -> Member {
        Member {
            name: name.into(),
            needs: needs.iter().map(|&need| need.into()).collect(),
            needs_in_tests: vec![],
            manifest: "[package]\n[lints]\nworkspace = true\n".into(),
        }
    }

    fn built(name: &str, features: &[&str]) -> Built {
        Built {
            name: name.into(),
            features: features.iter().map(|&feature| feature.into()).collect(),
        }
    }

    fn package(name: &str, licence: Option<&str>, source: &str) -> Package {
        Package {
            name: name.into(),
            licence: licence.map(str::to_owned),
            source: Some(source.into()),
        }
    }

    const CRATES: &str = "registry+https://github.com/rust-lang/crates.io-index";

    fn sound() -> Facts {
        Facts {
            members: vec![
                member("longshore-image", &[]),
                member("longshore-crds", &[]),
                member("longshore-transfer", &["longshore-image"]),
                member(
                    "longshore-cli",
                    &["longshore-launcher", "longshore-telemetry"],
                ),
                member("longshore-tests", &["longshore-importer"]),
                member("xtask", &[]),
            ],
            packages: vec![package("flate2", Some("MIT OR Apache-2.0"), CRATES)],
            built: vec![
                built("flate2", &["any_impl", "zlib-rs"]),
                built("tokio", &[]),
            ],
            closure: [
                ("longshore-image", vec![built("flate2", &["zlib-rs"])]),
                ("longshore-crds", vec![]),
            ]
            .into_iter()
            .map(|(name, closure)| (name.to_owned(), closure))
            .collect(),
            allowed: vec!["MIT".into()],
        }
    }

    /// Breaks a sound workspace in one way and gives the only fault.
    fn fault(damage: impl FnOnce(&mut Facts)) -> String {
        let mut facts = sound();
        damage(&mut facts);
        let faults = check(&facts);
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.into_iter().next().unwrap()
    }

    #[test]
    fn a_sound_workspace_has_no_faults() {
        assert_eq!(check(&sound()), Vec::<String>::new());
    }

    #[test]
    fn crates_depend_downwards_only() {
        for (user, needed) in [
            ("longshore-image", "longshore-crds"),
            ("longshore-crds", "longshore-image"),
            ("longshore-transfer", "longshore-crds"),
            ("longshore-importer", "longshore-launcher"),
            ("longshore-launcher", "longshore-image"),
            ("longshore-telemetry", "longshore-crds"),
            ("xtask", "longshore-image"),
            ("longshore-launcher", "longshore-tests"),
        ] {
            let text = fault(|facts| facts.members.push(member(user, &[needed])));
            assert_eq!(text, format!("{user} must not depend on {needed}"));
        }
    }

    #[test]
    fn nothing_depends_on_the_command() {
        for user in [
            "longshore-tests",
            "longshore-benches",
            "longshore-importer",
            "xtask",
        ] {
            let text = fault(|facts| facts.members.push(member(user, &[COMMAND])));
            assert_eq!(text, format!("{user} must not depend on longshore-cli"));
        }
    }

    #[test]
    fn directions_hold_for_tests_too_except_for_the_harness() {
        let text = fault(|facts| {
            facts.members[0]
                .needs_in_tests
                .push("longshore-transfer".into());
        });
        assert_eq!(
            text,
            "longshore-image must not depend on longshore-transfer"
        );
        let mut facts = sound();
        facts.members[0]
            .needs_in_tests
            .push("longshore-tests".into());
        assert_eq!(check(&facts), Vec::<String>::new());
    }

    #[test]
    fn no_runtime_and_no_client_under_the_pure_crates() {
        for pure in PURE {
            for impure in IMPURE {
                let text = fault(|facts| {
                    facts
                        .closure
                        .get_mut(*pure)
                        .unwrap()
                        .push(built(impure, &[]));
                });
                assert!(
                    text.starts_with(&format!("{pure} must not use {impure}")),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_pure_crate_that_vanished_is_a_fault() {
        let text = fault(|facts| drop(facts.closure.remove("longshore-crds")));
        assert!(
            text.contains("longshore-crds is not in the workspace"),
            "{text}"
        );
    }

    #[test]
    fn flate2_runs_on_zlib_rs_and_nothing_else() {
        let text = fault(|facts| facts.built[0].features = vec!["any_impl".into()]);
        assert!(text.contains("without its zlib-rs"), "{text}");
        for other in FLATE2_OTHER {
            let text = fault(|facts| facts.built[0].features.push((*other).into()));
            assert!(text.contains(other), "{text}");
        }
    }

    #[test]
    fn banned_crates_are_found_wherever_they_are_built() {
        for (banned, _) in BANNED {
            let text = fault(|facts| facts.built.push(built(banned, &[])));
            assert!(text.starts_with(&format!("{banned} is banned")), "{text}");
        }
    }

    #[test]
    fn every_member_takes_the_lints_of_the_workspace() {
        let text = fault(|facts| {
            facts.members[0].manifest = "[package]\n[dependencies.x]\nworkspace = true\n".into();
        });
        assert!(text.starts_with("longshore-image does not take"), "{text}");
        assert!(inherits_lints("lints.workspace = true\n"));
        assert!(!inherits_lints("[lints.rust]\nworkspace = true\n"));
    }

    #[test]
    fn licences_are_those_of_the_list_and_none_means_no() {
        let text = fault(|facts| facts.packages[0].licence = Some("GPL-3.0-only".into()));
        assert!(
            text.contains("flate2") && text.contains("GPL-3.0-only"),
            "{text}"
        );
        let text = fault(|facts| facts.packages[0].licence = None);
        assert!(text.contains("none given"), "{text}");
        let text = fault(|facts| {
            facts.allowed.clear();
            facts.packages.clear();
        });
        assert!(text.contains("no licence at all"), "{text}");
    }

    #[test]
    fn only_the_registry_is_a_source() {
        let text = fault(|facts| {
            facts
                .packages
                .push(package("odd", Some("MIT"), "git+https://example.org/odd"));
        });
        assert!(
            text.contains("odd comes from git+https://example.org/odd"),
            "{text}"
        );
    }
}
