//! What we want to reach, case by case, and what the numbers say about it. The goals are those that the
//! project set itself before it measured.

use super::case::WRITE_BACK;
use super::table::{Row, Table};

/// "Slower" only if the whole interval of our time over theirs lies above this.
pub(super) const SLOWER: f64 = 1.05;

/// Fewer rounds than this say nothing: their interval is no wider than they happen to lie.
pub(super) const FEWEST: usize = 3;

/// Beside whom.
enum Beside {
    /// The fastest peer.
    Best,
    /// The slower of these: what bounds us from two sides.
    Slowest(&'static [&'static str]),
}

struct Goal {
    /// `stem@place+extra`; `*` is any place.
    case: (&'static str, &'static str, &'static str),
    beside: Beside,
    /// How many times as fast we want to be.
    speed: f64,
    /// At most how much of `qemu-img`'s processor time we want to use.
    cpu: Option<f64>,
}

const fn goal(
    case: (&'static str, &'static str, &'static str),
    beside: Beside,
    speed: f64,
    cpu: Option<f64>,
) -> Goal {
    Goal {
        case,
        beside,
        speed,
        cpu,
    }
}

const TODAY: Beside = Beside::Slowest(&["today's import"]);
const DD: &str = "bound: dd conv=fdatasync";
const CURL: &str = "bound: curl > /dev/null";

const GOALS: &[Goal] = &[
    goal(("qcow2-zlib", "*", ""), Beside::Best, 3.0, Some(0.45)),
    goal(("qcow2-zstd", "*", ""), Beside::Best, 2.2, Some(0.45)),
    goal(("vmdk-stream", "*", ""), Beside::Best, 5.5, Some(0.37)),
    goal(("qcow2-zlib", "*", "750m"), Beside::Best, 2.2, None),
    goal(("http-qcow2-zlib", "disk", ""), TODAY, 4.0, None),
    goal(("http-vmdk-stream", "disk", ""), TODAY, 4.5, None),
    goal(
        ("http-vmdk-stream", "tmpfs", ""),
        Beside::Slowest(&["bound: longshore from the file"]),
        1.0 / 1.1,
        None,
    ),
    goal(
        ("http-qcow2", "disk", ""),
        Beside::Slowest(&[DD]),
        0.9,
        None,
    ),
    goal(("http-raw", "disk", ""), TODAY, 3.0, None),
    goal(
        ("http-raw", "disk", ""),
        Beside::Slowest(&[CURL, DD]),
        1.0 / 1.2,
        None,
    ),
    goal(
        ("http-qcow2", "disk", "sha256"),
        Beside::Slowest(&["bound: longshore without a digest", "bound: openssl sha256"]),
        0.9,
        None,
    ),
    goal(
        ("http-raw.gz", "*", ""),
        Beside::Slowest(&["bound: zlib-rs on one thread"]),
        1.0 / 1.15,
        None,
    ),
];

/// In a cgroup far smaller than the result.
const HELD_SLOWER: f64 = 1.1;
const HELD_UNWRITTEN_MIB: f64 = 32.0;
const FSYNC_SHARE: f64 = 0.05;
const FSYNC_SECONDS: f64 = 1.0;

/// What the numbers say.
pub(super) fn verdict(table: &Table) -> String {
    let Some(ours) = table.ours() else {
        return "not measured".to_owned();
    };
    if ours.rounds < FEWEST {
        return "too few rounds".to_owned();
    }
    let mut parts: Vec<String> = goals(table)
        .filter_map(|goal| against(goal, table))
        .collect();
    if table.case.ends_with(&format!("+{}", WRITE_BACK.name)) {
        parts.extend(held(table, ours));
    }
    // Where there is a goal beside the best peer, that says more.
    if !goals(table).any(|goal| matches!(goal.beside, Beside::Best)) {
        parts.extend(table.best_peer().map(slower));
    }
    if parts.is_empty() {
        return "nothing to compare with".to_owned();
    }
    parts.join(", ")
}

fn goals(table: &Table) -> impl Iterator<Item = &'static Goal> {
    let (stem, rest) = table.case.split_once('@').unwrap_or((&table.case, ""));
    let (place, extra) = rest.split_once('+').unwrap_or((rest, ""));
    GOALS.iter().filter(move |goal| {
        let (of, at, with) = goal.case;
        of == stem && with == extra && (at == "*" || at == place)
    })
}

fn met(met: bool) -> &'static str {
    if met { "reached" } else { "missed" }
}

fn slower(best: &Row) -> String {
    let sure = best.speed.high < 1.0 / SLOWER;
    if sure { "slower" } else { "not slower" }.to_owned()
}

