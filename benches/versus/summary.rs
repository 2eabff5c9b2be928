//! The page that people read.

use super::case::Group;
use super::table::{Row, Table};

/// The whole page; `charts` are the names of the files beside it.
pub(super) fn render(tables: &[Table], machine: &str, charts: &[&str]) -> String {
    let mut page = String::from("# Longshore beside its peers\n\n");
    if machine.contains("\nquick: ") {
        page.push_str("**Few rounds: a first result, nothing to publish.**\n\n");
    }
    page.push_str(
        "Raw data: [raw.csv](raw.csv). Machine, versions and commands: [machine.txt](machine.txt).\n\
         All outputs were compared with the source before anything was timed. `x` is how many times as\n\
         fast as that peer Longshore was (ratio of medians over paired rounds, 95 % bootstrap interval).\n\
         \"Slower\" is said only if that whole interval lies beyond 1.05. Names that begin with \"bound\"\n\
         are no peers: they are what the machine can do, or Longshore without something.\n",
    );
    for group in Group::ALL {
        let cases: Vec<&Table> = tables.iter().filter(|table| table.group == group).collect();
        if cases.is_empty() {
            continue;
        }
        page.extend([format!("\n## {}\n\n{}\n\n", group.name(), group.about())]);
        let chart = super::chart::name(group);
        if charts.contains(&chart.as_str()) {
            page.extend([format!("![Median times]({chart})\n\n")]);
        }
        page.push_str(
            "| case | rounds | longshore | best peer | its time | x, 95 % interval | goal |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for table in &cases {
            page.push_str(&headline(table));
        }
        for table in &cases {
            page.push_str(&details(table));
        }
    }
    page
}

fn headline(table: &Table) -> String {
    let Some(ours) = table.ours() else {
        return format!("| {} | | | | | | not measured |\n", table.case);
    };
    let mut line = format!("| {} | {} | {:.2} s |", table.case, table.rounds, ours.wall);
    line += &table.best_peer().map_or_else(
        || " | | |".to_owned(),
        |best| {
            format!(
                " {} | {:.2} s | **{:.2}** ({:.2} to {:.2}) |",
                best.contender, best.wall, best.speed.value, best.speed.low, best.speed.high
            )
        },
    );
    line.extend([format!(" {} |\n", table.verdict)]);
    line
}

fn details(table: &Table) -> String {
    let mut text = format!("\n### {}\n", table.case);
    if !table.rows.is_empty() {
        let (least, most) = table.load;
        text.extend([format!(
            "{} rounds, load average {least:.1} to {most:.1}.\n\n\
             | contender | median | MAD | min | CPU | our CPU / its | RSS | read | written | allocated | fsync | x, 95 % interval |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|\n",
            table.rounds
        )]);
    }
    for row in &table.rows {
        text.extend([format!(
            "| {} | {:.2} s | {:.2} | {:.2} s | {:.2} s | {:.2} | {:.0} MiB | {:.0} MiB | {:.0} MiB | {:.0} MiB | {:.2} s | {:.2} ({:.2} to {:.2}) |\n",
            name(row),
            row.wall,
            row.mad,
            row.min,
            row.cpu,
            row.cpu_share,
            row.rss_mib,
            row.read_mib,
            row.written_mib,
            row.allocated_mib,
            row.fsync,
            row.speed.value,
            row.speed.low,
            row.speed.high
        )]);
    }
    let counted: Vec<_> = table
        .rows
        .iter()
        .filter_map(|row| Some((row, row.cgroup?)))
        .collect();
    if !counted.is_empty() {
        text.push_str(
            "\nIn the cgroup, the most of all rounds:\n\n\
             | contender | dirty + writeback | peak | OOM kills |\n|---|---|---|---|\n",
        );
    }
    for (row, used) in counted {
        text.extend([format!(
            "| {} | {:.0} MiB | {:.0} MiB | {} |\n",
            name(row),
            used.unwritten_mib,
            used.peak_mib,
            used.oom_kills
        )]);
    }
    for (contender, why) in &table.missing {
        text.extend([format!("\nNot measured: {contender}: {why}.\n")]);
    }
    text
}

fn name(row: &Row) -> String {
    if row.is_ours() {
        format!("**{}**", row.contender)
    } else {
        row.contender.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::record::Record;
    use crate::versus::table::tests::records;

    #[test]
    fn who_is_missing_is_named_with_the_reason() {
        let mut records = records(1.0, 4.0);
        records.push(Record::missing(
            "qcow2-zlib@tmpfs",
            "nbdcopy",
            "not installed",
        ));
        records.push(Record::missing("http-raw@disk", "longshore", "no server"));
        let page = render(&Table::all(&records), "rounds: 11\n", &["chart-files.svg"]);
        assert!(
            page.contains("Not measured: nbdcopy: not installed."),
            "{page}"
        );
        assert!(page.contains("**4.00** (4.00 to 4.00)"), "{page}");
        assert!(page.contains("![Median times](chart-files.svg)"), "{page}");
        assert!(
            page.contains("Not measured: longshore: no server."),
            "{page}"
        );
        assert!(page.contains("\n## import\n"), "{page}");
        assert!(!page.contains("Few rounds"), "{page}");
    }

    #[test]
    fn a_quick_run_says_that_it_is_one() {
        let page = render(
            &Table::all(&records(1.0, 2.0)),
            "rounds: 3\nquick: a trial\n",
            &[],
        );
        assert!(page.contains("Few rounds"), "{page}");
    }
}
