//! Two sets of results: what became slower, what faster, and what only the machine did.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use super::contender::{BOUND, OURS};
use super::goals::{FEWEST, SLOWER};
use super::record::{self, Record};
use super::statistics::{Ratio, Rounds, change, median};
use super::table::rounds;
use crate::say;

/// Which sets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The folder with the older raw.csv
    before: PathBuf,
    /// The folder with the newer raw.csv
    after: PathBuf,
}

const SEED: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Slower,
    Faster,
    /// Nothing larger than the noise, or than 5 %.
    Same,
    /// Our times changed, and so did the peers'.
    Machine,
    TooFewRounds,
}

impl Verdict {
    const fn text(self) -> &'static str {
        match self {
            Self::Slower => "**slower**",
            Self::Faster => "faster",
            Self::Same => "no difference",
            Self::Machine => "the machine changed, not Longshore",
            Self::TooFewRounds => "too few rounds",
        }
    }

    /// `raw` is of our times alone, `corrected` of our times over the peers' in the same rounds.
    fn of(raw: Ratio, corrected: Option<Ratio>) -> Self {
        let slower = |ratio: Ratio| ratio.low > SLOWER;
        let faster = |ratio: Ratio| ratio.high < 1.0 / SLOWER;
        match corrected {
            None if slower(raw) => Self::Slower,
            None if faster(raw) => Self::Faster,
            Some(corrected) if slower(raw) && slower(corrected) => Self::Slower,
            Some(corrected) if faster(raw) && faster(corrected) => Self::Faster,
            Some(_) if slower(raw) || faster(raw) => Self::Machine,
            _ => Self::Same,
        }
    }
}

/// One case that both sets have.
#[derive(Debug, Serialize)]
struct Line {
    case: String,
    /// Medians in seconds.
    before: f64,
    after: f64,
    /// After over before.
    change: Option<Ratio>,
    /// The same, over what the peers' times did.
    corrected: Option<Ratio>,
    verdict: Verdict,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let read = |folder: &Path| record::read(&folder.join("raw.csv"));
    let lines = compared(&read(&args.before)?, &read(&args.after)?);
    if lines.is_empty() {
        bail!("the two sets of results have no case in common");
    }
    if args.json {
        say::data(&serde_json::to_string_pretty(&lines)?);
    } else {
        say::data(&render(&lines));
    }
    let slower: Vec<&str> = lines
        .iter()
        .filter(|line| line.verdict == Verdict::Slower)
        .map(|line| line.case.as_str())
        .collect();
    if !slower.is_empty() {
        bail!("slower: {}", slower.join(" "));
    }
    Ok(())
}

fn compared(before: &[Record], after: &[Record]) -> Vec<Line> {
    let mut cases: Vec<&str> = Vec::new();
    for record in after {
        if !cases.contains(&record.case.as_str()) {
            cases.push(&record.case);
        }
    }
    cases
        .into_iter()
        .filter_map(|case| line(case, before, after))
        .collect()
}

fn line(case: &str, before: &[Record], after: &[Record]) -> Option<Line> {
    let of = |records: &'_ [Record]| -> Vec<Record> {
        let found = records.iter().filter(|record| record.case == case);
        found.cloned().collect()
    };
    let (before, after) = (of(before), of(after));
    let [before, after] = [&before, &after].map(|records| records.iter().collect::<Vec<_>>());
    let [ours_before, ours_after] = [&before, &after].map(|records| times(records, None));
    let (middle_before, middle_after) = (median(&ours_before.times)?, median(&ours_after.times)?);
    let control = shared(&before, &after);
    let raw = change(&ours_before, &ours_after, SEED);
    let corrected = control.and_then(|name| {
        let [before, after] = [&before, &after].map(|records| times(records, Some(&name)));
        change(&before, &after, SEED)
    });
    let fewest = ours_before.times.len().min(ours_after.times.len());
    let verdict = match raw {
        Some(raw) if fewest >= FEWEST => Verdict::of(raw, corrected),
        _ => Verdict::TooFewRounds,
    };
    Some(Line {
        case: case.to_owned(),
        before: middle_before,
        after: middle_after,
        change: raw,
        corrected,
        verdict,
    })
}

