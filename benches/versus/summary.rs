//! Tables of the raw data, and what they say about our goals.

use super::contender::OURS;
use super::record::Record;
use super::statistics::{Ratio, least, mad, median, ratio};

/// Intervals are the same whenever they are computed.
const SEED: u64 = 1;
/// "Slower" only if the whole interval of our time over theirs lies above this.
const SLOWER: f64 = 1.05;

/// How many times as fast as the best peer we want to be, and at most how much of `qemu-img`'s
/// processor time we want to use.
struct Goal {
    image: &'static str,
    speed: f64,
    cpu: Option<f64>,
}

const GOALS: &[Goal] = &[
    Goal {
        image: "qcow2-zlib",
        speed: 3.0,
        cpu: Some(0.45),
    },
    Goal {
        image: "qcow2-zstd",
        speed: 2.2,
        cpu: Some(0.45),
    },
    Goal {
        image: "vmdk-stream",
        speed: 5.5,
        cpu: Some(0.37),
    },
];

/// A contender's rounds in one case.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) contender: String,
    pub(super) wall: f64,
    mad: f64,
    min: f64,
    cpu: f64,
    rss_mib: f64,
    written_mib: f64,
    allocated_mib: f64,
    /// Its time over ours: how many times as fast we are.
    pub(super) speed: Ratio,
    /// Our processor time over its.
    cpu_share: f64,
}

/// A case.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) case: String,
    /// Fastest first.
    pub(super) rows: Vec<Row>,
    rounds: usize,
    /// Load average while it was measured: least and most.
    load: (f64, f64),
    missing: Vec<(String, String)>,
}

impl Table {
    /// All cases, in the order in which they were measured.
    pub(super) fn all(records: &[Record]) -> Vec<Self> {
        let mut cases: Vec<&str> = Vec::new();
        for record in records {
            if !cases.contains(&record.case.as_str()) {
                cases.push(&record.case);
            }
        }
        cases.iter().map(|case| Self::of(case, records)).collect()
    }

    fn of(case: &str, records: &[Record]) -> Self {
        let records: Vec<&Record> = records
            .iter()
            .filter(|record| record.case == case)
            .collect();
        let ours = rounds(&records, OURS);
        let mut names: Vec<&str> = Vec::new();
        for record in records.iter().filter(|record| record.round > 0) {
            if !names.contains(&record.contender.as_str()) {
                names.push(&record.contender);
            }
        }
        let mut rows: Vec<Row> = names
            .iter()
            .filter_map(|name| Row::of(&rounds(&records, name), &ours))
            .collect();
        rows.sort_by(|one, other| one.wall.total_cmp(&other.wall));
        let missing = records.iter().filter(|record| record.round == 0);
        let loads = records
            .iter()
            .filter(|record| record.round > 0)
            .map(|record| record.load);
        Self {
            case: case.to_owned(),
            rows,
            rounds: records.iter().map(|record| record.round).max().unwrap_or(0),
            load: loads.fold((f64::INFINITY, 0.0), |(least, most), load| {
                (least.min(load), most.max(load))
            }),
            missing: missing
                .map(|record| (record.contender.clone(), record.note.clone()))
                .collect(),
        }
    }

    fn ours(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == OURS)
    }

    fn best_peer(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender != OURS)
    }

    fn goal(&self) -> Option<&'static Goal> {
        let image = self.case.split('@').next()?;
        GOALS.iter().find(|goal| goal.image == image)
    }

    /// What the numbers say about the goal.
    fn verdict(&self) -> String {
        let Some(best) = self.best_peer() else {
            return "nothing to compare with".to_owned();
        };
        let speed = best.speed;
        let Some(goal) = self.goal() else {
            return if speed.high < 1.0 / SLOWER {
                "slower".to_owned()
            } else {
                "not slower".to_owned()
            };
        };
        let met = |met: bool| if met { "reached" } else { "missed" };
        let mut text = format!("{:.1}x {}", goal.speed, met(speed.value >= goal.speed));
        let qemu = self.rows.iter().find(|row| row.contender == "qemu-img");
        if let (Some(limit), Some(qemu)) = (goal.cpu, qemu) {
            let met = met(qemu.cpu_share <= limit);
            text.extend([format!(
                ", CPU {:.2} of at most {limit} {met}",
                qemu.cpu_share
            )]);
        }
        text
    }
}

