//! One measured run, and the CSV file of all of them: the raw data that everything else is made from.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What the file has, by names: files of earlier days lack the last ones.
const COLUMNS: [&str; 17] = [
    "case",
    "round",
    "position",
    "contender",
    "wall_s",
    "fsync_s",
    "user_s",
    "sys_s",
    "rss_kib",
    "outblock",
    "inblock",
    "allocated_kib",
    "load1",
    "unwritten_kib",
    "peak_kib",
    "oom_kills",
    "note",
];
/// Those that every file has had.
const EXPECTED: [&str; 5] = ["case", "round", "contender", "wall_s", "note"];

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Record {
    pub(super) case: String,
    /// From 1; 0 says that the contender was not measured, and the note why.
    pub(super) round: usize,
    /// The place in the round's order, from 1.
    pub(super) position: usize,
    pub(super) contender: String,
    /// From start to the end of fsync.
    pub(super) wall: f64,
    /// How much of that was fsync: ours after the program's end, and Longshore's own.
    pub(super) fsync: f64,
    pub(super) user: f64,
    pub(super) sys: f64,
    /// Of the largest process.
    pub(super) rss_kib: u64,
    /// `ru_oublock` and `ru_inblock`: units of 512 bytes.
    pub(super) outblock: u64,
    pub(super) inblock: u64,
    /// Blocks of the result.
    pub(super) allocated_kib: u64,
    /// The machine's load average just before.
    pub(super) load: f64,
    /// The most that waited to be written at once, as sampled; of runs in a cgroup.
    pub(super) unwritten_kib: u64,
    /// The most the cgroup ever had, and how often it killed.
    pub(super) peak_kib: u64,
    pub(super) oom_kills: u64,
    pub(super) note: String,
}

impl Record {
    pub(super) fn missing(case: &str, contender: &str, why: &str) -> Self {
        Self {
            case: case.to_owned(),
            contender: contender.to_owned(),
            note: why.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn cpu(&self) -> f64 {
        self.user + self.sys
    }

    fn line(&self) -> String {
        let plain = |text: &str| text.replace(['\n', '\r'], " ").replace(',', ";");
        let cells: [String; COLUMNS.len()] = [
            plain(&self.case),
            self.round.to_string(),
            self.position.to_string(),
            plain(&self.contender),
            format!("{:.3}", self.wall),
            format!("{:.3}", self.fsync),
            format!("{:.2}", self.user),
            format!("{:.2}", self.sys),
            self.rss_kib.to_string(),
            self.outblock.to_string(),
            self.inblock.to_string(),
            self.allocated_kib.to_string(),
            format!("{:.2}", self.load),
            self.unwritten_kib.to_string(),
            self.peak_kib.to_string(),
            self.oom_kills.to_string(),
            plain(&self.note),
        ];
        cells.join(",")
    }

    fn parse(columns: &[&str], line: &str) -> Result<Self> {
        let cells: Vec<&str> = line.split(',').collect();
        if cells.len() != columns.len() {
            bail!("{} cells in the line: {line}", cells.len());
        }
        let cell = |name: &str| {
            let at = columns.iter().position(|column| *column == name)?;
            cells.get(at).copied()
        };
        let text = |name: &str| cell(name).unwrap_or_default().to_owned();
        let real = |name: &str| -> Result<f64> {
            let found = cell(name).unwrap_or("0").parse();
            found.with_context(|| format!("reading {name} of: {line}"))
        };
        let count = |name: &str| -> Result<u64> {
            let found = cell(name).unwrap_or("0").parse();
            found.with_context(|| format!("reading {name} of: {line}"))
        };
        Ok(Self {
            case: text("case"),
            round: usize::try_from(count("round")?)?,
            position: usize::try_from(count("position")?)?,
            contender: text("contender"),
            wall: real("wall_s")?,
            fsync: real("fsync_s")?,
            user: real("user_s")?,
            sys: real("sys_s")?,
            rss_kib: count("rss_kib")?,
            outblock: count("outblock")?,
            inblock: count("inblock")?,
            allocated_kib: count("allocated_kib")?,
            load: real("load1")?,
            unwritten_kib: count("unwritten_kib")?,
            peak_kib: count("peak_kib")?,
            oom_kills: count("oom_kills")?,
            note: text("note"),
        })
    }
}

/// The file while it grows: each run is in it as soon as it is measured.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
}

impl Raw {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).with_context(|| format!("making {}", path.display()))?;
        let mut raw = Self { file };
        raw.put(&COLUMNS.join(","))?;
        Ok(raw)
    }

    pub(super) fn add(&mut self, record: &Record) -> Result<()> {
        self.put(&record.line())
    }

    fn put(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}").context("writing the raw data")
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<Record>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    if let Some(missing) = EXPECTED.iter().find(|name| !columns.contains(name)) {
        bail!("{} has no column {missing}", path.display());
    }
    lines.map(|line| Record::parse(&columns, line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("raw.csv");
        let record = Record {
            case: "qcow2-zlib-tmpfs".into(),
            round: 3,
            position: 2,
            contender: "qemu-img".into(),
            wall: 12.345,
            fsync: 0.001,
            user: 10.25,
            sys: 1.5,
            rss_kib: 30_000,
            outblock: 5_600_000,
            inblock: 8,
            allocated_kib: 2_800_000,
            load: 0.25,
            unwritten_kib: 31_000,
            peak_kib: 130_000,
            oom_kills: 1,
            note: String::new(),
        };
        let missing = Record::missing("raw-disk", "nbdcopy", "not installed,\nsorry");
        let mut raw = Raw::create(&path).unwrap();
        raw.add(&record).unwrap();
        raw.add(&missing).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found[0], record);
        assert_eq!(found[1].note, "not installed; sorry");
        assert_eq!(found[1].round, 0);
    }

    #[test]
    fn results_are_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("raw.csv");
        Raw::create(&path).unwrap();
        assert!(Raw::create(&path).is_err());
    }

    #[test]
    fn files_of_the_first_published_run_are_still_read() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let found = read(&results.join("2026-11-21-amd-epyc-2/raw.csv")).unwrap();
        assert_eq!(found[0].contender, "qemu-img");
        assert_eq!(found[1].rss_kib, 16576);
    }

    #[test]
    fn a_file_of_other_columns_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("raw.csv");
        fs::write(&path, "a,b\n1,2\n").unwrap();
        assert!(read(&path).is_err());
    }
}
