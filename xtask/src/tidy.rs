//! What no compiler or linter checks: the length of files, forgotten markers, and the numbering of
//! decisions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::shell::Run;
use crate::{paths, say};

/// Past this, a file holds more than one idea.
const LONGEST: usize = 800;

/// Markers that must not be committed; put together here so that this file does not contain them.
const MARKERS: &[(&str, &str)] = &[
    (concat!("todo", "!("), "unfinished code"),
    (concat!("unimplemented", "!("), "unfinished code"),
    (concat!("#[", "ignore"), "a test that does not run"),
    (
        concat!("#[", "allow("),
        "use #[expect(.., reason = \"..\")]",
    ),
    (
        concat!("#![", "allow("),
        "use #![expect(.., reason = \"..\")]",
    ),
    (concat!("<<<<", "<<< "), "a merge conflict"),
];

/// The only reasons to ignore a test: it is none, but a process that tests start.
const NO_TESTS: &[&str] = &["= \"a process for other tests", "= \"a child of the tests"];

/// Files whose lines people read and edit.
const TEXT: &[&str] = &["rs", "toml", "md", "yaml", "yml", "sh"];

pub(crate) fn run() -> Result<()> {
    let listed = Run::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .dir(paths::root())
        .quiet()
        .capture()?;
    let mut faults = Vec::new();
    let mut names = Vec::new();
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let path = paths::root().join(name);
        // Deleted but not yet committed files are listed too.
        if !path.is_file() {
            continue;
        }
        names.push(name);
        if let Some(text) = text_of(&path) {
            faults.extend(check_text(name, &text));
        }
    }
    faults.extend(check_names(&names));
    for fault in &faults {
        say::line(fault);
    }
    if !faults.is_empty() {
        bail!("{} untidy places", faults.len());
    }
    say::line(&format!("{} files are tidy", names.len()));
    Ok(())
}

fn text_of(path: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?;
    if TEXT.contains(&extension) {
        fs::read_to_string(path).ok()
    } else {
        None
    }
}

fn check_text(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let rust = Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "rs");
    let lines = text.lines().count();
    if rust && lines > LONGEST {
        faults.push(format!(
            "{name}: {lines} lines, more than {LONGEST}: split it"
        ));
    }
    for (index, line) in text.split('\n').enumerate() {
        let at = index + 1;
        if line.ends_with([' ', '\t', '\r']) {
            faults.push(format!("{name}:{at}: space at the end of the line"));
        }
        if rust {
            let excused = NO_TESTS.iter().any(|reason| line.contains(reason));
            let found = MARKERS
                .iter()
                .filter(|(marker, _)| line.contains(marker) && !excused);
            faults.extend(found.map(|(marker, why)| format!("{name}:{at}: `{marker}`: {why}")));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        faults.push(format!("{name}: no newline at the end"));
    }
    faults
}

fn check_names(names: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut decisions: BTreeMap<&str, &str> = BTreeMap::new();
    for name in names {
        if name.rsplit('/').next() == Some("mod.rs") {
            faults.push(format!("{name}: name the module's file after the module"));
        }
        let Some(decision) = name
            .strip_prefix("docs/decisions/")
            .filter(|rest| Path::new(rest).extension().is_some_and(|kind| kind == "md"))
        else {
            continue;
        };
        match decision.split_once('-').map(|(number, _)| number) {
            Some(number)
                if number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                if let Some(other) = decisions.insert(number, name) {
                    faults.push(format!("{name}: its number is taken by {other}"));
                }
            }
            _ if decision == "README.md" => {}
            _ => faults.push(format!("{name}: decisions are called NNNN-title.md")),
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tidy_file_has_no_faults() {
        assert_eq!(check_text("a.rs", "fn main() {}\n"), Vec::<String>::new());
        assert_eq!(check_text("a.rs", ""), Vec::<String>::new());
    }

    #[test]
    fn every_marker_is_found_with_its_line() {
        for (marker, _) in MARKERS {
            let faults = check_text("x/a.rs", &format!("ok\n    {marker} rest\n"));
            assert_eq!(faults.len(), 1, "{marker}: {faults:?}");
            assert!(faults[0].starts_with("x/a.rs:2: "), "{faults:?}");
        }
    }

    #[test]
    fn a_test_is_ignored_only_if_it_is_a_process_for_others() {
        let ignored =
            |rest: &str| check_text("a.rs", &format!("{}{rest}\n", concat!("#[", "ignore")));
        assert_eq!(
            ignored(" = \"a process for other tests to start\"]"),
            Vec::<String>::new()
        );
        assert_eq!(ignored(" = \"takes long\"]").len(), 1);
        assert_eq!(ignored("]").len(), 1);
    }

    #[test]
    fn markers_in_prose_are_nobodys_business() {
        assert_eq!(
            check_text("a.md", &format!("never write {}\n", MARKERS[0].0)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_file_may_have_the_longest_length_but_no_line_more() {
        assert_eq!(
            check_text("a.rs", &"x\n".repeat(LONGEST)),
            Vec::<String>::new()
        );
        assert_eq!(check_text("a.rs", &"x\n".repeat(LONGEST + 1)).len(), 1);
    }

    #[test]
    fn space_at_the_end_of_a_line_and_a_missing_newline_are_found() {
        assert_eq!(check_text("a.md", "one \ntwo\t\nthree\r\nfour").len(), 4);
    }

    #[test]
    fn module_files_are_named_after_their_module() {
        assert_eq!(check_names(&["a/src/mod.rs", "a/src/model.rs"]).len(), 1);
    }

    #[test]
    fn decisions_are_numbered_and_no_number_is_taken_twice() {
        let fine = [
            "docs/decisions/0001-a.md",
            "docs/decisions/0002-b.md",
            "docs/decisions/README.md",
        ];
        assert_eq!(check_names(&fine), Vec::<String>::new());
        assert_eq!(
            check_names(&["docs/decisions/0001-a.md", "docs/decisions/0001-b.md"]).len(),
            1
        );
        assert_eq!(check_names(&["docs/decisions/title.md"]).len(), 1);
        assert_eq!(check_names(&["docs/decisions/1-title.md"]).len(), 1);
    }
}
