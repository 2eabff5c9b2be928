//! `cargo xtask test`: every check and test there is, one stage after the other.
//!
//! A stage that fails does not stop the ones after it: one run tells everything that is wrong.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::say;
use crate::test::ahead::Ahead;
use crate::test::count::Count;
use crate::test::stages::STAGES;

mod ahead;
mod count;
mod stages;

/// Which stages to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this stage (may be given more than once)
    #[arg(long, value_name = "STAGE", value_parser = stages::names())]
    only: Vec<String>,
    /// Only what takes a minute or two once built: no guests, no oracle, no demo
    #[arg(long, conflicts_with = "only")]
    quick: bool,
}

/// One line of the table at the end.
struct Line {
    name: &'static str,
    took: Duration,
    count: Count,
    fault: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen = STAGES.iter().filter(|stage| {
        if args.quick {
            stage.quick
        } else {
            args.only.is_empty() || args.only.iter().any(|name| name == stage.name)
        }
    });
    // With few stages there is nothing to be ahead of.
    let mut ahead = (!args.quick && args.only.is_empty()).then(Ahead::default);
    let mut lines = Vec::new();
    for stage in chosen {
        if stage.name != stages::INSTALL
            && let Some(ahead) = &mut ahead
        {
            ahead.begin();
        }
        say::line(&format!("\n==== {}: {}", stage.name, stage.about));
        let started = Instant::now();
        let mut count = Count::default();
        let fault = (stage.run)(&mut count)
            .err()
            .map(|error| format!("{error:#}"));
        if let Some(fault) = &fault {
            say::line(&format!("---- {} failed: {fault}", stage.name));
        }
        count.close(fault.is_some());
        lines.push(Line {
            name: stage.name,
            took: started.elapsed(),
            count,
            fault,
        });
    }
    report(&lines)
}

/// The table, then the sum on a line of its own. A stage without tests of its own counts as one.
fn report(lines: &[Line]) -> Result<()> {
    let mut sum = Count::default();
    say::line("\nstage           time   passed  failed");
    for line in lines {
        let Line {
            name,
            took,
            count,
            fault,
        } = line;
        let verdict = fault
            .as_deref()
            .map_or(String::new(), |fault| format!("  FAILED: {fault}"));
        say::line(&format!(
            "{name:<12} {:>4}:{:02} {:>8} {:>7}{verdict}",
            took.as_secs() / 60,
            took.as_secs() % 60,
            count.passed,
            count.failed
        ));
        sum.add(count);
    }
    let total: Duration = lines.iter().map(|line| line.took).sum();
    say::line(&format!(
        "in all       {:>4}:{:02}\n",
        total.as_secs() / 60,
        total.as_secs() % 60
    ));
    say::line(&sum.to_string());
    if sum.failed > 0 {
        let failed: Vec<&str> = lines
            .iter()
            .filter(|line| line.fault.is_some())
            .map(|line| line.name)
            .collect();
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