fn against(goal: &Goal, table: &Table) -> Option<String> {
    let row = match goal.beside {
        Beside::Best => table.best_peer(),
        Beside::Slowest(names) => names
            .iter()
            .filter_map(|name| table.row(name))
            .max_by(|one, other| one.wall.total_cmp(&other.wall)),
    }?;
    let reached = met(row.speed.value >= goal.speed);
    let mut text = match goal.beside {
        Beside::Best => format!("{:.1}x {reached}", goal.speed),
        Beside::Slowest(_) => format!(
            "{:.2}x of {:.2}x {} {reached}",
            row.speed.value, goal.speed, row.contender
        ),
    };
    if let (Some(limit), Some(qemu)) = (goal.cpu, table.row("qemu-img")) {
        let met = met(qemu.cpu_share <= limit);
        text.extend([format!(
            ", CPU {:.2} of at most {limit} {met}",
            qemu.cpu_share
        )]);
    }
    Some(text)
}

/// The write-back row: what a small cgroup costs, and what waited in it.
fn held(table: &Table, ours: &Row) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(free) = table.row("bound: longshore without a limit") {
        let cost = 1.0 / free.speed.value;
        parts.push(format!(
            "{cost:.2}x of the time without a limit (at most {HELD_SLOWER}) {}",
            met(cost <= HELD_SLOWER)
        ));
    }
    if let Some(used) = ours.cgroup {
        parts.push(format!(
            "{:.0} MiB unwritten (at most {HELD_UNWRITTEN_MIB}) {}",
            used.unwritten_mib,
            met(used.unwritten_mib <= HELD_UNWRITTEN_MIB)
        ));
        parts.push(format!(
            "{} OOM kills {}",
            used.oom_kills,
            met(used.oom_kills == 0)
        ));
    }
    let allowed = (ours.wall * FSYNC_SHARE).max(FSYNC_SECONDS);
    parts.push(format!(
        "fsync {:.2} s (at most {allowed:.2}) {}",
        ours.fsync,
        met(ours.fsync <= allowed)
    ));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::table::tests::{record, records};

    fn verdict_of(case: &str, ours: f64, theirs: f64) -> String {
        let mut records = records(ours, theirs);
        for record in &mut records {
            record.case = case.into();
        }
        Table::all(&records).remove(0).verdict
    }

    #[test]
    fn the_best_peer_decides_about_the_goal() {
        let case = "qcow2-zlib@tmpfs";
        assert_eq!(
            verdict_of(case, 1.0, 4.0),
            "3.0x reached, CPU 0.25 of at most 0.45 reached"
        );
        assert_eq!(
            verdict_of(case, 2.0, 4.0),
            "3.0x missed, CPU 0.50 of at most 0.45 missed"
        );
        assert_eq!(verdict_of("qcow2-zlib@tmpfs+750m", 1.0, 2.1), "2.2x missed");
    }

    #[test]
    fn without_a_goal_only_what_is_surely_slower_is_slower() {
        assert_eq!(verdict_of("raw@disk", 1.04, 1.0), "not slower");
        assert_eq!(verdict_of("raw@disk", 1.2, 1.0), "slower");
    }

    #[test]
    fn two_rounds_say_nothing() {
        let mut records = records(1.0, 4.0);
        records.retain(|record| record.round <= 2);
        assert_eq!(Table::all(&records)[0].verdict, "too few rounds");
    }

    #[test]
    fn of_two_bounds_the_slower_one_counts() {
        let mut records = Vec::new();
        for round in 1..=11 {
            records.extend([
                record("longshore", round, 1.0),
                record("today's import", round, 3.5),
                record(CURL, round, 0.2),
                record(DD, round, 0.9),
            ]);
        }
        for record in &mut records {
            record.case = "http-raw@disk".into();
        }
        assert_eq!(
            Table::all(&records)[0].verdict,
            "3.50x of 3.00x today's import reached, \
             0.90x of 0.83x bound: dd conv=fdatasync reached, not slower"
        );
    }

    #[test]
    fn the_write_back_row_is_judged_by_what_waited_and_what_it_cost() {
        let mut records = Vec::new();
        for round in 1..=11 {
            records.extend([
                record("longshore", round, 1.2),
                record("bound: longshore without a limit", round, 1.0),
                record("qemu-img", round, 5.0),
            ]);
        }
        for record in &mut records {
            record.case = "qcow2@disk+128M".into();
            record.peak_kib = 128 << 10;
            record.unwritten_kib = 40 << 10;
        }
        assert_eq!(
            Table::all(&records)[0].verdict,
            "1.20x of the time without a limit (at most 1.1) missed, \
             40 MiB unwritten (at most 32) missed, 0 OOM kills reached, \
             fsync 0.00 s (at most 1.00) reached, not slower"
        );
    }
}