/// One contender's runs in the order of the rounds.
fn rounds<'a>(records: &[&'a Record], name: &str) -> Vec<&'a Record> {
    let mut found: Vec<&Record> = records
        .iter()
        .copied()
        .filter(|record| record.round > 0 && record.contender == name)
        .collect();
    found.sort_by_key(|record| record.round);
    found
}

impl Row {
    /// `None` while rounds are missing on either side: an interrupted case has no table.
    fn of(records: &[&Record], ours: &[&Record]) -> Option<Self> {
        // Pairs are by round: an interrupted last round counts for nobody.
        let shared: Vec<(&Record, &Record)> = records
            .iter()
            .filter_map(|record| {
                let pair = ours.iter().find(|other| other.round == record.round)?;
                Some((*record, *pair))
            })
            .collect();
        let of = |value: fn(&Record) -> f64| -> Vec<f64> {
            shared.iter().map(|(record, _)| value(record)).collect()
        };
        let our = |value: fn(&Record) -> f64| -> Vec<f64> {
            shared.iter().map(|(_, record)| value(record)).collect()
        };
        let wall = of(|record| record.wall);
        let cpu = median(&of(Record::cpu))?;
        Some(Self {
            contender: records.first()?.contender.clone(),
            wall: median(&wall)?,
            mad: mad(&wall)?,
            min: least(&wall)?,
            cpu,
            rss_mib: median(&of(|record| mib(record.rss_kib, 1024)))?,
            written_mib: median(&of(|record| mib(record.outblock, 2048)))?,
            allocated_mib: median(&of(|record| mib(record.allocated_kib, 1024)))?,
            speed: ratio(&wall, &our(|record| record.wall), SEED)?,
            cpu_share: median(&our(Record::cpu))? / cpu,
        })
    }
}

/// Counters of this size are exact in a float.
fn mib(count: u64, units: u32) -> f64 {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    f64::from(count) / f64::from(units)
}

/// The whole page.
pub(super) fn render(tables: &[Table], machine: &str) -> String {
    let mut page = String::from("# Longshore beside its peers\n\n");
    if machine.contains("\nquick: ") {
        page.push_str("**A trial of the harness: too few rounds to publish anything of it.**\n\n");
    }
    page.push_str(
        "Raw data: [raw.csv](raw.csv). Machine, versions and commands: [machine.txt](machine.txt).\n\
         All outputs were compared with the source before anything was timed. `x` is how many times as\n\
         fast as that peer Longshore was (ratio of medians over paired rounds, 95 % bootstrap interval).\n\n\
         ![Median times](chart.svg)\n\n\
         | case | longshore | best peer | its time | x, 95 % interval | goal |\n\
         |---|---|---|---|---|---|\n",
    );
    for table in tables {
        page.push_str(&headline(table));
    }
    for table in tables {
        page.push_str(&details(table));
    }
    page
}

fn headline(table: &Table) -> String {
    let Some((ours, best)) = table.ours().zip(table.best_peer()) else {
        return format!("| {} | | | | | not measured |\n", table.case);
    };
    format!(
        "| {} | {:.2} s | {} | {:.2} s | **{:.2}** ({:.2} to {:.2}) | {} |\n",
        table.case,
        ours.wall,
        best.contender,
        best.wall,
        best.speed.value,
        best.speed.low,
        best.speed.high,
        table.verdict()
    )
}

