//! The file of counts, and what is worse than what it says.

use std::fmt;

use anyhow::{Context, Result, bail};

/// One conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) case: String,
    /// In the order of [`COLUMNS`].
    pub(super) values: [u64; COLUMNS.len()],
}

#[derive(Debug)]
struct Column {
    name: &'static str,
    /// How much more is no change yet, in thousandths and as a number: whichever is more.
    slack: Option<(u64, u64)>,
}

/// Slack is several times what counts of one build differed by on a busy machine (instructions by
/// 0.4 % at the most, some 30,000 of threads that hand over to each other; calls and bytes not at all,
/// though how much a writer finds waiting is left to chance), and far below what a lost optimisation
/// costs.
const COLUMNS: [Column; 7] = [
    // Of other tools: what differs here explains the rest.
    Column {
        name: "image_bytes",
        slack: None,
    },
    Column {
        name: "instructions",
        slack: Some((20, 0)),
    },
    Column {
        name: "reads",
        slack: Some((100, 3)),
    },
    Column {
        name: "read_bytes",
        slack: Some((10, 0)),
    },
    Column {
        name: "writes",
        slack: Some((100, 3)),
    },
    Column {
        name: "write_bytes",
        slack: Some((10, 0)),
    },
    Column {
        name: "others",
        slack: Some((100, 3)),
    },
];

/// The least slack where other tools were used: in thousandths, and how many times the number.
const OTHER_TOOLS: (u64, u64) = (250, 10);

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.case)?;
        for (column, value) in COLUMNS.iter().zip(self.values) {
            write!(f, ", {} {value}", column.name)?;
        }
        Ok(())
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) made_with: String,
    pub(super) entries: Vec<Entry>,
}

const ABOUT: &str = "\
# What small conversions cost (the debug build, one thread, 112 MiB): compared by `cargo xtask test`,
# renewed by `cargo xtask baseline --update`. Instructions are those of the whole program under valgrind;
# calls and bytes are those on source and target. See xtask/src/baseline.rs.
";
const WITH: &str = "# counted with: ";

impl Table {
    pub(super) fn render(&self) -> String {
        let mut text = format!("{ABOUT}{WITH}{}\ncase", self.made_with);
        for column in &COLUMNS {
            text.extend([",", column.name]);
        }
        text.push('\n');
        for entry in &self.entries {
            text.push_str(&entry.case);
            for value in entry.values {
                text.extend([format!(",{value}")]);
            }
            text.push('\n');
        }
        text
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let made_with = text.lines().find_map(|line| line.strip_prefix(WITH));
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let head = lines.next().unwrap_or_default();
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        if head != format!("case,{}", names.join(",")) {
            bail!("the baseline has other columns than ours: renew it");
        }
        let entries = lines.map(|line| {
            let mut cells = line.split(',');
            let case = cells.next().unwrap_or_default().to_owned();
            let values = cells
                .map(str::parse)
                .collect::<Result<Vec<u64>, _>>()
                .with_context(|| format!("reading the baseline: {line}"))?;
            let values = values.try_into().ok();
            let values = values.with_context(|| format!("not enough numbers: {line}"))?;
            Ok(Entry { case, values })
        });
        Ok(Self {
            made_with: made_with.unwrap_or_default().to_owned(),
            entries: entries.collect::<Result<_>>()?,
        })
    }
}

/// Lines for people.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) worse: Vec<String>,
    pub(super) better: Vec<String>,
}

/// What differs by more than the slack. A case that the baseline does not have is worse than nothing.
///
/// Other tools make other images and other code: of them only what is far off is told.
pub(super) fn compare(before: &Table, now: &Table) -> Verdict {
    let mut verdict = Verdict::default();
    let (least_part, times) = if before.made_with == now.made_with {
        (0, 1)
    } else {
        OTHER_TOOLS
    };
    for entry in &now.entries {
        let found = before.entries.iter().find(|old| old.case == entry.case);
        let Some(old) = found else {
            let line = format!("{} is not in the baseline", entry.case);
            verdict.worse.push(line);
            continue;
        };
        // Another image explains everything, and is no fault of ours.
        let other = old.values.first() != entry.values.first();
        let note = if other { ", of another image" } else { "" };
        for ((column, was), is) in COLUMNS.iter().zip(old.values).zip(entry.values) {
            let Some((thousandths, number)) = column.slack else {
                continue;
            };
            let slack = (was * thousandths.max(least_part) / 1000).max(number * times);
            let line = format!("{} {}: {is}, was {was}{note}", entry.case, column.name);
            if is > was + slack {
                verdict.worse.push(line);
            } else if is + slack < was {
                verdict.better.push(line);
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(instructions: u64, reads: u64) -> Table {
        Table {
            made_with: "rustc 1 / cc 2".to_owned(),
            entries: vec![Entry {
                case: "raw".to_owned(),
                values: [4096, instructions, reads, 1_000_000, 10, 1_000_000, 5],
            }],
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let one = table(1_000_000, 20);
        let read = Table::parse(&one.render()).unwrap();
        assert_eq!(read.entries, one.entries);
        assert_eq!(read.made_with, one.made_with);
        assert!(Table::parse("case,other\n").is_err());
    }

    #[test]
    fn noise_is_no_change_and_more_than_noise_is() {
        let before = table(1_000_000, 20);
        let count = |instructions, reads| {
            let verdict = compare(&before, &table(instructions, reads));
            (verdict.worse.len(), verdict.better.len())
        };
        assert_eq!(count(1_019_999, 23), (0, 0));
        assert_eq!(count(1_020_001, 20), (1, 0));
        assert_eq!(count(1_000_000, 24), (1, 0));
        assert_eq!(count(900_000, 10), (0, 2));
    }

    #[test]
    fn other_tools_may_differ_more() {
        let before = table(1_000_000, 20);
        let count = |instructions, reads| {
            let mut now = table(instructions, reads);
            now.made_with = "rustc 1 / cc 3".to_owned();
            compare(&before, &now).worse.len()
        };
        assert_eq!(count(1_249_999, 50), 0);
        assert_eq!(count(1_250_001, 51), 2);
    }

    #[test]
    fn a_case_without_a_baseline_is_named() {
        let mut before = table(1, 1);
        before.entries.clear();
        let verdict = compare(&before, &table(1, 1));
        assert_eq!(verdict.worse, ["raw is not in the baseline"]);
    }
}
