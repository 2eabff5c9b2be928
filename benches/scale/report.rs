//! What was measured, as lines of two files, and a summary of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Write as _};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::versus::{describe_machine, median};

/// One measurement. Times are seconds, memory is KiB.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) case: String,
    pub(super) count: usize,
    /// Until all data volumes were made.
    pub(super) made: f64,
    /// Until all pods were.
    pub(super) pods: f64,
    /// Until all data volumes had succeeded.
    pub(super) succeeded: f64,
    /// For each data volume.
    pub(super) requests: f64,
    pub(super) processor: f64,
    /// Resident before there was anything to do, and at most.
    pub(super) idle: u64,
    pub(super) resident: u64,
    pub(super) volume_p99: f64,
    pub(super) import_p99: f64,
    /// Most pods that had not ended.
    pub(super) at_work: usize,
    pub(super) per_source: usize,
    /// How long nothing succeeded: from the last success of a controller that is killed to the first of its
    /// successor, or at most where none is.
    pub(super) gap: Option<f64>,
    /// Of the machine, in the end.
    pub(super) load: String,
}

const HEADER: &str = "case,count,made_s,pods_s,succeeded_s,requests_per_volume,cpu_s,idle_kib,peak_kib,\
     volume_p99_s,import_p99_s,most_at_work,most_per_source,gap_s,load";
const REQUESTS: &str = "case,count,verb,resource,requests";

impl Row {
    fn line(&self) -> String {
        format!(
            "{},{},{:.2},{:.2},{:.2},{:.2},{:.2},{},{},{:.3},{:.3},{},{},{},{}",
            self.case,
            self.count,
            self.made,
            self.pods,
            self.succeeded,
            self.requests,
            self.processor,
            self.idle,
            self.resident,
            self.volume_p99,
            self.import_p99,
            self.at_work,
            self.per_source,
            self.gap.map(|gap| format!("{gap:.2}")).unwrap_or_default(),
            self.load
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(',');
        let mut word = || words.next();
        let number = |word: Option<&str>| word?.parse::<f64>().ok();
        let whole = |word: Option<&str>| word?.parse::<usize>().ok();
        let size = |word: Option<&str>| word?.parse::<u64>().ok();
        Some(Self {
            case: word()?.to_owned(),
            count: whole(word())?,
            made: number(word())?,
            pods: number(word())?,
            succeeded: number(word())?,
            requests: number(word())?,
            processor: number(word())?,
            idle: size(word())?,
            resident: size(word())?,
            volume_p99: number(word())?,
            import_p99: number(word())?,
            at_work: whole(word())?,
            per_source: whole(word())?,
            gap: number(word()),
            load: word()?.to_owned(),
        })
    }

    fn title(&self) -> &'static str {
        match self.case.as_str() {
            "usual" => "usual limits",
            "restart" => "killed halfway",
            _ => "no limits",
        }
    }
}

impl Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} with {}: pods {:.1} s, succeeded {:.1} s (none for {:.1} s), {:.1} requests each, {:.1} CPU s, {} MiB, p99 {:.0} and {:.0} ms, at work {} ({} of a source)",
            self.count,
            self.title(),
            self.pods,
            self.succeeded,
            self.gap.unwrap_or_default(),
            self.requests,
            self.processor,
            self.resident >> 10,
            self.volume_p99 * 1e3,
            self.import_p99 * 1e3,
            self.at_work,
            self.per_source
        )
    }
}

/// Adds a measurement to the results, and says what all of them say now.
pub(super) fn add(
    results: &Path,
    row: &Row,
    requests: &BTreeMap<(String, String), usize>,
) -> Result<()> {
    fs::create_dir_all(results).with_context(|| format!("making {}", results.display()))?;
    append(&results.join("raw.csv"), HEADER, &[row.line()])?;
    let lines: Vec<String> = requests
        .iter()
        .map(|((verb, about), count)| format!("{},{},{verb},{about},{count}", row.case, row.count))
        .collect();
    append(&results.join("requests.csv"), REQUESTS, &lines)?;
    replace(&results.join("machine.txt"), &machine())?;
    write(results).map(drop)
}

