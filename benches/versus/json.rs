//! The results for programs.

use anyhow::{Context, Result};
use serde::Serialize;

use super::case::Group;
use super::table::Table;

/// Raised when a field changes its meaning or goes.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    /// The lines of `machine.txt`.
    machine: Vec<&'a str>,
    groups: Vec<Cases<'a>>,
}

#[derive(Serialize)]
struct Cases<'a> {
    group: &'static str,
    cases: Vec<&'a Table>,
}

/// The whole document.
pub(super) fn render(tables: &[Table], machine: &str) -> Result<String> {
    let groups = Group::ALL.map(|group| Cases {
        group: group.name(),
        cases: tables.iter().filter(|table| table.group == group).collect(),
    });
    let document = Document {
        version: VERSION,
        machine: machine.lines().filter(|line| !line.is_empty()).collect(),
        groups: groups
            .into_iter()
            .filter(|group| !group.cases.is_empty())
            .collect(),
    };
    serde_json::to_string_pretty(&document).context("writing JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::table::tests::records;

    #[test]
    fn a_program_finds_cases_by_group_and_contenders_by_name() {
        let text = render(&Table::all(&records(1.0, 4.0)), "rounds: 11\n").unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let case = &read["groups"][0]["cases"][0];
        assert_eq!(read["groups"][0]["group"], "files");
        assert_eq!(case["case"], "qcow2-zlib@tmpfs");
        assert_eq!(case["rows"][1]["contender"], "qemu-img");
        assert_eq!(case["rows"][1]["speed"]["value"], 4.0);
    }
}