/// The peer that both sets have and that varied least: it tells what the machine did.
fn shared(before: &[&Record], after: &[&Record]) -> Option<String> {
    let mut best: Option<(f64, &str)> = None;
    for record in before {
        let name = record.contender.as_str();
        let peer = name != OURS && !name.starts_with(BOUND);
        if !peer || best.is_some_and(|(_, best)| best == name) {
            continue;
        }
        let spread = |records: &[&Record]| -> Option<f64> {
            let times = times(records, Some(name));
            if times.beside.len() < FEWEST {
                return None;
            }
            Some(super::statistics::mad(&times.beside)? / median(&times.beside)?)
        };
        if let (Some(one), Some(other)) = (spread(before), spread(after)) {
            let spread = one.max(other);
            if best.is_none_or(|(least, _)| spread < least) {
                best = Some((spread, name));
            }
        }
    }
    best.map(|(_, name)| name.to_owned())
}

/// Our times; with `peer`, those of the rounds that it has too, and its own.
fn times(records: &[&Record], peer: Option<&str>) -> Rounds {
    let ours = rounds(records, OURS);
    let Some(peer) = peer else {
        return Rounds {
            times: ours.iter().map(|record| record.wall).collect(),
            beside: Vec::new(),
        };
    };
    let theirs = rounds(records, peer);
    let (times, beside) = ours
        .iter()
        .filter_map(|our| {
            let their = theirs.iter().find(|their| their.round == our.round)?;
            Some((our.wall, their.wall))
        })
        .unzip();
    Rounds { times, beside }
}

fn render(lines: &[Line]) -> String {
    let mut page = String::from(
        "| case | before | after | after / before | corrected by a peer | verdict |\n\
         |---|---|---|---|---|---|\n",
    );
    let ratio = |ratio: Option<Ratio>| {
        ratio.map_or_else(
            || "-".to_owned(),
            |ratio| format!("{:.2} ({:.2} to {:.2})", ratio.value, ratio.low, ratio.high),
        )
    };
    for line in lines {
        page.extend([format!(
            "| {} | {:.2} s | {:.2} s | {} | {} | {} |\n",
            line.case,
            line.before,
            line.after,
            ratio(line.change),
            ratio(line.corrected),
            line.verdict.text()
        )]);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::table::tests::records;

    fn verdict(before: &[Record], after: &[Record]) -> Verdict {
        compared(before, after)[0].verdict
    }

    /// Times that jitter by so many percent from round to round.
    fn noisy(mut records: Vec<Record>, percent: f64) -> Vec<Record> {
        for record in &mut records {
            let step = f64::from(u32::try_from(record.round * 7 % 11).unwrap()) / 5.0 - 1.0;
            record.wall *= 1.0 + step * percent / 100.0;
        }
        records
    }

    #[test]
    fn what_became_slower_for_sure_is_slower_and_the_other_way_round_faster() {
        let (fast, slow) = (records(1.0, 4.0), records(1.2, 4.0));
        assert_eq!(verdict(&fast, &slow), Verdict::Slower);
        assert_eq!(verdict(&slow, &fast), Verdict::Faster);
        assert_eq!(verdict(&fast, &fast), Verdict::Same);
    }

    #[test]
    fn a_difference_below_the_noise_or_below_five_percent_is_none() {
        let before = noisy(records(1.0, 4.0), 30.0);
        let after = noisy(records(1.1, 4.0), 30.0);
        assert_eq!(verdict(&before, &after), Verdict::Same);
        assert_eq!(
            verdict(&records(1.0, 4.0), &records(1.04, 4.0)),
            Verdict::Same
        );
    }

    #[test]
    fn a_slower_machine_is_not_held_against_us() {
        assert_eq!(
            verdict(&records(1.0, 4.0), &records(1.5, 6.0)),
            Verdict::Machine
        );
    }

    #[test]
    fn two_rounds_decide_nothing() {
        let few = |ours| -> Vec<Record> {
            let mut records = records(ours, 4.0);
            records.retain(|record| record.round <= 2);
            records
        };
        assert_eq!(verdict(&few(1.0), &few(3.0)), Verdict::TooFewRounds);
    }

    #[test]
    fn cases_of_one_set_only_are_left_out() {
        let mut other = records(1.0, 4.0);
        for record in &mut other {
            record.case = "raw@disk".into();
        }
        assert!(compared(&records(1.0, 4.0), &other).is_empty());
    }
}