fn replace(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn append(path: &Path, header: &str, lines: &[String]) -> Result<()> {
    let about = || format!("writing {}", path.display());
    let is_new = !path.exists();
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.with_context(about)?;
    let mut text = String::new();
    if is_new {
        writeln!(text, "{header}")?;
    }
    for line in lines {
        writeln!(text, "{line}")?;
    }
    file.write_all(text.as_bytes()).with_context(about)
}

/// Writes summary.md of a folder of results.
pub(crate) fn write(results: &Path) -> Result<String> {
    let read = |name: &str| {
        let path = results.join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let raw = read("raw.csv")?;
    let rows: Vec<Row> = raw.lines().skip(1).filter_map(Row::parse).collect();
    ensure!(!rows.is_empty(), "nothing was measured");
    let text = summary(&rows, &read("requests.csv")?)?;
    replace(&results.join("summary.md"), &text)?;
    Ok(text)
}

fn summary(rows: &[Row], requests: &str) -> Result<String> {
    let mut text = "# Many imports at once\n\n`cargo xtask soak scale`: so many DataVolumes made at once, in one namespace, \
        into volumes that are there (a fake binder says so); kwok plays the kubelets, whose importers run for 2 to 3 s. Raw data: \
        [raw.csv](raw.csv), [requests.csv](requests.csv); on what: [machine.txt](machine.txt). Times are seconds from the \
        first DataVolume on, by the API server's audit log.\n\n\
        | DataVolumes | | all pods made | all succeeded | requests each | CPU s of the controller, per 1000 | MiB resident, idle and at most | \
        p99 of a round, ms: DataVolume, import | most at work (of one source) | load |\n|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {} to {} | {:.0}, {:.0} | {} ({}) | {} |",
            row.count,
            row.title(),
            row.pods,
            row.succeeded,
            row.requests,
            row.processor * 1000.0 / super::to_f64(row.count),
            row.idle >> 10,
            row.resident >> 10,
            row.volume_p99 * 1e3,
            row.import_p99 * 1e3,
            row.at_work,
            row.per_source,
            row.load
        )?;
    }
    growth(&mut text, rows)?;
    restart(&mut text, rows)?;
    kinds(&mut text, rows, requests)?;
    Ok(text)
}

/// Is it linear? What each data volume takes must not depend on how many there are.
fn growth(text: &mut String, rows: &[Row]) -> Result<()> {
    let plain: Vec<&Row> = rows.iter().filter(|row| row.case == "none").collect();
    let (Some(first), Some(last)) = (
        plain.iter().min_by_key(|row| row.count),
        plain.iter().max_by_key(|row| row.count),
    ) else {
        return Ok(());
    };
    if first.count == last.count {
        return Ok(());
    }
    let each = |row: &Row, what: f64| what / super::to_f64(row.count);
    let times = super::to_f64(last.count) / super::to_f64(first.count);
    writeln!(
        text,
        "\n## Growth\n\n{times:.0} times as many DataVolumes ({} and {}) take, for each of them, {:.2} times the processor time, \
         {:.2} times the requests and {:.2} times the time until all have succeeded.",
        first.count,
        last.count,
        each(last, last.processor) / each(first, first.processor),
        last.requests / first.requests,
        each(last, last.succeeded) / each(first, first.succeeded),
    )?;
    Ok(())
}

/// What a restart costs: for how long nothing succeeds, and how much later everything has.
fn restart(text: &mut String, rows: &[Row]) -> Result<()> {
    let of = |case: &str, count: usize, figure: fn(&Row) -> Option<f64>| {
        let same = rows
            .iter()
            .filter(|row| row.case == case && row.count == count);
        median(&same.filter_map(figure).collect::<Vec<_>>())
    };
    let restarts = rows.iter().filter(|row| row.case == "restart");
    let counts: BTreeSet<usize> = restarts.map(|row| row.count).collect();
    for count in counts {
        let times = |case: &str| {
            let (gap, all) = (|row: &Row| row.gap, |row: &Row| Some(row.succeeded));
            of(case, count, gap).zip(of(case, count, all))
        };
        let Some((gap, with)) = times("restart") else {
            continue;
        };
        write!(
            text,
            "\n## A controller that is killed\n\nKilled (SIGKILL) when half of {count} had succeeded, and started again at once: between \
             its last success and the first of its successor were {gap:.1} s, and all had succeeded after {with:.1} s."
        )?;
        if let Some((pause, without)) = times("none") {
            write!(
                text,
                " Without that nothing succeeded for at most {pause:.1} s, and all had after {without:.1} s: a restart takes {:+.1} s (goal: less \
                 than 10 s). Where there are several measurements these are medians.",
                with - without
            )?;
        }
        writeln!(text)?;
    }
    Ok(())
}

