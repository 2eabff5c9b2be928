//! Counting, and the report.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::Verdict;
use super::cases::Kind;
use super::known::{Known, Who};
use super::mutate::Change;

#[derive(Debug, Default)]
struct Counts {
    tried: u64,
    equal: u64,
    refused: u64,
    known: BTreeMap<usize, u64>,
    failed: BTreeMap<&'static str, u64>,
    findings: u64,
    /// By name: how often changed, and how often both still read the image.
    fields: BTreeMap<&'static str, [u64; 2]>,
}

/// What became of all cases, by format.
#[derive(Debug)]
pub(crate) struct Tally(Vec<(&'static str, Counts)>);

impl Tally {
    pub(crate) fn new(kinds: &[Kind]) -> Self {
        Self(
            kinds
                .iter()
                .map(|kind| (kind.qemu, Counts::default()))
                .collect(),
        )
    }

    pub(crate) fn add(&mut self, kind: usize, changes: &[Change], verdict: &Verdict) {
        let counts = &mut self.0[kind].1;
        counts.tried += 1;
        match verdict {
            Verdict::Equal => counts.equal += 1,
            Verdict::Refused => counts.refused += 1,
            Verdict::Known(class) => *counts.known.entry(*class).or_default() += 1,
            Verdict::OracleFailed(how) => *counts.failed.entry(how).or_default() += 1,
            Verdict::Finding(_) => counts.findings += 1,
        }
        for change in changes {
            let [times, read] = counts.fields.entry(change.field).or_default();
            *times += 1;
            *read += u64::from(*verdict == Verdict::Equal);
        }
    }

    pub(crate) fn findings(&self) -> u64 {
        self.0.iter().map(|(_, counts)| counts.findings).sum()
    }

    /// One line on how far it is.
    pub(crate) fn line(&self, elapsed: Duration) -> String {
        let sum = |of: fn(&Counts) -> u64| -> u64 { self.0.iter().map(|(_, c)| of(c)).sum() };
        format!(
            "{} s: {} images, {} equal, {} refused by both, {} known, {} findings",
            elapsed.as_secs(),
            sum(|c| c.tried),
            sum(|c| c.equal),
            sum(|c| c.refused),
            sum(|c| c.known.values().sum()),
            sum(|c| c.findings),
        )
    }

    pub(crate) fn table(&self, known: &Known) -> String {
        let mut text = "| format | images | both read, equal | both refuse | a known difference | no answer from QEMU | findings |\n| --- | --- | --- | --- | --- | --- | --- |\n".to_owned();
        for (name, c) in &self.0 {
            let known: u64 = c.known.values().sum();
            let failed: u64 = c.failed.values().sum();
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {known} | {failed} | {} |",
                c.tried, c.equal, c.refused, c.findings
            );
        }
        text += "\n## Known differences met (`docs/differences.md`)\n\n| format | who reads it | recognised by | images |\n| --- | --- | --- | --- |\n";
        for (name, counts) in &self.0 {
            for (&class, count) in &counts.known {
                let class = &known.0[class];
                let who = match class.who {
                    Who::OnlyQemu => "QEMU",
                    Who::OnlyUs => "Longshore",
                    Who::Both => "both",
                };
                let _ = writeln!(text, "| {name} | {who} | `{}` | {count} |", class.part);
            }
            for (how, count) in &counts.failed {
                let _ = writeln!(text, "| {name} | | QEMU: {how} | {count} |");
            }
        }
        text += "\n## Fields changed\n\nHow often, and in brackets how often both still read the image and alike (most images have\nseveral changes).\n\n";
        for (name, counts) in &self.0 {
            let fields: Vec<String> = counts
                .fields
                .iter()
                .map(|(field, [times, read])| format!("{field} {times} ({read})"))
                .collect();
            let _ = writeln!(text, "- **{name}**: {}", fields.join(", "));
        }
        text
    }
}
