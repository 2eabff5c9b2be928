//! The raw data of each case, summed up.

use serde::Serialize;

use super::case::Group;
use super::contender::{BOUND, OURS};
use super::goals;
use super::record::Record;
use super::statistics::{Ratio, least, mad, median, ratio};

/// Intervals are the same whenever they are computed.
const SEED: u64 = 1;

/// A contender's rounds in one case.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) contender: String,
    /// Rounds in which both it and we were measured.
    pub(super) rounds: usize,
    /// Seconds, the median as of everything that follows.
    pub(super) wall: f64,
    pub(super) mad: f64,
    pub(super) min: f64,
    pub(super) cpu: f64,
    pub(super) fsync: f64,
    pub(super) rss_mib: f64,
    pub(super) read_mib: f64,
    pub(super) written_mib: f64,
    pub(super) allocated_mib: f64,
    /// Its time over ours: how many times as fast we are.
    pub(super) speed: Ratio,
    /// Our processor time over its.
    pub(super) cpu_share: f64,
    /// Of runs in a cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cgroup: Option<Used>,
}

/// What the cgroup counted: the most of all rounds, and the sum of the kills.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Used {
    pub(super) unwritten_mib: f64,
    pub(super) peak_mib: f64,
    pub(super) oom_kills: u64,
}

/// A case.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) case: String,
    #[serde(skip)]
    pub(super) group: Group,
    /// Fastest first.
    pub(super) rows: Vec<Row>,
    pub(super) rounds: usize,
    /// Load average while it was measured: least and most.
    pub(super) load: (f64, f64),
    pub(super) verdict: String,
    /// Who was not measured, and why.
    pub(super) missing: Vec<(String, String)>,
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
        let load = loads.fold((f64::INFINITY, 0.0), |(least, most), load| {
            (load.min(least), load.max(most))
        });
        let mut table = Self {
            case: case.to_owned(),
            group: Group::of(case),
            rounds: records.iter().map(|record| record.round).max().unwrap_or(0),
            // JSON has no infinity.
            load: if rows.is_empty() { (0.0, 0.0) } else { load },
            rows,
            verdict: String::new(),
            missing: missing
                .map(|record| (record.contender.clone(), record.note.clone()))
                .collect(),
        };
        table.verdict = goals::verdict(&table);
        table
    }

    pub(super) fn row(&self, contender: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == contender)
    }

    pub(super) fn ours(&self) -> Option<&Row> {
        self.row(OURS)
    }

    pub(super) fn best_peer(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.is_peer())
    }
}

/// One contender's runs in the order of the rounds.
pub(super) fn rounds<'a>(records: &[&'a Record], name: &str) -> Vec<&'a Record> {
    let mut found: Vec<&Record> = records
        .iter()
        .copied()
        .filter(|record| record.round > 0 && record.contender == name)
        .collect();
    found.sort_by_key(|record| record.round);
    found
}

impl Row {
    pub(super) fn is_ours(&self) -> bool {
        self.contender == OURS
    }

    pub(super) fn is_peer(&self) -> bool {
        !self.is_ours() && !self.contender.starts_with(BOUND)
    }

    /// `None` while no round has both: an interrupted case has no table.
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
        let most = |value: fn(&Record) -> u64| {
            let all = shared.iter().map(|(record, _)| value(record));
            mib(all.max().unwrap_or(0), 1024)
        };
        let wall = of(|record| record.wall);
        let cpu = median(&of(Record::cpu))?;
        // Every process has a peak, so none means that there was no cgroup.
        let counted = shared.iter().any(|(record, _)| record.peak_kib > 0);
        let cgroup = counted.then(|| Used {
            unwritten_mib: most(|record| record.unwritten_kib),
            peak_mib: most(|record| record.peak_kib),
            oom_kills: shared.iter().map(|(record, _)| record.oom_kills).sum(),
        });
        Some(Self {
            contender: records.first()?.contender.clone(),
            rounds: shared.len(),
            wall: median(&wall)?,
            mad: mad(&wall)?,
            min: least(&wall)?,
            cpu,
            fsync: median(&of(|record| record.fsync))?,
            rss_mib: median(&of(|record| mib(record.rss_kib, 1024)))?,
            read_mib: median(&of(|record| mib(record.inblock, 2048)))?,
            written_mib: median(&of(|record| mib(record.outblock, 2048)))?,
            allocated_mib: median(&of(|record| mib(record.allocated_kib, 1024)))?,
            speed: ratio(&wall, &our(|record| record.wall), SEED)?,
            // Times are of hundredths: less than one of them is none.
            cpu_share: median(&our(Record::cpu))? / cpu.max(0.01),
            cgroup,
        })
    }
}

/// Counters of this size are exact in a float.
fn mib(count: u64, units: u32) -> f64 {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    f64::from(count) / f64::from(units)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::versus) fn record(contender: &str, round: usize, wall: f64) -> Record {
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

    /// Eleven rounds of us, of `qemu-img`, and of somebody half as fast as that.
    pub(in crate::versus) fn records(ours: f64, theirs: f64) -> Vec<Record> {
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
    fn the_best_peer_is_the_fastest_that_is_no_bound() {
        let mut records = records(1.0, 4.0);
        records.extend((1..=11).map(|round| record("bound: dd", round, 0.5)));
        let tables = Table::all(&records);
        assert_eq!(tables[0].rows[0].contender, "bound: dd");
        assert_eq!(tables[0].best_peer().unwrap().contender, "qemu-img");
    }

    #[test]
    fn an_interrupted_last_round_counts_for_nobody() {
        let mut records = records(1.0, 4.0);
        records.push(record("qemu-img", 12, 400.0));
        let tables = Table::all(&records);
        let best = tables[0].best_peer().unwrap();
        assert_eq!(best.rounds, 11);
        assert!((best.speed.high - 4.0).abs() < 1e-9, "{best:?}");
    }

    #[test]
    fn a_cgroup_counts_its_worst_round() {
        let mut records = records(1.0, 4.0);
        assert!(Table::all(&records)[0].ours().unwrap().cgroup.is_none());
        for record in &mut records {
            record.peak_kib = 1024 * u64::try_from(record.round).unwrap();
            record.unwritten_kib = 512;
        }
        let used = Table::all(&records)[0].ours().unwrap().cgroup.unwrap();
        assert!((used.peak_mib - 11.0).abs() < 1e-9, "{used:?}");
        assert!((used.unwritten_mib - 0.5).abs() < 1e-9, "{used:?}");
    }
}