/// Requests by kind, of the largest measurements without limits.
fn kinds(text: &mut String, rows: &[Row], requests: &str) -> Result<()> {
    let plain: Vec<usize> = rows
        .iter()
        .filter(|row| row.case == "none")
        .map(|row| row.count)
        .collect();
    let Some(most) = plain.iter().copied().max() else {
        return Ok(());
    };
    let volumes = most * plain.iter().filter(|count| **count == most).count();
    write!(
        text,
        "\n## Requests\n\nFor each of {most} DataVolumes, leases and watches left out.\n\n| request | each |\n|---|---|\n",
    )?;
    let front = format!("none,{most},");
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for line in requests.lines() {
        let known = || {
            let mut words = line.strip_prefix(&front)?.split(',');
            let what = format!("{} {}", words.next()?, words.next()?);
            Some((what, words.next()?.parse::<usize>().ok()?))
        };
        if let Some((what, count)) = known() {
            *found.entry(what).or_default() += count;
        }
    }
    let mut found: Vec<(String, usize)> = found.into_iter().collect();
    found.sort_by_key(|(_, count)| Reverse(*count));
    for (what, count) in found {
        let each = super::to_f64(count) / super::to_f64(volumes);
        if each >= 0.005 {
            writeln!(text, "| {what} | {each:.2} |")?;
        }
    }
    Ok(())
}

fn machine() -> String {
    let args = ["describe", "--always", "--dirty"];
    let output = Command::new("git").args(args).output();
    let commit = output.map(|output| output.stdout).unwrap_or_default();
    format!(
        "commit: {}\n{}load at the end: {}\nAPI server, etcd, controller manager, scheduler, kwok and the controller share it\n",
        String::from_utf8_lossy(&commit).trim(),
        describe_machine(),
        super::load(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, count: usize, succeeded: f64) -> Row {
        Row {
            case: case.to_owned(),
            count,
            made: 1.0,
            pods: 2.0,
            succeeded,
            requests: 20.0,
            processor: 4.0,
            idle: 20 << 10,
            resident: 64 << 10,
            volume_p99: 0.1,
            import_p99: 0.2,
            at_work: 10,
            per_source: 5,
            gap: Some(if case == "restart" { 1.5 } else { 0.5 }),
            load: "2.00".to_owned(),
        }
    }

    #[test]
    fn what_is_written_down_is_read_again_and_said() {
        let rows = [
            row("none", 100, 10.0),
            row("none", 400, 20.0),
            row("none", 400, 20.0),
            row("restart", 400, 23.0),
            row("restart", 800, 50.0),
        ];
        for row in &rows {
            let again = Row::parse(&row.line()).unwrap();
            assert_eq!(again.line(), row.line());
        }
        let requests = "none,100,get,pods,7\nnone,400,get,pods,800\nnone,400,get,pods,1000\n";
        let text = summary(&rows, requests).unwrap();
        for said in [
            "| 400 | no limits | 2.0 | 20.0 | 20.0 | 10.0 | 20 to 64 | 100, 200 | 10 (5) | 2.00 |",
            "0.25 times the processor time, 1.00 times the requests and 0.50 times the time",
            "were 1.5 s, and all had succeeded after 23.0 s. Without that nothing succeeded for at most 0.5 s, and all had after 20.0 s: a restart takes +3.0 s",
            "half of 800 had succeeded, and started again at once: between its last success and the first of its successor were 1.5 s, and all had succeeded after 50.0 s.\n",
            "| get pods | 2.25 |",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}