fn details(table: &Table) -> String {
    let mut text = format!("\n## {}\n", table.case);
    if !table.rows.is_empty() {
        let (least, most) = table.load;
        text.extend([format!("{} rounds, load average {least:.1} to {most:.1}.\n\n\
             | contender | median | MAD | min | CPU | our CPU / its | RSS | written | allocated | x, 95 % interval |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
            table.rounds)]);
    }
    for row in &table.rows {
        let name = if row.contender == OURS {
            format!("**{OURS}**")
        } else {
            row.contender.clone()
        };
        text.extend([format!("| {name} | {:.2} s | {:.2} | {:.2} s | {:.2} s | {:.2} | {:.0} MiB | {:.0} MiB | {:.0} MiB | {:.2} ({:.2} to {:.2}) |\n",
            row.wall,
            row.mad,
            row.min,
            row.cpu,
            row.cpu_share,
            row.rss_mib,
            row.written_mib,
            row.allocated_mib,
            row.speed.value,
            row.speed.low,
            row.speed.high)]);
    }
    for (contender, why) in &table.missing {
        text.extend([format!("\nNot measured: {contender}: {why}.\n")]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(contender: &str, round: usize, wall: f64) -> Record {
        Record {
            case: "qcow2-zlib@tmpfs".into(),
            round,
            position: 1,
            contender: contender.into(),
            wall,
            user: wall,
            rss_kib: 10 * 1024,
            ..Record::default()
        }
    }

    fn records(ours: f64, theirs: f64) -> Vec<Record> {
        (1..=11)
            .flat_map(|round| {
                [
                    record("qemu-img", round, theirs),
                    record("slow", round, theirs * 2.0),
                    record(OURS, round, ours),
                ]
            })
            .collect()
    }

    #[test]
    fn the_best_peer_decides_about_the_goal() {
        let tables = Table::all(&records(1.0, 4.0));
        assert_eq!(tables[0].rows[0].contender, OURS);
        assert_eq!(tables[0].best_peer().unwrap().contender, "qemu-img");
        assert_eq!(
            tables[0].verdict(),
            "3.0x reached, CPU 0.25 of at most 0.45 reached"
        );
        let tables = Table::all(&records(2.0, 4.0));
        assert_eq!(
            tables[0].verdict(),
            "3.0x missed, CPU 0.50 of at most 0.45 missed"
        );
    }

    #[test]
    fn without_a_goal_only_what_is_surely_slower_is_slower() {
        let case = |ours: f64| {
            let mut records = records(ours, 1.0);
            for record in &mut records {
                record.case = "raw@disk".into();
            }
            Table::all(&records)[0].verdict()
        };
        assert_eq!(case(1.04), "not slower");
        assert_eq!(case(1.2), "slower");
    }

    #[test]
    fn an_interrupted_last_round_counts_for_nobody() {
        let mut records = records(1.0, 4.0);
        records.push(record("qemu-img", 12, 400.0));
        let tables = Table::all(&records);
        let best = tables[0].best_peer().unwrap();
        assert!((best.speed.high - 4.0).abs() < 1e-9, "{best:?}");
    }

    #[test]
    fn who_is_missing_is_named_with_the_reason() {
        let mut records = records(1.0, 4.0);
        records.push(Record::missing(
            "qcow2-zlib@tmpfs",
            "nbdcopy",
            "not installed",
        ));
        let page = render(&Table::all(&records), "rounds: 11\n");
        assert!(
            page.contains("Not measured: nbdcopy: not installed."),
            "{page}"
        );
        assert!(page.contains("**4.00** (4.00 to 4.00)"), "{page}");
        assert!(!page.contains("trial"), "{page}");
    }

    #[test]
    fn a_trial_says_that_it_is_one() {
        let page = render(
            &Table::all(&records(1.0, 2.0)),
            "rounds: 3\nquick: a trial\n",
        );
        assert!(page.contains("A trial of the harness"), "{page}");
    }
}
