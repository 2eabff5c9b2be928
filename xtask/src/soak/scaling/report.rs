//! What was found, as a page, and whether it is as it must be.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::image::Kind;
use super::{SHARED, Took};
use crate::shell::Run;

/// Each GiB of the largest image may take this many times what it takes in the cheapest of the others.
const MOST_GROWTH: f64 = 1.25;
/// An empty image of any size may take this much CPU. (Tables of an empty VMDK of 2 TiB are all there, 128 MiB
/// of them.)
const MOST_EMPTY_SECONDS: f64 = 1.5;
/// Resident memory may not exceed this, in KiB.
const MOST_MEMORY: u32 = 128 << 10;

/// An empty image.
#[derive(Debug)]
pub(super) struct Empty {
    pub(super) what: String,
    pub(super) size: &'static str,
    pub(super) took: Took,
}

/// An image with data.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) kind: Kind,
    pub(super) gib: u32,
    pub(super) took: Took,
}

/// Seconds of CPU that each GiB more took, from one point to the next of its kind.
fn slopes(points: &[Point]) -> Vec<Option<f64>> {
    let mut before: Option<&Point> = None;
    let mut slopes = Vec::new();
    for point in points {
        let last = before.filter(|last| last.kind == point.kind && last.gib < point.gib);
        slopes.push(
            last.map(|last| (point.took.cpu - last.took.cpu) / f64::from(point.gib - last.gib)),
        );
        before = Some(point);
    }
    slopes
}

pub(super) fn write(
    empties: &[Empty],
    points: &[Point],
    place: &str,
    rounds: u32,
) -> Result<String> {
    let commit = Run::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .quiet()
        .capture()?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut text = format!(
        "# Scaling\n\n`cargo xtask soak scaling` at {}, on {place}; load of the machine at the end: {}.\n\n\
         ## Empty images\nThe least of three runs; memory is the largest VmHWM.\n\n\
         | image | size | seconds | CPU s | memory MiB |\n|---|---|---|---|---|\n",
        commit.trim(),
        load.split_whitespace()
            .take(3)
            .collect::<Vec<_>>()
            .join(" "),
    );
    let mib = |kib: u32| f64::from(kib) / 1024.0;
    for Empty { what, size, took } in empties {
        writeln!(
            text,
            "| {what} | {size} | {:.2} | {:.2} | {:.1} |",
            took.seconds,
            took.cpu,
            mib(took.memory)
        )?;
    }
    write!(
        text,
        "\n## 1 TiB with data\nqcow2 with clusters of 64 KiB, 2048 L2 tables, data in runs of 1 MiB all over the disk, each \
         host cluster used {SHARED} times. The least of {rounds} rounds over all images; equal to `qemu-img compare` up to 4 GiB.\n\n\
         | clusters | GiB of data | seconds | CPU s | CPU s per GiB more | memory MiB |\n|---|---|---|---|---|---|\n"
    )?;
    for (point, slope) in points.iter().zip(slopes(points)) {
        let slope = slope.map_or_else(|| "-".to_owned(), |slope| format!("{slope:.3}"));
        writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {slope} | {:.1} |",
            point.kind.name(),
            point.gib,
            point.took.seconds,
            point.took.cpu,
            mib(point.took.memory)
        )?;
    }
    Ok(text)
}

/// Fails if anything grows faster than it may. CPU seconds count, which other load disturbs least.
pub(super) fn judge(empties: &[Empty], points: &[Point]) -> Result<()> {
    for empty in empties {
        if empty.took.cpu > MOST_EMPTY_SECONDS {
            bail!(
                "an empty {} of {} took {:.2} s of CPU",
                empty.what,
                empty.size,
                empty.took.cpu
            );
        }
    }
    let all = empties
        .iter()
        .map(|e| &e.took)
        .chain(points.iter().map(|p| &p.took));
    if let Some(most) = all
        .map(|took| took.memory)
        .max()
        .filter(|&kib| kib > MOST_MEMORY)
    {
        bail!("{} MiB were resident", most >> 10);
    }
    for kind in [Kind::Plain, Kind::Zlib] {
        let of_kind = points.iter().filter(|point| point.kind == kind);
        let each = of_kind.map(|point| (point.gib, point.took.cpu / f64::from(point.gib)));
        let mut each: Vec<(u32, f64)> = each.collect();
        let Some((gib, last)) = each.pop() else {
            continue;
        };
        let cheapest = each
            .iter()
            .map(|&(_, cpu)| cpu)
            .fold(f64::INFINITY, f64::min);
        if last > cheapest * MOST_GROWTH {
            bail!(
                "{}: of {gib} GiB each takes {last:.3} s of CPU, and of fewer {cheapest:.3} s",
                kind.name()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(gib: u32, cpu: f64) -> Point {
        let took = Took {
            seconds: cpu,
            cpu,
            memory: 1000,
            written: 0,
        };
        Point {
            kind: Kind::Plain,
            gib,
            took,
        }
    }

    #[test]
    fn a_line_passes_and_a_parabola_does_not() {
        let line: Vec<Point> = [1, 2, 4, 8].map(|n| point(n, 1.0 + f64::from(n))).into();
        judge(&[], &line).unwrap();
        let parabola: Vec<Point> = [1, 2, 4, 8].map(|n| point(n, f64::from(n * n))).into();
        judge(&[], &parabola).unwrap_err();
    }

    #[test]
    fn much_memory_or_time_for_nothing_does_not_pass() {
        let mut fat = point(1, 1.0);
        fat.took.memory = 129 << 10;
        judge(&[], &[fat]).unwrap_err();
        let slow = Empty {
            what: "qcow2".to_owned(),
            size: "8T",
            took: point(1, 1.6).took,
        };
        judge(&[slow], &[]).unwrap_err();
    }
}
