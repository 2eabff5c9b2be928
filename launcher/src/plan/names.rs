//! Texts that end up in file names, host names and QEMU options.

use longshore_crds::FieldPath;

use super::{problem::ProblemKind, report::Report};

/// Longest label of a domain name.
const MAX_LABEL: usize = 63;
/// Longest domain name of an object in a cluster.
const MAX_SUBDOMAIN: usize = 253;

/// Lower case letters, digits and dashes, a letter or digit at both ends.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Labels joined by dots; no file name that leaves its directory is one.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN
        && text
            .split('.')
            .all(|label| is_label(label) || (label.len() > MAX_LABEL && is_long_label(label)))
}

/// Kubernetes bounds the whole name only, not each label.
fn is_long_label(label: &str) -> bool {
    label
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Letters, digits and these marks, at least one.
pub(super) fn is_word(text: &str, marks: &[u8]) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || marks.contains(&b))
}

/// Refuses a name that is empty or no label.
pub(super) fn check_label(name: &str, path: &FieldPath, report: &mut Report) {
    if name.is_empty() {
        report.problem(path, ProblemKind::Required);
    } else if !is_label(name) {
        report.problem(
            path,
            ProblemKind::Invalid {
                value: name.to_owned(),
                expected: "a name of at most 63 lower case letters, digits and dashes",
            },
        );
    }
}

/// Refuses a name that is empty or no subdomain.
pub(super) fn check_subdomain(name: &str, path: &FieldPath, report: &mut Report) {
    if name.is_empty() {
        report.problem(path, ProblemKind::Required);
    } else if !is_subdomain(name) {
        report.problem(
            path,
            ProblemKind::Invalid {
                value: name.to_owned(),
                expected: "a name of at most 253 lower case letters, digits, dashes and dots",
            },
        );
    }
}

/// Refuses what is there more than once.
pub(super) fn check_unique<'a>(
    names: impl Iterator<Item = (&'a str, FieldPath)>,
    report: &mut Report,
) {
    let mut seen = std::collections::BTreeSet::new();
    for (name, path) in names {
        if !name.is_empty() && !seen.insert(name) {
            report.problem(
                &path,
                ProblemKind::Duplicate {
                    value: name.to_owned(),
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_taken_for_a_file_leaves_its_directory() {
        for name in [
            "", ".", "..", "a/b", "../a", "a..b", "-a", "a-", ".a", "a.", "A", "a,b", "a b", "é",
        ] {
            assert!(!is_subdomain(name), "{name}");
        }
        for name in ["a", "a-b", "a.b", "1", "debian-12.root"] {
            assert!(is_subdomain(name), "{name}");
        }
        assert!(is_subdomain(&"a".repeat(253)) && !is_subdomain(&"a".repeat(254)));
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)) && !is_label("a.b"));
    }
}
